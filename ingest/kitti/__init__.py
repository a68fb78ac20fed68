"""KITTI: the raw recordings (`raw`) and the object detection benchmark (`object`), two sources that share their parts.

Both turn one Velodyne sweep and the rectified images taken with it into a Scene whose frame is the lidar's own (x
forward, y left, z up). Nothing is decoded: scans are copied out of their files, images stay PNG bytes.
"""

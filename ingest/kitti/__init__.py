"""KITTI: raw recordings (`raw`), object detection (`object`), odometry with SemanticKITTI (`odometry`) and KITTI-360
(`kitti360`): four sources that share their parts.

All turn one Velodyne sweep and the images taken with it into a Scene whose frame is the lidar's own (x
forward, y left, z up); the three recordings also give clips of one camera. Nothing is decoded but label images: scans
are copied out of their files, images stay PNG bytes.
"""

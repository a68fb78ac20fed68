"""Predicted classes as the official servers take them.

inverse         class ids -> the ids of each benchmark
writer          what a scene's answer is, and what every writer does
scannet, s3dis, semantickitti, nuscenes, waymo
                one writer each: names of files, and their bytes
archive         the zip
submission      the folder: scenes one by one, then the archive, read again and scored
tables          confusion matrix and classes as CSV
"""

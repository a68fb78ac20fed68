"""Aria Synthetic Environments: rendered apartments, walked through with a fisheye camera.

A scene is a walk: points fused from the depth of every tenth frame (one point in a cube of 2 cm, the first one seen),
or the semi-dense map of the walk's (unreleased) tracking cameras; views are frames with pose, depth along the ray,
classes and instances. Planning lists the root and asks for one file of each walk, so a partial download of the 100,000
is no trouble; reading a walk of 35 s decodes 35 frames (9 MB). The walls, doors and windows of `ase_scene_language.txt`
are kept as annotation.
"""

from __future__ import annotations

from brickyard.ingest.ase.plan import ASEOptions, plan
from brickyard.ingest.ase.read import read
from brickyard.ingest.source import Source

SOURCE = Source(dataset="ase", options=ASEOptions, plan=plan, read=read)

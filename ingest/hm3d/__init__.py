"""Habitat-Matterport 3D: 1,000 buildings as textured meshes, cut into room-like pieces.

A scene is a piece: the chunks of a mesh whose names share a group and a sub-group. Points are drawn on their triangles,
as many as their area asks for, with the texel's colour and a normal; where a building is annotated, with the class and
the instance of the texel of its semantic mesh. There are no photographs. Planning reads the table of contents of each
GLB; a simulated piece of 90 square metres is read in 0.6 s.
"""

from __future__ import annotations

from brickyard.ingest.hm3d.plan import HM3DOptions, plan
from brickyard.ingest.hm3d.read import read
from brickyard.ingest.source import Source

SOURCE = Source(dataset="hm3d", options=HM3DOptions, plan=plan, read=read)

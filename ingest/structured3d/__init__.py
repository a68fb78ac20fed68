"""Structured3D: rooms of designed houses, rendered as panoramas and perspective pictures; one scene a room.

There is no mesh: points are the pixels of the pictures, by their depth (a room has some 750,000 at a spacing of one
centimetre), with colours, normals from depth, NYU40 classes and instances. `plan` reads the directories of the zips,
which stay packed; `read` fetches the 6 files of the panorama and 5 of each perspective picture, one request each, and
takes 3 to 4 seconds of one core for a panorama of 1024x512 and five pictures of 1280x720.
"""

from __future__ import annotations

from brickyard.ingest.source import Source
from brickyard.ingest.structured3d.plan import Structured3DOptions, plan
from brickyard.ingest.structured3d.read import read

SOURCE = Source(dataset="structured3d", options=Structured3DOptions, plan=plan, read=read)
"""Structured3D's rooms: points from depth, panoramas as equirectangular and renderings as pinhole views."""

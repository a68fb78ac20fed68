"""Point files: a folder tree of LAS, LAZ, COPC, PLY and PCD files of any origin; one scene a file, or a tile of it.

These files come from anybody, so nothing they say is believed: headers are checked against the size of the file before
memory is taken, all formats but LAZ are parsed here with numpy, and the one native decoder that is needed (lazrs, for
LAZ) runs in a child process with little memory and little time.
"""

from __future__ import annotations

from brickyard.ingest.pointfiles.plan import PointFilesOptions, plan
from brickyard.ingest.pointfiles.read import read
from brickyard.ingest.source import Source

SOURCE = Source(dataset="pointfiles", options=PointFilesOptions, plan=plan, read=read)
"""Scans in LAS, LAZ, COPC, PLY and PCD files: points with colour, intensity, normals and ASPRS classes where given."""

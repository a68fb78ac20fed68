"""ScanNet v2: RGB-D scans of rooms. Points are the vertices of the annotated mesh, views are frames of `.sens`.

`plan` lists the scan folders of the release root; `read` turns one scan into a Scene. Reading a scan parses two PLY
files (about 6 MB), two JSON files and, by seeking, the chosen frames of the stream (16 frames: 4-10 MB of several GB).
"""

from __future__ import annotations

from brickyard.ingest.scannet.plan import ScanNetOptions, plan
from brickyard.ingest.scannet.read import read
from brickyard.ingest.source import Source

SOURCE = Source(dataset="scannet", options=ScanNetOptions, plan=plan, read=read)

"""ScanNet++ (v1 and v2): laser scans of rooms as meshes, photographs of a fisheye camera, films and depth of a phone.

`plan` lists the scenes: some folder listings each, no payload is opened (to cut scenes into chunks, 64 KB of a mesh).
Reading a scene parses its mesh and annotation, COLMAP's text files and the chosen photographs. Frames of the phone are
not taken unless asked for: its film has no index that could be trusted and its depth is one compressed stream, so that
both are gone through as a whole.

No real file of the dataset was at hand. What does not look as documented is refused, not guessed.
"""

from __future__ import annotations

from brickyard.ingest.scannetpp.options import ScanNetPPOptions
from brickyard.ingest.scannetpp.plan import plan
from brickyard.ingest.scannetpp.read import read
from brickyard.ingest.source import Source

SOURCE = Source(dataset="scannetpp", options=ScanNetPPOptions, plan=plan, read=read)
"""ScanNet++ scenes, or chunks of 6 x 6 m: mesh vertices with the label sets "scannetpp100" and "scannetpp84"."""

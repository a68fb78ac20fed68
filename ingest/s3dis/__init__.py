"""S3DIS (Stanford large-scale 3D indoor spaces): coloured points of 6 areas, one scene a room, 13 classes.

`plan` lists the room folders; `read` parses the annotation files of one room (36 bytes of text a point, about 4 M
points a second) and turns them into points with colour, class and instance. Huge rooms can be cut into chunks. The
images of the same rooms, with pose, depth and labels of each pixel, come from the companion release 2D-3D-S.
"""

from __future__ import annotations

from brickyard.ingest.s3dis.plan import S3DISOptions, plan
from brickyard.ingest.s3dis.read import read
from brickyard.ingest.source import Source

SOURCE = Source(dataset="s3dis", options=S3DISOptions, plan=plan, read=read)
"""S3DIS rooms: points with colour, label set "s3dis13" and instances; views of 2D-3D-S."""

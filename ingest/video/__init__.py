"""Video: clips of video files and of folders of images, for multi-view training; poses where a file gives them.

A video file is cut into windows of equal length that hold `clips.frames` frames at `clips.rate_hz` (16 s with the
defaults), because a scene must be known before anything is decoded, and shots are not. Of each window the longest shot
becomes the clip, so no clip spans a cut, and a reader decodes one window, not the film; the frames of the other shots
are counted in `dropped`. Windows that hold no shot of two frames, or where nothing moves (title cards, slides, black),
are refused with that reason. A video that does not say how long it is makes one window; its clip is at most
`clips.frames` frames from the start of its longest shot.

A folder with two images or more is a sequence, cut as every other source does (`ingest.clips.cut`), images as shipped.
`transforms.json` gives poses, and so do 7-Scenes' `frame-000000.color.png`, `.depth.png`, `.pose.txt`; RealEstate10K's
camera files give those of the video they belong to.

Every view needs intrinsics. Where nothing is known of them they are assumed: `focal` times the longer side, centred;
such views have no pose and are counted in `dropped` as "views with assumed intrinsics".
"""

from __future__ import annotations

from brickyard.ingest.source import Source
from brickyard.ingest.video.plan import VideoOptions, plan
from brickyard.ingest.video.read import read

SOURCE = Source(dataset="video", options=VideoOptions, plan=plan, read=read)
"""Videos (mp4, mov, mkv, webm, avi, ...) and image folders."""

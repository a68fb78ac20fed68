"""ARKitScenes: rooms recorded with a tablet. Points are the vertices of ARKit's mesh, views are frames with a pose.

A scene is one capture (`video_id`); several captures of one room share a visit, which is the scene's sequence. `plan`
lists the captures, three folder listings each, and opens the tables alone. Reading one parses its mesh, its trajectory
and the chosen frames: some megabytes of the 120 that a capture has.

Of the real dataset only its lists and two lines of trajectories were at hand. What does not look as documented is
refused, not guessed.
"""

from __future__ import annotations

from brickyard.ingest.arkitscenes.options import ARKitScenesOptions
from brickyard.ingest.arkitscenes.plan import plan
from brickyard.ingest.arkitscenes.read import read
from brickyard.ingest.source import Source

SOURCE = Source(dataset="arkitscenes", options=ARKitScenesOptions, plan=plan, read=read)
"""Captures, or clips of their frames; the points in annotated boxes have the label set "arkitscenes17"."""

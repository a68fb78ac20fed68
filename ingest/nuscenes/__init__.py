"""nuScenes: one Scene per keyframe (LIDAR_TOP, with earlier sweeps if wanted, six cameras, lidarseg and panoptic
labels), or clips of a camera's images at 12 Hz.

Planning reads the tables once in bounded memory: trainval takes a minute or two of one core and some hundred MB.
Reading needs no tables: every reference carries its own poses, calibration and file names. The CAN bus, the maps, the
boxes and the devkit are not needed anywhere. Importing this costs nothing.
"""

from brickyard.ingest.nuscenes.plan import Options, plan
from brickyard.ingest.nuscenes.read import read
from brickyard.ingest.nuscenes.tables import DATASET
from brickyard.ingest.source import Source

SOURCE = Source(dataset=DATASET, options=Options, plan=plan, read=read)

"""nuScenes: one Scene per keyframe, a LIDAR_TOP sweep with its six cameras and, where installed, lidarseg labels.

Planning (`plan`) loads the dataset's tables once with the official devkit, which must run where the dataset lies on a
local disk; the full trainval tables take about a minute and several GB of memory there. Reading (`read`) needs neither
tables nor devkit: every reference carries its own poses, calibration and file names. Importing this costs nothing.
"""

from ingest.nuscenes.plan import DATASET, Options, plan
from ingest.nuscenes.read import read
from ingest.source import Source

SOURCE = Source(dataset=DATASET, options=Options, plan=plan, read=read)

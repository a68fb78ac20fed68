"""The targets of `brickyard evaluate --predictions`, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from brickyard.evaluate.predictions.nuscenes import NuScenesWriter
from brickyard.evaluate.predictions.s3dis import S3DISWriter
from brickyard.evaluate.predictions.scannet import ScanNet200Writer, ScanNetWriter
from brickyard.evaluate.predictions.semantickitti import SemanticKittiWriter
from brickyard.evaluate.predictions.waymo import WaymoWriter
from brickyard.evaluate.predictions.writer import Writer

TARGETS: Mapping[str, type[Writer]] = MappingProxyType(
    {
        writer.name: writer
        for writer in (
            ScanNetWriter,
            ScanNet200Writer,
            S3DISWriter,
            NuScenesWriter,
            SemanticKittiWriter,
            WaymoWriter,
        )
    }
)

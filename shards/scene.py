"""The contract: what one training unit is, whatever dataset it came from.

A Scene is a room scan with some posed frames, a lidar sweep with its cameras, or a clip of frames without points
(then `points` is None and `views` are in time order). Everything but the identity is optional, and absent means
None: never zeros that look like data.

Frames of reference
  scene   right-handed, metres, z up, coordinates near zero (float32 is safe); `world_from_scene` (float64) leads to the
          dataset's own world. A sweep's scene frame is its lidar frame, a room's is the frame of its mesh.
  camera  OpenCV axes: x right, y down, z forward. `scene_from_camera` holds at that image's own exposure time.
  pixel   (column, row), the centre of the top left pixel is (0, 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

Domain = Literal["indoor", "outdoor", "object", "video"]
CameraModel = Literal["pinhole", "opencv", "mei", "fisheye", "fisheye624", "equirectangular"]
ImageFormat = Literal["jpeg", "png"]
ReadoutDirection = Literal["right", "left", "down", "up"]
DepthAxis = Literal["z", "ray"]

UNLABELLED = -1
"""Label of a point (or pixel) nobody annotated, or whose class the taxonomy leaves out."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A raw file a scene was read from.

    Attributes:
        path: relative to the dataset's root.
        size: bytes of the whole file.
        digest: xxh3-128 (hex) of the bytes that were read, in reading order (the whole file unless it is a stream such
            as `.sens`, of which only some frames are read).
    """

    path: str
    size: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who a scene is. `dataset/scene_id` is unique in a corpus and stable between builds.

    Attributes:
        dataset: "scannet", "nuscenes", "kitti", ...
        version: release of the dataset, such as "v1.0-mini" or "v2".
        split: the official split: "train", "val", "test", or "none".
        sequence: scenes of one sequence (drive, log, space) belong together when splitting.
        scene_id: unique within the dataset.
        timestamp_ns: time of the points (or of the first view), dataset's clock; None if unknown.
        licence: SPDX id or "LicenseRef-<dataset>".
    """

    dataset: str
    version: str
    split: str
    sequence: str
    scene_id: str
    timestamp_ns: int | None
    domain: Domain
    licence: str
    sources: tuple[SourceFile, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.dataset}/{self.scene_id}"


@dataclass(frozen=True, kw_only=True)
class Points:
    """A point cloud of N points in the scene frame, in the order of the raw file.

    Attributes:
        xyz: float32 (N, 3), metres, finite.
        color: uint8 (N, 3), RGB.
        normal: float32 (N, 3), unit length; (0, 0, 0) marks a single point without one.
        normal_source: how normals came to be and how they are oriented, such as "mesh-area-weighted".
        intensity: float32 (N,), in the unit of `intensity_unit`.
        intensity_unit: "unit" (0..1), "byte" (0..255, nuScenes), "raw".
        ring: uint8 or uint16 (N,), laser beam.
        time_offset: float32 (N,), seconds relative to the scene's timestamp.
        sweep: uint8 (N,), 0 is the keyframe, k the k-th sweep before it.
        return_number, return_count: uint8 (N,), which of how many echoes of its pulse a point is, from 1; 0 unknown.
        elongation: float32 (N,), how much longer the echo lasted than the pulse, in the dataset's own unit.
        semantic: taxonomy name (see `shards.taxonomy`) -> int16 (N,) class ids, UNLABELLED where unknown.
        instance: int32 (N,), 0 where no instance.
    """

    xyz: Float32
    color: NDArray[np.uint8] | None = None
    normal: Float32 | None = None
    normal_source: str | None = None
    intensity: Float32 | None = None
    intensity_unit: str | None = None
    ring: NDArray[np.unsignedinteger[Any]] | None = None
    time_offset: Float32 | None = None
    sweep: NDArray[np.uint8] | None = None
    return_number: NDArray[np.uint8] | None = None
    return_count: NDArray[np.uint8] | None = None
    elongation: Float32 | None = None
    semantic: Mapping[str, NDArray[np.int16]] = field(default_factory=dict)
    instance: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.xyz)


@dataclass(frozen=True, kw_only=True)
class Depth:
    """A depth image with its own calibration, seen from the same place as the view's colour image.

    Attributes:
        values: uint16 (h, w), 0 where nothing was measured; metres = values * scale.
        scale: metres per unit.
        intrinsics: float64 (3, 3) of the depth image (its size often differs from the colour image's).
        along: "z": depths along the camera's z, seen through a pinhole; "ray": distances from the camera's centre, seen
            through the lens of the view (its model and distortion, with the intrinsics above).
    """

    values: NDArray[np.uint16]
    scale: float
    intrinsics: Float64
    along: DepthAxis = "z"


@dataclass(frozen=True, kw_only=True)
class Superpixels:
    """A partition of an image.

    Attributes:
        labels: uint16 (H, W), ids 0..count-1 at the image's full size.
        provenance: algorithm, library, version and parameters, such as
            "skimage-0.26.0 slic n_segments=150 compactness=6 sigma=3".
    """

    labels: NDArray[np.uint16]
    provenance: str

    @property
    def count(self) -> int:
        return int(self.labels.max()) + 1 if self.labels.size else 0


@dataclass(frozen=True, kw_only=True)
class Correspondences:
    """The points that project into a view, sorted by point index; P pairs.

    Attributes:
        point: int32 (P,), index into `Points`, strictly increasing.
        pixel: uint16 (P, 2), nearest pixel (column, row).
        depth: float32 (P,), metres along the camera's z; from its centre where the provenance begins with
            "min_distance", as it does for lenses that may see more than what lies ahead.
        visible: bool (P,), True where the depth test finds the point not hidden by another surface. The published
            image-to-lidar systems use all pairs; a stricter recipe keeps the visible ones.
        provenance: the depth test and its parameters.
    """

    point: NDArray[np.int32]
    pixel: NDArray[np.uint16]
    depth: Float32
    visible: NDArray[np.bool_]
    provenance: str

    def __len__(self) -> int:
        return len(self.point)


@dataclass(frozen=True, kw_only=True)
class RollingShutter:
    """How a camera moved while it exposed its lines one after the other.

    The view's `scene_from_camera` holds at the middle line. A line that was exposed t seconds later has the pose
    [exp(t w) R, p + t v] where R and p are the view's, v the velocity and w the angular velocity.

    Attributes:
        direction: where the exposed line moved in the image: "right", "left", "down" or "up".
        readout_s: seconds from the first line of the image to the last, positive.
        velocity: float64 (3,), of the camera's centre, metres per second, axes of the scene frame.
        angular_velocity: float64 (3,), radians per second, axes of the scene frame.
    """

    direction: ReadoutDirection
    readout_s: float
    velocity: Float64
    angular_velocity: Float64


@dataclass(frozen=True, kw_only=True)
class View:
    """One image with its camera.

    Attributes:
        name: camera name, such as "CAM_FRONT", "image_02" or "frame-000040".
        image: encoded bytes exactly as the dataset ships them.
        width, height: pixels of the encoded image.
        camera_model: "pinhole"; "opencv" (distortion k1 k2 p1 p2 k3); "mei" (xi k1 k2 p1 p2, gamma in intrinsics);
            "fisheye" (k1 k2 k3 k4); "fisheye624" (k0..k5 p0 p1 s0..s3); "equirectangular" (pixels per radian in
            intrinsics): see `shards.lenses`.
        intrinsics: float64 (3, 3).
        scene_from_camera: float64 (4, 4) rigid, or None where the pose is unknown.
        timestamp_ns: exposure time, dataset's clock.
        rolling_shutter: None for a global shutter, or where nothing is known of it.
        semantic: taxonomy name -> int16 (H, W) class ids at the image's full size, UNLABELLED where unknown.
        instance: int32 (H, W), 0 where no instance.
    """

    name: str
    image: bytes
    image_format: ImageFormat
    width: int
    height: int
    camera_model: CameraModel = "pinhole"
    intrinsics: Float64
    distortion: tuple[float, ...] = ()
    scene_from_camera: Float64 | None = None
    timestamp_ns: int | None = None
    rolling_shutter: RollingShutter | None = None
    depth: Depth | None = None
    semantic: Mapping[str, NDArray[np.int16]] = field(default_factory=dict)
    instance: NDArray[np.int32] | None = None
    superpixels: Superpixels | None = None
    pairs: Correspondences | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """A scene that was cut out of a larger one.

    Attributes:
        whole: scene_id that the larger scene would have.
        core_min, core_max: float64 (3,), metres in the scene frame. The cores of all parts tile the whole: a point
            with core_min <= xyz < core_max belongs to this part, the others overlap from its neighbours. Infinite
            towards a side without neighbour.
    """

    whole: str
    core_min: Float64
    core_max: Float64


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One training unit.

    Attributes:
        world_from_scene: float64 (4, 4) rigid.
        world_crs: coordinate reference system of the world as the file gives it (WKT, PROJ or GeoTIFF keys as text).
        part: of which larger scene this is a part; None if it is whole.
        points: None for a clip.
        views: cameras of a sweep, frames of a scan, or frames of a clip in time order.
        annotations: name -> JSON value: boxes, layouts and the like, see `shards.annotations`.
        figures: name -> number, by which scenes are chosen, such as {"motion": 0.02}; see `curate.clip_figures`.
        dropped: what the reader or curation left out and how often, such as {"invalid pose": 1}; never silent.
    """

    identity: Identity
    world_from_scene: Float64
    world_crs: str | None = None
    part: Part | None = None
    points: Points | None = None
    views: tuple[View, ...] = ()
    annotations: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)

    def validate(self) -> Scene:
        """Return self, or raise `SceneError` naming the first broken promise of the contract."""
        from brickyard.shards.validation import check_scene  # which is written in terms of this module

        check_scene(self)
        return self

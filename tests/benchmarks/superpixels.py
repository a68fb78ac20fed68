"""Superpixels beside regions that are known: what SLIC finds, what cheaper ways lose or win, and what each costs.

Regions are the pixels of one class and instance: of simulated pictures, whose truth is exact, and of real pictures that
people labelled (Waymo's cameras) or a renderer did (Aria Synthetic Environments) where the samples are. Pixels without
a label count nowhere. The measures are those of Neubert and Protzel, "Superpixel Benchmark and Comparison" (2012):

* boundary recall: pixels beside a border of two regions that have a border of superpixels within two pixels (a square
  of 5 x 5), at full size;
* under-segmentation error: over regions and the superpixels that touch them, the smaller of what lies inside and what
  outside, over all pixels;
* achievable accuracy: pixels whose region is the one that most of their superpixel's pixels have.

More superpixels and more borders make all three better, so counts and borders stand beside them, and one row asks the
fast way for fewer. Seconds are of one core's time (`process_time`), the better of two runs. OpenCV's SLIC and SEEDS
have rows where its contrib modules are installed. About 6 minutes.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.segmentation import slic

from brickyard.curate.fast_superpixels import FastConfig, partition
from brickyard.curate.superpixels import SlicConfig
from brickyard.ingest.simulate import SimulationConfig, simulate
from brickyard.ingest.source import SceneRef, find_source
from brickyard.shards.codecs import encode_rows
from brickyard.shards.images import decode
from brickyard.shards.label_maps import map_bytes
from brickyard.shards.storage import Store
from tests.benchmarks.report import append, arguments, markdown, table
from tests.conftest import _SAMPLES

Pixels, Labels = NDArray[np.uint8], NDArray[np.integer[Any]]
Method = Callable[[Pixels], Labels]
TOLERANCE = 2
MEASURES = ("recall", "error", "accuracy")
COLUMNS = {
    "method": "s method",
    "images": "d images",
    "recall": ".1f boundary recall %",
    "error": ".1f under-segmentation error %",
    "accuracy": ".1f achievable accuracy %",
    "count": ".0f superpixels",
    "borders": ".1f border pixels %",
    "png_kb": ".1f kB as PNG",
    "png_most_kb": ".1f at most",
    "shard_kb": ".1f kB in a shard",
    "seconds": ".2f s a megapixel",
    "faster": ".1f times as fast",
}
SLIC = SlicConfig()


def library(image: Pixels, iterations: int = 10) -> Labels:
    found: Labels = slic(
        image, n_segments=SLIC.segments, compactness=SLIC.compactness, sigma=SLIC.sigma, start_label=0,
        max_num_iter=iterations,
    )  # fmt: skip
    return found


def half(image: Pixels) -> Labels:
    """SLIC at half the size, its pixels doubled."""
    small = np.asarray(Image.fromarray(image).reduce(2))
    found = slic(small, n_segments=SLIC.segments, compactness=SLIC.compactness, sigma=SLIC.sigma / 2, start_label=0)
    return np.asarray(found.repeat(2, 0).repeat(2, 1)[: image.shape[0], : image.shape[1]])


def opencv(image: Pixels, way: str) -> Labels:
    import cv2

    cv2.setNumThreads(1)
    height, width = image.shape[:2]
    if way == "SEEDS":
        found = cv2.ximgproc.createSuperpixelSEEDS(width, height, 3, SLIC.segments, 4)
        found.iterate(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), 6)
    else:
        smooth = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), SLIC.sigma), cv2.COLOR_RGB2LAB)
        size = int((height * width / SLIC.segments) ** 0.5)
        found = cv2.ximgproc.createSuperpixelSLIC(smooth, getattr(cv2.ximgproc, way), size, 15.0)
        found.iterate(10)
        found.enforceLabelConnectivity(50)
    return np.unique(found.getLabels(), return_inverse=True)[1].reshape(height, width)


def methods() -> dict[str, Method]:
    fast = FastConfig()
    found: dict[str, Method] = {
        "SLIC": library,
        "SLIC, 5 iterations": partial(library, iterations=5),
        "SLIC at half size": half,
        "fast": partial(partition, config=fast),
        "fast, 125 segments": partial(partition, config=replace(fast, segments=125)),
    }
    try:
        import cv2

        cv2.ximgproc  # noqa: B018
    except (ImportError, AttributeError):
        return found
    return found | {f"OpenCV {cv2.__version__} {way}": partial(opencv, way=way) for way in ("SLIC", "SEEDS")}


def bounds(labels: Labels, known: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Pixels with a neighbour of another label, both of them known."""
    found = np.zeros(labels.shape, np.bool_)
    for axis in (0, 1):
        one, other = (tuple(slice(*cut) if a == axis else slice(None) for a in (0, 1)) for cut in ((1, None), (0, -1)))
        differ = labels[one] != labels[other]
        if known is not None:
            differ &= known[one] & known[other]
        found[one] |= differ
        found[other] |= differ
    return found


def measure(labels: Labels, regions: Labels) -> dict[str, float]:
    """The three measures in %; regions are numbered from 0, -1 is not known."""
    known = regions >= 0
    truth = bounds(regions, known)
    near = ndimage.maximum_filter(bounds(labels), size=2 * TOLERANCE + 1)
    shape = (int(labels.max()) + 1, int(regions.max()) + 1)
    pair = np.ravel_multi_index((labels[known], regions[known]), shape)
    overlap = np.bincount(pair, minlength=shape[0] * shape[1]).reshape(shape)
    outside = overlap.sum(1, keepdims=True) - overlap
    pixels = max(1, int(known.sum()))
    return {
        "recall": 100 * float(near[truth].mean()) if truth.any() else 100.0,
        "error": 100 * float(np.minimum(overlap, outside).sum()) / pixels,
        "accuracy": 100 * float(overlap.max(1).sum()) / pixels,
    }


def pictures(dataset: str, root: Path, most: int, least: int = 0, **options: Any) -> Iterator[tuple[Pixels, Labels]]:
    """(pixels, regions) of the first so many views that have labels, `least` columns or more of them."""
    source = find_source(dataset)
    for item in source.plan(Store(root), source.options(**options)):
        if not isinstance(item, SceneRef):
            continue
        for view in source.read(item).views:
            if view.instance is None or not view.semantic or view.width < least:
                continue
            classes = next(iter(view.semantic.values())).astype(np.int64)
            keys = np.where(classes < 0, -1, (classes << 32) + view.instance)
            regions = np.unique(keys, return_inverse=True)[1].reshape(keys.shape) - bool((keys < 0).any())
            yield decode(view.image), regions
            most -= 1
            if most == 0:
                return


def materials(images: int, width: int, real: bool) -> Iterator[tuple[str, list[tuple[Pixels, Labels]]]]:
    """What is measured, by name."""
    size = (width, width * 9 // 16)
    config = SimulationConfig(
        structured3d_houses=-(-images // 4), structured3d_rooms=2, structured3d_views=2, structured3d_image_size=size,
        structured3d_packed=False, structured3d_panorama_size=(64, 32), scannet_rooms=-(-images // 3),
        scannet_frames=3, scannet_color_size=(width, width * 3 // 4), waymo_segments=1, waymo_frames=-(-images // 5),
        waymo_image_size=(width * 3 // 2 // 2 * 2, width),
    )  # fmt: skip
    for dataset, source, inner, options in (
        ("structured3d", "structured3d", "", {}),
        ("scannet", "scannet", "", {"frames_every": 1}),
        ("waymo", "waymo_v2", "v2", {}),
    ):
        with tempfile.TemporaryDirectory(prefix="brickyard-superpixels-") as folder:
            simulate(Path(folder), datasets=(dataset,), config=config)
            yield (
                f"simulated {dataset}",
                list(pictures(source, Path(folder) / dataset / inner, images, width, **options)),
            )
    if real and (_SAMPLES / "waymo").is_dir():
        yield "real Waymo", list(pictures("waymo_v2", _SAMPLES / "waymo" / "v2_assembled", images, returns=1))
        yield "real ASE", list(pictures("ase", _SAMPLES / "ase", images, every=1))


def rows_of(name: str, found: list[tuple[Pixels, Labels]]) -> list[dict[str, Any]]:
    """One row for each method: means over the pictures, seconds over all their pixels."""
    rows: list[dict[str, Any]] = []
    for method, work in methods().items():
        each, spent, pixels = [], 0.0, 0
        for image, regions in found:
            times = []
            for _ in range(2):
                start = time.process_time()
                labels = work(image)
                times.append(time.process_time() - start)
            spent, pixels = spent + min(times), pixels + regions.size
            narrow = labels.astype(np.uint16)
            sizes = {"png_kb": len(map_bytes(narrow)) / 1000, "shard_kb": len(encode_rows(narrow)[0]) / 1000}
            borders = 100 * float(bounds(labels).mean())
            each.append(measure(labels, regions) | sizes | {"count": len(np.unique(labels)), "borders": borders})
        row = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
        row["png_most_kb"] = max(one["png_kb"] for one in each)
        row |= {"material": name, "method": method, "images": len(found), "seconds": 1e6 * spent / pixels}
        row["size"] = "x".join(map(str, found[0][0].shape[1::-1]))
        rows.append(row | {"faster": (rows[0]["seconds"] if rows else row["seconds"]) / row["seconds"]})
    return rows


def run(*, images: int = 6, width: int = 1280, real: int = 1, dry: bool = False) -> list[dict[str, Any]]:
    """Measure all materials, print the tables, append the record."""
    rows: list[dict[str, Any]] = []
    for name, found in materials(images, width, bool(real)):
        part = rows_of(name, found)
        table(f"superpixels: {name}, {part[0]['size']}", part, COLUMNS)
        rows += part
    if not dry:
        settings = {"images": images, "width": width, "tolerance": TOLERANCE, "scikit-image": version("scikit-image")}
        append("superpixels", settings, rows)
    return rows


def page(record: dict[str, Any]) -> str:
    """Of a record: SLIC and the fast way beside it on every material, then all methods together."""
    rows, parts = record["rows"], []
    by_material: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_material.setdefault(row["material"], {})[row["method"]] = row
    losses = [
        {"material": f"{name}, {of['SLIC']['images']} of {of['SLIC']['size']}", "method": method,
         **{key: of[method][key] - of["SLIC"][key] for key in MEASURES},
         "count": f"{of['SLIC']['count']:.0f} -> {of[method]['count']:.0f}", "faster": of[method]["faster"],
         "png": of[method]["png_kb"], "most": of[method]["png_most_kb"]}
        for name, of in by_material.items() for method in ("fast", "fast, 125 segments")
    ]  # fmt: skip
    parts.append(markdown(losses, {
        "material": "s pictures", "method": "s method, beside SLIC", "recall": "+.1f boundary recall, points",
        "error": "+.1f under-segmentation error (less is better)", "accuracy": "+.1f achievable accuracy, points",
        "count": "s superpixels", "faster": ".1f times as fast", "png": ".1f kB as PNG", "most": ".1f at most",
    }))  # fmt: skip
    means = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        keys = [key for key in COLUMNS if key not in ("method", "images", "png_most_kb", "faster")]
        mean = {key: sum(row[key] * row["images"] for row in own) / sum(row["images"] for row in own) for key in keys}
        slics = sum(r["seconds"] * r["images"] for r in rows if r["method"] == "SLIC")
        faster = slics / sum(row["seconds"] * row["images"] for row in own)
        total = {"images": sum(row["images"] for row in own), "png_most_kb": max(row["png_most_kb"] for row in own)}
        means.append(mean | total | {"method": method, "faster": faster})
    parts.append("All pictures together:\n\n" + markdown(means, COLUMNS))
    return "\n\n".join(parts)


if __name__ == "__main__":
    options = arguments(__doc__, images=6, width=1280, real=1).parse_args()
    run(**vars(options))

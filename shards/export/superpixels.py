"""The superpixels of a corpus as PNG files (`shards.label_maps`), which a recipe takes back with `kind: files`.

A scene's manifest is written after its maps, so a killed export goes on with the scenes that lack one. Images
and points stay behind.
"""

from __future__ import annotations

from collections import Counter

import xxhash

from brickyard.shards.corpus import Corpus
from brickyard.shards.documents import document_bytes
from brickyard.shards.errors import CorpusError
from brickyard.shards.export.folder import Progress, begin, finish, remove_temporaries
from brickyard.shards.label_maps import MANIFEST, file_of, folder_of, map_bytes
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

LAYOUT = "superpixels"


def export_superpixels(corpus: Corpus, out: Store, *, progress: Progress = lambda done, total: None) -> dict[str, int]:
    """Write the maps of all scenes; returns counts: "scenes", "maps", and scenes "without_superpixels".

    Raises:
        CorpusError: `out` holds something else, or two scenes would share a folder.
        CorruptDataError: a scene of the corpus is damaged.
    """
    begin(corpus, out, LAYOUT)
    rows = corpus.index.select(["dataset", "scene_id"]).to_pylist()
    folders = [folder_of(row["dataset"], row["scene_id"]) for row in rows]
    _refuse_equal(folders)
    maps = bare = 0
    for row, folder in enumerate(folders):
        progress(row, len(folders))
        count = sum(view["superpixels"] is not None for view in corpus.header(row).views)
        maps, bare = maps + count, bare + (count == 0)
        if count and not out.exists(f"{folder}/{MANIFEST}"):
            remove_temporaries(out, folder)
            _write(corpus.scene(row), out, folder)
    progress(len(folders), len(folders))
    summary = {"scenes": len(folders) - bare, "maps": maps, "without_superpixels": bare}
    return finish(corpus, out, LAYOUT, summary)


def _write(scene: Scene, out: Store, folder: str) -> None:
    views = {}
    for view in scene.views:
        if view.superpixels is None:
            continue
        name, data = file_of(view.name), map_bytes(view.superpixels.labels)
        out.write(f"{folder}/{name}", data)
        views[view.name] = {
            "file": name,
            "method": view.superpixels.provenance,
            "count": view.superpixels.count,
            "xxh3": xxhash.xxh3_64_hexdigest(data),
        }
    out.write(f"{folder}/{MANIFEST}", document_bytes({"scene": scene.identity.key, "views": views}, indent=1))


def _refuse_equal(folders: list[str]) -> None:
    """Also where only capitals differ, which some disks do not tell apart."""
    name, times = Counter(map(str.lower, folders)).most_common(1)[0] if folders else ("", 1)
    if times > 1:
        raise CorpusError(f"{times} scenes would lie in the folder {name}: select some of them into another corpus")

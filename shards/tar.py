"""The WebDataset container: a tar file, one member per blob, the members of a scene one after another.

Stock `webdataset` and `tarfile` read it: a scene's members share the name before the first dot, what follows names
the field. `00003-000007.view0.image.jpg` is the picture of view 0, `00003-000007.points.xyz.blosc` the points of the
same scene, `00003-000007.header.json` says what they are. The blobs are the ones of the Parquet container, byte for
byte, and the index addresses them the same way, so our own stream never parses a tar.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence

import pyarrow as pa

from brickyard.shards.encode import HEADER, EncodedScene
from brickyard.shards.index import Address
from brickyard.shards.storage import digest64

_BLOCK = tarfile.BLOCKSIZE
_IMAGES = {b"\xff\xd8": "jpg", b"\x89P": "png"}


def member_name(field: str, blob: bytes) -> str:
    """Name of a field's member, after the scene's: "views/0/image" -> "view0.image.jpg"."""
    if field == HEADER:
        return "header.json"
    group, _, rest = field.partition("/")
    if group == "views":
        number, _, name = rest.partition("/")
        return f"view{number}.image.{_IMAGES.get(blob[:2], 'bin')}" if name == "image" else f"view{number}.{name}.blosc"
    return f"{field.replace('/', '.')}.blosc"


def write_shard(scenes: Sequence[EncodedScene], task: int) -> tuple[pa.Buffer, list[dict[str, Address]]]:
    """The bytes of a shard, and for every scene the addresses of its header and blobs."""
    sink = io.BytesIO()
    result = []
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number, scene in enumerate(scenes):
            addresses = {}
            for field, blob in ({HEADER: scene.header} | scene.blobs).items():
                member = tarfile.TarInfo(f"{task:05d}-{number:06d}.{member_name(field, blob)}")
                member.size = len(blob)
                offset = sink.tell() + _BLOCK
                archive.addfile(member, io.BytesIO(blob))
                addresses[field] = Address(offset, len(blob), digest64(blob))
            result.append(addresses)
    return pa.py_buffer(sink.getvalue()), result

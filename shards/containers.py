"""Containers: how the blobs of some scenes become one file. What the index says of them is the same for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from brickyard.shards import parquet, tar
from brickyard.shards.encode import EncodedScene
from brickyard.shards.index import Address

ContainerName = Literal["parquet", "webdataset"]


class Container(NamedTuple):
    """suffix of the file's name; write: scenes and the number of the shard -> (bytes, addresses of every scene)."""

    suffix: str
    write: Callable[[Sequence[EncodedScene], int], tuple[Any, list[dict[str, Address]]]]


CONTAINERS: dict[str, Container] = {
    "parquet": Container("parquet", parquet.write_shard),
    "webdataset": Container("tar", tar.write_shard),
}

"""A corpus read by Ray Data: every scene once, values as the corpus gives them, damage named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from brickyard.infra.ray_data import CorpusDatasource, array, read_corpus
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import CorpusError
from tests.worlds import toy_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return toy_corpus(tmp_path_factory.mktemp("ray") / "corpus", scenes=10)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1",
        object_store_memory=128 << 20, logging_level="ERROR",
    )  # fmt: skip
    yield
    ray.shutdown()


def test_tasks_share_the_rows_and_blocks_hold_the_values(corpus: Corpus) -> None:
    """Without a cluster: what the tasks would do."""
    source = CorpusDatasource(corpus.store.uri, fields=("points/xyz", "views/*/image", "views/0/pairs"))
    tasks = source.get_read_tasks(4)
    assert [task.metadata.num_rows for task in tasks] == [3, 3, 2, 2]
    tables = [table for task in tasks for table in task.read_fn()]
    rows = [row for table in tables for row in table.to_pylist()]
    assert [row["key"] for row in rows] == corpus.keys
    for row in rows:
        scene = corpus.scene(row["key"])
        assert scene.points is not None and np.array_equal(array(row, "points/xyz"), scene.points.xyz)
        assert row["n_points"] == len(scene.points.xyz)
        assert row.get("views/1/image") == (scene.views[1].image if scene.views else None)
        if scene.views and scene.views[0].pairs is not None:
            assert np.array_equal(array(row, "views/0/pairs.pixel"), scene.views[0].pairs.pixel)


def test_ray_reads_a_selection(corpus: Corpus, cluster: None) -> None:
    dataset = read_corpus(corpus.store.uri, fields=("points/xyz", "points/color"), rows=[7, 1, 4], parallelism=2)
    rows = dataset.take_all()
    assert sorted(row["key"] for row in rows) == sorted(corpus.keys[row] for row in (1, 4, 7))
    for row in rows:
        points = corpus.scene(row["key"]).points
        assert points is not None and points.color is not None
        assert np.array_equal(array(row, "points/xyz"), points.xyz)
        assert np.array_equal(array(row, "points/color"), points.color)
        assert array(row, "points/xyz").dtype == np.float32


def test_ray_computes_on_it(corpus: Corpus, cluster: None) -> None:
    def height(row: dict[str, object]) -> dict[str, float]:
        return {"height": float(array(row, "points/xyz")[:, 2].max())}

    found = read_corpus(corpus.store.uri, fields=("points/xyz",)).map(height).max("height")
    every = [corpus.scene(row).points for row in range(len(corpus))]
    assert found == pytest.approx(max(float(points.xyz[:, 2].max()) for points in every if points))


def test_damage_ends_the_job_and_is_named(tmp_path: Path, cluster: None) -> None:
    corpus = toy_corpus(tmp_path, scenes=4)
    place, path = corpus.addresses(2)["points/xyz"], tmp_path / corpus.shard(2)
    data = bytearray(path.read_bytes())
    data[place.offset + place.length // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Exception, match=r"scene toy/scene-002, field points/xyz"):
        read_corpus(str(tmp_path), fields=("points/xyz",)).take_all()
    assert len(read_corpus(str(tmp_path), fields=("points/color",)).take_all()) == 4


def test_a_field_that_is_not_there_is_refused(corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match="points/xzy"):
        read_corpus(corpus.store.uri, fields=("points/xzy",))

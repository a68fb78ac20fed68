"""The official lists of points as their authors saved them, and what else torch may have saved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brickyard.evaluate.official_lists import is_saved, read_saved
from brickyard.evaluate.splits import DataConfig, LabelledPoints
from brickyard.shards.errors import RecipeError
from brickyard.shards.scene import UNLABELLED


class Bad:
    def __reduce__(self) -> Any:
        return os.mkdir, ("made by a pickle",)


@pytest.mark.parametrize("new", [True, False])
def test_points_of_an_official_list_keep_their_labels(tmp_path: Path, new: bool) -> None:
    """Saved by torch of today or of 2021; arrays, or tensors, of any width."""
    chosen = {"scene0000_00": np.array([5, 1, 7]), "scene0001_00": np.array([2], np.int32)}
    torch.save(chosen, tmp_path / "points20", _use_new_zipfile_serialization=new)
    kept = LabelledPoints(DataConfig(points_list=tmp_path / "points20"))
    labels = kept.keep("scannet/scene0000_00", np.arange(10))
    assert np.flatnonzero(labels != UNLABELLED).tolist() == [1, 5, 7]
    torch.save({"scene0000_00": torch.tensor([3])}, tmp_path / "tensors", _use_new_zipfile_serialization=new)
    assert read_saved(tmp_path / "tensors")["scene0000_00"].tolist() == [3]


@pytest.mark.parametrize("new", [True, False])
def test_other_saved_files_are_refused_unread(tmp_path: Path, new: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, (value, problem) in enumerate(
        [
            ([1, 2], "no table of scenes, but a list"),
            ({"a": np.array([0.5])}, "cannot be read as a saved list"),
            ({"a": np.zeros((2, 2), int)}, r"scene a: expected a row of integers, found int64 of shape \(2, 2\)"),
            ({"a": Bad()}, "cannot be read as a saved list.*data_efficient"),
        ]
    ):
        path = tmp_path / f"list-{number}"
        torch.save(value, path, _use_new_zipfile_serialization=new)
        assert is_saved(path)
        with pytest.raises(RecipeError, match=problem):
            read_saved(path)
    assert not (tmp_path / "made by a pickle").exists()


def test_who_has_no_list_learns_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"points20 cannot be read, it is not there; the official .*data_efficient"):
        LabelledPoints(DataConfig(points_list=tmp_path / "points20"))
    (tmp_path / "list.txt").write_text("scene0000_00 3 4\n")
    assert not is_saved(tmp_path / "list.txt")

"""Lab in integers beside scikit-image's in floats."""

from __future__ import annotations

import numpy as np
from skimage.color import rgb2lab

from brickyard.curate.lab import STEPS, exact_tables, lab_of


def test_lab_is_that_of_the_library() -> None:
    steps = np.arange(0, 256, 5, np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    found = np.moveaxis(lab_of(colours), 0, -1) / STEPS
    assert np.abs(found - rgb2lab(colours)).max() < 0.3  # in the darkest blues, where the root is steep
    assert np.abs(found - rgb2lab(colours)).mean() < 0.03


def test_contrast_is_stretched_as_the_library_does() -> None:
    colours = np.array([[[40, 60, 80], [40, 40, 40], [80, 80, 80]]], np.uint8)
    stretched = (colours.astype(float) - 40) / 40
    assert np.abs(np.moveaxis(lab_of(colours, 40, 80), 0, -1) / STEPS - rgb2lab(stretched)).max() < 0.5
    assert not lab_of(colours[:, 1:2], 40, 40).any()  # without contrast: black


def test_no_entry_of_the_tables_lies_where_a_last_bit_decides_its_rounding() -> None:
    for part in exact_tables():
        values = np.array(part)
        assert np.abs(values - np.floor(values) - 0.5).min() > 1e-6

"""The picture of an enlargement."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from signbit.plots import plot_enlargement
from signbit.plots.enlargement import busiest_crop


def image(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_a_picture_of_every_enlargement(tmp_path: Path) -> None:
    small = image()
    large = small.repeat(2, 0).repeat(2, 1)
    path = tmp_path / "picture.png"
    png = plot_enlargement(small, large, path)
    assert path.read_bytes() == png
    with_truth = plot_enlargement(small, large, truth=large)
    assert pixels(with_truth).shape[1] > pixels(png).shape[1] > pixels(png).shape[0]


def test_the_crop_is_shown(tmp_path: Path) -> None:
    small = np.zeros((40, 60, 3), np.uint8)
    large = np.zeros((80, 120, 3), np.uint8)
    large[40:60, 80:100] = (255, 0, 0)
    found = (pixels(plot_enlargement(small, large, crop=(20, 40, 10, 10))) == (255, 0, 0)).all(2)
    other = (pixels(plot_enlargement(small, large, crop=(0, 0, 10, 10))) == (255, 0, 0)).all(2)
    assert found.sum() > 10 * other.sum() > 0


def test_the_crop_has_most_edges() -> None:
    grey = np.full((100, 160, 3), 90, np.uint8)
    grey[60:76, 100:116] = image(16, 16)
    top, left, height, width = busiest_crop(grey)
    assert height == width == 20
    assert 56 <= top <= 61
    assert 96 <= left <= 101
    assert busiest_crop(image(9, 30)) == (0, busiest_crop(image(9, 30))[1], 9, 9)
    assert busiest_crop(image(1, 1)) == (0, 0, 1, 1)


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"enlarged has shape \(80, 121, 3\)"):
        plot_enlargement(image(), np.zeros((80, 121, 3), np.uint8))
    with pytest.raises(ValueError, match="not within"):
        plot_enlargement(image(), np.zeros((80, 120, 3), np.uint8), crop=(35, 0, 10, 10))

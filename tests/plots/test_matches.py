"""The picture of a matched pair."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from signbit.plots import plot_matches

FIRST, SECOND = np.full((60, 80, 3), 200, np.uint8), np.full((90, 50, 1), 90, np.uint8)
POINTS = np.float32([[10, 10], [40, 30], [70, 50]])
FOUND = np.float32([[5, 80], [20, 30], [40, 5]])


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def share(png: bytes, channel: int) -> float:
    """Share of pixels in which a channel stands out."""
    image = pixels(png)
    others = np.delete(image, channel, 2).max(2)
    return float((image[..., channel] > others + 15).mean())


def test_lines_say_what_is_right(tmp_path: Path) -> None:
    path = tmp_path / "pair.png"
    right = np.array([True, True, False])
    png = plot_matches(FIRST, SECOND, POINTS, FOUND, path, right=right)
    assert path.read_bytes() == png
    assert 0 < share(png, 0) < share(png, 1)
    assert share(png, 2) == 0
    unknown = plot_matches(FIRST, SECOND, POINTS, FOUND)
    assert share(unknown, 2) > 0
    assert share(unknown, 0) == share(unknown, 1) == 0


def test_lines_lie_over_both_images() -> None:
    bare = pixels(plot_matches(FIRST, SECOND, POINTS[:0], FOUND[:0]))
    drawn = pixels(plot_matches(FIRST, SECOND, POINTS[:1], FOUND[:1]))
    image = (np.abs(bare - 200).max(2) < 3) | (np.abs(bare - 90).max(2) < 3)
    columns = np.flatnonzero(image.sum(0) > 100)
    changed = np.flatnonzero((np.abs(drawn - bare).max(2) > 40)[100:].any(0))
    width = columns[-1] - columns[0]
    assert abs((changed[0] - columns[0]) / width - 10 / 142) < 0.03
    assert abs((changed[-1] - columns[0]) / width - (80 + 12 + 5) / 142) < 0.03


def test_of_many_the_first_are_drawn() -> None:
    many = np.random.default_rng(0).uniform(5, 45, (500, 2))
    few = plot_matches(FIRST, SECOND, many, many, most=20)
    assert share(few, 2) < 0.7 * share(plot_matches(FIRST, SECOND, many, many), 2)


def test_counts_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="3 points, 2 partners"):
        plot_matches(FIRST, SECOND, POINTS, FOUND[:2])
    with pytest.raises(ValueError, match="3 points, 3 partners and 1 judgements"):
        plot_matches(FIRST, SECOND, POINTS, FOUND, right=np.array([True]))

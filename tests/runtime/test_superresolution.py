"""Decoding enlarged images, without a network: what a session gives is made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from signbit.errors import FormatError, SessionError
from signbit.runtime import enlarge
from signbit.runtime.superresolution import decoding, output_pixels

FACTS = {"scale": 2, "mean": [0.4, 0.4, 0.4], "std": [0.25, 0.25, 0.25]}
METADATA = {"task": "superresolution", "decode": FACTS}


class Repeating:
    """Stands for a session whose network repeats each pixel, in normalised values."""

    def __init__(self, metadata: dict[str, Any], scale: int = 2) -> None:
        self.metadata = metadata
        self.scale = scale

    def __call__(self, image: np.ndarray) -> np.ndarray:
        large = image.repeat(self.scale, 0).repeat(self.scale, 1)
        return ((large.transpose(2, 0, 1)[None] / np.float32(255) - 0.4) / 0.25).astype(np.float32)


def test_an_image_becomes_larger() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    found = enlarge(Repeating(METADATA), image)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, image.repeat(2, 0).repeat(2, 1))


def test_grey_images_become_colour_ones() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7), np.uint8)
    found = enlarge(Repeating(METADATA), image)
    np.testing.assert_array_equal(found[..., 1], image.repeat(2, 0).repeat(2, 1))


def test_pixels_are_rounded_and_stay_in_their_range() -> None:
    _, mean, std = decoding(METADATA, "m.signbit")
    values = np.float32([[-np.inf, -9, 0, 0.002, 9, np.inf, np.nan]])
    found = output_pixels(np.stack([values] * 3), mean, std)
    assert found.shape == (1, 7, 3)
    assert found[0, :, 0].tolist() == [0, 0, 102, 102, 255, 255, 0]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_picture(image: np.ndarray) -> None:
    with pytest.raises(SessionError, match=r"expected uint8 pixels \(H, W, 3\)"):
        enlarge(Repeating(METADATA), image)


def test_files_of_other_tasks_and_broken_ones() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(SessionError, match="made for classification"):
        enlarge(Repeating({}), image)
    for facts in (None, {"scale": 2}, {**FACTS, "scale": "2"}, {**FACTS, "mean": [0.4]}):
        with pytest.raises(FormatError, match=r"__metadata__\.decode has no scale"):
            enlarge(Repeating({**METADATA, "decode": facts}), image)


def test_a_scale_that_is_not_the_network_s() -> None:
    with pytest.raises(SessionError, match=r"enlarges 2 times, but .* became \(1, 3, 12, 12\)"):
        enlarge(Repeating(METADATA, scale=3), np.zeros((4, 4, 3), np.uint8))

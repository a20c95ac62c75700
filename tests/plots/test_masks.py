"""Pictures of masks: the tint is the class's, void stays as it is, sizes are checked."""

import io

import numpy as np
import pytest
from PIL import Image

from signbit.plots import plot_mask
from signbit.plots.masks import class_colours, class_shares, overlay

NAMES = ["ground", "one", "two"]


def scene(channels=3):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (40, 60, channels), np.uint8)
    return image, generator.integers(0, 3, (40, 60), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_is_saved_and_grows_with_the_truth(tmp_path, channels):
    image, mask = scene(channels)
    png = plot_mask(image, mask, NAMES, tmp_path / "mask.png")
    assert (tmp_path / "mask.png").read_bytes() == png
    width = Image.open(io.BytesIO(png)).width
    both = plot_mask(image, mask, NAMES, truth=np.zeros_like(mask))
    assert Image.open(io.BytesIO(both)).width > 1.2 * width


def test_classes_tint_and_void_does_not():
    image, mask = scene()
    mask[0, 0] = 255
    colours = class_colours(3)
    tinted = overlay(image, mask, colours)
    assert (tinted[0, 0] == image[0, 0]).all()
    expected = np.rint(image[5, 7] * 0.45 + colours[mask[5, 7]] * 0.55)
    assert (tinted[5, 7] == expected).all()


def test_colours_differ():
    colours = class_colours(21).astype(int)
    distance = np.abs(colours[:, None] - colours).sum(2) + 1000 * np.eye(21, dtype=int)
    assert distance.min() > 30


def test_shares_are_of_all_pixels():
    mask = np.array([[0, 0, 2, 255]], np.uint8)
    assert class_shares(mask, 3).tolist() == [0.5, 0.0, 0.25]


def test_masks_of_other_sizes_are_refused():
    image, mask = scene()
    with pytest.raises(ValueError, match=r"mask has shape \(39, 60\), the image \(40, 60, 3\)"):
        plot_mask(image, mask[1:], NAMES)
    with pytest.raises(ValueError, match="truth has shape"):
        plot_mask(image, mask, NAMES, truth=mask[1:])

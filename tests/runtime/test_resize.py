"""Resizing without Pillow is what Pillow does, and images that do not fit are refused."""

import numpy as np
import pytest
from PIL import Image

from signbit.errors import SessionError
from signbit.runtime.resize import check_image, resize_image


@pytest.mark.parametrize("size", [(24, 32), (48, 64), (7, 90), (100, 13), (1, 1), (37, 50)])
@pytest.mark.parametrize("channels", [1, 3])
def test_within_a_level_of_pillow(size, channels):
    image = np.random.default_rng(0).integers(0, 256, (37, 50, channels), np.uint8)
    found = resize_image(image, size)
    plain = image[..., 0] if channels == 1 else image
    expected = Image.fromarray(plain).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    expected = np.asarray(expected).reshape(*size, channels)
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_constant_stays_constant():
    image = np.full((50, 70, 3), 255, np.uint8)
    assert (resize_image(image, (33, 91)) == 255).all()


def test_the_same_size_is_untouched():
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    assert resize_image(image, (8, 9)) is image


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((40, 40, 3), np.float32), r"uint8 pixels \[H, W, 3\], got float32"),
        (np.zeros((40, 40), np.uint8), r"got uint8 \(40, 40\)"),
        (np.zeros((40, 40, 1), np.uint8), r"got uint8 \(40, 40, 1\)"),
        (np.zeros((40, 31, 3), np.uint8), "31x40 pixels is too small: .* stands for 32x32"),
    ],
)
def test_images_that_do_not_fit_are_refused(image, message):
    with pytest.raises(SessionError, match=f"net.signbit: .*{message}"):
        check_image(image, 3, 32, "net.signbit")
    check_image(np.zeros((32, 32, 3), np.uint8), 3, 32, "net.signbit")

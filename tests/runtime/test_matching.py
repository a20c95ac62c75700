"""Key points and matches, without a network: what a session gives is made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from signbit.errors import FormatError, SessionError
from signbit.runtime import describe, match
from signbit.runtime.matching import coarse_stride, find_keypoints, hamming_distances, local_maxima

FACTS = { "radius": 2, "border": 8, "descriptors": "real", "longer_side": 640,
}  # fmt: skip


def outputs(
    height: int, width: int, size: int = 16, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    h, w = -(-height // 4), -(-width // 4)
    shapes = ((size, h, w), (1, h, w), (1, 4 * h, 4 * w))
    return tuple(generator.standard_normal(shape, np.float32) for shape in shapes)


class MadeUp:
    """Stands for a session: its network's outputs are random, but those of the same image same."""

    input_shape = (3, 64, 64)
    output_scales = (1.0, 1.0, 1.0)

    def __init__(self, task: str = "matching", **facts: Any) -> None:
        self.metadata = {"task": task, "decode": FACTS | facts}
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        self.sizes.append(images.shape[1:3])
        made = outputs(*images.shape[1:3], seed=int(images.sum()))
        return tuple(y[None] for y in made)

    def __repr__(self) -> str:
        return "Session('m.signbit')"


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


# --- peaks ---


@pytest.mark.parametrize("radius", [1, 2, 3])
@pytest.mark.parametrize("size", [(20, 31), (7, 7), (5, 40)])
def test_local_maxima_are_the_largest_around_them(radius: int, size: tuple[int, int]) -> None:
    # Few values, so that neighbours tie.
    values = np.random.default_rng(radius).integers(0, 30, size).astype(np.float32)
    border = 2
    wanted = [
        (y, x)
        for y in range(border, size[0] - border)
        for x in range(border, size[1] - border)
        if values[y, x]
        == values[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1].max()
    ]
    found = local_maxima(values, radius, border)
    assert list(zip(*(part.tolist() for part in found), strict=True)) == wanted


def test_an_image_without_an_inside_has_no_maxima() -> None:
    rows, columns = local_maxima(np.ones((16, 50), np.float32), 2, 8)
    assert len(rows) == len(columns) == 0


# --- key points ---


def peaked(points: list[tuple[int, int, float]], size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """Repeatability's logits with peaks (x, y, height) on a low ground."""
    logits = np.full((1, *size), -8, np.float32)
    for x, y, height in points:
        logits[0, y, x] = height
    return logits


def test_key_points_come_best_first_with_both_probabilities_in_their_scores() -> None:
    descriptors, reliability, _ = outputs(64, 96)
    reliability[:] = 1.0
    reliability[:, :, 12:] = -3.0  # right of x = 48
    logits = peaked([(20, 20, 2.0), (40, 30, 3.0), (80, 40, 4.0)])
    found = find_keypoints((descriptors, reliability, logits), (64, 96), FACTS, 3)
    np.testing.assert_allclose(found.points, [[40, 30], [20, 20], [80, 40]], atol=1e-6)
    sigmoid = 1 / (1 + np.exp(-np.array([3.0, 2.0, 4.0])))
    trust = 1 / (1 + np.exp(-np.array([1.0, 1.0, -3.0])))
    np.testing.assert_allclose(found.scores, sigmoid * trust, rtol=1e-5)
    assert len(find_keypoints((descriptors, reliability, logits), (64, 96), FACTS, 1)) == 1


def test_descriptors_are_read_between_the_pixels_of_their_map_and_have_length_one() -> None:
    descriptors, reliability, _ = outputs(64, 96)
    found = find_keypoints((descriptors, reliability, peaked([(22, 41, 5.0)])), (64, 96), FACTS, 1)
    x, y = 22 / 4, 41 / 4  # between columns 5 and 6, rows 10 and 11
    wanted = (
        descriptors[:, 10, 5] * 0.5 * 0.75
        + descriptors[:, 10, 6] * 0.5 * 0.75
        + descriptors[:, 11, 5] * 0.5 * 0.25
        + descriptors[:, 11, 6] * 0.5 * 0.25
    )
    assert (x, y) == (5.5, 10.25)
    np.testing.assert_allclose(found.descriptors[0], wanted / np.linalg.norm(wanted), rtol=1e-5)


def test_binary_descriptors_are_the_signs_packed() -> None:
    maps = outputs(64, 96)
    real = find_keypoints(maps, (64, 96), FACTS, 50)
    bits = find_keypoints(maps, (64, 96), FACTS | {"descriptors": "binary"}, 50)
    assert bits.descriptors.dtype == np.uint8
    np.testing.assert_array_equal(
        np.unpackbits(bits.descriptors, axis=1), (real.descriptors >= 0).astype(np.uint8)
    )


def test_peaks_lie_between_pixels_where_a_parabola_says_so() -> None:
    descriptors, reliability, _ = outputs(64, 96)
    y, x = np.mgrid[:64, :96].astype(np.float32)
    logits = (5 - 0.3 * (x - 30.3) ** 2 - 0.2 * (y - 25.8) ** 2)[None]
    found = find_keypoints((descriptors, reliability, logits), (64, 96), FACTS, 1)
    np.testing.assert_allclose(found.points, [[30.3, 25.8]], atol=1e-3)


def test_what_lies_beyond_the_image_is_not_found() -> None:
    descriptors, reliability, _ = outputs(61, 93)
    logits = peaked([(85, 30, 3.0), (84, 40, 3.0), (30, 53, 3.0), (30, 52, 3.0)])
    found = find_keypoints((descriptors, reliability, logits), (61, 93), FACTS, 9)
    inside = {tuple(point) for point in found.points.round().astype(int).tolist()}
    assert {(84, 40), (30, 52)} <= inside
    assert not {(85, 30), (30, 53)} & inside


@pytest.mark.parametrize("stride", [4, 8])
def test_the_stride_of_coarse_maps_shows_in_their_sizes(stride: int) -> None:
    for height in range(17, 90):
        fine = -(-height // 4)
        coarse = -(-fine * 4 // stride) if stride == 4 else -(-fine // 2)
        assert coarse_stride((4 * fine, 4 * fine), (coarse, coarse)) == stride


# --- describing images ---


def test_small_images_run_as_they_are_and_large_ones_reduced() -> None:
    session = MadeUp(longer_side=100)
    plain = describe(session, photograph(60, 80), 20)
    assert len(plain) == 20
    large = photograph(120, 200)
    reduced, whole = describe(session, large, 20), describe(session, large, 20, longer_side=300)
    assert session.sizes == [(60, 80), (60, 100), (120, 200)]
    assert (reduced.points[:, 0] > 100).any()  # in pixels of the image as it was given
    assert (reduced.points.max(0) <= [200 - 15, 120 - 15]).all()  # the border is doubled with it
    assert (whole.points.min(0) >= 7.5).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (photograph(60, 80)[..., 0], r"m\.signbit.*expected one image of uint8 pixels \[H, W, 3\]"),
        (photograph(60, 80).astype(np.float32), r"got float32 \(60, 80, 3\)"),
        (photograph(60, 80)[:0], "expected one image"),
        (photograph(16, 80), r"80x16 pixels is too small: .* a side needs 17"),
    ],
)
def test_images_that_cannot_be_described(image: np.ndarray, message: str) -> None:
    with pytest.raises(SessionError, match=message):
        describe(MadeUp(), image)


@pytest.mark.parametrize(
    ("session", "message"),
    [
        (MadeUp("detection"), r"m\.signbit.* was made for detection, not for matching"),
        (MadeUp(radius=0), "decode lacks one of the numbers radius"),
        (MadeUp(border="8"), "decode lacks one of the numbers"),
        (MadeUp(descriptors="ternary"), "neither real nor binary, but 'ternary'"),
    ],
)
def test_files_of_other_tasks_are_refused(session: MadeUp, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        describe(session, photograph(60, 80))


# --- matching ---


def brute(first: np.ndarray, second: np.ndarray) -> list[list[int]]:
    """Mutual nearest neighbours by the definition; distances [N, M], of equal ones the first."""
    distances = np.array([[distance(a, b) for b in second] for a in first])
    forward, backward = distances.argmin(1), distances.argmin(0)
    return [[i, int(j)] for i, j in enumerate(forward) if backward[j] == i]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    if a.dtype == np.uint8:
        return sum(int(x ^ y).bit_count() for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return float(((a.astype(np.float64) - b) ** 2).sum())


@pytest.mark.parametrize(("n", "m"), [(40, 50), (1, 3), (300, 200)])
def test_real_descriptors(n: int, m: int) -> None:
    generator = np.random.default_rng(n)
    first, second = (generator.standard_normal((k, 16)).astype(np.float32) for k in (n, m))
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second))
    assert match(first, second).tolist() == brute(first, second)


@pytest.mark.parametrize(("n", "m", "size"), [(40, 50, 8), (1, 3, 1), (300, 200, 2)])
def test_bits_with_many_ties(n: int, m: int, size: int) -> None:
    generator = np.random.default_rng(n)
    first, second = (generator.integers(0, 256, (k, size), np.uint8) for k in (n, m))
    assert match(first, second).tolist() == brute(first, second)
    wanted = [[distance(a, b) for b in second] for a in first]
    assert hamming_distances(first, second).tolist() == wanted


def test_nothing_matches_nothing() -> None:
    none, some = np.empty((0, 8), np.uint8), np.zeros((3, 8), np.uint8)
    for pair in ((none, some), (some, none), (none, none)):
        assert match(*pair).shape == (0, 2)


def test_descriptors_of_two_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"uint8 \(3, 8\) and float32 \(3, 8\)"):
        match(np.zeros((3, 8), np.uint8), np.zeros((3, 8), np.float32))
    with pytest.raises(ValueError, match="descriptors of one network"):
        match(np.zeros((3, 8), np.uint8), np.zeros((3, 4), np.uint8))

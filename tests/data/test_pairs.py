"""Photographs, pairs with homographies, and views of photographs."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from signbit.data.pairs import Pair, load_matching, read_pairs, read_photographs, warped_pairs
from signbit.data.warps import Views, resize_longer, warp_points
from signbit.errors import DataError

DATA = Path(os.environ.get("SIGNBIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA / "matching" / "matching_dev.tar").is_file(),
    reason=f"no matching_dev.tar at {DATA / 'matching'}: set SIGNBIT_DATA",
)
WILD = Views(
    zoom=(0.5, 1.5), flip=True, turn=True, brightness=0.1, contrast=0.3, noise=0.05, blur=1.0,
    grey=0.5,
)  # fmt: skip


def smooth(height: int = 120, width: int = 160, seed: int = 0) -> np.ndarray:
    """A photograph without fine detail, so that reading between pixels is exact to a few bytes."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 20, width // 20, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def write_scene(root: Path, count: int = 3, size: tuple[int, int] = (80, 100)) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        Image.fromarray(smooth(*size, seed=number)).save(root / f"{number}.png")
        if number > 1:
            np.savetxt(root / f"H_1_{number}.txt", [[1, 0, number], [0, 1, 0], [0, 0, 1]])
    return root


def write_photographs(root: Path, count: int = 4) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(smooth(80 + number, 90, seed=number)).save(root / f"p{number}.png")
    return root


# --- views ---


@pytest.mark.parametrize("seed", range(4))
def test_the_homography_says_where_pixels_of_one_view_are_in_the_other(seed: int) -> None:
    geometry = Views(zoom=(0.8, 1.2), flip=True, turn=True, rotation=60)
    (first, second), homography = geometry.draw(smooth(), (64, 96), np.random.default_rng(seed))
    assert first.shape == second.shape == (64, 96, 3)
    assert homography[2, 2] == 1
    grid = np.stack(np.meshgrid(np.arange(96), np.arange(64)), 2).reshape(-1, 2)
    there = warp_points(grid, homography)
    inside = ((there >= 1) & (there <= [94, 62])).all(1)
    assert inside.mean() > 0.2
    maps = there[inside].astype(np.float32)[:, None]
    read = cv2.remap(second, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR)[:, 0].astype(float)
    own = first.reshape(-1, 3)[inside].astype(float)
    # What lies beyond the photograph is mirrored in both views alike, so all of it agrees.
    assert np.abs(read - own).mean() < 2.5


def test_views_are_those_of_the_generator_alone() -> None:
    drawn = [WILD.draw(smooth(), (64, 64), np.random.default_rng(s)) for s in (5, 5, 6)]
    (a, h), (b, g), (c, _) = drawn
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(h, g)
    assert (a != c).any()


def test_grey_pairs_are_grey() -> None:
    views, _ = Views(grey=1.0).draw(smooth(), (64, 64), np.random.default_rng(0))
    assert (views == views[..., :1]).all()


def test_light_and_noise_change_each_view_by_itself() -> None:
    still = {"scale": 1.0, "rotation": 0.0, "perspective": 0.0, "shift": 0.0}
    plain, _ = Views(**still).draw(smooth(), (64, 64), np.random.default_rng(0))
    np.testing.assert_array_equal(plain[0], plain[1])
    lit, _ = Views(**still, brightness=0.3).draw(smooth(), (64, 64), np.random.default_rng(0))
    assert len({round(float(v.mean() - plain[0].mean())) for v in lit}) == 2
    noisy, _ = Views(**still, noise=0.2).draw(smooth(), (64, 64), np.random.default_rng(0))
    difference = noisy.astype(float) - plain
    assert difference.std() > 3
    assert abs(difference.mean()) < 3


def test_a_photograph_smaller_than_a_view_is_enlarged() -> None:
    views, homography = Views().draw(smooth(40, 60), (96, 96), np.random.default_rng(0))
    assert views.shape == (2, 96, 96, 3)
    assert np.isfinite(homography).all()


def test_points_behind_the_horizon_are_infinitely_far() -> None:
    steep = [[1, 0, 0], [0, 1, 0], [-0.1, 0, 1]]
    found = warp_points(np.float64([[0, 3], [5, 4], [10, 0], [20, 0]]), steep)
    np.testing.assert_allclose(found[:2], [[0, 3], [10, 8]])
    assert np.isinf(found[2:]).all()


def test_resizing_moves_the_edges_of_pixels_to_each_other() -> None:
    image = smooth(60, 90)
    assert resize_longer(image, 90)[0] is image
    small, homography = resize_longer(image, 30)
    assert small.shape == (20, 30, 3)
    edges = warp_points(np.float64([[-0.5, -0.5], [89.5, 59.5]]), homography)
    np.testing.assert_allclose(edges, [[-0.5, -0.5], [29.5, 19.5]])
    np.testing.assert_allclose(small[0, 0], image[:3, :3].mean((0, 1)), atol=1)


# --- pairs ---


@pytest.mark.parametrize("archived", [False, True])
def test_scenes_in_folders_or_an_archive(tmp_path: Path, archived: bool) -> None:
    root = tmp_path / "pairs"
    write_scene(root / "b", 2)
    write_scene(root / "a", 3)
    (root / "b" / "H_1_2.txt").rename(root / "b" / "H_1_2")  # as HPatches calls it
    (root / "b" / "pts_1_2.txt").write_text("1 2 3 4\n")  # something else
    if archived:
        with tarfile.open(tmp_path / "pairs.tar", "w") as tar:
            tar.add(root, ".")
        root = tmp_path / "pairs.tar"
    pairs = read_pairs([root])
    assert [p.name for p in pairs] == ["a 1-2", "a 1-3", "b 1-2"]
    assert pairs[0].first is pairs[1].first
    np.testing.assert_array_equal(pairs[1].second, smooth(80, 100, seed=3))
    np.testing.assert_array_equal(pairs[1].homography, [[1, 0, 3], [0, 1, 0], [0, 0, 1]])


def test_large_images_are_reduced_and_their_homographies_with_them(tmp_path: Path) -> None:
    root = write_scene(tmp_path / "s", 2, size=(160, 200))
    (pair,) = read_pairs([root], longer_side=100)
    assert pair.first.shape == pair.second.shape == (80, 100, 3)
    # two pixels to the right became one
    np.testing.assert_allclose(pair.homography, [[1, 0, 1], [0, 1, 0], [0, 0, 1]], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("H_1_2.txt", "1 0 0\n0 1 0\n", r"s/H_1_2\.txt: a homography is 3x3 .* rows of \[3, 3\]"),
        ("H_1_2.txt", "1 0\n0 1\n0 0\n", r"H_1_2\.txt: .*rows of \[2, 2, 2\]"),
        ("H_1_2.txt", "1 0 x\n0 1 0\n0 0 1\n", r"H_1_2\.txt: not a matrix of numbers"),
        ("H_1_2.txt", "1 0 0\n1 0 0\n0 0 1\n", r"H_1_2\.txt: .*cannot be inverted"),
        ("H_1_2.txt", "1 0 0\n0 1 0\n0 nan 1\n", r"H_1_2\.txt: .*cannot be inverted"),
        ("H_1_2.txt", None, r"s/2\.png: its homography H_1_2\.txt is missing"),
        ("H_1_7.txt", "1 0 0\n0 1 0\n0 0 1\n", r"H_1_7\.txt: there is no image 7 beside it"),
        ("1.png", None, r"s: a pair needs the reference image 1 .* found \['2\.png'\]"),
        ("2.png", None, r"s: a pair needs .* another one, found \['1\.png'\]"),
        ("2.png", "no picture", r"s/2\.png: not a readable image"),
    ],
)
def test_a_broken_scene_names_its_file(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    root = write_scene(tmp_path / "s", 2)
    if content is None:
        (root / name).unlink()
    else:
        (root / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_pairs([root])


def test_images_that_are_too_small_are_named(tmp_path: Path) -> None:
    root = write_scene(tmp_path / "s", 2, size=(60, 100))
    with pytest.raises(DataError, match=r"1\.png: 100x60 pixels are too few: each side needs 64"):
        read_pairs([root])
    with pytest.raises(DataError, match="too few"):
        read_photographs([root])


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match="x: no pairs"):
        read_pairs([tmp_path / "x"])
    with pytest.raises(DataError, match="x: no photographs"):
        read_photographs([tmp_path / "x"])


# --- sources ---


def test_a_folder_of_photographs_and_pairs(tmp_path: Path) -> None:
    write_photographs(tmp_path / "photographs")
    write_scene(tmp_path / "pairs" / "s")
    source = load_matching(tmp_path, val_size=1, longer_side=128, views=WILD)
    assert (len(source.train), len(source.val), len(source.test)) == (3, 2, 2)
    assert source.input_shape == (3, 96, 128)
    names = {pair.name.split()[0] for pair in source.val}
    assert len(names) == 1  # two views of the photograph that was cut
    assert names | set(source.train.names) == {f"p{i}.png" for i in range(4)}
    every = np.concatenate([image.reshape(-1, 3) for image in source.train.images]) / 255
    np.testing.assert_allclose(source.mean, every.mean(0))
    np.testing.assert_allclose(source.std, every.std(0))


def test_validation_pairs_are_the_same_every_time(tmp_path: Path) -> None:
    photographs = read_photographs([write_photographs(tmp_path)])
    first, again = (warped_pairs(photographs, (64, 64), WILD, each=2, seed=0) for _ in range(2))
    assert len(first) == 8
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.second, b.second)
        np.testing.assert_array_equal(a.homography, b.homography)


@pytest.mark.parametrize("val_size", [4, 9])
def test_too_few_photographs_for_validation(tmp_path: Path, val_size: int) -> None:
    write_photographs(tmp_path / "photographs")
    write_scene(tmp_path / "pairs")
    with pytest.raises(DataError, match=rf"cannot cut {val_size} of 4 photographs.*1 to 3"):
        load_matching(tmp_path, val_size=val_size, longer_side=128, views=WILD)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        load_matching(tmp_path / "nowhere", val_size=None, longer_side=128, views=WILD)
    write_photographs(tmp_path / "photographs")
    with pytest.raises(DataError, match=r"pairs to test on: .*matching/matching_dev\.tar"):
        load_matching(tmp_path, val_size=None, longer_side=128, views=WILD)


def test_the_embedded_photographs_need_no_path() -> None:
    source = load_matching(None, val_size=2, longer_side=256, views=Views())
    assert source.name == "skimage"
    assert (len(source.train), len(source.val), len(source.test)) == (7, 4, 8)
    trained = set(source.train.names) | {pair.name.rpartition(" ")[0] for pair in source.val}
    assert not trained & {pair.name.rpartition(" ")[0] for pair in source.test}
    assert all(pair.first.shape == (96, 128, 3) for pair in source.test)


@needs_data
def test_the_shared_data() -> None:
    source = load_matching(DATA, val_size=10, longer_side=320, views=Views())
    assert (len(source.train), len(source.val), len(source.test)) == (181, 20, 19)
    assert {pair.name.partition(" ")[0] for pair in source.test} == {
        "akaze_iguazu", "oxford_graf", "homogr_Boston", "homogr_BostonLib", "homogr_BruggeSquare",
        "homogr_Brussels", "homogr_CapitalRegion", "homogr_LePoint1", "homogr_LePoint2",
        "homogr_LePoint3", "homogr_WhiteBoard",
    }  # fmt: skip
    graf = next(p for p in source.test if p.name == "oxford_graf 1-2")
    assert _correlation(graf) > 0.8


def _correlation(pair: Pair) -> float:
    """Of the first image with the second one, warped to it."""
    size = pair.first.shape[1::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(pair.second, pair.homography, size, flags=flags)
    seen = cv2.warpPerspective(
        np.full(pair.second.shape[:2], 255, np.uint8), pair.homography, size, flags=flags
    )
    a, b = (image[seen == 255].mean(1) for image in (pair.first, warped))
    return float(np.corrcoef(a, b)[0, 1])

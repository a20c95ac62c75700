"""Pairs of a small and a large image: the sources, and what is refused."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from signbit.data.superresolution import detect_scaled, load_scaled, shrink
from signbit.errors import DataError

BENCHMARK = (
    Path(os.environ.get("SIGNBIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
    / "super_resolution"
)
needs_benchmark = pytest.mark.skipif(
    not BENCHMARK.is_dir(), reason=f"no benchmark images at {BENCHMARK}: set SIGNBIT_DATA"
)


def photograph(height: int = 60, width: int = 72, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def benchmark(root: Path, scale: int = 2) -> Path:
    """A folder laid out as T91, BSDS500 and Set5 are, of random pixels."""
    for i in range(3):
        save(root / "T91" / f"t{i}.png", photograph(seed=i))
    save(root / "BSDS500_val20" / "1.png", photograph(seed=7))
    low, high = shrink(photograph(seed=8), scale)
    save(root / "Set5" / f"x{scale}" / "LR" / "img_001.png", low)
    save(root / "Set5" / f"x{scale}" / "HR" / "img_001.png", high)
    return root


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_small_images_are_those_of_pillow_cut_to_a_multiple(scale: int) -> None:
    image = photograph(61, 74)
    low, high = shrink(image, scale)
    np.testing.assert_array_equal(high, image[: 61 // scale * scale, : 74 // scale * scale])
    wanted = Image.fromarray(high).resize((74 // scale, 61 // scale), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(low, np.asarray(wanted))


@pytest.mark.parametrize("archived", [False, True])
def test_a_benchmark_in_folders_or_archives(tmp_path: Path, archived: bool) -> None:
    root = benchmark(tmp_path / "sr")
    if archived:
        for folder in sorted(root.iterdir()):
            with tarfile.open(root / f"{folder.name}.tar", "w") as tar:
                tar.add(folder, folder.name)
            for file in sorted(folder.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            folder.rmdir()
    assert detect_scaled(root) == "benchmark"
    source = load_scaled("auto", root, scale=2)
    assert (source.name, source.scale) == ("benchmark", 2)
    assert [len(source.split(name)) for name in ("train", "val", "test")] == [3, 1, 1]
    assert source.input_shape == (3, 30, 36)
    low, high = shrink(photograph(seed=8), 2)
    np.testing.assert_array_equal(source.test.low[0], low)
    np.testing.assert_array_equal(source.test.high[0], high)
    assert "img_001.png" in source.test.names[0]


def test_a_folder_of_photographs_is_split(tmp_path: Path) -> None:
    for i in range(10):
        save(tmp_path / f"{i}.png", photograph(seed=i))
    first, again = (load_scaled("auto", tmp_path, scale=3) for _ in range(2))
    assert [len(first.split(name)) for name in ("train", "val", "test")] == [7, 1, 2]
    everything = first.train.names + first.val.names + first.test.names
    assert len(set(everything)) == 10
    assert first.test.names == again.test.names
    assert first.train.high[0].shape == (60, 72, 3)
    assert first.train.low[0].shape == (20, 24, 3)


def test_own_splits_are_kept(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 2), ("test", 1)):
        for i in range(count):
            save(tmp_path / split / f"{i}.png", photograph(seed=i))
    source = load_scaled("folder", tmp_path, scale=2)
    assert [len(source.split(name)) for name in ("train", "val", "test")] == [4, 2, 1]
    with pytest.raises(DataError, match="its own 2 validation images"):
        load_scaled("folder", tmp_path, scale=2, val_size=1)


def test_without_a_test_split_val_is_the_test(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        for i in range(count):
            save(tmp_path / split / f"{i}.png", photograph(seed=i))
    source = load_scaled("folder", tmp_path, scale=2, val_size=1)
    assert [len(source.split(name)) for name in ("train", "val", "test")] == [3, 1, 2]


def test_pairs_named_as_div2k_names_them(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for i in range(3):
            low, high = shrink(photograph(seed=i), 4)
            save(tmp_path / split / "HR" / f"080{i}.png", high)
            save(tmp_path / split / "LR" / "X4" / f"080{i}x4.png", low)
    with pytest.raises(DataError, match="has no LR image of the same name"):
        load_scaled("folder", tmp_path, scale=2)
    source = load_scaled("folder", tmp_path, scale=4, val_size=1)
    assert source.test.low[2].shape == (15, 18, 3)


def test_grey_photographs_become_three_equal_channels(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"{i}.png", photograph(seed=i)[..., 0])
    low = load_scaled("folder", tmp_path, scale=2).train.low[0]
    assert low.shape == (30, 36, 3)
    assert (low == low[..., :1]).all()


def test_the_embedded_photographs() -> None:
    source = load_scaled("auto", None, scale=2)
    assert source.name == "skimage"
    assert [len(source.split(name)) for name in ("train", "val", "test")] == [8, 1, 2]
    assert source.test.names == ("astronaut.png", "chelsea.png")
    assert source.test.high[0].shape == (512, 512, 3)
    assert source.input_shape == (3, 150, 225)


# --- bad input ---


def test_scales_that_nobody_knows() -> None:
    with pytest.raises(DataError, match=r"data.scale: missing; .* 2, 3 or 4"):
        load_scaled("auto", None, scale=None)
    with pytest.raises(DataError, match=r"data\.scale: 5"):
        load_scaled("auto", None, scale=5)


def test_a_scale_that_the_test_set_lacks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Set5: has no pairs of scale x3, only of x2"):
        load_scaled("auto", benchmark(tmp_path), scale=3)


def test_images_of_a_pair_that_do_not_fit(tmp_path: Path) -> None:
    root = benchmark(tmp_path)
    save(root / "Set5" / "x2" / "LR" / "img_001.png", photograph(30, 35))
    with pytest.raises(DataError, match=r"HR/img_001.png: 72x60 pixels, but 2 times .*LR/img_001"):
        load_scaled("auto", root, scale=2)


@pytest.mark.parametrize(("kind", "other"), [("LR", "HR"), ("HR", "LR")])
def test_half_a_pair(tmp_path: Path, kind: str, other: str) -> None:
    root = benchmark(tmp_path)
    save(root / "Set5" / "x2" / kind / "img_002.png", photograph(30, 36))
    with pytest.raises(DataError, match=rf"{kind}/img_002.png: has no {other} image"):
        load_scaled("auto", root, scale=2)


def test_empty_splits(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "train" / f"{i}.png", photograph(seed=i))
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="val: the val split holds no image"):
        load_scaled("folder", tmp_path, scale=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds neither photographs"):
        load_scaled("auto", tmp_path / "empty", scale=2)
    with pytest.raises(DataError, match="no photographs for training"):
        load_scaled("folder", tmp_path / "empty", scale=2)
    with pytest.raises(DataError, match="nowhere: no such"):
        load_scaled("auto", tmp_path / "nowhere", scale=2)


def test_too_few_images_to_cut_from(tmp_path: Path) -> None:
    save(tmp_path / "only.png", photograph())
    with pytest.raises(DataError, match="cannot cut 1 test images from 1"):
        load_scaled("folder", tmp_path, scale=2)


def test_photographs_beside_the_splits(tmp_path: Path) -> None:
    save(tmp_path / "train" / "0.png", photograph())
    save(tmp_path / "stray.png", photograph())
    with pytest.raises(DataError, match=r"stray.png: lies outside of train, val and test"):
        load_scaled("folder", tmp_path, scale=2)


def test_images_that_are_too_small(tmp_path: Path) -> None:
    for i in range(10):
        save(tmp_path / "train" / f"{i}.png", photograph(seed=i))
    small = save(tmp_path / "test" / "small.png", photograph(20, 12))
    with pytest.raises(DataError, match=rf"{small.name}: 6x10 pixels when small, but scores need"):
        load_scaled("folder", tmp_path, scale=2)
    small.unlink()
    save(small, photograph())
    with pytest.raises(DataError, match=r"png: 36x30 pixels .* at least 48 .*data.crop_size"):
        load_scaled("folder", tmp_path, scale=2, crop=48)


def test_an_unreadable_image(tmp_path: Path) -> None:
    for i in range(10):
        save(tmp_path / f"{i}.png", photograph(seed=i))
    (tmp_path / "3.png").write_bytes(b"\x89PNG no more")
    with pytest.raises(DataError, match=r"3.png: not a readable image"):
        load_scaled("folder", tmp_path, scale=2)


def test_names_and_paths_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="embedded and takes no path"):
        load_scaled("skimage", tmp_path, scale=2)
    with pytest.raises(DataError, match="benchmark is not embedded"):
        load_scaled("benchmark", None, scale=2)
    with pytest.raises(DataError, match="holds no Set5"):
        load_scaled("benchmark", tmp_path, scale=2)
    with pytest.raises(DataError, match="unknown data source 'div2k'"):
        load_scaled("div2k", tmp_path, scale=2)


@needs_benchmark
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_set5_and_its_training_images(scale: int) -> None:
    source = load_scaled("auto", BENCHMARK, scale=scale)
    assert source.name == "benchmark"
    assert [len(source.split(name)) for name in ("train", "val", "test")] == [191, 20, 5]
    # the published small images and those that are made here
    differences = [
        np.abs(shrink(high, scale)[0].astype(int) - low).mean()
        for low, high in zip(source.test.low, source.test.high, strict=True)
    ]
    assert np.mean(differences) < 0.2

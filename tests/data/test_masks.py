"""Images with masks: every layout is read, and what is wrong with a file is said with its name."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from signbit.data.masks import CAMVID, VOID, load_masks
from signbit.errors import DataError

CAMVID_DATA = Path(
    os.environ.get("SIGNBIT_DATA", Path(__file__).parents[3] / "shared" / "data"), "camvid"
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNBIT_CACHE", str(tmp_path / "cache"))


def picture(index, size=(40, 48)):
    return np.random.default_rng(index).integers(0, 256, (*size, 3), np.uint8)


def mask_of(index, size=(40, 48), classes=4):
    mask = np.random.default_rng(100 + index).integers(0, classes, size, np.uint8)
    mask[0, 0] = classes - 1
    return mask


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def files_of(splits, pattern="{split}/{kind}/{name}", masks="labels", **arguments):
    """Bytes by path: ``splits`` has the indices of each split's images."""
    files = {}
    for split, indices in splits.items():
        for i in indices:
            place = {"split": split, "name": f"p{i}.png"}
            files[pattern.format(kind="images", **place)] = png(picture(i))
            files[pattern.format(kind=masks, **place)] = png(mask_of(i, **arguments))
    return files


def write(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_tar(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


TWO = {"train": range(10), "val": range(10, 13)}
THREE = {**TWO, "test": range(13, 15)}


def check(source, splits=TWO):
    """Every image of the files is there once, with its own mask, and val is test where needed."""
    test = splits.get("test", splits["val"])
    for part, i in zip(range(len(test)), test, strict=True):
        assert (source.test.images[part] == picture(i)).all()
        assert (source.test.masks[part] == mask_of(i)).all()
    known = {picture(i).tobytes(): mask_of(i).tobytes() for i in range(15)}
    rest = [*zip(source.train.images, source.train.masks, strict=True)]
    rest += zip(source.val.images, source.val.masks, strict=True)
    assert len(rest) == len(splits["train"]) + (len(splits["val"]) if "test" in splits else 0)
    assert all(known[image.tobytes()] == mask.tobytes() for image, mask in rest)
    assert len({image.tobytes() for image, _ in rest}) == len(rest)


@pytest.mark.parametrize("splits", [TWO, THREE])
@pytest.mark.parametrize("masks", ["labels", "masks"])
@pytest.mark.parametrize(
    "pattern", ["{split}/{kind}/{name}", "{kind}/{split}/{name}", "set/{kind}/{split}/a/{name}"]
)
def test_folders_and_archives_of_every_layout(tmp_path, splits, masks, pattern):
    files = files_of(splits, pattern, masks)
    write(tmp_path / "folder", files)
    write_tar(tmp_path / "all.tar", files)
    for path in (tmp_path / "folder", tmp_path / "all.tar"):
        source = load_masks(path)
        check(source, splits)
        assert source.input_shape == (3, 40, 48)
        assert source.class_names == ("0", "1", "2", "3")


def test_an_archive_a_split(tmp_path):
    for split, indices in TWO.items():
        write_tar(tmp_path / f"town_{split}.tar", files_of({split: indices}, "{kind}/{name}"))
    check(load_masks(tmp_path))


def test_without_splits_a_fixed_fifth_is_the_test_set(tmp_path):
    write(tmp_path, files_of({"": range(15)}, "{kind}/{name}"))
    source = load_masks(tmp_path, val_size=2)
    assert [len(source.split(s)) for s in ("train", "val", "test")] == [10, 2, 3]
    assert (load_masks(tmp_path, val_size=2).test.images == source.test.images).all()


def test_class_names_void_and_palette(tmp_path):
    files = files_of(TWO)
    palette = Image.fromarray(mask_of(3), "L").convert("P")
    palette.putdata(mask_of(3).ravel())
    palette.putpalette([90, 0, 0, 0, 200, 0, 0, 0, 7, 1, 2, 3])
    palette.save(buffer := io.BytesIO(), "PNG")
    files["train/labels/p3.png"] = buffer.getvalue()
    files["classes.txt"] = b"sky\nroad\ncar\nvoid\n"
    source = load_masks(write(tmp_path, files), void=3)
    assert source.class_names == ("sky", "road", "car")
    expected = np.where(mask_of(10) == 3, VOID, mask_of(10))
    assert (source.test.masks[0] == expected).all()
    every = np.concatenate([m.ravel() for m in source.train.masks])
    assert set(np.unique(every)) == {0, 1, 2, VOID}


def test_void_may_be_any_index(tmp_path):
    files = files_of(TWO)
    files["val/labels/p10.png"] = png(np.full((40, 48), 255, np.uint8))
    source = load_masks(write(tmp_path, files), void=255)
    assert (source.test.masks[0] == VOID).all()
    assert source.class_names == ("0", "1", "2", "3")


def test_camvid_is_known_by_its_frames(tmp_path):
    files = {}
    for kind in ("images", "labels"):
        for i in range(6):
            array = picture(i) if kind == "images" else mask_of(i, classes=12)
            files[f"train/{kind}/0001TP_00669{i}.png"] = png(array)
    source = load_masks(write(tmp_path, files))
    assert source.class_names == CAMVID
    assert max(mask[mask != VOID].max() for mask in source.train.masks) == 10
    assert any((mask == VOID).any() for mask in source.train.masks)


def test_images_are_scaled_and_masks_are_not(tmp_path):
    files = files_of(TWO)
    files["train/images/p0.png"] = png(picture(0, (80, 96)))
    files["train/labels/p0.png"] = png(mask_of(0, (80, 96)))
    write(tmp_path, files)
    with pytest.raises(DataError, match=r"p1\.png: 48x40 pixels, the others have 96x80; set data"):
        load_masks(tmp_path)
    source = load_masks(tmp_path, image_size=(36, 64))
    assert source.input_shape == (3, 36, 64)
    assert {m.shape for m in source.train.masks} <= {(40, 48), (80, 96)}


def test_images_are_decoded_once(tmp_path, monkeypatch):
    write(tmp_path, files_of(TWO))
    first = load_masks(tmp_path)
    monkeypatch.setattr("signbit.data.masks._decode", None)
    assert (load_masks(tmp_path).train.images == first.train.images).all()


# --- what is wrong ---


@pytest.mark.parametrize(
    ("change", "file", "message"),
    [
        (
            {"val/labels/p11.png": png(mask_of(1, (40, 50)))},
            "p11.png",
            "the mask has 50x40 pixels, its image .*images/p11.png 48x40",
        ),
        ({"val/labels/p11.png": png(picture(1))}, "p11.png", r"a colour mask \(RGB\)"),
        (
            {"val/labels/p11.png": png(np.full((40, 48), 9, np.uint8))},
            "p11.png",
            r"class index 9 at column 0, row 0, but there are 4 classes.*void: 9",
        ),
        (
            {"train/labels/p2.png": png(np.full((40, 48), 300, np.uint16))},
            "p2.png",
            "class index 300",
        ),
        (
            {"train/labels/p2.png": png(np.full((40, 48), 255, np.uint8))},
            "p2.png",
            "class index 255 .*void: 255",
        ),
        ({"train/labels/p2.png": b"no image"}, "labels/p2.png", "not a readable image"),
        ({"train/images/p2.png": png(picture(2))[:300]}, "images/p2.png", "not a readable image"),
        ({"train/labels/p2.png": None}, "images/p2.png", "has no mask labels/p2.png in the train"),
        ({"train/images/p2.png": None}, "labels/p2.png", "a mask without its image in the train"),
        (
            {"train/labels/p2.png": None, "train/labels/p2.jpg": png(mask_of(2))},
            "p2.jpg",
            "must be lossless",
        ),
        ({"train/images/p2.bmp": png(picture(2))}, "p2.png", "has the same name"),
        ({"classes.txt": b"a\nb\na\nc"}, "classes.txt", "names the class 'a' twice"),
        ({"classes.txt": b"a\nb\xff"}, "classes.txt", "not UTF-8"),
        ({"classes.txt": b"only\n"}, "classes.txt", "names 1 classes"),
        ({"classes.txt": b"a\nb\nc"}, "p0.png", "class index 3 .* there are 3 classes"),
    ],
)
@pytest.mark.parametrize("archive", [False, True])
def test_wrong_files_are_named(tmp_path, change, file, message, archive):
    files = {n: d for n, d in (files_of(TWO) | change).items() if d is not None}
    path = write_tar(tmp_path / "a.tar", files) if archive else write(tmp_path, files)
    with pytest.raises(DataError, match=message) as caught:
        load_masks(path)
    assert file in str(caught.value)
    assert not archive or "a.tar" in str(caught.value)


def test_empty_splits_are_named(tmp_path):
    write(tmp_path / "a", files_of({"train": range(10)}))
    (tmp_path / "a" / "val").mkdir()
    with pytest.raises(DataError, match=r"a/val: the val split holds no image"):
        load_masks(tmp_path / "a")
    for split, indices in {"train": range(10), "val": []}.items():
        (tmp_path / "b").mkdir(exist_ok=True)
        write_tar(tmp_path / "b" / f"x_{split}.tar", files_of({split: indices}, "{kind}/{name}"))
    with pytest.raises(DataError, match=r"x_val\.tar: the val split holds no image"):
        load_masks(tmp_path / "b")
    write(tmp_path / "c", files_of({"val": range(3)}))
    with pytest.raises(DataError, match="c: has no train split, only val"):
        load_masks(tmp_path / "c")
    (tmp_path / "d").mkdir()
    with pytest.raises(DataError, match="d: holds no images with masks"):
        load_masks(tmp_path / "d")
    with pytest.raises(DataError, match="no such file or folder"):
        load_masks(tmp_path / "e")


def test_small_images_are_named(tmp_path):
    write(tmp_path, files_of(TWO))
    with pytest.raises(DataError, match=r"p0\.png: 48x40 pixels, but one .* stands for 64x64"):
        load_masks(tmp_path, least=64)
    with pytest.raises(DataError, match=r"p0\.png: scaled to 64x32 pixels"):
        load_masks(tmp_path, image_size=(32, 64), least=64)


def test_val_size_is_checked(tmp_path):
    write(tmp_path, files_of(THREE))
    with pytest.raises(DataError, match="brings its own 3 validation images"):
        load_masks(tmp_path, val_size=2)
    write(tmp_path / "two", files_of(TWO))
    with pytest.raises(DataError, match="cannot cut 10 val images from 10"):
        load_masks(tmp_path / "two", val_size=10)


def test_damaged_archives_are_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", files_of(TWO))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.tar"):
        load_masks(path)
    (tmp_path / "b.tar").write_text("not an archive")
    with pytest.raises(DataError, match=r"b\.tar: not a readable, uncompressed \.tar"):
        load_masks(tmp_path / "b.tar")


@pytest.mark.slow
@pytest.mark.skipif(not CAMVID_DATA.is_dir(), reason=f"needs CamVid in {CAMVID_DATA}")
def test_camvid_as_it_is():
    source = load_masks(CAMVID_DATA, image_size=(60, 80), val_size=20)
    assert [len(source.split(s)) for s in ("train", "val", "test")] == [347, 20, 101]
    assert source.class_names == CAMVID
    assert {mask.shape for mask in source.test.masks} == {(360, 480)}
    road = np.mean([(mask == CAMVID.index("Road")).mean() for mask in source.train.masks])
    assert road == pytest.approx(0.317, abs=0.01)

"""Every reader: what it reads is what was written, and a broken file is named."""

import gzip
import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from signbit.data import detect_source, load_source
from signbit.data.base import channel_statistics, stratified_cut
from signbit.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNBIT_CACHE", str(tmp_path / "cache"))


def jpeg_bytes(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_npz(folder, count=20, classes=4, **changes):
    """A pair of .npz files; ``changes`` replace fields of the training one (None drops it)."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        files = [jpeg_bytes(generator.integers(0, 256, (8, 8, 3), np.uint8)) for _ in range(count)]
        fields = {
            "jpeg": np.frombuffer(b"".join(files), np.uint8),
            "offsets": np.cumsum([0, *map(len, files)]).astype(np.int64),
            "labels": (np.arange(count) % classes).astype(np.uint8),
            "class_names": np.array([f"class{i}" for i in range(classes)]),
        }
        if split == "train":
            fields |= {key: make(fields[key]) for key, make in changes.items() if make}
            fields = {key: fields[key] for key in fields if changes.get(key, True)}
        np.savez(folder / f"tiny_{split}.npz", **fields)
    return folder


# --- digits ---


def test_digits_are_real_bytes_in_fixed_stratified_splits():
    source = load_source("digits")
    assert source.input_shape == (1, 8, 8)
    assert source.num_classes == 10
    assert len(source.train) + len(source.val) + len(source.test) == 1797
    assert abs(len(source.test) - 1797 / 5) < 1
    assert source.train.images.max() == 255
    assert source.train.images.min() == 0
    counts = np.bincount(source.test.labels, minlength=10)
    assert counts.min() >= 34
    assert counts.max() <= 38
    again = load_source("digits")
    assert (again.test.images == source.test.images).all()


def test_digits_splits_are_disjoint():
    from sklearn.datasets import load_digits

    raw = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    source = load_source("digits")
    parts = [p.images[..., 0] for p in (source.train, source.val, source.test)]
    together = sorted(image.tobytes() for part in parts for image in part)
    assert together == sorted(image.tobytes() for image in raw)


def test_val_size_is_what_is_cut():
    source = load_source("digits", val_size=300)
    assert len(source.val) == 300
    with pytest.raises(DataError, match="cut 5000"):
        load_source("digits", val_size=5000)


# --- CIFAR ---


def test_npz_decodes_once_and_then_comes_from_the_cache(tmp_path, monkeypatch):
    folder = write_npz(tmp_path)
    first = load_source("cifar10", folder, val_size=4)
    assert first.input_shape == (3, 8, 8)
    assert len(first.train) == 16
    assert len(first.val) == 4
    stored = list((tmp_path / "cache" / "decoded").iterdir())
    assert len(stored) == 2
    assert all(file.suffix == ".npy" for file in stored)
    monkeypatch.setattr("signbit.data.cifar.open_image", None)  # decoding again would fail
    second = load_source("cifar10", folder, val_size=4)
    assert (second.train.images == first.train.images).all()


def test_damaged_cache_is_made_again(tmp_path):
    folder = write_npz(tmp_path)
    first = load_source("cifar10", folder)
    for file in (tmp_path / "cache" / "decoded").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    second = load_source("cifar10", folder)
    assert (second.train.images == first.train.images).all()


def test_unwritable_cache_only_warns(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SIGNBIT_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="not cached"):
        assert len(load_source("cifar10", write_npz(tmp_path)).test) == 20


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("jpeg", lambda a: a[:-10], "'offsets' ends at"),
        ("jpeg", None, "'jpeg' is missing"),
        ("jpeg", lambda a: a.astype(np.int32), "'jpeg' is not a row of bytes"),
        ("jpeg", lambda a: np.zeros_like(a), "image 0 of 'jpeg': not a readable image"),
        ("offsets", lambda a: a[::-1].copy(), "'offsets' starts at"),
        (
            "offsets",
            lambda a: np.where(np.arange(len(a)) == 3, 10**9, a),
            "'offsets' does not rise",
        ),
        ("offsets", lambda a: a.astype(float), "'offsets' is not a row"),
        ("labels", lambda a: a[:-1], r"'labels' has shape \(19,\) for 20 images"),
        ("labels", lambda a: a + 1, "'labels' holds 1..4 with 4 class_names"),
        ("class_names", lambda a: a[:0], "'class_names' is empty"),
        ("labels", lambda a: np.array(["a"] * 20, object), "'labels' is missing or broken"),
    ],
)
def test_broken_npz_names_file_and_field(tmp_path, field, change, message):
    write_npz(tmp_path, **{field: change})
    with pytest.raises(DataError, match=message) as caught:
        load_source("cifar10", tmp_path)
    assert "tiny_train.npz" in str(caught.value)


def test_truncated_npz_is_named(tmp_path):
    file = write_npz(tmp_path) / "tiny_train.npz"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"tiny_train\.npz"):
        load_source("cifar10", tmp_path)


def test_npz_without_its_test_half_is_named(tmp_path):
    (write_npz(tmp_path) / "tiny_test.npz").unlink()
    with pytest.raises(DataError, match=r"tiny_test\.npz: no such file"):
        load_source("auto", tmp_path)


def write_official(folder, label_bytes):
    """The official binary form with a few records; returns the pixels of the last file, NHWC."""
    folder.mkdir()
    generator = np.random.default_rng(1)
    train = [f"data_batch_{i}.bin" for i in range(1, 6)] if label_bytes == 1 else ["train.bin"]
    test = "test_batch.bin" if label_bytes == 1 else "test.bin"
    names = "batches.meta.txt" if label_bytes == 1 else "fine_label_names.txt"
    for file in [*train, test]:
        images = generator.integers(0, 256, (10, 32, 32, 3), np.uint8)
        records = np.concatenate(
            [
                np.full((10, label_bytes - 1), 200, np.uint8),  # coarse labels, to be skipped
                (np.arange(10) % 3).astype(np.uint8)[:, None],
                images.transpose(0, 3, 1, 2).reshape(10, -1),
            ],
            axis=1,
        )
        (folder / file).write_bytes(records.tobytes())
    (folder / names).write_text("apple\nbear\ncat\n\n")
    return images


@pytest.mark.parametrize(
    ("name", "label_bytes", "folder"),
    [("cifar10", 1, "cifar-10-batches-bin"), ("cifar100", 2, "cifar-100-binary")],
)
def test_official_cifar_from_folder_parent_and_archive(tmp_path, name, label_bytes, folder):
    images = write_official(tmp_path / folder, label_bytes)
    archive = tmp_path / f"{name.replace('cifar', 'cifar-')}-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / folder, folder)
    for path in (tmp_path / folder, tmp_path, archive):
        assert detect_source(path) == name
        source = load_source("auto", path)
        assert source.name == name
        assert (source.test.images == images).all()
        assert source.test.labels.tolist() == [i % 3 for i in range(10)]
        assert source.class_names == ("apple", "bear", "cat")


def test_broken_official_cifar_is_named(tmp_path):
    folder = tmp_path / "c"
    write_official(folder, 1)
    batch = folder / "data_batch_3.bin"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"data_batch_3\.bin: .* 3073-byte records"):
        load_source("cifar10", folder)
    batch.write_bytes(b"\x07" + whole[1:])
    with pytest.raises(DataError, match=r"data_batch_3\.bin: label 7 in record 0, but 3 classes"):
        load_source("cifar10", folder)
    batch.unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin: No such file"):
        load_source("cifar10", folder)


# --- idx ---


def idx_bytes(array, magic):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return magic.to_bytes(4, "big") + sizes + array.tobytes()


def write_idx(folder, compress):
    generator = np.random.default_rng(2)
    written = {}
    folder.mkdir(exist_ok=True)
    for prefix, count in (("train", 30), ("t10k", 10)):
        images = generator.integers(0, 256, (count, 6, 5), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        written[prefix] = images
        for kind, array, magic in (
            ("images-idx3-ubyte", images, 2051),
            ("labels-idx1-ubyte", labels, 2049),
        ):
            content = idx_bytes(array, magic)
            if compress:
                (folder / f"{prefix}-{kind}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / f"{prefix}-{kind}").write_bytes(content)
    return written


@pytest.mark.parametrize("compress", [False, True])
def test_idx_plain_and_compressed(tmp_path, compress):
    written = write_idx(tmp_path / "fashion", compress)
    source = load_source("auto", tmp_path / "fashion")
    assert source.name == "fashion_mnist"
    assert source.class_names[9] == "Ankle boot"
    assert source.input_shape == (1, 6, 5)
    assert (source.test.images[..., 0] == written["t10k"]).all()
    assert load_source("mnist", tmp_path / "fashion").class_names[9] == "9"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "train-images-idx3-ubyte",
            lambda b: b"\0\0\x08\x01" + b[4:],
            "magic number 2049, expected",
        ),
        ("train-images-idx3-ubyte", lambda b: b[:-1], "need 900 bytes, 899 follow"),
        ("train-images-idx3-ubyte", lambda b: b + b"x", "need 900 bytes, 901 follow"),
        ("train-images-idx3-ubyte", lambda b: b[:10], "ends within its sizes"),
        ("train-images-idx3-ubyte", lambda b: b[:2], "too short"),
        ("train-images-idx3-ubyte", lambda b: b[:4] + bytes(12), "hold no element"),
        (
            "t10k-labels-idx1-ubyte",
            lambda b: idx_bytes(np.zeros(9, np.uint8), 2049),
            "9 labels for",
        ),
        ("t10k-labels-idx1-ubyte", None, "no such file"),
    ],
)
def test_broken_idx_is_named(tmp_path, file, change, message):
    write_idx(tmp_path, False)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).unlink()
    if change:
        (tmp_path / file).write_bytes(change(content))
    with pytest.raises(DataError, match=message) as caught:
        load_source("fashion_mnist", tmp_path)
    assert file in str(caught.value)


def test_damaged_gzip_is_named(tmp_path):
    write_idx(tmp_path, True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: not readable"):
        load_source("mnist", tmp_path)


# --- folders ---


def write_images(folder, classes=("cat", "dog"), count=10, size=(8, 6), mode="RGB"):
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            colour = 40 * label + i
            image = Image.new(mode, (size[1], size[0]), colour if mode == "L" else (colour, 0, 9))
            image.save(folder / name / f"{i:03}.png")


def test_folder_with_splits(tmp_path):
    for split, count in (("train", 10), ("val", 3), ("test", 4)):
        write_images(tmp_path / split, count=count)
    source = load_source("auto", tmp_path)
    assert [len(p) for p in (source.train, source.val, source.test)] == [20, 6, 8]
    assert source.class_names == ("cat", "dog")
    assert source.input_shape == (3, 8, 6)
    assert source.test.images[4, 0, 0].tolist() == [40, 0, 9]
    with pytest.raises(DataError, match="its own 6 validation images"):
        load_source("folder", tmp_path, val_size=3)


def test_folder_without_splits_is_cut_by_class(tmp_path):
    write_images(tmp_path)
    source = load_source("folder", tmp_path, val_size=4)
    assert [len(p) for p in (source.train, source.val, source.test)] == [12, 4, 4]
    assert np.bincount(source.test.labels).tolist() == [2, 2]


def test_folder_with_val_only_tests_on_it(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "val", count=3)
    assert len(load_source("folder", tmp_path).test) == 6


def test_grey_folder_has_one_channel_and_is_scaled(tmp_path):
    write_images(tmp_path, mode="L", size=(20, 30))
    source = load_source("folder", tmp_path, image_size=10)
    assert source.input_shape == (1, 10, 10)


def test_changed_image_is_decoded_again(tmp_path):
    write_images(tmp_path / "train")
    before = load_source("folder", tmp_path)
    Image.new("RGB", (6, 8), (255, 255, 255)).save(tmp_path / "train" / "cat" / "000.png")
    after = load_source("folder", tmp_path)
    assert not (before.train.images == 255).all((1, 2, 3)).any()
    parts = (after.train, after.val, after.test)
    assert sum((p.images == 255).all((1, 2, 3)).sum() for p in parts) == 1


def test_broken_folders_are_named(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", classes=("cat", "elk"))
    with pytest.raises(DataError, match="elk: a class that the train split does not have"):
        load_source("folder", tmp_path)
    bad = tmp_path / "train" / "dog" / "bad.png"
    bad.write_bytes(b"no picture")
    (tmp_path / "test" / "elk").rename(tmp_path / "test" / "dog")
    with pytest.raises(DataError, match=r"bad\.png: not a readable image"):
        load_source("folder", tmp_path)
    Image.new("RGB", (3, 3)).save(bad)
    with pytest.raises(DataError, match=r"bad\.png: size .* set data\.image_size"):
        load_source("folder", tmp_path)


# --- which reader ---


def test_unknown_and_missing_sources(tmp_path):
    with pytest.raises(DataError, match="unknown data source 'cifar'"):
        load_source("cifar")
    with pytest.raises(DataError, match="--data PATH"):
        load_source("cifar10")
    with pytest.raises(DataError, match="nowhere: no such file"):
        load_source("auto", tmp_path / "nowhere")
    with pytest.raises(DataError, match="neither CIFAR"):
        load_source("auto", tmp_path)
    with pytest.raises(DataError, match="takes no path"):
        load_source("digits", tmp_path)


def test_any_source_can_be_resized():
    small, large = load_source("digits"), load_source("digits", image_size=16)
    assert large.input_shape == (1, 16, 16)
    assert len(large.test) == len(small.test)
    assert large.std != small.std  # statistics follow the images
    shrunk = np.asarray(large.test.images, np.float64).reshape(-1, 8, 2, 8, 2).mean((2, 4))
    error = np.abs(shrunk - small.test.images[..., 0])
    assert error.mean() < 20  # of 255: smoothed, but the same pictures
    assert small.resized(8) is small


# --- what they share ---


def test_stratified_cut_takes_every_class_in_its_share():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    kept, cut = stratified_cut(labels, 20)
    assert np.bincount(labels[cut]).tolist() == [12, 6, 2]
    assert sorted([*kept, *cut]) == list(range(100))


def test_channel_statistics_are_those_of_numpy():
    images = np.random.default_rng(0).integers(0, 200, (5, 7, 6, 2), np.uint8)
    images[..., 1] = 9
    mean, std = channel_statistics(images)
    assert mean == pytest.approx(images.mean((0, 1, 2)) / 255, abs=5e-5)
    assert std[0] == pytest.approx(images[..., 0].std() / 255, abs=5e-5)
    assert std[1] == 1.0

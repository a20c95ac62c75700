"""CIFAR-10 and CIFAR-100: 32x32 RGB photographs.

Two forms are read:

- the official binary version (https://www.cs.toronto.edu/~kriz/cifar.html), unpacked or as its
  ``.tar.gz``: records of one label byte (CIFAR-100: coarse, then fine) and 3,072 pixels, plane by
  plane;
- a pair ``<any>_train.npz`` and ``<any>_test.npz``: ``jpeg`` (all files concatenated),
  ``offsets`` (N+1), ``labels`` and ``class_names``. JPEG is lossy: accuracies on it do not
  compare with published ones.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from signbit.data.base import DataSource, ImageDataset, make_source
from signbit.data.cache import cached_images, file_hash
from signbit.data.decode import open_image, pixels, stack, track
from signbit.errors import DataError

PIXELS = 3 * 32 * 32
_LAYOUTS = {
    # name: (label bytes, training files, test file, file of class names)
    "cifar10": (
        1,
        [f"data_batch_{i}.bin" for i in range(1, 6)],
        "test_batch.bin",
        "batches.meta.txt",
    ),
    "cifar100": (2, ["train.bin"], "test.bin", "fine_label_names.txt"),
}
_FOLDERS = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}


def is_cifar(path: Path) -> str | None:
    """``"cifar10"`` or ``"cifar100"`` if ``path`` looks like either form, else None."""
    if path.is_file():
        name = path.name.replace("-", "")
        if name.endswith((".tar.gz", ".tar")) and name.startswith("cifar"):
            return "cifar100" if name.startswith("cifar100") else "cifar10"
        return None
    if _npz_pair(path):
        return "cifar100" if "100" in _npz_pair(path)[0].name else "cifar10"
    for name, (_, train_files, _, _) in _LAYOUTS.items():
        if any((path / part / train_files[0]).exists() for part in ("", _FOLDERS[name])):
            return name
    return None


def load_cifar(path: Path, name: str = "cifar10", val_size: int | None = None) -> DataSource:
    """Read CIFAR-10 or CIFAR-100 from a folder or an archive.

    Raises:
        DataError: a file is missing or broken; the message names it, and the field.
    """
    if path.is_dir() and (pair := _npz_pair(path)):
        train, class_names = read_npz(pair[0])
        test, test_names = read_npz(pair[1])
        if test_names != class_names:
            raise DataError(f"{pair[1]}: class_names differ from those of {pair[0].name}")
    else:
        train, test, class_names = _read_official(path, name)
    return make_source(name, train, test, class_names, val_size=val_size)


def _npz_pair(path: Path) -> tuple[Path, Path] | None:
    for train in sorted(path.glob("*_train.npz")):
        test = train.with_name(train.name.removesuffix("_train.npz") + "_test.npz")
        if not test.exists():
            raise DataError(f"{test}: no such file, though {train.name} is there")
        return train, test
    return None


def read_npz(path: Path) -> tuple[ImageDataset, tuple[str, ...]]:
    """One split of the npz form, checked field by field; decoded once, then cached.

    Raises:
        DataError: names the file and the field at fault.
    """
    fields = _npz_fields(path)
    jpeg, offsets, labels = fields["jpeg"], fields["offsets"], fields["labels"]
    class_names = tuple(str(name) for name in fields["class_names"])
    _check_npz(path, jpeg, offsets, labels, class_names)

    def decode() -> NDArray[np.uint8]:
        blob = memoryview(jpeg.tobytes())
        spans = list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
        names = [f"{path}: image {i} of 'jpeg'" for i in range(len(spans))]
        return stack(
            (name, pixels(open_image(blob[start:end], name), 3))
            for (start, end), name in track(
                list(zip(spans, names, strict=True)), f"decoding {path.name}"
            )
        )

    images = cached_images(file_hash(path), decode)
    return ImageDataset(images, labels.astype(np.int64)), class_names


def _npz_fields(path: Path) -> dict[str, np.ndarray]:
    fields = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for field in ("jpeg", "offsets", "labels", "class_names"):
                try:
                    fields[field] = archive[field]
                except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
                    raise DataError(f"{path}: field {field!r} is missing or broken") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable .npz file ({error})") from error
    return fields


def _check_npz(
    path: Path,
    jpeg: np.ndarray,
    offsets: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
) -> None:
    def require(good: bool, field: str, problem: str) -> None:
        if not good:
            raise DataError(f"{path}: field {field!r} {problem}")

    require(jpeg.dtype == np.uint8 and jpeg.ndim == 1, "jpeg", "is not a row of bytes")
    integers = np.issubdtype(offsets.dtype, np.integer) and offsets.ndim == 1
    require(integers and len(offsets) >= 2, "offsets", "is not a row of at least 2 integers")
    require(offsets[0] == 0, "offsets", f"starts at {offsets[0]}, not at 0")
    require(bool((np.diff(offsets) > 0).all()), "offsets", "does not rise")
    require(
        offsets[-1] == len(jpeg), "offsets", f"ends at {offsets[-1]}, 'jpeg' has {len(jpeg)} bytes"
    )
    count = len(offsets) - 1
    require(labels.shape == (count,), "labels", f"has shape {labels.shape} for {count} images")
    require(np.issubdtype(labels.dtype, np.integer), "labels", f"is of type {labels.dtype}")
    require(len(class_names) > 0, "class_names", "is empty")
    require(
        int(labels.min()) >= 0 and int(labels.max()) < len(class_names),
        "labels",
        f"holds {labels.min()}..{labels.max()} with {len(class_names)} class_names",
    )


def _read_official(path: Path, name: str) -> tuple[ImageDataset, ImageDataset, tuple[str, ...]]:
    label_bytes, train_files, test_file, names_file = _LAYOUTS[name]
    read = _reader(path, name)
    class_names = tuple(read(names_file).decode("utf-8", "replace").split())

    def split(files: list[str]) -> ImageDataset:
        parts = [
            _parse_records(read(file), f"{path / file}", label_bytes, len(class_names))
            for file in files
        ]
        images, labels = zip(*parts, strict=True)
        return ImageDataset(np.concatenate(images), np.concatenate(labels))

    return split(train_files), split([test_file]), class_names


def _reader(path: Path, name: str) -> Callable[[str], bytes]:
    """A function from a file's name to its bytes, in the folder or in the archive."""
    if path.is_file():
        try:
            with tarfile.open(path) as archive:
                members = {
                    Path(member.name).name: archive.extractfile(member).read()
                    for member in archive
                    if member.isfile()
                }
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"{path}: not a readable archive ({error})") from error

        def from_archive(file: str) -> bytes:
            if file not in members:
                raise DataError(f"{path}: holds no {file}")
            return members[file]

        return from_archive

    inner = path / _FOLDERS[name]
    folder = inner if inner.is_dir() else path

    def from_folder(file: str) -> bytes:
        try:
            return (folder / file).read_bytes()
        except OSError as error:
            raise DataError(f"{folder / file}: {error.strerror or error}") from error

    return from_folder


def _parse_records(
    content: bytes, name: str, label_bytes: int, classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    record = label_bytes + PIXELS
    if not content or len(content) % record:
        raise DataError(
            f"{name}: {len(content)} bytes are no whole number of {record}-byte records"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    labels = rows[:, label_bytes - 1].astype(np.int64)
    if labels.max() >= classes:
        raise DataError(
            f"{name}: label {labels.max()} in record {labels.argmax()}, but {classes} classes"
        )
    planes = rows[:, label_bytes:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels

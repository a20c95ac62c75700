"""Teachers' logits on disk: computed once, for later epochs, other students and resumed runs.

Augmented views are a function of (seed, batch size, epoch, step), so each epoch's logits are kept;
those of images that are not augmented are kept once. The file of a teacher has

* a header of 4,096 bytes, one line of JSON padded with spaces: hashes of teacher and images, and
  whatever else logits depend on. A file of another teacher or of other images is refused;
* a row for every view, at ``epoch * images + index``: the logits, then a CRC-32 of them that starts
  from the row's number and is never 0; little endian.

Rows are read through a memory map and written one by one. A row counts only with the right
checksum, so holes, rows that a kill left half written, and what a disk lost are computed again.
Several runs may fill one file at the same time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from signbit.data.base import DataSource
from signbit.data.loader import BatchLoader
from signbit.errors import SignbitError
from signbit.training.files import write_atomically
from signbit.training.output import differences, require_writable
from signbit.training.recipe import Recipe, TeacherRecipe
from signbit.training.teacher import Teacher
from signbit.training.trained import weights_sha256

FORMAT = "signbit-teacher-logits-1"
HEADER = 4096


class LogitCache:
    """The logits of one teacher for every view of a data set, in one file.

    Args:
        path: the file; made if it is missing, in a folder that is there.
        settings: what the logits depend on, plain data; must equal that of a file that is there.
        images, classes: views an epoch, and logits a view.
        epochs: for how many epochs the file has room; None for views that are the same in all.
        dtype: that of the file.

    Raises:
        SignbitError: the file is of other settings, which are named, or damaged; or the disk has
            no room for it.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        *,
        images: int,
        classes: int,
        epochs: int | None,
        dtype: Literal["float32", "float16"] = "float32",
    ) -> None:
        self.path = path
        self.images = images
        self.every_epoch = epochs is not None
        number = np.dtype(dtype).newbyteorder("<")
        self._row = np.dtype([("logits", number, (classes,)), ("check", "<u4")])
        shape = {"images": images, "classes": classes, "dtype": dtype}
        self._settings = json.loads(json.dumps({"format": FORMAT, **settings, "rows": shape}))
        if path.exists():
            self._check_header()
        count = (epochs or 1) * images
        self._make_room(HEADER + count * self._row.itemsize)
        self._rows = np.memmap(path, self._row, "r", HEADER, (count,))

    def _check_header(self) -> None:
        with self.path.open("rb") as file:
            text = file.read(HEADER)
        try:
            before = json.loads(text)
        except ValueError:
            before = None
        if len(text) < HEADER or not isinstance(before, dict) or before.get("format") != FORMAT:
            raise SignbitError(f"{self.path}: damaged, or no cache of logits; delete it")
        if changed := differences(before, self._settings):
            raise SignbitError(
                f"{self.path} holds logits of another teacher or of other views: "
                f"{'; '.join(changed)}. Delete it, or choose another loss.cache"
            )

    def _make_room(self, size: int) -> None:
        held = self.path.stat().st_blocks * 512 if self.path.exists() else 0
        free = shutil.disk_usage(self.path.parent).free
        if size - held > free:
            raise SignbitError(
                f"{self.path}: the logits take {size / 1e9:.2f} GB, the disk has {free / 1e9:.2f} "
                "left: choose another loss.cache, loss.cache_dtype: float16, or no cache"
            )
        if not self.path.exists():
            text = json.dumps(self._settings).encode()
            if len(text) >= HEADER:
                raise SignbitError(
                    f"{self.path}: what names teacher and views takes {len(text)} bytes, more than "
                    f"the {HEADER} of a header: train without loss.cache"
                )
            write_atomically(self.path, lambda file: file.write(text.ljust(HEADER - 1) + b"\n"))
        with self.path.open("r+b") as file:
            # Another run that shares the file might make it longer between the two.
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_size < size:
                file.truncate(size)  # longer, by a hole in which no row counts

    def fetch(
        self, epoch: int, indices: NDArray[np.int64], compute: Callable[[], Tensor]
    ) -> Tensor:
        """The logits of a batch, [N, classes] in the file's dtype, on the CPU.

        Args:
            epoch: of the views; without meaning where they are the same in all.
            indices: the images, int64 [N].
            compute: the teacher's logits [N, classes], called only if a row is missing. Rows that
                are there stay as they are.

        Raises:
            SignbitError: logits are not finite, or cannot be written.
        """
        numbers = (epoch if self.every_epoch else 0) * self.images + indices
        rows = np.array(self._rows[numbers])
        missing = [
            place
            for place, number in enumerate(numbers)
            if rows["check"][place] != _checksum(rows["logits"][place], number)
        ]
        if missing:
            with np.errstate(over="ignore"):  # in float16; refused below
                rows["logits"][missing] = compute().float().cpu().numpy()[missing]
            if not np.isfinite(rows["logits"]).all():
                raise SignbitError(
                    f"{self.path}: the teacher's logits are not finite in "
                    f"{self._settings['rows']['dtype']}; is that the right teacher?"
                )
            for place in missing:
                rows["check"][place] = _checksum(rows["logits"][place], numbers[place])
            self._write(numbers[missing], rows[missing])
        return torch.from_numpy(rows["logits"].copy())

    def _write(self, numbers: NDArray[np.int64], rows: NDArray[np.void]) -> None:
        try:
            with self.path.open("r+b", buffering=0) as file:
                for number, row in zip(numbers, rows, strict=True):
                    file.seek(HEADER + int(number) * self._row.itemsize)
                    file.write(row.tobytes())
        except OSError as error:
            raise SignbitError(
                f"{self.path}: cannot be written ({error.strerror or error}); what it holds is "
                "good: make room and go on with --resume"
            ) from error


def _checksum(logits: NDArray[Any], number: int) -> int:
    return zlib.crc32(logits.tobytes(), int(number) & 0xFFFFFFFF) or 1


class CachedTeacher:
    """A teacher whose logits for a loader's batches come from a cache where that has them."""

    def __init__(self, teacher: Teacher, cache: LogitCache, loader: BatchLoader) -> None:
        self.teacher = teacher
        self.cache = cache
        self.loader = loader

    def batch(self, images: Tensor, epoch: int, step: int) -> Tensor:
        """As :meth:`Teacher.batch`, rounded to the cache's dtype; float32."""
        indices = self.loader.indices(epoch, step)
        logits = self.cache.fetch(epoch, indices, lambda: self.teacher(images))
        return logits.float().to(images.device)


StageTeachers = Mapping[TeacherRecipe, Teacher | CachedTeacher]


def with_caches(
    recipe: Recipe,
    teachers: Sequence[Mapping[TeacherRecipe, Teacher]],
    source: DataSource,
    loader: BatchLoader,
    output: Path,
) -> list[StageTeachers]:
    """The teachers of every stage, behind caches in stages with ``loss.cache``.

    Args:
        recipe: says where caches are.
        teachers: of every stage.
        source: the student's data.
        loader: its training batches.
        output: the run's folder, which holds those of ``cache: true``.

    Raises:
        SignbitError: a folder cannot be written, a file is of something else, or the disk is full.
    """
    if not any(stage.loss.cache for stage in recipe.stages):
        return list(teachers)
    caches = _Caches(recipe, source)
    result: list[StageTeachers] = []
    for stage, own in zip(recipe.stages, teachers, strict=True):
        loss = stage.loss
        if not loss.cache:
            result.append(own)
            continue
        folder = output / "teacher-logits" if loss.cache is True else Path(loss.cache)
        require_writable(folder)
        result.append(
            {
                each: CachedTeacher(
                    teacher, caches.open(folder, each, teacher, loss.cache_dtype), loader
                )
                for each, teacher in own.items()
            }
        )
    return result


class _Caches:
    """The files of a run; stages with the same teacher share one."""

    def __init__(self, recipe: Recipe, source: DataSource) -> None:
        augment = recipe.data.augment
        self.recipe = recipe
        self.source = source
        self.augmented = bool(augment.crop_padding or augment.flip)
        self.images = {
            "sha256": hashlib.sha256(np.ascontiguousarray(source.train.images)).hexdigest(),
            "mean": source.mean,
            "std": source.std,
        }
        self.open_files: dict[tuple[Path, str], tuple[Teacher, LogitCache]] = {}

    def open(
        self,
        folder: Path,
        recipe: TeacherRecipe,
        teacher: Teacher,
        dtype: Literal["float32", "float16"],
    ) -> LogitCache:
        # Seeds of one recipe are usually run one after the other: each has a file of its own.
        tail = f".seed{self.recipe.seed}.logits" if self.augmented else ".logits"
        number, path = 1, folder / f"{_label(recipe)}{tail}"
        while (path, dtype) in self.open_files:
            owner, cache = self.open_files[path, dtype]
            if owner is teacher:
                return cache
            number += 1  # a teacher of the same name
            path = folder / f"{_label(recipe)}-{number}{tail}"
        cache = LogitCache(
            path,
            self._settings(teacher),
            images=len(self.source.train),
            classes=self.source.num_classes,
            epochs=self.recipe.epochs if self.augmented else None,
            dtype=dtype,
        )
        self.open_files[path, dtype] = teacher, cache
        return cache

    def _settings(self, teacher: Teacher) -> dict[str, Any]:
        # Strides, paddings and the like are in no tensor, but in what modules say of themselves.
        modules = [
            f"{name} {type(m).__qualname__}({m.extra_repr()})"
            for name, m in teacher.model.named_modules()
        ]
        data = self.recipe.data
        views = {
            "seed": self.recipe.seed,
            "batch_size": data.batch_size,
            "augment": data.augment.model_dump(),
        }
        return {
            "teacher": {
                "weights_sha256": weights_sha256(teacher.model),
                "modules_sha256": hashlib.sha256("\n".join(modules).encode()).hexdigest(),
                "mean": teacher.mean,
                "std": teacher.std,
                "input_size": teacher.input_size,
            },
            "images": self.images,
            "views": views if self.augmented else "not augmented",
            "precision": self.recipe.precision,
        }


def _label(recipe: TeacherRecipe) -> str:
    """What a teacher's file is called."""
    if recipe.checkpoint is not None:
        path = Path(recipe.checkpoint).absolute()
        label = path.parent.name if path.name == "model.pt" else path.stem
    else:
        label = recipe.timm or recipe.name or ""
    return re.sub(r"[^\w.-]", "_", label) or "teacher"

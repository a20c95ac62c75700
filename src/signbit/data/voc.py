"""Pascal VOC: one XML file of boxes an image, and lists of the images of each split.

``Annotations/<id>.xml``, ``JPEGImages/<id>.jpg`` and ``ImageSets/Main/{train,val,test}.txt``, at
the root of a folder or ``.tar`` or anywhere below it. Boxes are ``xmin, ymin, xmax, ymax`` in
pixels counted from 1, the last one included (Everingham and Winn, VOC2012 development kit).
Difficult objects are kept as ignored. Without lists, a fixed fifth of the images is the test set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

from signbit.data.boxes import SPLITS, Annotated, BoxSource, class_list, make_box_source
from signbit.data.files import DataFile, list_files
from signbit.data.folder import SUFFIXES
from signbit.errors import DataError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class _Object:
    name: str
    corners: tuple[float, float, float, float]  # as edges, counted from 0
    difficult: bool


def is_voc(files: Sequence[DataFile]) -> bool:
    """Whether files have Pascal VOC's folders."""
    return any("Annotations/" in file.name and file.name.endswith(".xml") for file in files)


def load_voc(
    path: Path,
    files: Sequence[DataFile] | None = None,
    *,
    classes: Sequence[str] | None = None,
    image_size: int | Sequence[int] | None = None,
    multiple: int = 1,
    val_size: int | None = None,
    clip_boxes: bool = False,
) -> BoxSource:
    """Read a data set of Pascal VOC's layout.

    Args:
        path: the folder or ``.tar``.
        files: what lies there, where that was listed already.
        classes: the classes in the order that they are to have; None: those of train, by name.
        image_size, multiple, val_size, clip_boxes: of :func:`signbit.data.boxes.make_box_source`,
            with its errors.

    Raises:
        DataError: a missing or broken file, a list without images, an unknown class, a box outside
            its image; names the file.
    """
    tree = _Tree(path, list_files(path) if files is None else files)
    splits = tree.splits()
    objects = {split: [tree.objects(i) for i in ids] for split, ids in splits.items()}
    names, look_up = class_list(
        (each.name for found in objects["train"] for each in found), classes, str(path)
    )
    annotated = {
        split: [
            Annotated(
                tree.image(identifier),
                str(tree.annotation(identifier)),
                np.array([each.corners for each in found], np.float64).reshape(-1, 4),
                [look_up(each.name, str(tree.annotation(identifier))) for each in found],
                [each.difficult for each in found],
            )
            for identifier, found in zip(ids, objects[split], strict=True)
        ]
        for split, ids in splits.items()
    }
    return make_box_source(
        "voc",
        annotated,
        names,
        image_size=image_size,
        multiple=multiple,
        val_size=val_size,
        clip_boxes=clip_boxes,
    )


class _Tree:
    """The files of one data set, by what they are."""

    def __init__(self, path: Path, files: Sequence[DataFile]) -> None:
        self.path = path
        roots = sorted(
            {
                file.name.rpartition("Annotations/")[0]
                for file in files
                if PurePosixPath(file.name).parent.name == "Annotations"
                and file.name.endswith(".xml")
            }
        )
        if not roots:
            raise DataError(f"{path}: no Annotations/*.xml, as Pascal VOC has them")
        if len(roots) > 1:
            raise DataError(
                f"{path}: {len(roots)} data sets, {' and '.join(roots[:2])}: give the path of one"
            )
        below = [(file.name.removeprefix(roots[0]), file) for file in files]
        self._annotations = _by_stem(below, "Annotations", (".xml",))
        self._images = _by_stem(below, "JPEGImages", SUFFIXES)
        self._lists = _by_stem(below, "ImageSets/Main", (".txt",))

    def splits(self) -> dict[str, list[str]]:
        """The images' names of each split that has a list; all are ``train`` where none has."""
        lists = {split: self._lists[split] for split in SPLITS if split in self._lists}
        if not lists:
            return {"train": sorted(self._annotations)}
        if "train" not in lists:
            raise DataError(f"{self.path}: ImageSets/Main has no train.txt")
        return {split: self._identifiers(file) for split, file in lists.items()}

    def _identifiers(self, file: DataFile) -> list[str]:
        try:
            lines = file.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: not UTF-8 text ({error})") from error
        identifiers = [line.split()[0] for line in lines if line.strip()]
        if not identifiers:
            raise DataError(f"{file}: the split is empty")
        if len(set(identifiers)) != len(identifiers):
            twice = next(i for i in identifiers if identifiers.count(i) > 1)
            raise DataError(f"{file}: {twice} stands twice")
        for identifier in identifiers:
            for kind, known in (("Annotations", self._annotations), ("JPEGImages", self._images)):
                if identifier not in known:
                    raise DataError(f"{file}: {identifier} has no file in {kind}")
        return identifiers

    def image(self, identifier: str) -> DataFile:
        if identifier not in self._images:
            raise DataError(f"{self.annotation(identifier)}: no such image in JPEGImages")
        return self._images[identifier]

    def annotation(self, identifier: str) -> DataFile:
        return self._annotations[identifier]

    def objects(self, identifier: str) -> list[_Object]:
        file = self._annotations[identifier]
        try:
            root = ElementTree.fromstring(file.read())
        except ElementTree.ParseError as error:
            raise DataError(f"{file}: not readable XML ({error})") from error
        return [
            _object(element, f"{file}: object {number}")
            for number, element in enumerate(root.findall("object"), 1)
        ]


def _by_stem(
    files: Sequence[tuple[str, DataFile]], folder: str, suffixes: tuple[str, ...]
) -> dict[str, DataFile]:
    found = {}
    for name, file in files:
        path = PurePosixPath(name)
        if str(path.parent) == folder and path.suffix.lower() in suffixes:
            found[path.stem] = file
    return found


def _object(element: ElementTree.Element, where: str) -> _Object:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError(f"{where}: no name")
    values = []
    for corner in _CORNERS:
        text = element.findtext(f"bndbox/{corner}")
        try:
            values.append(float(text or ""))
        except ValueError as error:
            raise DataError(f"{where} ({name}): bndbox/{corner} is {text!r}") from error
    left, top, right, bottom = values
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return _Object(name, (left - 1, top - 1, right, bottom), difficult)

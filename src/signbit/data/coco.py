"""COCO: one JSON file of boxes a split ("instances"), and folders of images.

The JSON files may be called ``annotations/instances_train2017.json`` (with any year or none),
``annotations/train.json``, ``train.json`` or ``train/_annotations.coco.json``; ``valid`` is read as
``val``. Images lie where ``file_name`` says, below the root, the JSON's folder, ``images``, or a
folder of the split's name in one of these. Boxes are ``x, y, width, height`` in pixels from 0
(https://cocodataset.org/#format-data). Crowds (``iscrowd``) are kept as ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from signbit.data.boxes import Annotated, BoxSource, class_list, make_box_source
from signbit.data.files import DataFile, list_files
from signbit.errors import DataError

_NAME = re.compile(
    r"(?:.*/)?(?:annotations/)?(?:instances_)?(?P<split>train|val|valid|test)(?P<year>\d{4})?\.json"
    r"|(?:.*/)?(?P<folder>train|val|valid|test)/_annotations\.coco\.json"
)


def is_coco(files: Sequence[DataFile]) -> bool:
    """Whether files have the names of COCO's instances."""
    return bool(_split_files(files))


def load_coco(
    path: Path,
    files: Sequence[DataFile] | None = None,
    *,
    classes: Sequence[str] | None = None,
    image_size: int | Sequence[int] | None = None,
    multiple: int = 1,
    val_size: int | None = None,
    clip_boxes: bool = False,
) -> BoxSource:
    """Read a data set of COCO's layout.

    Args:
        path: the folder or ``.tar``.
        files: what lies there, where that was listed already.
        classes: the classes in the order that they are to have; None: the categories of train, by
            name.
        image_size, multiple, val_size, clip_boxes: of :func:`signbit.data.boxes.make_box_source`,
            with its errors.

    Raises:
        DataError: a missing or broken file, an unknown class, a box outside its image; names the
            file.
    """
    files = list_files(path) if files is None else files
    found = _split_files(files)
    if "train" not in found:
        raise DataError(f"{path}: no annotations/instances_train*.json or train.json, as COCO has")
    trees = {split: _read(file) for split, file in found.items()}
    names, look_up = class_list(
        (str(each["name"]) for each in trees["train"]["categories"]), classes, str(path)
    )
    by_name = {file.name: file for file in files}
    splits = {
        split: _annotated(tree, found[split], split, by_name, look_up)
        for split, tree in trees.items()
    }
    return make_box_source(
        "coco",
        splits,
        names,
        image_size=image_size,
        multiple=multiple,
        val_size=val_size,
        clip_boxes=clip_boxes,
    )


def _split_files(files: Sequence[DataFile]) -> dict[str, DataFile]:
    found: dict[str, DataFile] = {}
    for file in files:
        match = _NAME.fullmatch(file.name)
        if match is None:
            continue
        split = (match["split"] or match["folder"]).replace("valid", "val")
        if split in found:
            raise DataError(f"{file}: a second list of {split}, beside {found[split]}")
        found[split] = file
    return found


def _read(file: DataFile) -> dict[str, list[dict[str, Any]]]:
    """The three lists of a JSON file, every entry with the fields that are used."""
    try:
        tree = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not readable JSON ({error})") from error
    needed = {
        "images": ("id", "file_name"),
        "annotations": ("image_id", "category_id", "bbox"),
        "categories": ("id", "name"),
    }
    for key, fields in needed.items():
        entries = tree.get(key) if isinstance(tree, dict) else None
        if not isinstance(entries, list):
            raise DataError(f"{file}: no list {key!r}, as COCO's instances have")
        for number, entry in enumerate(entries):
            for field in fields:
                if not isinstance(entry, dict) or field not in entry:
                    raise DataError(f"{file}: {key}[{number}] has no {field!r}")
        if key != "annotations" and len({entry["id"] for entry in entries}) != len(entries):
            raise DataError(f"{file}: two {key} have one id")
    if not tree["images"]:
        raise DataError(f"{file}: the split is empty")
    return tree


def _annotated(
    tree: dict[str, list[dict[str, Any]]],
    file: DataFile,
    split: str,
    by_name: Mapping[str, DataFile],
    look_up: Any,
) -> list[Annotated]:
    categories = {each["id"]: str(each["name"]) for each in tree["categories"]}
    objects: dict[Any, list[tuple[list[float], int, bool]]] = {e["id"]: [] for e in tree["images"]}
    for number, each in enumerate(tree["annotations"]):
        where = f"{file}: annotations[{number}]"
        if each["image_id"] not in objects:
            raise DataError(f"{where}: image_id {each['image_id']!r} is no image's")
        if each["category_id"] not in categories:
            raise DataError(f"{where}: unknown class: category_id {each['category_id']!r}")
        label = look_up(categories[each["category_id"]], where)
        corners = _corners(each["bbox"], where)
        objects[each["image_id"]].append((corners, label, bool(each.get("iscrowd"))))
    folders = _image_folders(file, split)
    return [
        Annotated(
            _image(entry["file_name"], folders, by_name, file),
            f"{file}: {entry['file_name']}",
            np.array([box for box, _, _ in objects[entry["id"]]], np.float64).reshape(-1, 4),
            [label for _, label, _ in objects[entry["id"]]],
            [crowd for _, _, crowd in objects[entry["id"]]],
        )
        for entry in tree["images"]
    ]


def _corners(box: Any, where: str) -> list[float]:
    numbers = isinstance(box, list) and len(box) == 4
    if not numbers or not all(type(value) in (int, float) for value in box):
        raise DataError(f"{where}: bbox is {box!r}, not x, y, width and height")
    x, y, width, height = box
    return [x, y, x + width, y + height]


def _image_folders(file: DataFile, split: str) -> list[str]:
    """Where images may lie, as prefixes."""
    path = PurePosixPath(file.name)
    here = path.parent
    root = here.parent if here.name == "annotations" else here
    own = path.stem.removeprefix("instances_")  # "train2017"
    names = dict.fromkeys(["", "images", own, split, "valid" if split == "val" else split])
    places = dict.fromkeys([here, root, root / "images", PurePosixPath(".")])
    return [
        "" if str(place / name) == "." else f"{place / name}/" for place in places for name in names
    ]


def _image(
    file_name: Any, folders: list[str], by_name: Mapping[str, DataFile], file: DataFile
) -> DataFile:
    for folder in folders:
        if (found := by_name.get(f"{folder}{file_name}")) is not None:
            return found
    raise DataError(f"{file}: its image {file_name} lies nowhere below the data set's folder")

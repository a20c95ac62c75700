"""Small detection data sets on disk, in both formats, for tests."""

import json
import tarfile

import numpy as np
from PIL import Image

# image -> (height, width) and boxes: (class, left, top, right, bottom) as edges from 0
PICTURES = {
    "a": ((64, 96), [("cat", 0, 0, 40, 32), ("dog", 50, 10, 96, 64)]),
    "b": ((64, 96), [("dog", 4, 8, 36, 48)]),
    "c": ((48, 64), []),
    "d": ((64, 96), [("cat", 10, 10, 60, 50), ("cat", 60, 20, 90, 60)]),
    "e": ((96, 64), [("cat", 1, 2, 33, 44)]),
}
TRAIN, VAL = ("a", "b", "c", "d"), ("e",)


def picture(name):
    size, boxes = PICTURES[name]
    image = np.random.default_rng(ord(name)).integers(0, 90, (*size, 3), np.uint8)
    for _, left, top, right, bottom in boxes:
        image[top:bottom, left:right] += 120
    return Image.fromarray(image)


def write_voc(root, pictures=None, lists=None):
    """Pascal VOC's layout below ``root``; ``lists`` has the names of each split."""
    pictures = PICTURES if pictures is None else pictures
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, (size, boxes) in pictures.items():
        picture(name).save(root / "JPEGImages" / f"{name}.png")
        objects = "".join(
            f"<object><name>{label}</name><difficult>{int(label == 'dog')}</difficult><bndbox>"
            f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax>"
            f"<ymax>{bottom}</ymax></bndbox></object>"
            for label, left, top, right, bottom in boxes
        )
        text = f"<annotation><size><width>{size[1]}</width></size>{objects}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(text)
    for split, names in ({"train": TRAIN, "val": VAL} if lists is None else lists).items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


def coco_tree(names):
    """A tree of COCO's instances with these pictures; dogs are crowds."""
    images = [
        {"id": 10 + i, "file_name": f"{name}.png", "width": 1, "height": 1}
        for i, name in enumerate(names)
    ]
    annotations = [
        {
            "image_id": 10 + i,
            "category_id": {"cat": 7, "dog": 3}[label],
            "bbox": [left, top, right - left, bottom - top],
            "iscrowd": int(label == "dog"),
        }
        for i, name in enumerate(names)
        for label, left, top, right, bottom in PICTURES[name][1]
    ]
    categories = [{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(root, layout="official", change=None):
    """COCO's layout below ``root``; ``change(split, tree)`` may alter the trees."""
    for split, names in (("train", TRAIN), ("val", VAL)):
        folder, file = {
            "official": (f"{split}2017", f"annotations/instances_{split}2017.json"),
            "flat": ("images", f"{split}.json"),
            "exported": ("valid" if split == "val" else split, "{}/_annotations.coco.json"),
        }[layout]
        file = root / file.format(folder)
        (root / folder).mkdir(parents=True, exist_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        for name in names:
            picture(name).save(root / folder / f"{name}.png")
        tree = coco_tree(names)
        if change is not None:
            change(split, tree)
        file.write_text(json.dumps(tree))
    return root


def pack(folder, path):
    """A .tar of a folder's contents, below the folder ``set``."""
    with tarfile.open(path, "w") as file:
        file.add(folder, arcname="set")
    return path

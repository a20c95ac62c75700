"""Object detection with CenterNet: losses, average precision, decoding.

Scores are COCO's (https://cocodataset.org/#detection-eval): ``map50`` is the average precision at
an overlap of 0.5, averaged over classes, as Pascal VOC asks for; ``map`` is its mean over overlaps
0.5, 0.55 ... 0.95. Detections are matched by pycocotools, image by image; what is summed up later
are these matches.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from signbit.data.base import channel_statistics
from signbit.data.box_examples import BoxExamples
from signbit.data.boxes import BoxDataset, BoxSource
from signbit.errors import DataError
from signbit.runtime.detection import LIMIT, Boxes, find_boxes
from signbit.tasks.base import Outputs, Targets, Task

STRIDE = 4  # of the network's outputs
MULTIPLE = 32  # pixels a pixel of the network's coarsest map stands for
SIZE_WEIGHT, OFFSET_WEIGHT = 0.1, 1.0  # of the losses, beside the heatmap's; arXiv 1904.07850
OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
_READERS = ("voc", "coco")
_OPTIONS = ("classes", "clip_boxes")


@dataclass(frozen=True)
class Matches:
    """What average precision needs of an image: its detections, and how many objects it has.

    Attributes:
        scores: float64 [D], of the detections.
        labels: int64 [D], their classes.
        right: bool [D, 10], whether a detection was matched to an object, at each overlap.
        ignored: bool [D, 10], whether it counts neither way.
        objects: int64 [C], objects of each class that count.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    objects: NDArray[np.int64]


class Detection(Task):
    """Images and the boxes in them; a record has the matches of an image."""

    name = "detection"
    metric = "map50"
    units: ClassVar = {"map50": "{:.2%}", "map": "{:.2%}"}
    sources = ("auto", "digit_scenes", *_READERS)
    data_fields = frozenset(
        {
            "image_size",
            "crop_size",
            "options",
            "augment.flip",
            "augment.rotate",
            "augment.zoom",
            "augment.brightness",
            "augment.contrast",
        }
    )

    def load(self, data: Mapping[str, Any], path: Path | None) -> BoxSource:
        options = _options(data)
        name, size = data["name"], data["image_size"]
        path = None if path is None else _unwrapped(path)
        if name == "auto":
            name = "digit_scenes" if path is None else _detect(path)
        if name not in self.sources:
            hint = _nearest(name, self.sources)
            raise DataError(
                f"unknown data source {name!r}{hint}; detection reads {', '.join(self.sources)}"
            )
        if name == "digit_scenes":
            if path is not None:
                raise DataError(f"digit_scenes is embedded and takes no path, got {path}")
            if options:
                raise DataError(f"data.options.{next(iter(options))}: digit_scenes has no options")
            return _digit_scenes(size, data["val_size"])
        if path is None:
            raise DataError(f"{name} is not embedded: say where it lies (--data PATH)")
        return _reader(name)(
            path,
            classes=options.get("classes"),
            clip_boxes=options.get("clip_boxes", False),
            image_size=size,
            multiple=MULTIPLE,
            val_size=data["val_size"],
        )

    def examples(
        self, source: BoxSource, split: str, data: Mapping[str, Any], training: bool
    ) -> BoxExamples:
        plain = BoxExamples(source.split(split), len(source.class_names), STRIDE)
        if not training:
            return plain
        augment = data["augment"]
        return BoxExamples(
            plain.dataset,
            plain.num_classes,
            STRIDE,
            crop=_crop_size(data["crop_size"]),
            flip=augment["flip"],
            rotate=augment["rotate"],
            zoom=augment["zoom"],
            brightness=augment["brightness"],
            contrast=augment["contrast"],
        )

    def loss(self, outputs: tuple[Tensor, ...], targets: Mapping[str, Tensor]) -> Tensor:
        """Focal loss of the heatmap, and L1 losses of size and offset, each an object."""
        heat, size, offset = outputs
        objects = targets["centre"].sum().clamp_min(1)
        loss = focal_loss(heat, targets["heatmap"])
        for found, name, weight in (
            (size, "size", SIZE_WEIGHT),
            (offset, "offset", OFFSET_WEIGHT),
        ):
            error = (found.float() - targets[name]).abs() * targets["centre"]
            loss = loss + weight * error.sum() / objects
        return loss

    def records(self, outputs: Outputs, targets: Targets) -> list[Matches]:
        classes = outputs[0].shape[1]
        return [
            match_boxes(found, boxes, labels, ignored, classes)
            for found, boxes, labels, ignored in zip(
                find_boxes(outputs, STRIDE),
                targets["boxes"],
                targets["labels"],
                targets["ignored"],
                strict=True,
            )
        ]

    def summarize(self, records: Sequence[Matches]) -> dict[str, float]:
        precision = average_precision(records)
        counted = precision[:, ~np.isnan(precision[0])]
        if not counted.shape[1]:
            return {"map50": 0.0, "map": 0.0}
        return {"map50": float(counted[0].mean()), "map": float(counted.mean())}

    def facts(self, source: BoxSource, data: Mapping[str, Any]) -> dict[str, Any]:
        size = data["image_size"]
        if isinstance(size, int):
            size = [size, size]
        return {
            "stride": STRIDE,
            "multiple": MULTIPLE,
            "image_size": None if size is None else list(size),
        }


def focal_loss(logits: Tensor, heatmap: Tensor) -> Tensor:
    """CenterNet's loss of heatmaps, [N, C, H, W] both: a scalar, a sum divided by the objects.

    With p = sigmoid(logits): ``(1 - p)^2 log p`` where ``heatmap`` is 1, else ``(1 - heatmap)^4 p^2
    log(1 - p)``, negated (arXiv 1904.07850, equation 1).
    """
    logits = logits.float()
    p = torch.sigmoid(logits)
    centres = (heatmap == 1).float()
    right = centres * (1 - p).square() * F.logsigmoid(logits)
    wrong = (1 - heatmap).pow(4) * p.square() * F.logsigmoid(-logits)
    return -(right + wrong).sum() / centres.sum().clamp_min(1)


def match_boxes(
    found: Boxes,
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    ignored: NDArray[np.bool_],
    classes: int,
) -> Matches:
    """Match an image's detections to its objects, each class apart, by pycocotools.

    Args:
        found: the detections, at most 100.
        boxes, labels, ignored: the objects: float32 [K, 4], int64 [K] and bool [K]; what lies
            mostly within an ignored one counts neither way (COCO's crowds).
        classes: how many there are.
    """
    from pycocotools.cocoeval import COCOeval

    evaluator = COCOeval(iouType="bbox")
    everything = (0, 1e10)  # of areas
    parts = []
    for label in np.unique(np.concatenate([labels, found.labels])):
        key = (0, int(label))
        evaluator._gts[key] = [
            {"id": 1 + i, "bbox": _xywh(boxes[i]), "area": 1, "iscrowd": crowd, "ignore": crowd}
            for i, crowd in ((i, int(ignored[i])) for i in np.flatnonzero(labels == label))
        ]
        evaluator._dts[key] = [
            {"id": 1 + i, "bbox": _xywh(found.boxes[i]), "area": 1, "score": float(found.scores[i])}
            for i in np.flatnonzero(found.labels == label)
        ]
        evaluator.ious[key] = evaluator.computeIoU(*key)
        result = evaluator.evaluateImg(*key, everything, LIMIT)
        count = len(result["dtScores"])
        parts.append(
            (
                np.array(result["dtScores"], np.float64),
                np.full(count, label, np.int64),
                result["dtMatches"].T > 0,
                result["dtIgnore"].T > 0,
            )
        )
    shapes = ((0,), (0,), (0, len(OVERLAPS)), (0, len(OVERLAPS)))
    kinds = (np.float64, np.int64, bool, bool)
    columns = [
        np.concatenate([part[i].astype(kind) for part in parts]) if parts else np.empty(shape, kind)
        for i, (shape, kind) in enumerate(zip(shapes, kinds, strict=True))
    ]
    return Matches(*columns, objects=np.bincount(labels[~ignored], minlength=classes))


def _xywh(box: NDArray[np.float32]) -> list[float]:
    left, top, right, bottom = (float(value) for value in box)
    return [left, top, right - left, bottom - top]


def average_precision(records: Sequence[Matches]) -> NDArray[np.float64]:
    """Average precision at each overlap and of each class, as COCO's ``accumulate`` has it.

    Precision, made to fall with recall, is averaged over 101 recalls.

    Returns:
        float64 [10, C], NaN for classes without objects.
    """
    objects = np.sum([each.objects for each in records], 0)
    scores, labels, right, ignored = (
        np.concatenate([getattr(each, name) for each in records])
        for name in ("scores", "labels", "right", "ignored")
    )
    order = np.lexsort((-scores, labels))  # stable: of equal scores the earlier image comes first
    right, wrong = right & ~ignored, ~right & ~ignored
    bounds = np.searchsorted(labels[order], np.arange(len(objects) + 1))
    result = np.full((len(OVERLAPS), len(objects)), np.nan)
    for label in np.flatnonzero(objects):
        chosen = order[bounds[label] : bounds[label + 1]]
        hits, misses = (np.cumsum(each[chosen].T, 1) for each in (right, wrong))
        recall = hits / objects[label]
        precision = hits / (hits + misses + np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        envelope = np.concatenate(
            [envelope, np.zeros((len(OVERLAPS), 1))], 1
        )  # recalls not reached
        places = np.stack([np.searchsorted(reached, RECALLS, side="left") for reached in recall])
        result[:, label] = np.take_along_axis(envelope, places, 1).mean(1)
    return result


def _options(data: Mapping[str, Any]) -> Mapping[str, Any]:
    options = data["options"]
    for key, value in options.items():
        if key not in _OPTIONS:
            hint = _nearest(key, _OPTIONS)
            raise DataError(f"data.options.{key}: unknown{hint}; known: {', '.join(_OPTIONS)}")
        if key == "clip_boxes" and not isinstance(value, bool):
            raise DataError(f"data.options.clip_boxes is true or false, not {value!r}")
        if key == "classes" and not (value and isinstance(value, list)):
            raise DataError(f"data.options.classes is a list of names, not {value!r}")
    return options


def _nearest(word: Any, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(word), known, 1, 0.4)
    return f"; did you mean {close[0]!r}?" if close else ""


def _unwrapped(path: Path) -> Path:
    """The only ``.tar`` in a folder without sub-folders; any other path as it is."""
    if not path.is_dir() or any(each.is_dir() for each in path.iterdir()):
        return path
    archives = sorted(path.glob("*.tar"))
    return archives[0] if len(archives) == 1 else path


def _detect(path: Path) -> str:
    """The format of the data at a path, told by the files' names."""
    from signbit.data.coco import is_coco
    from signbit.data.files import list_files
    from signbit.data.voc import is_voc

    files = list_files(path)
    if is_voc(files):
        return "voc"
    if is_coco(files):
        return "coco"
    raise DataError(
        f"{path}: neither Pascal VOC (Annotations/*.xml, JPEGImages) nor COCO "
        "(annotations/instances_train*.json)"
    )


def _reader(name: str) -> Any:
    if name == "voc":
        from signbit.data.voc import load_voc

        return load_voc
    from signbit.data.coco import load_coco

    return load_coco


def _digit_scenes(size: int | Sequence[int] | None, val_size: int | None) -> BoxSource:
    from signbit.data.digit_scenes import CLASS_NAMES, digit_scenes

    sizes = {} if size is None else {"size": _pair(size)}
    height, width = sizes.get("size", (MULTIPLE, MULTIPLE))
    if height % MULTIPLE or width % MULTIPLE:
        raise DataError(
            f"data.image_size: digit_scenes are made in sizes that are multiples of {MULTIPLE}, "
            f"not {height}x{width}"
        )
    scenes = digit_scenes(**sizes, **({} if val_size is None else {"val": val_size}))
    parts = {
        split: BoxDataset(
            part.images,
            part.boxes,
            part.labels,
            tuple(np.zeros(len(boxes), bool) for boxes in part.boxes),
            tuple(f"digit_scenes: {split} {index}" for index in range(len(part))),
            np.ones((len(part), 2), np.float32),
        )
        for split, part in scenes.items()
    }
    mean, std = channel_statistics(parts["train"].images)
    return BoxSource("digit_scenes", **parts, class_names=CLASS_NAMES, mean=mean, std=std)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _crop_size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = _pair(size)
    if pair[0] % MULTIPLE or pair[1] % MULTIPLE:
        raise DataError(f"data.crop_size: sides are multiples of {MULTIPLE}, not {list(pair)}")
    return pair

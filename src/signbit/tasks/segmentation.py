"""Semantic segmentation: a class for every pixel, scored by the mean intersection over union."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from signbit.data.base import Source
from signbit.data.digit_scenes import MASK_NAMES, digit_scenes
from signbit.data.masks import (
    MAX_CLASSES,
    VOID,
    MaskedImages,
    MaskedSource,
    cut_splits,
    load_masks,
)
from signbit.errors import DataError, RecipeError
from signbit.runtime.segmentation import mask_of_scores
from signbit.tasks.base import Outputs, Targets, Task

STRIDE = 32  # pixels of the image a pixel of the networks' coarsest map
# Training masks have half the pixels of the images a side: the loss costs a quarter, and the scores
# are coarser still.
_MASK_STEP = 2
_OPTIONS = {"void": None, "balance": 0.0}


@dataclass(frozen=True)
class _Crop:
    """How training images are cut out and changed.

    Attributes:
        size: (height, width) of the crops in pixels.
        zoom: least and greatest factor that things grow by.
        flip: mirror half of them.
        brightness: greatest shift, a share of white.
        contrast: greatest change of the differences from the mean, a share.
    """

    size: tuple[int, int]
    zoom: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0


class _Examples:
    """Images with their masks: as they are, or random crops of them."""

    def __init__(
        self,
        part: MaskedImages,
        crop: _Crop | None = None,
        length: int | None = None,
        weights: NDArray[np.float32] | None = None,
    ) -> None:
        self.part = part
        self.crop = crop
        self.length = length or len(part)
        self.extra = {} if weights is None else {"weights": weights}

    def __len__(self) -> int:
        return self.length

    def example(
        self, index: int, generator: np.random.Generator | None
    ) -> tuple[NDArray[np.uint8], dict[str, NDArray[Any]]]:
        index %= len(self.part)
        image, mask = self.part.images[index], self.part.masks[index]
        if generator is not None and self.crop is not None:
            image, mask = _cut(image, mask, self.crop, generator)
        return image[None], {"mask": mask, **self.extra}


def _cut(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    crop: _Crop,
    generator: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A crop of an image, [h, w, C], and of its mask, [h / 2, w / 2]."""
    height, width = image.shape[:2]
    zoom = np.exp(generator.uniform(*np.log(crop.zoom)))
    box_height, box_width = min(height, crop.size[0] / zoom), min(width, crop.size[1] / zoom)
    top = generator.uniform(0, height - box_height)
    left = generator.uniform(0, width - box_width)
    if crop.zoom == (1.0, 1.0):
        top, left = np.floor(top), np.floor(left)  # nothing is resampled
    box = (left, top, left + box_width, top + box_height)
    size = (crop.size[1], crop.size[0])
    plain = image[..., 0] if image.shape[2] == 1 else image
    pixels = np.asarray(Image.fromarray(plain).resize(size, Image.Resampling.BILINEAR, box))
    pixels = pixels.reshape(*crop.size, image.shape[2])
    rows, columns = (
        (first + (np.arange(count // _MASK_STEP) + 0.5) * length / (count // _MASK_STEP))
        * (len_mask / len_image)
        for first, length, count, len_mask, len_image in (
            (top, box_height, crop.size[0], mask.shape[0], height),
            (left, box_width, crop.size[1], mask.shape[1], width),
        )
    )
    mask = mask[rows.astype(np.int64)[:, None], columns.astype(np.int64)]
    if crop.flip and generator.random() < 0.5:
        pixels, mask = pixels[:, ::-1], mask[:, ::-1]
    if crop.brightness or crop.contrast:
        gain = 1 + generator.uniform(-crop.contrast, crop.contrast)
        shift = 255 * generator.uniform(-crop.brightness, crop.brightness)
        mean = pixels.mean()
        table = (np.arange(256) - mean) * gain + mean + shift
        pixels = np.clip(np.rint(table), 0, 255).astype(np.uint8)[pixels]
    return pixels, np.ascontiguousarray(mask)


class Segmentation(Task):
    """Classes of pixels. Scores are confusion matrices of images, summed: ``records`` are these.

    Options of ``data``: ``void``, the index of pixels that are neither learnt nor scored, and
    ``balance``: the loss weighs a class by its share of the training pixels to the power of
    -balance, so that 0 counts pixels and 1 classes alike.
    """

    name = "segmentation"
    metric = "miou"
    units: ClassVar = {"miou": "{:.2%}", "pixel_accuracy": "{:.2%}"}
    sources = ("auto", "digit_scenes", "masks")
    data_fields = frozenset(
        {
            "image_size",
            "crop_size",
            "epoch_images",
            "augment.flip",
            "augment.zoom",
            "augment.brightness",
            "augment.contrast",
            "options",
        }
    )

    def load(self, data: Mapping[str, Any], path: Path | None) -> MaskedSource:
        """Read images and masks, or compose digit scenes.

        Raises:
            DataError: a missing or broken file, which it names.
            RecipeError: options, sizes or zooms that cannot be.
        """
        options = _check_options(data)
        name, size = data["name"], _pair(data["image_size"])
        if size is not None and min(size) < STRIDE:
            raise RecipeError(
                f"data.image_size: {size[0]}x{size[1]} pixels are too few, a side has at least "
                f"{STRIDE}"
            )
        if name == "auto":
            name = "digit_scenes" if path is None else "masks"
        if name == "digit_scenes":
            if path is not None:
                raise DataError(f"digit_scenes is embedded and takes no path, got {path}")
            source = self._scenes(size, data["val_size"])
        elif path is None:
            raise DataError(f"{name} is not embedded: say where it lies (--data PATH)")
        else:
            source = load_masks(
                path,
                image_size=size,
                val_size=data["val_size"],
                void=options["void"],
                least=STRIDE,
            )
        _crop(source, data)  # before any work is lost
        return source

    def _scenes(self, size: tuple[int, int] | None, val_size: int | None) -> MaskedSource:
        made = digit_scenes(**({} if size is None else {"size": size}))
        splits = {
            name: MaskedImages(scenes.images, tuple(scenes.masks)) for name, scenes in made.items()
        }
        return cut_splits("digit_scenes", None, splits, MASK_NAMES, val_size)

    def examples(
        self, source: Source, split: str, data: Mapping[str, Any], training: bool
    ) -> _Examples:
        """Images with ``mask``, uint8 [h, w]; in training crops, with masks of half their sides."""
        part = source.split(split)
        balance = _check_options(data)["balance"]
        weights = _class_weights(source, balance) if balance else None
        if not training:
            return _Examples(part, weights=weights)
        return _Examples(part, _crop(source, data), data["epoch_images"], weights)

    def loss(self, outputs: tuple[Tensor, ...], targets: Mapping[str, Tensor]) -> Tensor:
        """Mean cross-entropy in nats of scores [N, C, h, w], enlarged to the masks [N, H, W]."""
        mask = targets["mask"].long()
        scores = nn.functional.interpolate(outputs[0], size=mask.shape[1:], mode="bilinear")
        weights = targets["weights"][0] if "weights" in targets else None
        total = nn.functional.cross_entropy(
            scores, mask, weights, ignore_index=VOID, reduction="sum"
        )
        counted = mask != VOID
        if weights is None:
            return total / counted.sum().clamp_min(1)
        return total / (weights[mask.clamp_max(len(weights) - 1)] * counted).sum().clamp_min(1e-6)

    def records(self, outputs: Outputs, targets: Targets) -> list[NDArray[np.int64]]:
        """Of each image, [C, C]: how many pixels of the row's class got the column's."""
        return [
            confusion(mask, mask_of_scores(scores, mask.shape), len(scores))
            for scores, mask in zip(outputs[0], targets["mask"], strict=True)
        ]

    def summarize(self, records: Sequence[NDArray[np.int64]]) -> dict[str, float]:
        """``miou`` over the classes that some mask has, and ``pixel_accuracy``."""
        return scores_of(np.sum(records, axis=0))

    def facts(self, source: Source, data: Mapping[str, Any]) -> dict[str, Any]:
        """What :func:`signbit.runtime.segment` reads."""
        size = _pair(data["image_size"])
        return {"image_size": None if size is None else list(size), "stride": STRIDE}


def confusion(
    truth: NDArray[np.uint8], found: NDArray[np.uint8], classes: int
) -> NDArray[np.int64]:
    """Pixels by class in truth (rows) and as found (columns), [C, C]; those of no class left out.

    Args:
        truth: uint8 [H, W], class indices or :data:`signbit.data.masks.VOID`.
        found: uint8 [H, W], class indices.
        classes: C.
    """
    pairs = truth.astype(np.int64) * classes + found
    return np.bincount(pairs[truth != VOID], minlength=classes**2).reshape(classes, classes)


def scores_of(matrix: NDArray[np.int64]) -> dict[str, float]:
    """Mean intersection over union, and share of right pixels, of a confusion matrix [C, C].

    The mean is over the classes that occur in the truth. NaN where no pixel has a class.
    """
    right, truth = np.diag(matrix), matrix.sum(1)
    union = truth + matrix.sum(0) - right
    occur = truth > 0
    if not occur.any():
        return {"miou": float("nan"), "pixel_accuracy": float("nan")}
    return {
        "miou": float((right[occur] / union[occur]).mean()),
        "pixel_accuracy": float(right.sum() / truth.sum()),
    }


def _class_weights(source: MaskedSource, balance: float) -> NDArray[np.float32]:
    """A weight a class; over the training pixels their mean is 1."""
    counts = np.zeros(VOID + 1)
    for mask in source.train.masks:
        counts += np.bincount(mask.ravel(), minlength=VOID + 1)
    share = counts[: len(source.class_names)] / counts[:VOID].sum()
    weights = np.where(share > 0, np.maximum(share, 1e-4), 1.0) ** -balance
    return (weights / (weights * share).sum()).astype(np.float32)


def _pair(size: Any) -> tuple[int, int] | None:
    """(height, width) of a size in a recipe."""
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _check_options(data: Mapping[str, Any]) -> dict[str, Any]:
    options = {**_OPTIONS, **data["options"]}
    for key in options:
        if key not in _OPTIONS:
            near = difflib.get_close_matches(key, _OPTIONS, 1, 0.4)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RecipeError(
                f"data.options.{key}: unknown{hint} segmentation knows {', '.join(_OPTIONS)}"
            )
    void, balance = options["void"], options["balance"]
    if void is not None and (type(void) is not int or not 0 <= void <= MAX_CLASSES):
        raise RecipeError(f"data.options.void: a class index from 0 to 255, got {void!r}")
    if type(balance) not in (int, float) or not 0 <= balance <= 1:
        raise RecipeError(f"data.options.balance: a number from 0 to 1, got {balance!r}")
    return options


def _crop(source: MaskedSource, data: Mapping[str, Any]) -> _Crop:
    """How training images are cut.

    Raises:
        RecipeError: crops that the images are too small for, or too small for the network.
    """
    _, height, width = source.input_shape
    size = _pair(data["crop_size"]) or (height, width)
    augment = data["augment"]
    zoom = tuple(augment["zoom"] or (1.0, 1.0))
    if size[0] > height or size[1] > width or min(size) < STRIDE:
        raise RecipeError(
            f"data.crop_size: {size[0]}x{size[1]} pixels of images of {height}x{width}; each side "
            f"is at least {STRIDE} and at most the image's"
        )
    least = max(size[0] / height, size[1] / width)
    if zoom[0] < least:
        raise RecipeError(
            f"data.augment.zoom: from {zoom[0]:g} on, crops of {size[0]}x{size[1]} would show more "
            f"than the images of {height}x{width}: at least {least:.3g}, or a smaller crop_size"
        )
    count = data["epoch_images"]
    if count is not None and count < len(source.train):
        raise RecipeError(
            f"data.epoch_images: {count}, fewer than the {len(source.train)} training images; an "
            "epoch shows each at least once"
        )
    return _Crop(size, zoom, augment["flip"], augment["brightness"], augment["contrast"])

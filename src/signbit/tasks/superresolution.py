"""Single-image super-resolution: L1 loss, PSNR and SSIM of the luma."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from signbit.data.base import Source
from signbit.data.superresolution import MEAN, STD, ScaledImages, ScaledSource, load_scaled
from signbit.errors import DataError, RecipeError
from signbit.runtime.superresolution import output_pixels
from signbit.tasks.base import Outputs, Targets, Task

CROP = 32  # pixels a side of what training cuts out of a small image, unless the recipe says
# BT.601: Y of R, G, B in [0, 255], which is in [16, 235]
_LUMA = np.array([65.481, 128.553, 24.966]) / 255
_MAX_PSNR = 100.0  # dB, of equal images


class SuperResolution(Task):
    """Photographs made larger; records are pairs (PSNR in dB, SSIM) of one image's luma.

    As the field reports them: of 8-bit images, on BT.601 luma, without a border of ``scale``
    pixels; a data set's score is the mean over its images.
    """

    name = "superresolution"
    metric = "psnr_y"
    units: ClassVar = {"psnr_y": "{:.2f} dB", "ssim_y": "{:.4f}"}
    sources = ("auto", "skimage", "benchmark", "folder")
    data_fields = frozenset(
        {"scale", "crop_size", "epoch_images", "augment.flip", "augment.rotate"}
    )

    def load(self, data: Mapping[str, Any], path: Path | None) -> ScaledSource:
        crop = max(_crop_size(data))
        return load_scaled(
            data["name"], path, scale=data["scale"], val_size=data["val_size"], crop=crop
        )

    def model_arguments(self, source: Source, data: Mapping[str, Any]) -> dict[str, Any]:
        return {"scale": data["scale"], "in_channels": source.channels}

    def examples(
        self, source: Source, split: str, data: Mapping[str, Any], training: bool
    ) -> Crops | Whole:
        if not training:
            return Whole(source.split(split))
        augment = data["augment"]
        return Crops(
            source.split(split),
            _crop_size(data),
            count=data["epoch_images"],
            flip=augment["flip"],
            rotate=augment["rotate"],
        )

    def loss(self, outputs: tuple[Tensor, ...], targets: Mapping[str, Tensor]) -> Tensor:
        """Mean absolute difference of normalised pixels."""
        high = targets["high"].permute(0, 3, 1, 2).to(outputs[0].dtype)
        _require_scale(tuple(outputs[0].shape[2:]), tuple(high.shape[2:]))
        return nn.functional.l1_loss(outputs[0], (high / 255 - MEAN) / STD)

    def records(self, outputs: Outputs, targets: Targets) -> list[tuple[float, float]]:
        mean, std = np.full(3, MEAN, np.float32), np.full(3, STD, np.float32)
        found = []
        for output, high, scale in zip(outputs[0], targets["high"], targets["scale"], strict=True):
            _require_scale(output.shape[1:], high.shape[:2])
            image = output_pixels(output, mean, std)
            border = int(scale)
            found.append((psnr_y(image, high, border), ssim_y(image, high, border)))
        return found

    def summarize(self, records: Sequence[tuple[float, float]]) -> dict[str, float]:
        psnr, ssim = np.mean(np.asarray(records, np.float64), 0)
        return {"psnr_y": float(psnr), "ssim_y": float(ssim)}

    def facts(self, source: Source, data: Mapping[str, Any]) -> dict[str, Any]:
        return {"scale": data["scale"], "mean": list(source.mean), "std": list(source.std)}


class Whole:
    """Whole images, for scores: one low image, the high one and the scale."""

    def __init__(self, pairs: ScaledImages) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def example(
        self, index: int, generator: np.random.Generator | None
    ) -> tuple[NDArray[np.uint8], dict[str, NDArray[Any]]]:
        low, high = self.pairs.low[index], self.pairs.high[index]
        scale = np.array(high.shape[0] // low.shape[0], np.int64)
        return low[None], {"high": high, "scale": scale}


class Crops:
    """Random crops of the same place of both images of a pair, turned and mirrored alike.

    Args:
        pairs: where they are cut.
        size: (height, width) in pixels of the small image.
        count: crops an epoch, of images drawn by their area; None: one of every image.
        flip: mirror one half of them left and right.
        rotate: turn them by quarters.

    Raises:
        RecipeError: a turn would change the shape of a crop.
    """

    def __init__(
        self,
        pairs: ScaledImages,
        size: tuple[int, int],
        *,
        count: int | None = None,
        flip: bool = False,
        rotate: bool = False,
    ) -> None:
        if rotate and size[0] != size[1]:
            raise RecipeError(
                f"data.augment.rotate: quarter turns need square crops, crop_size is {size}"
            )
        self.pairs = pairs
        self.size = size
        self.count = count
        self.flip = flip
        self.rotate = rotate
        places = [(low.shape[0] - size[0] + 1) * (low.shape[1] - size[1] + 1) for low in pairs.low]
        self._ends = np.cumsum(places)  # of the crops that each image has, counted through

    def __len__(self) -> int:
        return len(self.pairs) if self.count is None else self.count

    def example(
        self, index: int, generator: np.random.Generator | None
    ) -> tuple[NDArray[np.uint8], dict[str, NDArray[Any]]]:
        assert generator is not None  # crops are for training alone
        if self.count is not None:
            place = generator.integers(self._ends[-1])
            index = int(np.searchsorted(self._ends, place, side="right"))
        low, high = self.pairs.low[index], self.pairs.high[index]
        scale = high.shape[0] // low.shape[0]
        height, width = self.size
        top = int(generator.integers(low.shape[0] - height + 1))
        left = int(generator.integers(low.shape[1] - width + 1))
        low = low[top : top + height, left : left + width]
        high = high[scale * top : scale * (top + height), scale * left : scale * (left + width)]
        if self.flip and generator.random() < 0.5:
            low, high = low[:, ::-1], high[:, ::-1]
        if self.rotate:
            turns = int(generator.integers(4))
            low, high = np.rot90(low, turns), np.rot90(high, turns)
        return np.ascontiguousarray(low)[None], {"high": np.ascontiguousarray(high)}


def luma(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """BT.601 luma, 16 to 235, not rounded: uint8 [H, W, 3] -> float64 [H, W]."""
    return 16 + image.astype(np.float64) @ _LUMA


def psnr_y(image: NDArray[np.uint8], truth: NDArray[np.uint8], border: int) -> float:
    """Peak signal-to-noise ratio of the luma in dB, at most 100.

    ``10 log10(255^2 / mean((Y - Y')^2))`` of uint8 [H, W, 3] images, ``border`` pixels at each edge
    left out.
    """
    difference = _inner(luma(image) - luma(truth), border)
    error = float(np.mean(difference**2))
    return _MAX_PSNR if error == 0 else min(_MAX_PSNR, 10 * float(np.log10(255**2 / error)))


def ssim_y(image: NDArray[np.uint8], truth: NDArray[np.uint8], border: int) -> float:
    """Structural similarity of the luma, at most 1 (Wang et al., IEEE TIP 2004).

    A Gaussian window of 11 pixels, sigma 1.5, wherever it fits within the images (uint8 [H, W, 3])
    without ``border`` pixels at each edge.
    """
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            _inner(luma(image), border),
            _inner(luma(truth), border),
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def _inner(values: NDArray[np.float64], border: int) -> NDArray[np.float64]:
    return values[border : values.shape[0] - border, border : values.shape[1] - border]


def _crop_size(data: Mapping[str, Any]) -> tuple[int, int]:
    size = data["crop_size"] or CROP
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _require_scale(found: Sequence[int], wanted: Sequence[int]) -> None:
    if tuple(found) != tuple(wanted):
        raise DataError(
            f"the network gives images of {found[0]}x{found[1]} pixels where the data have "
            f"{wanted[0]}x{wanted[1]}: it was made for another scale than data.scale"
        )

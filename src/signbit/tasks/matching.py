"""Key points and descriptors, learnt from photographs and random homographies of them.

The losses are those of R2D2 (arXiv 1906.06195) but for one. Repeatability: the maps of two views
agree patch by patch (cosine similarity), and each patch has a peak (its maximum stands above its
mean). Descriptors: where R2D2 ranks by average precision, here each point must pick its partner
among the points of the whole batch, and the partner the point (a softmax in both directions), which
learns more from few images. Reliability: the probability that both pick right, by cross-entropy.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from signbit.data.loader import Examples
from signbit.data.pairs import SMALLEST, MatchingSource, Pair, Photographs, load_matching
from signbit.data.warps import Views, warp_points
from signbit.errors import DataError
from signbit.nn import Sign
from signbit.runtime.matching import KeyPoints, coarse_stride, find_keypoints, match
from signbit.tasks.base import Outputs, Predict, Targets, Task

CROP = (192, 192)  # (height, width) in pixels of training views, unless the recipe says
# What decoding needs beside the kind of descriptors: see signbit.runtime.matching.
FACTS = {"radius": 2, "border": 8}
_PATCH = 16  # pixels a side of the patches that have one peak each
_CELL = 8  # pixels a side of the squares of which each gives a point to be described
_MOST = 1024  # points of a batch that are compared with each other
_NEAR = 5.0  # pixels: points nearer than that to a point's partner are neither right nor wrong
_TEMPERATURE = 0.07
_SIGN = Sign("clipped_identity")
_PEAKY = 0.5  # weight of the loss against the others
_RANSAC = 3.0  # pixels
# name -> default, least and most; or the choices, of which the first is the default
_OPTIONS: dict[str, tuple[Any, ...]] = {
    "descriptors": ("real", "binary"),
    "keypoints": (1000, 8, 100_000),
    "longer_side": (640, 128, 4096),
    "scale": (1.4, 1.0, 4.0),
    "rotation": (30.0, 0.0, 180.0),
    "perspective": (0.25, 0.0, 0.6),
    "shift": (0.25, 0.0, 1.0),
    "noise": (0.0, 0.0, 0.5),
    "blur": (0.0, 0.0, 8.0),
    "grey": (0.0, 0.0, 1.0),
}


@dataclasses.dataclass(frozen=True)
class MatchRecord:
    """What was found in one pair.

    Attributes:
        matches: mutual nearest neighbours.
        right3, right5: those within 3 and 5 pixels of where the homography puts them.
        corner_error: mean distance in pixels of the first image's corners, as the homography that
            RANSAC finds from the matches maps them, from where they should be; infinite where it
            finds none.
    """

    matches: int
    right3: int
    right5: int
    corner_error: float


class Matching(Task):
    """Pairs of images of one plane; records are :class:`MatchRecord`.

    ``mma3`` and ``mma5``, mean matching accuracy: the share of a pair's mutual nearest neighbours
    within 3 and 5 pixels of the truth, mean over the pairs. ``homography3`` and ``homography5``:
    the share of pairs whose estimated homography errs by at most so many pixels at the corners.

    What ``data.options`` may hold, with its default: ``descriptors`` (``real``; ``binary``: their
    signs, matched by Hamming distance); ``keypoints`` (1000), at most so many an image;
    ``longer_side`` (640), pixels to which larger test images are reduced; and how views of training
    and validation are drawn, as in :class:`~signbit.data.warps.Views`: ``scale`` (1.4),
    ``rotation`` (30), ``perspective`` (0.25), ``shift`` (0.25), ``noise``, ``blur`` and ``grey``
    (0).
    """

    name = "matching"
    metric = "mma5"
    units: ClassVar = {
        "mma5": "{:.2%}",
        "mma3": "{:.2%}",
        "homography5": "{:.2%}",
        "homography3": "{:.2%}",
        "matches": "{:.0f}",
    }
    sources = ("auto", "skimage", "image_pairs")
    data_fields = frozenset(
        {"crop_size", "epoch_images", "options"}
        | {f"augment.{name}" for name in ("flip", "rotate", "zoom", "brightness", "contrast")}
    )

    def load(self, data: Mapping[str, Any], path: Path | None) -> MatchingSource:
        name = data["name"]
        if name == "image_pairs" and path is None:
            raise DataError("image_pairs are not embedded: say where they lie (--data PATH)")
        if name == "skimage" and path is not None:
            raise DataError(f"skimage is embedded and takes no path, got {path}")
        options = _options(data)
        return load_matching(
            path,
            val_size=data["val_size"],
            longer_side=options["longer_side"],
            views=_views(data, options),
        )

    def model_arguments(self, source: MatchingSource, data: Mapping[str, Any]) -> dict[str, Any]:
        return {"in_channels": source.channels}

    def examples(
        self, source: MatchingSource, split: str, data: Mapping[str, Any], training: bool
    ) -> Examples:
        options = _options(data)
        binary = options["descriptors"] == "binary"
        if split != "train":
            return _Pairs(source.split(split), binary, options["keypoints"])
        size = data["crop_size"] or CROP
        size = (size, size) if isinstance(size, int) else tuple(size)
        if min(size) < SMALLEST:
            raise DataError(
                f"data.crop_size: training views need {SMALLEST} pixels a side, got {list(size)}"
            )
        count = data["epoch_images"] or len(source.train)
        return _WarpedPhotographs(source.train, size, _views(data, options), binary, count)

    def loss(self, outputs: tuple[Tensor, ...], targets: Mapping[str, Tensor]) -> Tensor:
        """The losses of the module's head; outputs of the first images, then of the second."""
        descriptors, reliability, repeatability = outputs
        homography = targets["homography"]
        binary = bool(targets["binary"][0])
        stride = coarse_stride(repeatability.shape[2:], descriptors.shape[2:])
        described, reliable = descriptor_losses(
            descriptors, reliability, homography, stride=stride, binary=binary
        )
        peaks = torch.sigmoid(repeatability)
        return described + reliable + agreement_loss(peaks, homography) + _PEAKY * peak_loss(peaks)

    def records(self, outputs: Outputs, targets: Targets) -> list[MatchRecord]:
        """Scores of pairs of one size; outputs of the first images, then of the second."""
        homographies = targets["homography"]
        found = []
        for i, homography in enumerate(homographies):
            height, width, keypoints = (int(n) for n in targets["limits"][i])
            facts = FACTS | {"descriptors": _kind(targets["binary"][i])}
            first, second = (
                find_keypoints([y[k] for y in outputs], (height, width), facts, keypoints)
                for k in (i, len(homographies) + i)
            )
            found.append(score(first, second, homography, (height, width)))
        return found

    def summarize(self, records: Sequence[MatchRecord]) -> dict[str, float]:
        found = np.array([dataclasses.astuple(record) for record in records], np.float64)
        matches, right3, right5, corner = found.T
        some = np.maximum(matches, 1)  # without a match none is right
        return {
            "mma5": float((right5 / some).mean()),
            "mma3": float((right3 / some).mean()),
            "homography5": float((corner <= 5).mean()),
            "homography3": float((corner <= 3).mean()),
            "matches": float(matches.mean()),
        }

    def evaluate(
        self, predict: Predict, source: MatchingSource, split: str, data: Mapping[str, Any]
    ) -> Iterator[MatchRecord]:
        """Pairs, each image in its own size; one that several pairs in a row share is run once."""
        if split == "train":
            raise DataError("matching is scored on pairs: train holds single photographs")
        facts, keypoints = self.facts(source, data), _options(data)["keypoints"]

        def described(image: NDArray[np.uint8]) -> KeyPoints:
            outputs = [y[0] for y in predict(image[None])]
            return find_keypoints(outputs, image.shape[:2], facts, keypoints)

        last: tuple[NDArray[np.uint8], KeyPoints] | None = None
        for pair in source.split(split):
            if last is None or last[0] is not pair.first:
                last = pair.first, described(pair.first)
            second = described(pair.second)
            yield score(last[1], second, pair.homography, pair.first.shape[:2])

    def images(
        self, source: MatchingSource, split: str, data: Mapping[str, Any], index: int
    ) -> list[NDArray[np.uint8]]:
        pair = source.split(split)[index]  # whose images may differ in size
        return [pair.first, pair.second]

    def calibration_batches(
        self,
        source: MatchingSource,
        data: Mapping[str, Any],
        *,
        count: int,
        seed: int = 0,
        channels_last: bool = False,
    ) -> list[Tensor]:
        # Photographs come as views alone.
        loader = self.loader(
            source, "train", data, training=True, seed=seed, channels_last=channels_last
        )
        return [images for (images, _), _ in zip(loader, range(count), strict=False)]

    def facts(self, source: MatchingSource, data: Mapping[str, Any]) -> dict[str, Any]:
        options = _options(data)
        return FACTS | {name: options[name] for name in ("descriptors", "longer_side")}


class _Pairs:
    """Pairs as they are; both images of one need the same size."""

    def __init__(self, pairs: Sequence[Pair], binary: bool, keypoints: int) -> None:
        self.pairs = pairs
        self.binary = binary
        self.keypoints = keypoints

    def __len__(self) -> int:
        return len(self.pairs)

    def example(
        self, index: int, generator: np.random.Generator | None
    ) -> tuple[NDArray[np.uint8], dict[str, NDArray[Any]]]:
        pair = self.pairs[index]
        height, width = pair.first.shape[:2]
        return np.stack([pair.first, pair.second]), {
            "homography": pair.homography.astype(np.float32),
            "binary": np.array(self.binary),
            "limits": np.array([height, width, self.keypoints]),
        }


class _WarpedPhotographs:
    """Two random views of one photograph, and the homography from the first to the second."""

    def __init__(
        self,
        photographs: Photographs,
        size: tuple[int, int],
        views: Views,
        binary: bool,
        count: int,
    ) -> None:
        self.photographs = photographs
        self.binary = binary
        self.size = size
        self.views = views
        self.count = count

    def __len__(self) -> int:
        return self.count

    def example(
        self, index: int, generator: np.random.Generator | None
    ) -> tuple[NDArray[np.uint8], dict[str, NDArray[Any]]]:
        generator = generator or np.random.default_rng(index)
        image = self.photographs.images[index % len(self.photographs)]
        views, homography = self.views.draw(image, self.size, generator)
        return views, {
            "homography": homography.astype(np.float32),
            "binary": np.array(self.binary),
        }


def _options(data: Mapping[str, Any]) -> dict[str, Any]:
    """``data.options`` with its defaults.

    Raises:
        DataError: an unknown name, or a value out of range.
    """
    given = data["options"]
    for name, value in given.items():
        if name not in _OPTIONS:
            near = difflib.get_close_matches(str(name), _OPTIONS, 1, 0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_OPTIONS)}"
            raise DataError(f"data.options.{name}: matching has no such option; {hint}")
        allowed = _OPTIONS[name]
        if isinstance(allowed[0], str):
            if value not in allowed:
                raise DataError(
                    f"data.options.{name}: expected {' or '.join(allowed)}, got {value!r}"
                )
            continue
        default, low, high = allowed
        kinds = (int,) if isinstance(default, int) else (int, float)
        if type(value) not in kinds or not low <= value <= high:
            what = "a whole number" if isinstance(default, int) else "a number"
            raise DataError(
                f"data.options.{name}: expected {what} from {low} to {high}, got {value!r}"
            )
    return {name: given.get(name, allowed[0]) for name, allowed in _OPTIONS.items()}


def _kind(binary: Any) -> str:
    return "binary" if binary else "real"


def _views(data: Mapping[str, Any], options: Mapping[str, Any]) -> Views:
    augment = data["augment"]
    names = ("scale", "rotation", "perspective", "shift", "noise", "blur", "grey")
    return Views(
        zoom=augment["zoom"] or (1.0, 1.0),
        flip=augment["flip"],
        turn=augment["rotate"],
        brightness=augment["brightness"],
        contrast=augment["contrast"],
        **{name: float(options[name]) for name in names},
    )


def score(
    first: KeyPoints,
    second: KeyPoints,
    homography: NDArray[np.floating],
    size: tuple[int, int],
) -> MatchRecord:
    """Match two images and compare with the homography between them.

    Args:
        first, second: what was found in the images.
        homography: [3, 3], from the first to the second.
        size: (H, W) of the first.
    """
    import cv2

    pairs = match(first.descriptors, second.descriptors)
    origin, found = first.points[pairs[:, 0]], second.points[pairs[:, 1]]
    errors = np.linalg.norm(warp_points(origin, homography) - found, axis=1)
    corner_error = float("inf")
    if len(pairs) >= 4:
        cv2.setRNGSeed(0)  # RANSAC draws the same pairs each time
        estimate, _ = cv2.findHomography(origin, found, cv2.RANSAC, _RANSAC)
        if estimate is not None:
            height, width = size
            corners = np.float64([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]])
            apart = warp_points(corners, estimate) - warp_points(corners, homography)
            distance = np.linalg.norm(apart, axis=1).mean()
            corner_error = float(distance) if np.isfinite(distance) else float("inf")
    return MatchRecord(len(pairs), int((errors <= 3).sum()), int((errors <= 5).sum()), corner_error)


def _warp(points: Tensor, homography: Tensor) -> Tensor:
    """Points (x, y) [N, K, 2] of first images in the second ones; far away behind the horizon."""
    mapped = torch.cat([points, torch.ones_like(points[..., :1])], 2) @ homography.mT
    depth = mapped[..., 2:]
    ahead = depth > 1e-6
    return torch.where(ahead, mapped[..., :2] / torch.where(ahead, depth, 1.0), -1e6)


def _inside(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Whether points [N, K, 2] lie within images (H, W): bool [N, K]."""
    x, y = points.unbind(2)
    return (x >= 0) & (y >= 0) & (x <= size[1] - 1) & (y <= size[0] - 1)


def _read(maps: Tensor, points: Tensor) -> Tensor:
    """Maps [N, C, h, w] at their points (x, y) [N, K, 2], bilinearly: [N, K, C]."""
    height, width = maps.shape[2:]
    last = points.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    grid = (2 * points / last - 1).unsqueeze(1)
    read = F.grid_sample(maps, grid, padding_mode="border", align_corners=True)
    return read[:, :, 0].mT


def descriptor_losses(
    descriptors: Tensor, reliability: Tensor, homography: Tensor, *, stride: int, binary: bool
) -> tuple[Tensor, Tensor]:
    """How well points pick their partners by descriptor, and how well reliability foretells it.

    A point is drawn in every square of the first images, and those that the second images show are
    compared with all partners of the batch. Those that lie near to the right one count for neither
    side, for they look the same.

    Args:
        descriptors, reliability: [2 N, D, h, w] and logits [2 N, 1, h, w]; first images first.
        homography: [N, 3, 3].
        stride: pixels of the image a pixel of the maps.
        binary: compare the descriptors' signs.

    Returns:
        Two means over the points, in nats: cross-entropy of the picks in both directions, and of
        whether both pick right. Zero where no point is seen twice.
    """
    height, width = (side * stride for side in descriptors.shape[2:])
    origin = _draw_points(len(homography), (height, width), descriptors.device)
    there = _warp(origin, homography)
    image, index = torch.nonzero(_inside(there, (height, width)), as_tuple=True)
    chosen = torch.randperm(len(image), device=image.device)[:_MOST]
    image, index = image[chosen], index[chosen]
    if not len(image):
        return descriptors.sum() * 0, reliability.sum() * 0
    origin, there = origin / stride, there.clamp(-width, 2 * width)
    first, second = descriptors.chunk(2)
    a, b = (
        F.normalize(_read(maps, points)[image, index], dim=1)
        for maps, points in ((first, origin), (second, there / stride))
    )
    if binary:
        size = a.shape[1]
        a, b = (_SIGN(part * size**0.5) / size**0.5 for part in (a, b))
    logits = a @ b.T / _TEMPERATURE
    place = there[image, index]
    near = (torch.cdist(place, place) < _NEAR) & (image[:, None] == image)
    near.fill_diagonal_(False)
    logits = logits.masked_fill(near, -1e4)
    right = torch.arange(len(a), device=a.device)
    loss = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    with torch.no_grad():
        both = (logits.argmax(1) == right) & (logits.argmax(0) == right)
    sure = [
        _read(maps, points)[image, index, 0]
        for maps, points in zip(reliability.chunk(2), (origin, there / stride), strict=True)
    ]
    truth = both.to(sure[0].dtype)
    trust = sum(F.binary_cross_entropy_with_logits(logit, truth) for logit in sure) / 2
    return loss, trust


def _draw_points(count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """A random point (x, y) in every square of :data:`_CELL` pixels: [count, K, 2]."""
    rows, columns = (
        torch.arange(0, side - _CELL + 1, _CELL, device=device, dtype=torch.float32)
        for side in size
    )
    corners = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), 2).reshape(1, -1, 2)
    return corners + (_CELL - 1) * torch.rand(count, corners.shape[1], 2, device=device)


def agreement_loss(peaks: Tensor, homography: Tensor) -> Tensor:
    """1 less the mean cosine similarity of overlapping patches of two repeatability maps.

    The second map is warped to the first; patches of which it shows less than half do not count.

    Args:
        peaks: [2 N, 1, H, W] in 0 to 1, first images first.
        homography: [N, 3, 3].
    """
    first, second = peaks.chunk(2)
    count, _, height, width = first.shape
    rows, columns = (
        torch.arange(side, device=peaks.device, dtype=torch.float32) for side in (height, width)
    )
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), 2).reshape(1, -1, 2)
    there = _warp(grid.expand(count, -1, -1), homography)
    seen = _inside(there, (height, width)).reshape(first.shape).to(peaks.dtype)
    warped = _read(second, there.clamp(-width, 2 * width)).reshape(first.shape)
    a, b, share = (
        F.unfold(maps, _PATCH, stride=_PATCH // 2) for maps in (first * seen, warped * seen, seen)
    )
    counts = share.mean(1) > 0.5
    alike = F.cosine_similarity(a, b, dim=1)
    return 1 - (alike * counts).sum() / counts.sum().clamp(min=1)


def peak_loss(peaks: Tensor) -> Tensor:
    """1 less how far the maximum of a patch stands above its mean: of maps [N, 1, H, W] in 0..1."""
    smooth = F.avg_pool2d(peaks, 3, 1, 1)
    step = _PATCH // 2
    return 1 - (F.max_pool2d(smooth, _PATCH, step) - F.avg_pool2d(peaks, _PATCH, step)).mean()

"""Image classification: cross-entropy, top-1 accuracy, evaluation in PyTorch and in the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from signbit.data import SOURCES, load_source
from signbit.data.base import DataSource, ImageDataset
from signbit.data.loader import Augmentation, BatchLoader, Examples, first_batches
from signbit.tasks.base import Outputs, Predict, Task


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        accuracy: share of right top-1 predictions, in [0, 1].
        loss: mean cross-entropy, in nats.
        predictions: int64 [N], the class of every image, in order.
        logits: float32 [N, classes].
    """

    accuracy: float
    loss: float
    predictions: NDArray[np.int64]
    logits: NDArray[np.float32]

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy, by 1,000 draws of the images with replacement."""
        count = len(self.predictions)
        # Of images that are right or wrong, a draw's right ones are binomially distributed.
        drawn = np.random.default_rng(0).binomial(count, self.accuracy, 1000) / count
        low, high = np.quantile(drawn, (0.025, 0.975))
        return float(low), float(high)


def loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats of logits [N, classes] and labels int64 [N]: a scalar."""
    return nn.functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def evaluate(
    model: nn.Module,
    dataset: ImageDataset,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    batch_size: int = 250,
    channels_last: bool = False,
) -> Evaluation:
    """Run a PyTorch model over a data set, in evaluation mode (the model's mode is restored)."""
    loader = BatchLoader(dataset, mean, std, batch_size=batch_size, channels_last=channels_last)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            logits = [model(images.to(device)).float().cpu().numpy() for images, _ in loader]
    finally:
        model.train(training)
    return score(np.concatenate(logits), dataset.labels)


def evaluate_engine(
    session: Callable[[NDArray[np.uint8]], NDArray[np.float32 | np.int32]],
    dataset: ImageDataset,
    *,
    batch_size: int = 50,
) -> Evaluation:
    """Run a session of the native engine over a data set, on its pixels (uint8 NHWC).

    Integer outputs become logits by the session's ``output_scales``.
    """
    outputs = np.concatenate([session(images) for images in _chunks(dataset.images, batch_size)])
    (scale,) = getattr(session, "output_scales", (1.0,))
    return score((outputs * np.float32(scale)).astype(np.float32), dataset.labels)


def _chunks(images: NDArray[np.uint8], size: int) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(images), size):
        yield np.ascontiguousarray(images[start : start + size])


def score(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Evaluation:
    """Accuracy and mean cross-entropy of logits [N, classes] against labels [N]."""
    predictions = logits.argmax(1).astype(np.int64)
    wide = logits.astype(np.float64)
    wide -= wide.max(1, keepdims=True)
    log_probability = wide - np.log(np.exp(wide).sum(1, keepdims=True))
    return Evaluation(
        accuracy=float((predictions == labels).mean()),
        loss=float(-log_probability[np.arange(len(labels)), labels].mean()),
        predictions=predictions,
        logits=logits,
    )


class Classification(Task):
    """Images and their classes; records are pairs (right, cross-entropy in nats)."""

    name = "classification"
    metric = "accuracy"
    units: ClassVar = {"accuracy": "{:.2%}", "loss": "{:.3f}"}
    sources = ("auto", *SOURCES)
    data_fields = frozenset(
        {"image_size", "augment.crop_padding", "augment.pad_mode", "augment.flip"}
    )

    def load(self, data: Mapping[str, Any], path: Path | None) -> DataSource:
        return load_source(
            data["name"], path, val_size=data["val_size"], image_size=data["image_size"]
        )

    def examples(
        self, source: DataSource, split: str, data: Mapping[str, Any], training: bool
    ) -> Examples:
        raise NotImplementedError("images of one size are read in whole batches: see loader")

    def loader(
        self,
        source: DataSource,
        split: str,
        data: Mapping[str, Any],
        *,
        training: bool,
        seed: int = 0,
        channels_last: bool = False,
        rank: int = 0,
        ranks: int = 1,
    ) -> BatchLoader:
        augment = {name: data["augment"][name] for name in ("crop_padding", "pad_mode", "flip")}
        return BatchLoader(
            source.split(split),
            source.mean,
            source.std,
            batch_size=data["batch_size"] if training else 250,
            seed=seed,
            shuffle=training,
            augmentation=Augmentation(**augment) if training else None,
            channels_last=channels_last,
            rank=rank,
            ranks=ranks,
        )

    def loss(self, outputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        return loss(outputs[0], targets)

    def calibration_batches(
        self,
        source: DataSource,
        data: Mapping[str, Any],
        *,
        count: int,
        seed: int = 0,
        channels_last: bool = False,
    ) -> list[Tensor]:
        batches = first_batches(
            source.train,
            source.mean,
            source.std,
            batch_size=data["batch_size"],
            count=count,
            seed=seed,
            channels_last=channels_last,
        )
        return [images for images, _ in batches]

    def train_metric(self, outputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        return (outputs[0].detach().argmax(1) == targets).float().mean()

    def records(self, outputs: Outputs, targets: NDArray[np.int64]) -> list[tuple[bool, float]]:
        logits = outputs[0].astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        wanted = logits[np.arange(len(targets)), targets]
        losses = np.log(np.exp(logits).sum(1)) - wanted
        right = outputs[0].argmax(1) == targets
        return list(zip(right.tolist(), losses.tolist(), strict=True))

    def summarize(self, records: Sequence[tuple[bool, float]]) -> dict[str, float]:
        accuracy, cross_entropy = np.mean(np.asarray(records, np.float64), 0)
        return {"accuracy": float(accuracy), "loss": float(cross_entropy)}

    def evaluate(
        self, predict: Predict, source: DataSource, split: str, data: Mapping[str, Any]
    ) -> Iterator[tuple[bool, float]]:
        dataset = source.split(split)
        for start in range(0, len(dataset), 50):
            labels = dataset.labels[start : start + 50]
            yield from self.records(predict(dataset.images[start : start + 50]), labels)

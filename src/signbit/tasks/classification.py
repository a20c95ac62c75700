"""Image classification: cross-entropy, top-1 accuracy, evaluation in PyTorch and in the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from signbit.data.base import ImageDataset
from signbit.data.loader import BatchLoader

if TYPE_CHECKING:
    from torchmetrics.classification import MulticlassAccuracy


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


def loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats of logits [N, classes] and labels int64 [N]: a scalar."""
    return nn.functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def accuracy_metric(num_classes: int) -> MulticlassAccuracy:
    """Top-1 accuracy over all images (not the mean over classes)."""
    from torchmetrics.classification import MulticlassAccuracy

    return MulticlassAccuracy(num_classes, average="micro")


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

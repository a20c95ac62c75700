"""What every task says of itself, so that the same verbs train, evaluate, compile and run it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from signbit.data.base import Source
from signbit.data.loader import Batches, ExampleLoader, Examples
from signbit.data.normalize import normalize

CALIBRATION_EXAMPLES = 64

Outputs = tuple[NDArray[np.float32], ...]
Targets = Mapping[str, NDArray[Any]]
# pixels uint8 [N, H, W, C] -> what the network gives for them, each [N, ...]
Predict = Callable[[NDArray[np.uint8]], Outputs]


class Task(ABC):
    """What a network is trained for: data, loss, scores, and what decoding needs to know.

    Attributes:
        name: of recipes and files.
        metric: which of the values of :meth:`summarize` counts; larger is better.
        units: of every value of :meth:`summarize`, in order, how it is written: a format such as
            ``"{:.2%}"``.
        sources: names of data sources that :meth:`load` knows.
        data_fields: which fields of a recipe's ``data``, beyond ``name``, ``batch_size`` and
            ``val_size``, mean something here; those of ``augment`` with that word and a dot.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    units: ClassVar[Mapping[str, str]]
    sources: ClassVar[tuple[str, ...]]
    data_fields: ClassVar[frozenset[str]]

    @abstractmethod
    def load(self, data: Mapping[str, Any], path: Path | None) -> Source:
        """Read a data set.

        Args:
            data: the fields of a recipe's ``data`` (:class:`signbit.training.recipe.DataRecipe`).
            path: where it lies; None for what is embedded.

        Raises:
            DataError: missing or broken; names the file.
        """

    def model_arguments(self, source: Source, data: Mapping[str, Any]) -> dict[str, Any]:
        """What the data decide about a network: arguments of ``create_model``."""
        return {"num_classes": len(source.class_names), "in_channels": source.channels}

    @abstractmethod
    def examples(
        self, source: Source, split: str, data: Mapping[str, Any], training: bool
    ) -> Examples:
        """The examples of a split, for training or as they are."""

    def loader(
        self,
        source: Source,
        split: str,
        data: Mapping[str, Any],
        *,
        training: bool,
        seed: int = 0,
        channels_last: bool = False,
        rank: int = 0,
        ranks: int = 1,
    ) -> Batches:
        """Batches of a split: shuffled and augmented for training, else one by one, in order."""
        return ExampleLoader(
            self.examples(source, split, data, training),
            source.mean,
            source.std,
            batch_size=data["batch_size"] if training else 1,
            seed=seed,
            shuffle=training,
            augment=training,
            channels_last=channels_last,
            rank=rank,
            ranks=ranks,
        )

    @abstractmethod
    def loss(self, outputs: tuple[Tensor, ...], targets: Any) -> Tensor:
        """The loss of a batch, a scalar; ``outputs`` as the network gives them, in a tuple."""

    def train_metric(self, outputs: tuple[Tensor, ...], targets: Any) -> Tensor | None:
        """The score :attr:`metric` of a training batch, if it costs nothing: a scalar."""
        return None

    def calibration_batches(
        self,
        source: Source,
        data: Mapping[str, Any],
        *,
        count: int,
        seed: int = 0,
        channels_last: bool = False,
    ) -> list[Tensor]:
        """Batches of training images to freeze 8-bit ranges on, as they are, not augmented.

        float32 [N, C, H, W]; at most ``count`` batches' worth. Here each batch is one example, and
        there are at most :data:`CALIBRATION_EXAMPLES`, for such images are large.
        """
        loader = ExampleLoader(
            self.examples(source, "train", data, False),
            source.mean,
            source.std,
            batch_size=1,
            seed=seed,
            shuffle=True,
            channels_last=channels_last,
        )
        most = min(CALIBRATION_EXAMPLES, count * data["batch_size"])
        return [images for (images, _), _ in zip(loader, range(most), strict=False)]

    def images(
        self, source: Source, split: str, data: Mapping[str, Any], index: int
    ) -> list[NDArray[np.uint8]]:
        """What a person would look at of an example: its images, uint8 [H, W, C] each."""
        return list(self.examples(source, split, data, False).example(index, None)[0])

    @abstractmethod
    def records(self, outputs: Outputs, targets: Targets) -> list[Any]:
        """What scores need of each example of a batch: plain data, made without PyTorch."""

    @abstractmethod
    def summarize(self, records: Sequence[Any]) -> dict[str, float]:
        """Every score over all examples; :attr:`metric` is among them."""

    def evaluate(
        self, predict: Predict, source: Source, split: str, data: Mapping[str, Any]
    ) -> Iterator[Any]:
        """The record of each example of a split, in order, of any network that predicts."""
        examples = self.examples(source, split, data, False)
        for index in range(len(examples)):
            pixels, targets = examples.example(index, None)
            outputs = predict(pixels)
            yield from self.records(outputs, {name: v[None] for name, v in targets.items()})

    def facts(self, source: Source, data: Mapping[str, Any]) -> dict[str, Any]:
        """What decoding a network's outputs needs; plain data, written into compiled files."""
        return {}


def torch_predict(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> Predict:
    """How a PyTorch network predicts: in evaluation mode, its own mode restored."""

    def predict(pixels: NDArray[np.uint8]) -> Outputs:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                images = torch.from_numpy(normalize(pixels, mean, std))
                found = as_tuple(model(images.to(device)))
        finally:
            model.train(training)
        return tuple(y.float().cpu().numpy() for y in found)

    return predict


def engine_predict(session: Callable[..., Any]) -> Predict:
    """How a session of the native engine predicts; integer outputs become real by its scales."""

    from signbit.runtime.outputs import real_outputs  # training does without the engine

    return lambda pixels: real_outputs(session, pixels)


def as_tuple(outputs: Any) -> tuple[Any, ...]:
    """A network's outputs as a tuple, also where it has one."""
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)


def bootstrap(
    task: Task, records: Sequence[Any], *, rounds: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of every score, by drawing examples with replacement.

    Args:
        task: summarizes the draws.
        records: of all examples, as :meth:`Task.evaluate` gives them.
        rounds: draws.
        level: share of the draws within an interval.
        seed: of the draws.

    Returns:
        (low, high) by the score's name.
    """
    generator = np.random.default_rng(seed)
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        drawn = [records[i] for i in generator.integers(0, len(records), len(records))]
        for name, value in task.summarize(drawn).items():
            found.setdefault(name, []).append(value)
    tail = (1 - level) / 2
    return {
        name: (float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail)))
        for name, values in found.items()
    }


def as_arrays(targets: Any) -> Any:
    """Targets of a batch without PyTorch: NumPy arrays, by name where they have names."""
    if isinstance(targets, Mapping):
        return {name: tensor.cpu().numpy() for name, tensor in targets.items()}
    return targets.cpu().numpy()

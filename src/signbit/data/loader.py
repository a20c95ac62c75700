"""Batches for training and evaluation.

Everything random is a pure function of (seed, epoch, step): which image comes when, how it is
cropped and whether it is mirrored. A run that is resumed at an epoch therefore sees what it would
have seen. Images are in memory, so a batch is made whole, by index arithmetic, without worker
processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from signbit.data.base import ImageDataset
from signbit.data.normalize import apply_table, normalization_table

_SHUFFLE, _AUGMENT = 1, 2


@dataclass(frozen=True)
class Augmentation:
    """Random crops and mirror images, the usual ones for small photographs.

    Attributes:
        crop_padding: pixels added on each side before a crop of the original size; 0 for none.
        pad_mode: ``"reflect"``, or ``"zero"`` for black pixels (byte 0, before normalisation).
        flip: mirror left and right with probability one half.
    """

    crop_padding: int = 0
    pad_mode: Literal["reflect", "zero"] = "reflect"
    flip: bool = False

    def __call__(
        self,
        images: NDArray[np.uint8],
        generator: np.random.Generator,
        part: tuple[int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Augment a batch, uint8 [N, H, W, C] to the same; draws only from ``generator``.

        Args:
            images: all of a batch, or some.
            generator: draws for all.
            part: (first, total) where they are the images from ``first`` of a batch of ``total``.
        """
        if not self.crop_padding and not self.flip:
            return images
        count, height, width, _ = images.shape
        first, total = part or (0, count)
        pad = self.crop_padding
        shifts = generator.integers(-pad, pad + 1, (2, total, 1))[:, first : first + count]
        rows = np.arange(height) + shifts[0]
        columns = np.arange(width) + shifts[1]
        if self.flip:
            mirrored = generator.random(total)[first : first + count] < 0.5
            columns[mirrored] = columns[mirrored, ::-1]
        if self.pad_mode == "reflect":
            rows, columns = _reflect(rows, height), _reflect(columns, width)
        else:
            images = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
            rows, columns = rows + pad, columns + pad
        return images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _reflect(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Fold indices outside 0..size-1 back, the border pixel not repeated; any distance."""
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    index = np.abs(index) % period
    return np.minimum(index, period - index)


def first_batches(
    dataset: ImageDataset,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    batch_size: int,
    count: int,
    seed: int = 0,
    channels_last: bool = False,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """At most ``count`` batches of images as a network sees them in use: shuffled, not augmented.

    Arguments and batches are those of :class:`BatchLoader`.
    """
    loader = BatchLoader(
        dataset,
        mean,
        std,
        batch_size=min(batch_size, len(dataset)),
        seed=seed,
        shuffle=True,
        channels_last=channels_last,
    )
    return [batch for batch, _ in zip(loader, range(count), strict=False)]


class Batches(ABC):
    """Which examples come when: the order of every epoch, and what of it each process gets.

    Args:
        length: examples of the data set.
        batch_size: examples a batch.
        seed: of everything random.
        shuffle: a new order every epoch; the last, incomplete batch is then left out (unless it is
            the only one), so that batch statistics never rest on a few images.
        rank, ranks: of several processes that share the batches, this one's number. Shuffled
            batches are cut into equal parts, augmented as if they were whole; others have as many
            images as even shares allow, and every process has some.

    Raises:
        ValueError: batches cannot be shared like that.
    """

    def __init__(
        self,
        length: int,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if shuffle and ranks > 1 and (batch_size % ranks or length < batch_size):
            raise ValueError(
                f"{ranks} processes cannot share batches of {batch_size} of {length} images"
            )
        if length < ranks:
            raise ValueError(f"{ranks} processes cannot share {length} images")
        self.length = length
        self.rank, self.ranks = rank, ranks
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self._order: tuple[int, NDArray[np.int64]] | None = None  # of the epoch asked for last

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        if not self.shuffle:  # rounded up; with several processes, what each may have
            return -(-self.length // (self.batch_size * self.ranks))
        whole, rest = divmod(self.length, self.batch_size)
        return whole or bool(rest)

    def indices(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Which examples this process has of an epoch's batch ``step``: int64 [N]."""
        if self._order is None or self._order[0] != epoch:
            order = np.arange(self.length)
            if self.shuffle:
                order = np.random.default_rng([self.seed, _SHUFFLE, epoch]).permutation(order)
            self._order = epoch, order
        if self.ranks > 1 and not self.shuffle:
            parts, number = len(self) * self.ranks, step * self.ranks + self.rank
            first, last = (self.length * each // parts for each in (number, number + 1))
        else:
            share = self.batch_size // self.ranks
            first = step * self.batch_size + self.rank * share
            last = first + share
        return self._order[1][first:last]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, Any]]:
        epoch = self.epoch
        for step in range(len(self)):
            # Of batches of one example, a process may have one fewer than another.
            if len(chosen := self.indices(epoch, step)):
                yield self._batch(epoch, step, chosen)

    @abstractmethod
    def _batch(self, epoch: int, step: int, chosen: NDArray[np.int64]) -> tuple[torch.Tensor, Any]:
        """Images and targets of the examples ``chosen``."""


class BatchLoader(Batches):
    """Batches of classified images: normalised float32 [N, C, H, W], and classes int64 [N].

    Args:
        dataset: what to read.
        mean, std: per-channel statistics, in units of [0, 1].
        augmentation: applied to every batch.
        channels_last: keep the images' NHWC memory order (as torch's ``channels_last``).
        order: arguments of :class:`Batches`, with its errors.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        augmentation: Augmentation | None = None,
        channels_last: bool = False,
        **order: Any,
    ) -> None:
        super().__init__(len(dataset), **order)
        self.dataset = dataset
        self.augmentation = augmentation
        self.channels_last = channels_last
        self._table = normalization_table(mean, std)

    def _batch(
        self, epoch: int, step: int, chosen: NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        images = self.dataset.images[chosen]
        if self.augmentation is not None:
            generator = np.random.default_rng([self.seed, _AUGMENT, epoch, step])
            part = (self.rank * len(chosen), self.ranks * len(chosen))
            images = self.augmentation(images, generator, part)
        batch = torch.from_numpy(apply_table(images, self._table))
        if not self.channels_last:
            batch = batch.contiguous()
        return batch, torch.from_numpy(self.dataset.labels[chosen])


class Examples(Protocol):
    """A data set of a dense task, which makes one example at a time."""

    def __len__(self) -> int: ...

    def example(
        self, index: int, generator: np.random.Generator | None
    ) -> tuple[NDArray[np.uint8], dict[str, NDArray[Any]]]:
        """Pixels and targets of an example.

        Args:
            index: which one, from 0.
            generator: draws crops and what else is random, and nothing else does; None for an
                example as it is, for evaluation.

        Returns:
            uint8 [K, H, W, C], the K images that the network sees of it (usually one); and arrays
            by name. What ``generator`` makes has one shape for all indices.
        """


class ExampleLoader(Batches):
    """Batches of a dense task: normalised float32 [K * N, C, H, W], and tensors [N, ...] by name.

    The first N images are the first of every example, and so on.

    Args:
        examples: what to read.
        mean, std: per-channel statistics, in units of [0, 1].
        augment: give the examples a random generator of their own, that of (seed, epoch, index).
        channels_last: keep the images' NHWC memory order.
        order: arguments of :class:`Batches`, with its errors.
    """

    def __init__(
        self,
        examples: Examples,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        augment: bool = False,
        channels_last: bool = False,
        **order: Any,
    ) -> None:
        super().__init__(len(examples), **order)
        self.examples = examples
        self.augment = augment
        self.channels_last = channels_last
        self._table = normalization_table(mean, std)

    def _batch(
        self, epoch: int, step: int, chosen: NDArray[np.int64]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        made = [self.examples.example(int(i), self._generator(epoch, int(i))) for i in chosen]
        images = np.concatenate(np.stack([pixels for pixels, _ in made], 1))
        batch = torch.from_numpy(apply_table(images, self._table))
        if not self.channels_last:
            batch = batch.contiguous()
        names = made[0][1]
        return batch, {
            name: torch.from_numpy(np.stack([targets[name] for _, targets in made]))
            for name in names
        }

    def _generator(self, epoch: int, index: int) -> np.random.Generator | None:
        if not self.augment:
            return None
        return np.random.default_rng([self.seed, _AUGMENT, epoch, index])

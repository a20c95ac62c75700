"""The loss around trained weights, on a plane through them.

With trained weights W and two random directions d1 and d2 of their shape, the landscape is ``L(W +
x d1 + y d2)`` on a square of x and y, L the mean cross-entropy over fixed images. Networks are
indifferent to the scale of many of their filters, so each filter of a direction is scaled to the
length of the filter of W that it moves (*filter normalisation*): x = 1 then moves every filter by
its own length, and pictures of different networks can be compared. Source: Li et al., *Visualizing
the Loss Landscape of Neural Nets*, arXiv 1712.09913.

What is moved are the weights of convolutions and linear layers. Of binary layers these are the
latent weights: each point takes their signs, and the scales that its layer computes from them, anew
(as in BNext, arXiv 2211.12933). Biases, batch norms, slopes, thresholds, gains and learned scales
stay where they are, and so do the running statistics of batch norms and the ranges of 8-bit layers:
the network is in evaluation mode.

How smooth a landscape is, :func:`roughness` and :func:`quadratic_fit` say. Both are signbit's own
measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from signbit.data.base import ImageDataset, stratified_cut
from signbit.errors import DataError, SignbitError
from signbit.nn import (
    BinaryLayer,
    DynamicQuantConv2d,
    DynamicQuantLinear,
    QuantLayer,
    ScaledStdConv2d,
)
from signbit.tasks import classification

LOSS_FLOOR = 1e-8  # nats; logarithms are taken of losses no smaller than this

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED, nn.Linear,
    BinaryLayer, DynamicQuantConv2d, DynamicQuantLinear, QuantLayer, ScaledStdConv2d,
)  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """Where the loss is measured: a square around the trained weights.

    Attributes:
        size: points a side; odd, so that the trained weights are one of them.
        reach: x and y go from -reach to reach, in lengths of each filter.
        seed: of the two directions.

    Raises:
        SignbitError: a size that is even or below 3, a reach that is not positive and finite, a
            negative seed.
    """

    size: int = 21
    reach: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 3 or self.size % 2 == 0:
            raise SignbitError(
                f"size {self.size}: expected an odd number of points a side, 3 or more, so that "
                f"the trained weights are one of them; try {max(3, self.size + 1)}"
            )
        if not (math.isfinite(self.reach) and self.reach > 0):
            raise SignbitError(f"range {self.reach}: expected a positive number, as 1")
        if self.seed < 0:
            raise SignbitError(f"seed {self.seed}: expected 0 or more")

    @property
    def positions(self) -> NDArray[np.float64]:
        """The values of x, and of y, ascending: float64 [size]; the middle one is exactly 0."""
        half = self.size // 2
        return self.reach * (np.arange(-half, half + 1) / half)


def choose_images(dataset: ImageDataset, count: int) -> ImageDataset:
    """``count`` images, every class in its share; the same ones every time, all if there are fewer.

    Raises:
        DataError: there is no image.
    """
    if not len(dataset):
        raise DataError("there is no image to measure the loss on")
    return dataset.subset(stratified_cut(dataset.labels, min(count, len(dataset)))[1])


def moved_weights(model: nn.Module) -> dict[str, tuple[nn.Parameter, nn.Module]]:
    """The parameters that a direction moves: name -> (parameter, its layer), in the model's order.

    Raises:
        SignbitError: there is none, or one that is not finite.
    """
    owners = {
        id(layer._parameters["weight"]): layer
        for layer in model.modules()
        if isinstance(layer, _LAYERS) and layer._parameters.get("weight") is not None
    }
    moved = {
        name: (parameter, owners[id(parameter)])
        for name, parameter in model.named_parameters()
        if id(parameter) in owners
    }
    if not moved:
        raise SignbitError("no convolution or linear layer, so that there is nothing to move")
    for name, (parameter, _) in moved.items():
        if not torch.isfinite(parameter).all():
            raise SignbitError(f"{name} holds numbers that are not finite: was training diverging?")
    return moved


def filter_directions(model: nn.Module, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two random directions, filter by filter as long as the weights.

    Each is Gaussian; then every filter d_c becomes ``d_c * |w_c| / |d_c|``, with the Euclidean norm
    over everything that makes one output channel (of a linear layer, a row).

    Args:
        model: the trained network; it stays as it is.
        seed: what is drawn depends on it, and on shapes and order of the weights, alone. Networks
            of one architecture so get the same Gaussian numbers.

    Returns:
        (d1, d2): name of a parameter -> a tensor of its shape, type and device. Parameters that are
        not named stay where they are (0 in both directions).

    Raises:
        SignbitError: the network has no weight to move, or one that is not finite.

    Source: Li et al., arXiv 1712.09913, section 4.
    """
    moved = moved_weights(model)
    directions = []
    for number in (1, 2):
        generator = np.random.default_rng([seed, number])
        directions.append(
            {
                name: _normalised(parameter, layer, generator)
                for name, (parameter, layer) in moved.items()
            }
        )
    return directions[0], directions[1]


def _normalised(
    parameter: nn.Parameter, layer: nn.Module, generator: np.random.Generator
) -> Tensor:
    weight = _by_filter(parameter.detach().cpu().double().numpy(), layer)
    drawn = _by_filter(generator.standard_normal(tuple(parameter.shape)), layer)
    scaled = drawn * (_filter_norms(weight) / _filter_norms(drawn))
    return torch.from_numpy(scaled.reshape(tuple(parameter.shape))).to(parameter)


def _by_filter(weight: NDArray[np.float64], layer: nn.Module) -> NDArray[np.float64]:
    """A view [G, I, F, K] of a weight: filter (g, f) is what lies at [g, :, f, :]."""
    if isinstance(layer, _TRANSPOSED):  # [I, O / groups, ...]
        groups = layer.groups
        return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return weight.reshape(weight.shape[0], -1, 1, 1)  # [O, ...]


def _filter_norms(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Norms of the filters of such a view: [G, 1, F, 1]."""
    return np.sqrt(np.square(weight).sum((1, 3), keepdims=True))


def loss_row(
    model: nn.Module,
    directions: tuple[dict[str, Tensor], dict[str, Tensor]],
    positions: NDArray[np.float64],
    y: float,
    dataset: ImageDataset,
    mean: Sequence[float],
    std: Sequence[float],
    advance: Callable[[], object] = lambda: None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure a row of the landscape: the points (x, y) for all x.

    Args:
        model: the trained network. Its weights are moved meanwhile, and are the same bits
            afterwards, whatever happens.
        directions: of :func:`filter_directions`.
        positions: the values of x, [S].
        y: how far along the second direction.
        dataset: the images.
        mean, std: normalisation that the network was trained with.
        advance: called behind every point.

    Returns:
        (loss, accuracy), float64 [S] each: mean cross-entropy in nats, which is NaN or infinite
        where the network's outputs are; share of right predictions in [0, 1].
    """
    first, second = directions
    parameters = dict(model.named_parameters())
    trained = {name: parameters[name].detach().clone() for name in first}
    losses, accuracies = [], []
    try:
        for x in positions:
            with torch.no_grad():
                for name, weight in trained.items():
                    # In this order 0 moves nothing: the centre is the trained network.
                    parameters[name].copy_(weight + y * second[name] + float(x) * first[name])
            with np.errstate(invalid="ignore", over="ignore"):
                result = classification.evaluate(model, dataset, mean, std)
            losses.append(result.loss)
            accuracies.append(result.accuracy)
            advance()
    finally:
        with torch.no_grad():
            for name, weight in trained.items():
                parameters[name].copy_(weight)
    return np.array(losses), np.array(accuracies)


def roughness(loss: NDArray[np.float64]) -> float:
    """How much of a landscape is noise from point to point; signbit's own measure.

    With ``z = log max(loss, LOSS_FLOOR)`` on the grid and its third differences ``t = -z[i] +
    3 z[i+1] - 3 z[i+2] + z[i+3]`` along all rows and all columns::

        roughness = sqrt(mean(t**2) / 20) / std(z)

    0 for every quadratic z and for a flat landscape, near 0 for any z that is smooth on the scale
    of the grid's step; about 1 for independent noise, whose t have 20 times its variance. A power
    of the loss is as rough as the loss. It depends on the step: compare grids of the same size and
    range.

    Args:
        loss: [S, S] in nats. Points that are not finite are left out, with the differences that
            touch them.

    Returns:
        A number from 0 on; NaN where no four finite points follow each other.
    """
    z = _log_loss(loss)
    thirds = np.concatenate([np.diff(z, 3, axis=axis).ravel() for axis in (0, 1)])
    thirds = thirds[np.isfinite(thirds)]
    if not len(thirds):
        return math.nan
    if np.nanmin(z) == np.nanmax(z):
        return 0.0
    return float(np.sqrt(np.mean(thirds**2) / 20) / np.nanstd(z))


def quadratic_fit(loss: NDArray[np.float64], positions: NDArray[np.float64]) -> float:
    """How near a landscape is to a paraboloid; signbit's own measure.

    R² of the least-squares fit of ``a + b x + c y + d x² + e x y + f y²`` to ``z = log max(loss,
    LOSS_FLOOR)``::

        quadratic_fit = 1 - sum((z - fit)**2) / sum((z - mean(z))**2)

    Args:
        loss: [S, S] in nats; points that are not finite are left out.
        positions: the values of x and of y, [S].

    Returns:
        A number in [0, 1], 1 for a paraboloid and for a flat landscape; NaN where fewer than seven
        points are finite, through six of which a fit would always go.
    """
    z = _log_loss(loss)
    finite = np.isfinite(z)
    if finite.sum() < 7:
        return math.nan
    y, x = (axis[finite] for axis in np.meshgrid(positions, positions, indexing="ij"))
    z = z[finite]
    if z.min() == z.max():
        return 1.0
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    left = z - terms @ np.linalg.lstsq(terms, z, rcond=None)[0]
    return float(1.0 - np.square(left).sum() / np.square(z - z.mean()).sum())


def _log_loss(loss: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of losses; NaN where the loss is not finite."""
    return np.log(np.where(np.isfinite(loss), np.maximum(loss, LOSS_FLOOR), np.nan))

"""What a family of networks says of its authors' releases."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

ImageStatistics = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class Published:
    """One tensor of a release: its name there and its shape there."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """How the networks of one family are named in their authors' releases.

    Attributes:
        title: the method, for people.
        models: the registry's names of the networks.
        published: of a network, of our name of one of its tensors and of that tensor, what the
            release calls it; the number of elements is the same. Every tensor of the state dict is
            asked for.
        arguments: from the names in a file, arguments of the network beside stem and classes that
            they tell, such as the activation.
        head: the tensor whose first dimension is the number of classes.
        statistics: mean and standard deviation that the authors normalise images with.
        note: what a file cannot tell, one sentence for people; empty if there is nothing.
    """

    title: str
    models: tuple[str, ...]
    published: Callable[[nn.Module, str, Tensor], Published]
    arguments: Callable[[Collection[str]], Mapping[str, Any]]
    head: str
    statistics: ImageStatistics
    note: str = ""

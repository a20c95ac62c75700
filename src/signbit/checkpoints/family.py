"""What a family of networks says of its authors' releases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

ImageStatistics = tuple[tuple[float, float, float], tuple[float, float, float]]
Tensors = Mapping[str, Tensor]


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
            asked for. Raises CheckpointError for one that no release has.
        claims: whether a file's tensors have names that only networks of this family have.
        arguments: of the name of a network and of a file's tensors, what these tell of the
            network's arguments beside the classes, such as the activation, or the stem where the
            number of classes decides it.
        head: the tensor whose first dimension is the number of classes.
        statistics: stem to mean and standard deviation that the authors normalise images with.
        note: of the tensors of a file that fits, what the user should know of it, one sentence;
            empty if there is nothing.
        misfit: of the tensors of a file that does not fit, what it probably is; empty if they do
            not tell.
        fixed: arguments that all released networks have.
        further: of a network, the tensors that a release has beside those of our network, with
            values that they may have there. They take no part in what the network computes: a file
            must have them, and they are not read.
        order: of a release's name, a sort key that brings the names into the release's order where
            ours is another one; tensors of equal keys stay in our order, the further ones behind.
    """

    title: str
    models: tuple[str, ...]
    published: Callable[[nn.Module, str, Tensor], Published]
    claims: Callable[[Tensors], bool]
    arguments: Callable[[str, Tensors], Mapping[str, Any]]
    head: str
    statistics: Mapping[str, ImageStatistics]
    note: Callable[[Tensors], str]
    misfit: Callable[[Tensors], str]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    further: Callable[[nn.Module], Tensors] = lambda network: {}
    order: Callable[[str], Any] = lambda name: ()

"""Import: a published state dict becomes one of our networks, tensor by tensor.

What a file must hold is read off the network itself, built without memory for its tensors, so that
no tensor of the network stays at its first values. None of the file is left over but those that
the family names as taking no part in what the network computes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from signbit.checkpoints.ab_bnn import AB_BNN
from signbit.checkpoints.bnext import BNEXT
from signbit.checkpoints.family import Family, Published
from signbit.checkpoints.reading import read_tensors
from signbit.errors import CheckpointError
from signbit.models import create_model, model_info
from signbit.models.registry import model_arguments
from signbit.quantizers import nearest_name
from signbit.training import TrainedModel

FAMILIES = (AB_BNN, BNEXT)


@dataclass(frozen=True)
class Imported:
    """An imported checkpoint.

    Attributes:
        trained: the network with its weights, ready to be saved.
        inferred: what was not given but read off the file: argument to value.
        note: what the user should know of the file; empty if there is nothing.
    """

    trained: TrainedModel
    inferred: dict[str, Any]
    note: str


@dataclass(frozen=True)
class _Candidate:
    """A network that a file may hold, and what the file must then hold."""

    family: Family
    name: str
    arguments: dict[str, Any]
    tensors: dict[str, Published]  # by our names
    shapes: dict[str, tuple[int, ...]]  # of all that the release has, by its names

    def __str__(self) -> str:
        told = {k: v for k, v in self.arguments.items() if k not in self.family.fixed}
        return f"{self.name} ({', '.join(f'{k} {v}' for k, v in told.items())})"


def import_checkpoint(
    path: str | Path,
    model: str | None = None,
    stem: str | None = None,
    classes: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Imported:
    """Read a checkpoint that the authors of a network have published.

    Args:
        path: the file: a state dict, also wrapped, see `read_tensors`. No code in it is run.
        model: our name of the network, such as ``ab_reactnet18``; None: found by the tensors.
        stem: ``imagenet`` or ``cifar``; None: found by the tensors, if they tell.
        classes: None: as many as the classifier has outputs.
        class_names: one a class; None: "0", "1", ...

    Raises:
        CheckpointError: the file cannot be read, holds no network that is known or another one than
            asked for (the message names the first tensor that does not fit, and what the file
            probably is), or values that are not finite in the network's own precision.
    """
    path = Path(path)
    tensors = read_tensors(path)
    families = _claiming(tensors) if model is None else [_family(model)]
    count = _classes(path, tensors, families, classes)
    if class_names is not None and len(class_names) != count:
        raise CheckpointError(
            f"{path}: {count} classes, but {len(class_names)} class names were given"
        )
    chosen = _choose(path, tensors, families, model, stem, count)
    network = create_model(chosen.name, **chosen.arguments).eval()
    own = network.state_dict()
    for ours, theirs in chosen.tensors.items():
        values = _values(path, theirs.name, tensors[theirs.name], own[ours])
        own[ours].copy_(values.reshape(own[ours].shape))
    mean, std = chosen.family.statistics[chosen.arguments["stem"]]
    trained = TrainedModel(
        network,
        {"name": chosen.name, **chosen.arguments},
        tuple(class_names) if class_names is not None else tuple(map(str, range(count))),
        mean,
        std,
        model_info(chosen.name).input_sizes[chosen.arguments["stem"]],
        {
            "task": "classification",
            "imported": {
                "family": chosen.family.title,
                "file": path.name,
                "sha256": _sha256(path),
            },
        },
    )
    given = {"model": model, "stem": stem, "num_classes": classes, **chosen.family.fixed}
    found = {"model": chosen.name, **chosen.arguments}
    inferred = {name: value for name, value in found.items() if given.get(name) is None}
    return Imported(trained, inferred, chosen.family.note(tensors))


def published_tensors(name: str, **arguments: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the authors' release of one of our networks, in the release's order.

    ``arguments`` are those of :func:`signbit.models.create_model`, beside those that all releases
    of the family have in common, such as 32-bit stems. Raises CheckpointError for a network without
    a published form.
    """
    return dict(_candidate(_family(name), name, arguments).shapes)


def published_state_dict(name: str, network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors as the authors' release has them: the inverse of the import.

    Tensors that a release has beside ours, and that take no part in what it computes, get values
    that they may have there. ``name`` is the network's in the registry. Raises CheckpointError if
    it has no published form.
    """
    family = _family(name)
    found = {}
    for ours, tensor in network.state_dict().items():
        theirs = family.published(network, ours, tensor)
        found[theirs.name] = tensor.detach().reshape(theirs.shape)
    found.update(family.further(network))
    return {key: found[key] for key in sorted(found, key=family.order)}


def _family(model: str) -> Family:
    for family in FAMILIES:
        if model in family.models:
            return family
    known = [name for family in FAMILIES for name in family.models]
    raise CheckpointError(
        f"model {model!r}: no published checkpoint of it is known{nearest_name(model, known)}; "
        f"known: {', '.join(known)}"
    )


def _claiming(tensors: Mapping[str, Tensor]) -> list[Family]:
    """The families that a file's names are of; all if they are of none."""
    return [family for family in FAMILIES if family.claims(tensors)] or list(FAMILIES)


def _candidate(family: Family, name: str, arguments: dict[str, Any]) -> _Candidate:
    arguments = {**arguments, **family.fixed}
    tensors, shapes = _published(name, tuple(arguments.items()))
    return _Candidate(family, name, arguments, tensors, shapes)


# Building a large network takes a second, and a file that does not fit asks for most of them twice.
@lru_cache(maxsize=64)
def _published(
    name: str, arguments: tuple[tuple[str, Any], ...]
) -> tuple[dict[str, Published], dict[str, tuple[int, ...]]]:
    """Of a network, what its tensors are called in a release, and the shapes of all of these."""
    family = _family(name)
    with torch.device("meta"):  # shapes only
        network = create_model(name, **dict(arguments))
        further = family.further(network)
    tensors = {
        ours: family.published(network, ours, tensor)
        for ours, tensor in network.state_dict().items()
    }
    shapes = {each.name: each.shape for each in tensors.values()}
    shapes.update({key: tuple(tensor.shape) for key, tensor in further.items()})
    return tensors, {key: shapes[key] for key in sorted(shapes, key=family.order)}


def _candidates(
    families: Iterable[Family],
    tensors: Mapping[str, Tensor],
    classes: int,
    model: str | None = None,
    stem: str | None = None,
) -> list[_Candidate]:
    """Networks that a file may hold, as its names want them: all, or those of a name or a stem."""
    found = []
    for family in families:
        for name in family.models if model is None else (model,):
            told = {**family.arguments(name, tensors)}
            told_stem = told.pop("stem", None)
            taken = model_arguments(name) or told
            known = {key: value for key, value in told.items() if key in taken}
            for each in model_info(name).input_sizes:
                if (stem or told_stem) in (None, each):
                    arguments = {"num_classes": classes, "stem": each, **known}
                    found.append(_candidate(family, name, arguments))
    return found


def _classes(
    path: Path, tensors: Mapping[str, Tensor], families: Sequence[Family], classes: int | None
) -> int:
    for family in families:
        if family.head in tensors and tensors[family.head].dim() == 2:
            outputs = tensors[family.head].shape[0]
            if not outputs:
                raise CheckpointError(
                    f"{path}: {family.head} is {_shape(tensors[family.head].shape)}: a classifier "
                    "without classes; save the network with its own"
                )
            if classes is not None and classes != outputs:
                raise CheckpointError(
                    f"{path}: {family.head} is {_shape(tensors[family.head].shape)}: the network "
                    f"has {outputs} classes, not {classes}"
                )
            return outputs
    heads = " or ".join(dict.fromkeys(family.head for family in families))
    raise CheckpointError(
        f"{path}: no classifier {heads} [classes, features] in it, so it is no network of "
        f"{' or '.join(family.title for family in families)}; its first tensor is "
        f"{next(iter(tensors))}"
    )


def _choose(
    path: Path,
    tensors: Mapping[str, Tensor],
    families: Sequence[Family],
    model: str | None,
    stem: str | None,
    classes: int,
) -> _Candidate:
    """The one network that fits the file, or an error that says what does not fit."""
    asked = _candidates(families, tensors, classes, model, stem)
    if not asked:
        known = model_info(model or families[0].models[0]).input_sizes
        raise CheckpointError(f"stem {stem!r}: expected one of {', '.join(known)}")
    fitting = [candidate for candidate in asked if _misfit(tensors, candidate.shapes) is None]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        stems = [each.arguments["stem"] for each in fitting]
        raise CheckpointError(
            f"{path}: {fitting[0].name}, but its tensors do not tell the stem: say "
            f"{' or '.join(stems)}"
        )
    everything = _candidates(_claiming(tensors), tensors, classes)
    nearest = max(asked, key=lambda candidate: _likeness(tensors, candidate.shapes))
    raise CheckpointError(f"{path}: {_explanation(tensors, nearest, everything)}")


def _likeness(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> float:
    """The share of tensors in which a file and a network agree."""
    same = sum(shapes.get(name) == tuple(tensor.shape) for name, tensor in tensors.items())
    return same / len(tensors.keys() | shapes.keys())


def _misfit(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The first tensor in which a file and a network differ: the network's order, then the file's.

    None if there is none.
    """
    for name, shape in shapes.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            return name
    return next((name for name in tensors if name not in shapes), None)


def _explanation(
    tensors: Mapping[str, Tensor], nearest: _Candidate, everything: Sequence[_Candidate]
) -> str:
    """What does not fit, and what the file probably is."""
    shapes = nearest.shapes
    name = _misfit(tensors, shapes)
    assert name is not None
    if name not in tensors:
        text = f"{name} {_shape(shapes[name])} is missing for {nearest}"
    elif name not in shapes:
        text = f"{name} {_shape(tensors[name].shape)} is in the file but not in {nearest}"
    else:
        found, expected = _shape(tensors[name].shape), _shape(shapes[name])
        text = f"{name} is {found}, but {nearest} has {expected}"
    fitting = [each for each in everything if _misfit(tensors, each.shapes) is None]
    if fitting:
        named = [f"{each.name} with stem {each.arguments['stem']}" for each in fitting]
        return f"{text}; the file fits {' or '.join(named)}"
    if probably := nearest.family.misfit(tensors):
        return f"{text}; {probably}"
    others = [
        each.name for each in everything if each.name != nearest.name and each.shapes.get(name)
    ]
    if name not in shapes and others:
        return f"{text}; {' and '.join(dict.fromkeys(others))} have a tensor of that name"
    return f"{text}; no network of {nearest.family.title} fits the file"


def _shape(shape: Iterable[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _values(path: Path, name: str, tensor: Tensor, own: Tensor) -> Tensor:
    """The file's numbers in the network's precision, where they must be finite."""
    if tensor.is_floating_point() != own.is_floating_point():
        raise CheckpointError(f"{path}: {name} holds {tensor.dtype}; {own.dtype} was expected")
    values = tensor.to(own.dtype)
    if torch.isfinite(values).all():
        return values
    if torch.isfinite(tensor.double()).all():
        raise CheckpointError(
            f"{path}: {name} holds {tensor.abs().max().item():g}, which is beyond {own.dtype}: "
            "scale it down or train again"
        )
    raise CheckpointError(f"{path}: {name} holds NaN or infinity: download or train again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

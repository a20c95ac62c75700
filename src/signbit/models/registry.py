"""The registry of models: every model is a function, found by its name."""

import fnmatch
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from signbit.quantizers import nearest_name

Factory = TypeVar("Factory", bound=Callable[..., nn.Module])


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model.

    ``input_sizes`` is the shape of one input, [C, H, W], for each stem. ``status`` says whose
    network it is: the authors' own graph, or a reconstruction of ours.
    """

    name: str
    input_sizes: dict[str, tuple[int, int, int]]
    source: str
    status: str


_FACTORIES: dict[str, Callable[..., nn.Module]] = {}
_INFO: dict[str, ModelInfo] = {}


def register_model(
    *, input_sizes: dict[str, tuple[int, int, int]], source: str, status: str
) -> Callable[[Factory], Factory]:
    """Register the decorated function under its own name.

    Raises ValueError if the name is taken.
    """

    def register(factory: Factory) -> Factory:
        name = factory.__name__
        if name in _FACTORIES:
            raise ValueError(f"a model named {name!r} is registered already")
        _FACTORIES[name] = factory
        _INFO[name] = ModelInfo(name, input_sizes, source, status)
        return factory

    return register


def create_model(name: str, **arguments) -> nn.Module:
    """Make the model of that name; ``arguments`` go to its function.

    Raises ValueError for an unknown name, naming the nearest.
    """
    _check(name)
    return _FACTORIES[name](**arguments)


def list_models(pattern: str | None = None) -> list[str]:
    """Return the models' names, sorted; ``pattern`` (shell wildcards: ``"*18"``) selects some."""
    return sorted(n for n in _FACTORIES if pattern is None or fnmatch.fnmatchcase(n, pattern))


def model_info(name: str) -> ModelInfo:
    """Return what is known of the model of that name.

    Raises ValueError for an unknown name, naming the nearest.
    """
    _check(name)
    return _INFO[name]


def model_arguments(name: str) -> list[str] | None:
    """Return the names of the arguments that the model takes; None if it takes any.

    Raises ValueError for an unknown name, naming the nearest.
    """
    _check(name)
    parameters = inspect.signature(_FACTORIES[name]).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters]


def _check(name: str) -> None:
    if name not in _FACTORIES:
        known = list_models()
        raise ValueError(
            f"unknown model {name!r}{nearest_name(str(name), known)}; known: {', '.join(known)}"
        )

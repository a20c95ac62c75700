"""Training: checked recipes, stages, checkpoints and what a run leaves behind.

Recipes are checked without PyTorch; what needs it is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from signbit.training.recipe import Recipe, load_recipe, parse_recipe

if TYPE_CHECKING:
    from signbit.training.ranking import knowledge_complexity, rank_teachers
    from signbit.training.run import RunResult, train
    from signbit.training.trained import TrainedModel, load_trained, weights_sha256

_HOMES = {
    "RunResult": "signbit.training.run",
    "TrainedModel": "signbit.training.trained",
    "knowledge_complexity": "signbit.training.ranking",
    "load_trained": "signbit.training.trained",
    "rank_teachers": "signbit.training.ranking",
    "train": "signbit.training.run",
    "weights_sha256": "signbit.training.trained",
}

__all__ = [
    "Recipe",
    "RunResult",
    "TrainedModel",
    "knowledge_complexity",
    "load_recipe",
    "load_trained",
    "parse_recipe",
    "rank_teachers",
    "train",
    "weights_sha256",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

"""Training: checked recipes, stages, checkpoints and what a run leaves behind."""

from signbit.training.recipe import Recipe, load_recipe, parse_recipe
from signbit.training.run import RunResult, train
from signbit.training.trained import TrainedModel, load_trained, weights_sha256

__all__ = [
    "Recipe",
    "RunResult",
    "TrainedModel",
    "load_recipe",
    "load_trained",
    "parse_recipe",
    "train",
    "weights_sha256",
]

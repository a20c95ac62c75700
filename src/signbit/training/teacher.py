"""Distillation's teacher: a trained network whose soft labels a student learns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from signbit.data.base import DataSource
from signbit.errors import RecipeError
from signbit.training.recipe import TeacherRecipe
from signbit.training.trained import load_trained


class Teacher:
    """A frozen network that sees a student's batches in its own normalisation.

    Not a ``torch.nn.Module``, so that it becomes no part of the student's checkpoints or modes.

    Args:
        model: images [N, C, H, W] to logits [N, classes].
        mean, std: normalisation that ``model`` was trained with, in units of [0, 1].
        source: the student's data; its batches are normalised with its own statistics.
    """

    def __init__(
        self, model: nn.Module, mean: Sequence[float], std: Sequence[float], source: DataSource
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        own, students = ((torch.tensor(m), torch.tensor(s)) for m, s in (
            (mean, std), (source.mean, source.std)
        ))  # fmt: skip
        self.scale = (students[1] / own[1]).view(1, -1, 1, 1)
        self.shift = ((students[0] - own[0]) / own[1]).view(1, -1, 1, 1)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits [N, classes] for a batch [N, C, H, W] of the student's, on the batch's device."""
        self.model.to(images.device)
        return self.model(images * self.scale.to(images) + self.shift.to(images))


def load_teacher(recipe: TeacherRecipe, source: DataSource, path: str) -> Teacher:
    """Load the teacher of a stage; ``path`` is its place in the recipe, for errors.

    Raises:
        RecipeError: timm is not installed, has no such model with weights, or cannot load these; or
            the teacher's classes or channels are not those of the data.
        SignbitError: the checkpoint is missing or damaged.
    """
    if recipe.checkpoint is not None:
        trained = load_trained(recipe.checkpoint)
        if tuple(trained.class_names) != tuple(source.class_names):
            raise RecipeError(f"{path}.checkpoint: the teacher's classes are not those of the data")
        if trained.input_shape[0] != source.channels:
            raise RecipeError(
                f"{path}.checkpoint: the teacher takes {trained.input_shape[0]} channels, the data "
                f"have {source.channels}"
            )
        return Teacher(trained.model, trained.mean, trained.std, source)
    try:
        import timm
    except ImportError as error:
        raise RecipeError(
            f'{path}.timm: needs the timm package: pip install "signbit[teachers]"'
        ) from error
    assert recipe.timm is not None
    try:
        model = timm.create_model(recipe.timm, pretrained=True)
    except RuntimeError as error:
        raise RecipeError(f"{path}.timm: {error}") from error
    except Exception as error:  # hubs and their HTTP clients have classes of their own
        text = (str(error).strip().splitlines() or [""])[0]
        raise RecipeError(
            f"{path}.timm: the weights of {recipe.timm} cannot be loaded "
            f"({type(error).__name__}: {text}): timm downloads them once, so connect to the "
            f"internet or fill its cache; or give a network of signbit's as {path}.checkpoint"
        ) from error
    config = model.pretrained_cfg
    if config["num_classes"] != source.num_classes:
        raise RecipeError(
            f"{path}.timm: {recipe.timm} tells {config['num_classes']} classes apart, the data "
            f"have {source.num_classes}"
        )
    channels = config["input_size"][0]
    if channels != source.channels:
        raise RecipeError(
            f"{path}.timm: {recipe.timm} takes {channels} channels, the data have {source.channels}"
        )
    return Teacher(model, config["mean"], config["std"], source)

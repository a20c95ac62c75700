"""What a recipe asks of the registry of models and of this machine, checked before data are read.

Apart from the recipe's own checks, which need no PyTorch.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from importlib import util

import torch
from torch import nn

from signbit.errors import RecipeError
from signbit.nn import set_weight_temperature
from signbit.tasks import get_task
from signbit.training.recipe import AugmentRecipe, DataRecipe, ModelRecipe, Recipe, nearest


def check_data(recipe: Recipe) -> None:
    """Check that the recipe's task knows the data set, and reads what the recipe says of it.

    Raises:
        RecipeError: it does not; gives the dotted path and the nearest name.
    """
    task = get_task(recipe.task)
    data = recipe.data
    if data.name not in task.sources:
        hint = nearest(data.name, list(task.sources), 0.4)
        raise RecipeError(f"data.name: {task.name} has no source {data.name!r}{hint}")
    given = {name: value for name, value in data if name != "augment"}
    given |= {f"augment.{name}": value for name, value in data.augment}
    defaults = {name: field.default for name, field in DataRecipe.model_fields.items()}
    defaults |= {
        f"augment.{name}": field.default for name, field in AugmentRecipe.model_fields.items()
    }
    read = task.data_fields | {"name", "batch_size", "val_size"}
    for name, value in given.items():
        if name not in read and value != defaults[name]:
            raise RecipeError(
                f"data.{name}: {task.name} does not read it, leave it out; it reads "
                f"{', '.join(sorted(task.data_fields))}"
            )


def check_model(recipe: ModelRecipe) -> None:
    """Check that the registry has the model, and the model its options.

    Raises:
        RecipeError: it has not; gives the dotted path and the nearest name.
    """
    from signbit.models import list_models
    from signbit.models.registry import model_arguments

    if recipe.name not in list_models():
        hint = nearest(recipe.name, list_models(), 0.4)
        raise RecipeError(f"model.name: no model {recipe.name!r}{hint}")
    known = model_arguments(recipe.name)
    if known is None:
        return
    if not has_stems(recipe.name) and recipe.stem != ModelRecipe.model_fields["stem"].default:
        raise RecipeError(f"model.stem: {recipe.name} has one stem only, leave it out")
    given = ("name", "stem", "width", "num_classes", "in_channels")  # not by way of options
    free = [name for name in known if name not in given]
    for option in recipe.options:
        if option not in free:
            hint = nearest(option, free, 0.4) or "; it has none"
            raise RecipeError(f"model.options.{option}: {recipe.name} has no such option{hint}")


def has_stems(name: str) -> bool:
    """Whether a network of the registry has a choice of stems."""
    from signbit.models.registry import model_arguments

    known = model_arguments(name)
    return known is None or "stem" in known


def check_patterns(recipe: Recipe, model: nn.Module) -> None:
    """Check that each pattern of parameters in the recipe fits some of the model's.

    Raises:
        RecipeError: it fits none; gives the dotted path and the nearest name.
    """
    names = [name for name, _ in model.named_parameters()]
    for index, stage in enumerate(recipe.stages):
        optimizer = stage.optimizer
        lists = {
            "decay_exclude": optimizer.decay_exclude,
            "decays": list(optimizer.decays),
            "lr_scale": list(optimizer.lr_scale),
        }
        if optimizer.agc is not None:
            lists["agc.exclude"] = optimizer.agc.exclude
        for field, patterns in lists.items():
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in names):
                    hint = nearest(pattern, names, 0.0)
                    raise RecipeError(
                        f"stages.{index}.optimizer.{field}: {pattern!r} fits no parameter{hint}"
                    )


def check_progressive(recipe: Recipe, model: nn.Module) -> None:
    """Check that a stage with progressive weights has a model with such weights.

    Raises:
        RecipeError: it has none.
    """
    for index, stage in enumerate(recipe.stages):
        if stage.progressive is not None:
            try:
                set_weight_temperature(model, 0.0)
            except ValueError as error:
                raise RecipeError(
                    f"stages.{index}.progressive: {error}; leave it out, or take a model that has "
                    "such layers, such as bnext_tiny"
                ) from error


def check_machine(recipe: Recipe) -> None:
    """Check that this machine has what the recipe wants to run on.

    Raises:
        RecipeError: no GPU, or fewer than wanted; no TensorBoard; or this is one of several
            processes already.
    """
    if recipe.accelerator == "gpu" and not (
        torch.cuda.is_available() or torch.backends.mps.is_available()
    ):
        raise RecipeError("accelerator: PyTorch finds no GPU here; use 'auto' or 'cpu'")
    if recipe.devices > 1:
        _check_devices(recipe)
    if recipe.tensorboard and not any(map(util.find_spec, ("tensorboard", "tensorboardX"))):
        raise RecipeError("tensorboard: true needs the tensorboard package")


def _check_devices(recipe: Recipe) -> None:
    if not torch.distributed.is_available():
        raise RecipeError(f"devices: {recipe.devices}: this PyTorch is built without distributed")
    if torch.distributed.is_initialized():
        raise RecipeError(
            f"devices: {recipe.devices}: this process belongs to a process group already; signbit "
            "starts its own, so run it once, without torchrun and its like"
        )
    if recipe.accelerator == "cpu":
        return
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not found and torch.backends.mps.is_available():
        found = 1
    if 0 < found < recipe.devices:
        raise RecipeError(
            f"devices: {recipe.devices}: PyTorch finds {found} GPUs here; set devices: {found}, or "
            "accelerator: cpu for processes on the CPU"
        )

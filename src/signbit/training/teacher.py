"""Distillation's teachers: trained networks whose soft labels a student learns."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from signbit.data.base import DataSource
from signbit.errors import RecipeError, SignbitError
from signbit.training.recipe import Recipe, TeacherRecipe, nearest
from signbit.training.trained import TrainedModel, load_trained


class Teacher:
    """A frozen network that sees a student's batches in its own normalisation.

    Not a ``torch.nn.Module``, so that it becomes no part of the student's checkpoints or modes.

    Args:
        model: images [N, C, H, W] to logits [N, classes].
        mean, std: normalisation that ``model`` was trained with, in units of [0, 1].
        source: the student's data; its batches are normalised with its own statistics.
        input_size: (height, width) that images are resized to, bilinearly; None leaves them.
    """

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        source: DataSource,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        own, students = ((torch.tensor(m), torch.tensor(s)) for m, s in (
            (mean, std), (source.mean, source.std)
        ))  # fmt: skip
        self.scale = (students[1] / own[1]).view(1, -1, 1, 1)
        self.shift = ((students[0] - own[0]) / own[1]).view(1, -1, 1, 1)
        self.mean, self.std = tuple(mean), tuple(std)
        self.input_size = None if input_size == source.image_size else input_size

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits [N, classes] for a batch [N, C, H, W] of the student's, on the batch's device."""
        self.model.to(images.device)
        images = images * self.scale.to(images) + self.shift.to(images)
        if self.input_size is not None:
            images = nn.functional.interpolate(
                images, self.input_size, mode="bilinear", antialias=True
            )
        return self.model(images)

    def batch(self, images: Tensor, epoch: int, step: int) -> Tensor:
        """Logits for batch ``step`` of a run's epoch, both from 0; see :class:`CachedTeacher`."""
        return self(images)


def load_teachers(
    recipe: Recipe,
    source: DataSource,
    networks: Mapping[str, nn.Module | TrainedModel] | None = None,
) -> list[dict[TeacherRecipe, Teacher]]:
    """Load the teachers and assistants of every stage, each network once.

    Args:
        recipe: its stages name them.
        source: the student's data.
        networks: those that the recipe means by ``name``. A module takes batches in the student's
            normalisation; one with its own is a :class:`signbit.training.TrainedModel`.

    Raises:
        RecipeError: a teacher cannot be had or does not fit the data, or no stage names one of
            ``networks``; gives the dotted path.
        SignbitError: a checkpoint is missing or damaged.
    """
    networks = networks or {}
    loaded: dict[TeacherRecipe, Teacher] = {}
    stages: list[dict[TeacherRecipe, Teacher]] = []
    for index, stage in enumerate(recipe.stages):
        stages.append({})
        for place, each in stage.loss.places().items():
            # Temperatures are of the loss: the network behind them is the same.
            network = each.model_copy(update={"temperature": 1.0})
            if network not in loaded:
                path = f"stages.{index}.loss.{place}"
                loaded[network] = load_teacher(each, source, path, networks)
            stages[-1][each] = loaded[network]
    if unused := set(networks) - {each.name for each in loaded}:
        raise RecipeError(
            f"teachers: no stage of the recipe has a teacher by the name of {sorted(unused)[0]!r}: "
            "write it as loss.teachers: [{name: ...}]"
        )
    return stages


def load_teacher(
    recipe: TeacherRecipe,
    source: DataSource,
    path: str,
    networks: Mapping[str, nn.Module | TrainedModel] | None = None,
) -> Teacher:
    """Load one teacher; ``path`` is its place in the recipe, for errors.

    Raises:
        RecipeError: timm is not installed, has no such model with weights, or cannot load these;
            ``networks`` lacks the name; or the teacher's classes, channels or image size are not
            those of the data.
        SignbitError: the checkpoint is missing or damaged.
    """
    if recipe.checkpoint is not None:
        field = f"{path}.checkpoint"
        try:
            trained = load_trained(recipe.checkpoint)
        except SignbitError as error:
            raise SignbitError(
                f"{field}: {error}; train the teacher first, or say where its run is: "
                f"--set {field}=FOLDER"
            ) from error
        teacher = _trained(trained, recipe, source, field)
    elif recipe.timm is not None:
        teacher = _from_timm(recipe.timm, recipe, source, path)
    else:
        assert recipe.name is not None
        teacher = _given(recipe.name, recipe, source, path, networks or {})
    _try(teacher, recipe, source, path)
    return teacher


def _trained(
    trained: TrainedModel, recipe: TeacherRecipe, source: DataSource, path: str
) -> Teacher:
    if tuple(trained.class_names) != tuple(source.class_names):
        raise RecipeError(
            f"{path}: the teacher's classes are not those of the data "
            f"({_classes(trained.class_names)} against {_classes(source.class_names)})"
        )
    channels, *size = trained.input_shape
    if channels != source.channels:
        raise RecipeError(
            f"{path}: the teacher takes {channels} channels, the data have {source.channels}"
        )
    if recipe.input_size is None and tuple(size) != source.image_size:
        raise RecipeError(_other_size(path, "the teacher was trained on", size, source))
    return Teacher(trained.model, trained.mean, trained.std, source, _size(recipe))


def _from_timm(name: str, recipe: TeacherRecipe, source: DataSource, path: str) -> Teacher:
    path = f"{path}.timm"
    try:
        import timm
    except ImportError as error:
        raise RecipeError(
            f'{path}: needs the timm package: pip install "signbit[teachers]"'
        ) from error
    try:
        model = timm.create_model(name, pretrained=True)
    except RuntimeError as error:
        raise RecipeError(f"{path}: {error}") from error
    except Exception as error:  # hubs and their HTTP clients have classes of their own
        text = (str(error).strip().splitlines() or [""])[0]
        raise RecipeError(
            f"{path}: the weights of {name} cannot be loaded "
            f"({type(error).__name__}: {text}): timm downloads them once, so connect to the "
            f"internet or fill its cache; or give a network of signbit's as "
            f"{path.removesuffix('timm')}checkpoint"
        ) from error
    config = model.pretrained_cfg
    if config["num_classes"] != source.num_classes:
        raise RecipeError(
            f"{path}: {name} tells {config['num_classes']} classes apart, the data "
            f"have {source.num_classes}"
        )
    channels, *size = config["input_size"]
    if channels != source.channels:
        raise RecipeError(
            f"{path}: {name} takes {channels} channels, the data have {source.channels}"
        )
    # Transformers of patches take one size alone; others any, though they know their own best.
    if config.get("fixed_input_size") and (_size(recipe) or source.image_size) != tuple(size):
        raise RecipeError(_other_size(path, f"{name} takes", size, source))
    return Teacher(model, config["mean"], config["std"], source, _size(recipe))


def _given(
    name: str,
    recipe: TeacherRecipe,
    source: DataSource,
    path: str,
    networks: Mapping[str, nn.Module | TrainedModel],
) -> Teacher:
    if name not in networks:
        hint = nearest(name, list(networks), 0.4) or "; none was"
        raise RecipeError(
            f"{path}.name: no network {name!r} was given as train(..., teachers={{name: "
            f"network}}){hint}"
        )
    network = copy.deepcopy(networks[name])  # it is frozen and moved, and may be the student too
    if isinstance(network, TrainedModel):
        return _trained(network, recipe, source, f"{path}.name")
    return Teacher(network, source.mean, source.std, source, _size(recipe))


def _size(recipe: TeacherRecipe) -> tuple[int, int] | None:
    return None if recipe.input_size is None else (recipe.input_size, recipe.input_size)


def _other_size(path: str, what: str, size: Sequence[int], source: DataSource) -> str:
    height, width = source.image_size
    way_out = (
        f"an input_size of {size[0]} resizes them for it, if that is what you want"
        if size[0] == size[1]
        else "take another teacher"
    )
    return f"{path}: {what} {size[0]}x{size[1]} images, the data's are {height}x{width}: {way_out}"


def _classes(names: Sequence[str]) -> str:
    return f"{len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _try(teacher: Teacher, recipe: TeacherRecipe, source: DataSource, path: str) -> None:
    """Run one empty image: what a network takes and gives is certain only then."""
    path = f"{path}.input_size" if recipe.input_size else path
    height, width = _size(recipe) or source.image_size
    try:
        logits = teacher(torch.zeros(1, *source.input_shape))
    except Exception as error:  # whatever a network raises at images that it cannot take
        if isinstance(error, SignbitError):
            raise
        text = (str(error).strip().splitlines() or [""])[0]
        raise RecipeError(
            f"{path}: the teacher cannot take images of {source.channels} channels and "
            f"{height}x{width} pixels ({type(error).__name__}: {text})"
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (1, source.num_classes):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise RecipeError(
            f"{path}: for one image the teacher gives {shape}, not logits of shape "
            f"(1, {source.num_classes}): the data have {source.num_classes} classes"
        )

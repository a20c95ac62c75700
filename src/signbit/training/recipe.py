"""Recipes: everything that decides a training run, as YAML that is checked before anything starts.

A recipe has one or more stages. Each starts from the weights of the one before with a fresh
optimiser, so the usual two-stage scheme of binary networks (binary activations with real weights
first, then both binary) is one recipe, one run and one checkpoint to resume from.
"""

from __future__ import annotations

import difflib
import math
import re
import types
import typing
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from signbit.errors import RecipeError


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AugmentRecipe(_Checked):
    """Random changes of training images; what a task does not know it refuses.

    ``crop_padding``, ``pad_mode`` and ``flip`` (left and right) are those of
    :class:`signbit.data.Augmentation`. ``rotate``: by quarter turns. ``zoom``: by a factor between
    two. ``brightness`` and ``contrast``: by at most that share.
    """

    crop_padding: int = Field(0, ge=0, le=256)
    pad_mode: Literal["reflect", "zero"] = "reflect"
    flip: bool = False
    rotate: bool = False
    zoom: tuple[Annotated[float, Field(gt=0.1, le=10)], Annotated[float, Field(le=10)]] | None = (
        None
    )
    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _zoom_is_a_range(self) -> AugmentRecipe:
        if self.zoom is not None and self.zoom[0] > self.zoom[1]:
            raise ValueError(f"zoom: the smaller factor comes first, got {list(self.zoom)}")
        return self


_Side = Annotated[int, Field(ge=1, le=4096)]


class DataRecipe(_Checked):
    """Which images, and how they come in batches.

    ``name`` is one of the task's sources, or ``auto``. ``image_size`` (pixels a side, or [height,
    width]) resizes all images; ``crop_size`` is what training cuts out of them. ``epoch_images``
    counts the crops of an epoch, where large photographs give many. ``scale`` is how many times
    super-resolution enlarges. ``options`` are what only one task knows. Each task says which of
    these it reads, and the others are refused.
    """

    name: str
    batch_size: int = Field(128, ge=2, le=65536)
    val_size: int | None = Field(None, ge=1)
    image_size: _Side | tuple[_Side, _Side] | None = None
    crop_size: _Side | tuple[_Side, _Side] | None = None
    epoch_images: int | None = Field(None, ge=1)
    scale: Literal[2, 3, 4] | None = None
    augment: AugmentRecipe = AugmentRecipe()
    options: dict[str, Any] = {}


class ModelRecipe(_Checked):
    """Which network; ``options`` are further arguments of :func:`signbit.models.create_model`.

    ``init`` starts its backbone from the ``model.pt`` (or folder) of a trained classifier.
    """

    name: str
    stem: Literal["imagenet", "cifar"] = "cifar"
    width: float = Field(1.0, gt=0, le=16)
    options: dict[str, Any] = {}
    init: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _no_duplicates(self) -> ModelRecipe:
        for key in ("name", "stem", "width"):
            if key in self.options:
                raise ValueError(f"options.{key}: write it beside options, not inside")
        for key in ("num_classes", "in_channels"):
            if key in self.options:
                raise ValueError(f"options.{key}: comes from the data, leave it out")
        return self


class AgcRecipe(_Checked):
    """Adaptive gradient clipping, see :func:`signbit.training.agc.clip_gradients_`.

    ``exclude`` has the parameters that are not clipped, by name, with shell wildcards.
    """

    clip_factor: float = Field(gt=0, le=100)
    eps: float = Field(1e-3, gt=0, le=1)
    exclude: list[str] = ["head.*"]


class OptimizerRecipe(_Checked):
    """The optimiser of one stage.

    ``weight_decay`` leaves parameters of one dimension alone (gains, biases, slopes) unless
    ``decay_1d``, and those that ``decay_exclude`` names, with shell wildcards. ``decays`` has the
    decay of parameters that a name with wildcards fits, and comes before all this.
    ``lr_scale`` multiplies the rate of the parameters that a name fits. Of several names the first
    counts. ``clip_norm`` bounds the norm of all gradients together. ``momentum`` belongs to
    ``sgd``.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0, le=100)
    weight_decay: float = Field(0.0, ge=0, le=1)
    decay_1d: bool = False
    decay_exclude: list[str] = []
    decays: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    lr_scale: dict[str, Annotated[float, Field(gt=0, le=1e4)]] = {}
    agc: AgcRecipe | None = None
    clip_norm: float | None = Field(None, gt=0)
    momentum: float | None = Field(None, ge=0, lt=1)

    @model_validator(mode="after")
    def _momentum_is_for_sgd(self) -> OptimizerRecipe:
        if self.momentum is not None and self.name != "sgd":
            raise ValueError(f"momentum belongs to sgd, not to {self.name}")
        return self


class ScheduleRecipe(_Checked):
    """The learning rate within a stage: see :func:`signbit.training.schedule.learning_rate`.

    It follows the steps, or with ``per_epoch`` only the epochs (a warm-up always follows the
    steps). It warms up from ``warmup_lr`` and falls to ``final_lr``.
    """

    name: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_epochs: float = Field(0.0, ge=0)
    warmup_lr: float = Field(0.0, ge=0)
    final_lr: float = Field(0.0, ge=0)
    per_epoch: bool = False


class TeacherRecipe(_Checked):
    """A network whose soft labels take the place of the hard ones.

    One of ``checkpoint``, the ``model.pt`` (or folder) of a run of signbit's; ``timm``, the name of
    a model of that package with pretrained weights; ``name``, that of a network of your own in
    ``train(..., teachers={name: network})``. ``temperature`` divides both networks' logits.
    ``input_size`` resizes the student's images for the teacher, to squares of so many pixels.
    """

    checkpoint: str | None = None
    timm: str | None = None
    name: str | None = None
    temperature: float = Field(1.0, gt=0, le=1000)
    input_size: int | None = Field(None, ge=1, le=4096)

    @model_validator(mode="after")
    def _one_network(self) -> TeacherRecipe:
        if sum(kind is not None for kind in (self.checkpoint, self.timm, self.name)) != 1:
            raise ValueError("give either checkpoint or timm, or the name of a network of your own")
        return self


class LossRecipe(_Checked):
    """Cross-entropy against the labels, or against soft labels of teachers alone.

    ``teacher`` is one network, ``teachers`` several that all stay for the whole stage.
    ``assistants`` take turns beside them, each for an equal part of the stage's epochs, in their
    order (:func:`signbit.training.schedule.assistant_at`): consecutive distillation as in BNext
    (arXiv 2211.12933). ``ensemble`` says how several teachers are weighted, ``reduction:
    batch_mean`` follows the published program to the letter: :mod:`signbit.training.distillation`.
    ``label_weight`` adds so many times the cross-entropy against the labels.

    ``cache`` keeps the teachers' logits in files, in a folder of yours or, with ``true``, in the
    run's; runs with the same images, augmentation, seed and batch size share them
    (:mod:`signbit.training.logit_cache`). ``cache_dtype: float16`` takes half the space.
    """

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    teacher: TeacherRecipe | None = None
    teachers: list[TeacherRecipe] = []
    assistants: list[TeacherRecipe] = []
    ensemble: Literal["gap_sensitive", "mean"] = "gap_sensitive"
    reduction: Literal["sample", "batch_mean"] = "sample"
    label_weight: float = Field(0.0, ge=0, le=1000)
    cache: bool | Annotated[str, Field(min_length=1)] = False
    cache_dtype: Literal["float32", "float16"] = "float32"

    @model_validator(mode="after")
    def _labels_have_a_source(self) -> LossRecipe:
        if self.teacher is not None and self.teachers:
            raise ValueError("teacher is the short form of teachers with one; give either")
        if self.fixed_teachers:
            if self.label_smoothing and not self.label_weight:
                raise ValueError(
                    "label_smoothing is of hard labels, which teacher replaces; to learn both, set "
                    "label_weight"
                )
            if self.reduction == "batch_mean" and self.ensemble == "mean":
                raise ValueError("reduction: batch_mean is of ensemble: gap_sensitive, not of mean")
            if self.cache_dtype != "float32" and not self.cache:
                raise ValueError("cache_dtype is of cache: set that to a folder, or to true")
            return self
        if self.assistants:
            raise ValueError("assistants stand beside a strong teacher, which is missing: teachers")
        for field in ("ensemble", "reduction", "label_weight", "cache", "cache_dtype"):
            if getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"{field} is of distillation: there are no teachers")
        return self

    @property
    def fixed_teachers(self) -> list[TeacherRecipe]:
        """The teachers that stay for the whole stage."""
        return self.teachers if self.teacher is None else [self.teacher]

    def places(self) -> dict[str, TeacherRecipe]:
        """Every teacher and assistant by its dotted path within the loss."""
        found = {} if self.teacher is None else {"teacher": self.teacher}
        for field in ("teachers", "assistants"):
            found |= {f"{field}.{i}": each for i, each in enumerate(getattr(self, field))}
        return found


class ProgressiveRecipe(_Checked):
    """Weights that become binary little by little, as in BNext (arXiv 2211.12933).

    In epoch e of the stage, from 0, the temperature is ``start * decay**e``, and weights are soft
    (:class:`signbit.quantizers.ProgressiveSign`) until it is below ``binary_below``.
    """

    start: float = Field(1.0, gt=0, le=1e6)
    decay: float = Field(0.9, gt=0, lt=1)
    binary_below: float = Field(1e-7, gt=0)

    @model_validator(mode="after")
    def _starts_soft(self) -> ProgressiveRecipe:
        if self.start < self.binary_below:
            raise ValueError(
                f"start ({self.start:g}) is below binary_below ({self.binary_below:g}): weights "
                "would never be soft; leave progressive out"
            )
        return self

    def temperature(self, epoch: int) -> float:
        """The temperature of an epoch of the stage; 0 from where weights are binary."""
        value = self.start * self.decay**epoch
        return value if value >= self.binary_below else 0.0

    @property
    def soft_epochs(self) -> int:
        """How many epochs come before the first with binary weights."""
        # The logarithm is one off where a power of decay meets binary_below.
        first = max(0, math.floor(math.log(self.binary_below / self.start, self.decay)) - 1)
        while self.temperature(first) > 0:
            first += 1
        return first


class StageRecipe(_Checked):
    """One stage: ``binary_weights: false`` trains real weights behind binary activations.

    ``progressive`` trains weights that are soft at first. Accuracies are those of binary weights
    throughout, and say little while weights are still far from these.
    """

    name: str
    epochs: int = Field(ge=1, le=100_000)
    binary_weights: bool = True
    progressive: ProgressiveRecipe | None = None
    optimizer: OptimizerRecipe = OptimizerRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    loss: LossRecipe = LossRecipe()

    @model_validator(mode="after")
    def _progressive_weights_become_binary(self) -> StageRecipe:
        if self.progressive is None:
            return self
        if not self.binary_weights:
            raise ValueError(
                "progressive: binary_weights: false trains real weights; leave one out"
            )
        soft = self.progressive.soft_epochs
        if soft >= self.epochs:
            raise ValueError(
                f"progressive: weights would still be soft at the end: they are binary from epoch "
                f"{soft + 1} of the stage, which has {self.epochs}; give it more epochs or a "
                f"smaller decay (now {self.progressive.decay:g})"
            )
        return self

    @model_validator(mode="after")
    def _assistants_have_epochs(self) -> StageRecipe:
        if len(self.loss.assistants) > self.epochs:
            raise ValueError(
                f"loss.assistants: {len(self.loss.assistants)} cannot take turns in {self.epochs} "
                "epochs; give the stage more epochs or fewer assistants"
            )
        return self

    @model_validator(mode="after")
    def _rates_fit(self) -> StageRecipe:
        if self.schedule.warmup_epochs >= self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs ({self.schedule.warmup_epochs:g}) must be less than "
                f"epochs ({self.epochs})"
            )
        for field in ("warmup_lr", "final_lr"):
            if getattr(self.schedule, field) > self.optimizer.lr:
                raise ValueError(
                    f"schedule.{field} ({getattr(self.schedule, field):g}) is above optimizer.lr "
                    f"({self.optimizer.lr:g})"
                )
        if self.schedule.warmup_lr and not self.schedule.warmup_epochs:
            raise ValueError("schedule.warmup_lr: there is no warm-up; set warmup_epochs")
        if self.schedule.final_lr and self.schedule.name == "constant":
            raise ValueError("schedule.final_lr: a constant rate does not fall")
        return self


class Recipe(_Checked):
    """A whole training run.

    Attributes:
        task: what is learnt.
        seed: of everything random.
        data: which images, and how they come in batches.
        model: which network.
        stages: what is trained, one after the other.
        weights: which weights the run keeps: those of the epoch of the last stage with the ``best``
            score on the validation images, or the ``last`` ones.
        calibration_batches: batches of training images that the ranges of 8-bit layers are frozen
            on.
        precision: ``"32"``, or ``"bf16"`` for mixed precision.
        threads: CPU threads of each process; None leaves PyTorch's choice. Sums depend on it in the
            last bit.
        accelerator: ``"auto"`` takes a GPU if there is one.
        devices: how many GPUs, or processes on the CPU, share each batch (Lightning's DDP).
        channels_last: NHWC memory order, usually faster on CPUs.
        tensorboard: also write TensorBoard logs (needs the ``tensorboard`` package).
    """

    task: Literal["classification", "detection", "segmentation", "superresolution", "matching"] = (
        "classification"
    )
    seed: int = Field(0, ge=0, lt=2**32)
    data: DataRecipe
    model: ModelRecipe
    stages: Annotated[list[StageRecipe], Field(min_length=1)]
    weights: Literal["best", "last"] = "best"
    calibration_batches: int = Field(16, ge=1)
    precision: Literal["32", "bf16"] = "32"
    threads: int | None = Field(None, ge=1, le=1024)
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = Field(1, ge=1, le=64)
    channels_last: bool = True
    tensorboard: bool = False

    @model_validator(mode="after")
    def _labels_are_of_classification(self) -> Recipe:
        for index, stage in enumerate(self.stages):
            if self.task != "classification" and stage.loss != LossRecipe():
                raise ValueError(
                    f"stages.{index}.loss: smoothed labels and teachers are of classification, not "
                    f"of {self.task}: leave it out"
                )
        return self

    @model_validator(mode="after")
    def _stage_names_differ(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"stages: names must differ, got {names}")
        if not self.stages[-1].binary_weights:
            raise ValueError(
                "stages: the last one has binary_weights: false, so the network would not be binary"
            )
        return self

    @model_validator(mode="after")
    def _devices_share_batches(self) -> Recipe:
        size = self.data.batch_size
        if size % self.devices or size < 2 * self.devices:
            raise ValueError(
                f"data.batch_size ({size}) is of all devices together: with devices: "
                f"{self.devices} it must be a multiple of that, and at least {2 * self.devices}"
            )
        return self

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def stage_at(self, epoch: int) -> tuple[int, int]:
        """(index of the stage, epoch within it) of a run's epoch, both from 0.

        Past the end it is the last stage.
        """
        for index, stage in enumerate(self.stages[:-1]):
            if epoch < stage.epochs:
                return index, epoch
            epoch -= stage.epochs
        return len(self.stages) - 1, epoch

    def to_yaml(self) -> str:
        """The recipe with every default filled in."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: a YAML file.
        overrides: ``"dotted.path=value"``, applied in order; list items by number, as in
            ``"stages.0.epochs=3"``; the value is YAML.

    Raises:
        RecipeError: not readable, not YAML, an unknown key or a value out of range; names the file,
            the dotted path and, for names, the nearest right one.
    """
    path = Path(path)
    try:
        tree = yaml.load(path.read_text("utf-8"), Loader=_UniqueKeyLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not readable ({error})") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a recipe is a mapping, this is {type(tree).__name__}")
    for override in overrides:
        _override(tree, override, str(path))
    return parse_recipe(tree, str(path))


def parse_recipe(tree: dict[str, Any], name: str = "recipe") -> Recipe:
    """Check a recipe that is already a tree of dicts and lists; ``name`` is used in errors.

    Raises:
        RecipeError: as for :func:`load_recipe`; all problems, one a line.
    """
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors()]
        raise RecipeError("\n".join(f"{name}: {problem}" for problem in problems)) from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice, which PyYAML would silently drop."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _override(tree: dict[str, Any], override: str, name: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"{name}: override {override!r} is not of the form dotted.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: override {override!r}: the value is not YAML") from error
    node: Any = tree
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                where = ".".join(keys[:depth])
                raise RecipeError(
                    f"{name}: override {override!r}: {where} has items 0 to {len(node) - 1}"
                )
            index: Any = int(key)
        elif isinstance(node, dict):
            index = key
            if not last and not isinstance(node.get(key), (dict, list)):
                node[key] = {}
        else:
            where = ".".join(keys[:depth])
            raise RecipeError(f"{name}: override {override!r}: {where} is a plain value")
        if last:
            node[index] = value
        else:
            node = node[index]


def _describe(problem: Any) -> str:
    location = tuple(problem["loc"])
    path = ".".join(str(part) for part in location) or "recipe"
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown key{nearest(str(location[-1]), _fields_at(location[:-1]))}"
    if problem["type"] == "missing":
        return f"{path}: missing"
    if problem["type"] == "literal_error":
        expected = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
        hint = nearest(str(problem["input"]), expected)
        return f"{path}: {problem['input']!r} is not one of {', '.join(expected)}{hint}"
    if problem["type"] == "value_error":
        return f"{path}: {problem['ctx']['error']}"
    return f"{path}: {problem['msg'].lower()}, got {problem['input']!r}"


def nearest(word: str, candidates: Sequence[str], cutoff: float = 0.5) -> str:
    """The end of an error: the nearest right name, else all of them, or nothing without any."""
    close = difflib.get_close_matches(word, candidates, 1, cutoff)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(candidates)}" if candidates else ""


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the recipe's schema knows at a location."""
    current: Any = Recipe
    for part in location:
        if isinstance(part, int):
            current = next(a for a in _flatten(current) if typing.get_origin(a) is list)
            current = typing.get_args(current)[0]
        else:
            hints = typing.get_type_hints(current)
            current = hints[part]
        models = [a for a in _flatten(current) if isinstance(a, type) and issubclass(a, BaseModel)]
        current = models[0] if models else current
    return list(current.model_fields)


def _flatten(annotation: Any) -> list[Any]:
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return list(typing.get_args(annotation))
    return [annotation]

"""A training run from recipe to results.

What lies in the output folder afterwards:

=========================  ==============================================================
``recipe.resolved.yaml``   the recipe with every default and override (has the seed)
``versions.json``          libraries, processor, threads
``checkpoints/last.ckpt``  everything needed to go on, written after every epoch
``checkpoints/best.pt``    weights of the best epoch of the last stage
``teacher-logits/``        of stages with ``cache: true``
``metrics.csv``            a row an epoch
``curves.png``             the same as a picture
``model.pt``               final weights with the network's spec, for ``load_trained``
``metrics.json``           test and validation accuracy, time, hash of the weights
=========================  ==============================================================
"""

from __future__ import annotations

import logging
import signal
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console
from torch import nn

from signbit.data.base import DataSource, Source
from signbit.data.loader import Batches
from signbit.errors import RecipeError, SignbitError
from signbit.tasks import get_task
from signbit.tasks.base import torch_predict
from signbit.training.backbone import start_backbone
from signbit.training.callbacks import BestWeights, History
from signbit.training.checkpoint import AtomicCheckpointIO
from signbit.training.checks import (
    check_data,
    check_machine,
    check_model,
    check_patterns,
    check_progressive,
    has_stems,
)
from signbit.training.files import write_json, write_text
from signbit.training.logit_cache import StageTeachers, with_caches
from signbit.training.module import StagedModule, diverged
from signbit.training.output import prepare_output
from signbit.training.processes import LocalEnvironment, Place, processes
from signbit.training.recipe import ModelRecipe, Recipe, TeacherRecipe
from signbit.training.teacher import Teacher, load_teachers
from signbit.training.trained import TrainedModel, build_model, weights_sha256
from signbit.training.versions import versions


@dataclass
class RunResult:
    """The outcome of a run.

    Attributes:
        trained: the final model, calibrated.
        metrics: the content of ``metrics.json``.
        history: the rows of ``metrics.csv``.
        output: the folder.
    """

    trained: TrainedModel
    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    output: Path


def train(
    recipe: Recipe,
    source: Source,
    output: str | Path,
    *,
    resume: bool = False,
    model: nn.Module | None = None,
    teachers: Mapping[str, nn.Module | TrainedModel] | None = None,
    console: Console | None = None,
) -> RunResult:
    """Train a network for the recipe's task.

    Args:
        recipe: what to do.
        source: the data set, as the task's ``load`` gives it.
        output: folder for the results.
        resume: go on with the run that is there, from its last complete epoch. On a CPU with the
            same number of threads the result equals that of an uninterrupted run, float for
            float.
        model: a network of your own, instead of the one that the recipe names.
        teachers: networks of your own that the recipe's teachers mean by ``name``. A module takes
            batches in the student's normalisation; wrap one with its own in a ``TrainedModel``.
        console: where progress goes; stderr by default.

    Raises:
        SignbitError: the folder cannot be written, holds another run, or has nothing to resume; or
            training diverged.
        RecipeError: the recipe does not fit the data, its teachers, the registry of models or this
            machine.
    """
    output = Path(output)
    console = console or Console(stderr=True)
    check_data(recipe)
    check_machine(recipe)
    prepare_output(output, recipe, resume)
    task = get_task(recipe.task)
    data = recipe.data.model_dump()
    spec = None if model else model_spec(recipe.model, task.model_arguments(source, data))
    # Recipes of other tasks have no teachers.
    loaded = (
        load_teachers(recipe, source, teachers)
        if isinstance(source, DataSource)
        else [{} for _ in recipe.stages]
    )
    threads = recipe.threads or max(1, torch.get_num_threads() // recipe.devices)
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    if spec is not None:
        model = build_model(spec)
        _check_size(model, source)
    assert model is not None
    begun = resume and (output / "checkpoints" / "last.ckpt").exists()
    if recipe.model.init is not None and not begun:
        console.print(start_backbone(model, recipe.model.init), highlight=False, soft_wrap=True)
    check_patterns(recipe, model)
    check_progressive(recipe, model)
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)
    _require_shares(recipe, source)
    job = _Job(recipe, source, output, resume, model, loaded, threads)
    batches = job.batches(Place(0, recipe.devices))  # caches are refused before anything is written
    write_text(output / "recipe.resolved.yaml", recipe.to_yaml())
    write_json(output / "versions.json", versions())

    with processes(recipe.devices, _work, job) as place:
        history, best = _fit(job, batches, place, console)
    if recipe.weights == "best":
        model.load_state_dict(torch.load(best.path, map_location="cpu", weights_only=True))
    metrics = _finish(recipe, source, model, history, best)
    info = {
        "task": recipe.task,
        "recipe": recipe.model_dump(),
        "data": source.name,
        "metrics": metrics,
        "decode": task.facts(source, data),
    }
    trained = TrainedModel(
        model, spec, source.class_names, source.mean, source.std, source.input_shape, info
    )
    trained.save(output / "model.pt")
    from signbit.plots import plot_curves

    plot_curves(history.rows, output / "curves.png")
    write_json(output / "metrics.json", metrics)
    return RunResult(trained, metrics, history.rows, output)


def model_spec(recipe: ModelRecipe, from_data: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``create_model`` for a recipe, and what its data decide of them.

    Raises:
        RecipeError: no such model, or an option that it does not have; gives the nearest name.
    """
    check_model(recipe)
    return {
        "name": recipe.name,
        **from_data,
        **({"stem": recipe.stem} if has_stems(recipe.name) else {}),
        "width": recipe.width,
        **recipe.options,
    }


def _check_size(model: nn.Module, source: Source) -> None:
    """Run one empty image, for a network that halves its maps takes only some sizes."""
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, *source.input_shape))
    except RuntimeError as error:
        _, height, width = source.input_shape
        raise RecipeError(
            f"data.image_size: the network cannot take {height}x{width} images; try multiples of "
            f"32 ({str(error).partition(chr(10))[0]})"
        ) from error
    model.train()


def _require_shares(recipe: Recipe, source: Source) -> None:
    """Check that each device gets its part of every batch."""
    images = recipe.data.epoch_images or len(source.train)
    if recipe.devices > 1 and images < recipe.data.batch_size:
        raise RecipeError(
            f"data.batch_size: {recipe.devices} devices cannot share batches of "
            f"{recipe.data.batch_size}: there are {images} training images"
        )
    if len(source.val) < recipe.devices:
        raise RecipeError(
            f"devices: {recipe.devices} cannot share {len(source.val)} validation images"
        )


def make_loader(
    recipe: Recipe,
    source: Source,
    split: str,
    *,
    training: bool = False,
    place: Place | None = None,
) -> Batches:
    """Batches of one split, of several processes the part that is due to ``place``.

    Shuffled and augmented for training, plain and in order otherwise.
    """
    place = place or Place()
    return get_task(recipe.task).loader(
        source,
        split,
        recipe.data.model_dump(),
        training=training,
        seed=recipe.seed,
        channels_last=recipe.channels_last,
        rank=place.rank,
        ranks=place.ranks,
    )


@dataclass
class _Job:
    """What every process of a run gets."""

    recipe: Recipe
    source: Source
    output: Path
    resume: bool
    model: nn.Module
    teachers: list[dict[TeacherRecipe, Teacher]]
    threads: int

    def batches(self, place: Place) -> tuple[Batches, list[StageTeachers]]:
        """A process's training batches, and the teachers that see them."""
        loader = make_loader(self.recipe, self.source, "train", training=True, place=place)
        if not isinstance(self.source, DataSource):
            return loader, []
        return loader, with_caches(self.recipe, self.teachers, self.source, loader, self.output)


def _work(job: _Job, place: Place, ready: Callable[[], None]) -> None:
    """Train in another process than the caller's."""
    torch.set_num_threads(job.threads)
    batches = job.batches(place)
    ready()
    _fit(job, batches, place, Console(quiet=True, force_terminal=False))


def _fit(
    job: _Job,
    batches: tuple[Batches, list[StageTeachers]],
    place: Place,
    console: Console,
) -> tuple[History, BestWeights]:
    recipe, source, output = job.recipe, job.source, job.output
    loader, teachers = batches
    checkpoints = output / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    module = StagedModule(job.model, recipe, len(loader), teachers)
    history = History(output / "metrics.csv", console)
    best = BestWeights(checkpoints / "best.pt")
    callbacks: list[Callback] = [
        _SetEpoch(loader),
        history,
        best,
        # One file, written anew after every epoch. `save_last` alone would write at the end only.
        ModelCheckpoint(
            checkpoints,
            filename="last",
            save_top_k=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
    ]
    if console.is_terminal:
        callbacks.append(RichProgressBar(leave=False, console_kwargs={"file": console.file}))
    trainer = _quiet_trainer(
        max_epochs=recipe.epochs,
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        # A stage may leave parameters alone, such as scales of weights that are real in it.
        strategy=DDPStrategy(find_unused_parameters=True) if place.ranks > 1 else "auto",
        use_distributed_sampler=False,
        precision="bf16-mixed" if recipe.precision == "bf16" else "32-true",
        callbacks=callbacks,
        logger=_tensorboard(output) if recipe.tensorboard else False,
        plugins=[AtomicCheckpointIO(), *([LocalEnvironment(place)] if place.ranks > 1 else [])],
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=console.is_terminal,
        default_root_dir=output,
    )
    last = checkpoints / "last.ckpt"
    with warnings.catch_warnings():
        # Batches come from memory: workers, as Lightning suggests, would only slow them down.
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", "Grad strides do not match")  # of channels_last 1x1s
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(
                module,
                loader,
                make_loader(recipe, source, "val", place=place),
                ckpt_path=last if job.resume and last.exists() else None,
            )
        except SystemExit:  # Lightning's answer to Ctrl-C, which it then no longer listens to
            if not trainer.interrupted:
                raise
            signal.signal(signal.SIGINT, on_ctrl_c)
    if trainer.interrupted:
        raise SignbitError(f"interrupted; go on with --resume --output {output}")
    return history, best


class _SetEpoch(Callback):
    """Tells the loader which epoch comes, also after resuming."""

    def __init__(self, loader: Batches) -> None:
        self.loader = loader

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.loader.set_epoch(trainer.current_epoch)


def _quiet_trainer(**arguments: Any) -> pl.Trainer:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        return pl.Trainer(**arguments)


def _tensorboard(output: Path) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(output, name="tensorboard", version="")


def _finish(
    recipe: Recipe, source: Source, model: nn.Module, history: History, best: BestWeights
) -> dict[str, Any]:
    """Freeze the 8-bit ranges and measure the final network."""
    from signbit.calibration import calibrate

    started = time.perf_counter()
    task, data = get_task(recipe.task), recipe.data.model_dump()
    model.cpu().eval()
    try:
        calibrate(
            model,
            task.calibration_batches(
                source,
                data,
                count=recipe.calibration_batches,
                seed=recipe.seed,
                channels_last=recipe.channels_last,
            ),
        )
    except ValueError as error:
        if "finite" not in str(error):
            raise
        raise diverged(recipe, recipe.epochs - 1, str(error)) from error
    predict = torch_predict(model, source.mean, source.std)
    scores = {
        f"{split}_{name}": value
        for split in ("test", "val")
        for name, value in task.summarize(list(task.evaluate(predict, source, split, data))).items()
    }
    return {
        **scores,
        "epochs": recipe.epochs,
        "weights": recipe.weights,
        "weights_epoch": best.epoch if recipe.weights == "best" else recipe.epochs,
        "training_seconds": round(sum(row["seconds"] for row in history.rows), 1),
        "evaluation_seconds": round(time.perf_counter() - started, 1),
        "images": {name: len(source.split(name)) for name in ("train", "val", "test")},
        "seed": recipe.seed,
        "weights_sha256": weights_sha256(model),
    }

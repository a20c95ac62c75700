"""The LightningModule: a model, its loss, and the stage of the recipe that an epoch belongs to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from signbit.errors import SignbitError
from signbit.nn import set_binary_weights, set_weight_temperature
from signbit.tasks import classification, get_task
from signbit.tasks.base import as_arrays, as_tuple
from signbit.training.agc import clip_gradients_
from signbit.training.distillation import gap_sensitive_loss, mean_loss
from signbit.training.logit_cache import StageTeachers
from signbit.training.recipe import OptimizerRecipe, Recipe
from signbit.training.schedule import learning_rate, teachers_at


class StagedModule(pl.LightningModule):
    """Trains a network of any task through the stages of a recipe, in one run of one Trainer.

    The stage, the learning rate and the random generator's state are functions of epoch and step;
    the checkpoint holds only weights, optimiser and loop counters. At the first epoch of a stage
    the weights are made binary or real and the optimiser starts afresh.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        steps_per_epoch: int,
        teachers: Sequence[StageTeachers] = (),
    ) -> None:
        super().__init__()
        self.teachers = teachers  # of every stage that has some
        self.model = model
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.learning_rate = 0.0  # of the current step
        self.task = get_task(recipe.task)
        self._records: list[Any] = []  # of the validation examples so far
        self._enter_stage(0)

    def _enter_stage(self, index: int) -> None:
        self.stage_index = index
        self.stage = self.recipe.stages[index]
        set_binary_weights(self.model, self.stage.binary_weights)
        self.temperature = 0.0  # of soft weights; each progressive stage ends with binary ones

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.model, self.stage.optimizer)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning builds the optimiser next and then fills it: it must be the saved stage's.
        self._enter_stage(checkpoint["signbit_stage"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["signbit_stage"] = self.stage_index

    def on_train_epoch_start(self) -> None:
        index, epoch = self.recipe.stage_at(self.current_epoch)
        if index != self.stage_index:
            self._enter_stage(index)
            self.trainer.optimizers = [self.configure_optimizers()]
        if self.stage.progressive is not None:
            self.temperature = self.stage.progressive.temperature(epoch)
            set_weight_temperature(self.model, self.temperature)

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        _, epoch = self.recipe.stage_at(self.current_epoch)
        self.learning_rate = learning_rate(
            self.stage, epoch * self.steps_per_epoch + batch_idx, self.steps_per_epoch
        )
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * group["lr_scale"]
        # For layers that draw numbers, such as dropout.
        key = [self.recipe.seed, self.current_epoch, batch_idx]
        if self.recipe.devices > 1:
            key.append(self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def training_step(self, batch: tuple[Tensor, Any], batch_idx: int) -> Tensor:
        images, targets = batch
        try:
            outputs = as_tuple(self.model(images))
        except ValueError as error:
            # An 8-bit layer that has just seen infinity or NaN.
            if "no finite interval" not in str(error):
                raise
            raise diverged(self.recipe, self.current_epoch, str(error)) from error
        loss = self._loss(images, outputs, targets, batch_idx)
        self._require_finite(loss)
        size = _count(targets)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        score = self.task.train_metric(outputs, targets)
        if score is None:
            self.log("loss", loss.detach(), prog_bar=True, batch_size=size)
            return loss
        name = self.task.metric
        self.log(
            f"train_{name}", score, on_step=False, on_epoch=True, batch_size=size, sync_dist=True
        )
        self.log(name, score, prog_bar=True, batch_size=size)
        return loss

    def _loss(self, images: Tensor, outputs: tuple[Tensor, ...], targets: Any, step: int) -> Tensor:
        if self.recipe.task != "classification":
            return self.task.loss(outputs, targets)
        (logits,), labels = outputs, targets
        recipe = self.stage.loss
        _, epoch = self.recipe.stage_at(self.current_epoch)
        teachers = teachers_at(self.stage, epoch)
        if not teachers:
            return classification.loss(logits, labels, recipe.label_smoothing)
        networks = self.teachers[self.stage_index]
        soft_labels = [networks[t].batch(images, self.current_epoch, step) for t in teachers]
        temperatures = [teacher.temperature for teacher in teachers]
        if recipe.ensemble == "mean":
            loss = mean_loss(logits, soft_labels, temperatures)
        else:
            loss = gap_sensitive_loss(logits, soft_labels, temperatures, recipe.reduction)
        if recipe.label_weight:
            hard = classification.loss(logits, labels, recipe.label_smoothing)
            loss = loss + recipe.label_weight * hard
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        agc = self.stage.optimizer.agc
        if agc is not None:
            named = self.model.named_parameters()
            clipped = [p for name, p in named if not _matches(name, agc.exclude)]
            clip_gradients_(clipped, agc.clip_factor, agc.eps)
        if self.stage.optimizer.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.stage.optimizer.clip_norm)

    def on_validation_epoch_start(self) -> None:
        self._records = []

    def validation_step(self, batch: tuple[Tensor, Any], batch_idx: int) -> None:
        images, targets = batch
        outputs = as_tuple(self.model(images))
        loss = self.task.loss(outputs, targets)
        self._require_finite(loss)
        self.log("val_loss", loss, batch_size=_count(targets), sync_dist=True)
        arrays = tuple(y.float().cpu().numpy() for y in outputs)
        self._records += self.task.records(arrays, as_arrays(targets))

    def on_validation_epoch_end(self) -> None:
        records = self._records
        if self.recipe.devices > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, records)
            records = [record for part in parts for record in part]
        for name, value in self.task.summarize(records).items():
            if name != "loss":  # is logged as it comes
                # All processes have the same value.
                self.log(f"val_{name}", value, prog_bar=name == self.task.metric, sync_dist=False)

    def _require_finite(self, loss: Tensor) -> None:
        value = float(loss.detach())
        if not math.isfinite(value):
            raise diverged(self.recipe, self.current_epoch, f"the loss is {value}")


def _count(targets: Any) -> int:
    """Examples of a batch."""
    return len(next(iter(targets.values())) if isinstance(targets, Mapping) else targets)


def diverged(recipe: Recipe, epoch: int, what: str) -> SignbitError:
    """The error of a run whose numbers left the finite ones, in an epoch counted from 0."""
    index, _ = recipe.stage_at(epoch)
    return SignbitError(
        f"training diverged in epoch {epoch + 1} ({what}): lower stages.{index}.optimizer.lr, now "
        f"{recipe.stages[index].optimizer.lr:g}, and start again with another --output"
    )


def make_optimizer(model: nn.Module, recipe: OptimizerRecipe) -> torch.optim.Optimizer:
    """The optimiser of a stage: a group for every weight decay and factor of the learning rate."""
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 or recipe.decay_1d
            decays = decays and not _matches(name, recipe.decay_exclude)
            decay = _first(name, recipe.decays, recipe.weight_decay if decays else 0.0)
            key = (decay, _first(name, recipe.lr_scale, 1.0))
            members.setdefault(key, []).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": decay, "lr_scale": factor, "lr": recipe.lr * factor}
        for (decay, factor), parameters in members.items()
    ]
    if recipe.name == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum or 0.0)
    kind = torch.optim.Adam if recipe.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=recipe.lr, fused=True)  # on a CPU a fifth of the time


def _first(name: str, values: Mapping[str, float], default: float) -> float:
    """The value of the first pattern that fits a name."""
    return next((v for pattern, v in values.items() if fnmatchcase(name, pattern)), default)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)

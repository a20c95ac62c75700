"""What a stage does when, as functions of step or epoch alone, so that resuming needs no state."""

from __future__ import annotations

import math

from signbit.training.recipe import StageRecipe, TeacherRecipe


def learning_rate(stage: StageRecipe, step: int, steps_per_epoch: int) -> float:
    """The rate of one optimisation step.

    With ``p`` the share of the steps after the warm-up that are done, in [0, 1), the rate falls
    from ``lr`` to ``final_lr`` by a factor of cosine ``(1 + cos(pi p)) / 2`` or linear ``1 - p``
    before what is between them; constant is ``lr``. With ``per_epoch`` the steps of the current
    epoch do not count as done. During the warm-up of ``w`` steps, it rises from ``warmup_lr`` by
    ``(step + 1) / (w + 1)`` of the way.

    Args:
        stage: rate, schedule and number of epochs.
        step: steps of this stage that are done, from 0.
        steps_per_epoch: batches an epoch.
    """
    peak = stage.optimizer.lr
    warmup = round(stage.schedule.warmup_epochs * steps_per_epoch)
    if step < warmup:
        first = stage.schedule.warmup_lr
        return first + (peak - first) * (step + 1) / (warmup + 1)
    if stage.schedule.name == "constant":
        return peak
    if stage.schedule.per_epoch:
        step = max(warmup, step - step % steps_per_epoch)
    progress = (step - warmup) / max(1, stage.epochs * steps_per_epoch - warmup)
    last = stage.schedule.final_lr
    if stage.schedule.name == "linear":
        return last + (peak - last) * (1 - progress)
    return last + (peak - last) * (1 + math.cos(math.pi * progress)) / 2


def assistant_at(epoch: int, epochs: int, assistants: int) -> int:
    """Which of several assistants has an epoch of a stage; all counted from 0.

    Each has a segment of equal length, in order: epoch ``e`` of ``E`` belongs to assistant
    ``floor(e A / E)`` of ``A``. Where ``A`` does not divide ``E``, segments differ by one epoch.
    Source: the knowledge boosting of arXiv 2211.12933, there for ``E`` a multiple of ``A``.

    Raises:
        ValueError: the epoch is none of the stage's, or there are fewer epochs than assistants.
    """
    if not 0 < assistants <= epochs:
        raise ValueError(f"{assistants} assistants cannot share {epochs} epochs")
    if not 0 <= epoch < epochs:
        raise ValueError(f"epoch {epoch} is none of a stage of {epochs}")
    return epoch * assistants // epochs


def teachers_at(stage: StageRecipe, epoch: int) -> list[TeacherRecipe]:
    """The teachers of an epoch of a stage, from 0: its assistant, if there are any, and the fixed.

    Empty for a stage that learns from labels.
    """
    loss = stage.loss
    if not loss.assistants:
        return loss.fixed_teachers
    turn = assistant_at(epoch, stage.epochs, len(loss.assistants))
    return [loss.assistants[turn], *loss.fixed_teachers]

"""Learning rate as a function of the step alone, so that nothing needs to be stored to resume."""

from __future__ import annotations

import math

from signbit.training.recipe import StageRecipe


def learning_rate(stage: StageRecipe, step: int, steps_per_epoch: int) -> float:
    """The rate of one optimisation step.

    With ``p`` the share of the steps after the warm-up that are done, in [0, 1):
    cosine ``lr * (1 + cos(pi p)) / 2``, linear ``lr * (1 - p)``, constant ``lr``. With
    ``per_epoch`` the steps of the current epoch do not count as done. During the warm-up of ``w``
    steps, ``lr * (step + 1) / (w + 1)``.

    Args:
        stage: rate, schedule and number of epochs.
        step: steps of this stage that are done, from 0.
        steps_per_epoch: batches an epoch.
    """
    peak = stage.optimizer.lr
    warmup = round(stage.schedule.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if stage.schedule.name == "constant":
        return peak
    if stage.schedule.per_epoch:
        step = max(warmup, step - step % steps_per_epoch)
    progress = (step - warmup) / max(1, stage.epochs * steps_per_epoch - warmup)
    if stage.schedule.name == "linear":
        return peak * (1 - progress)
    return peak * (1 + math.cos(math.pi * progress)) / 2

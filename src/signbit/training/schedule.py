"""Learning rate as a function of the step alone, so that nothing needs to be stored to resume."""

from __future__ import annotations

import math

from signbit.training.recipe import StageRecipe


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

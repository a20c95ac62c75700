"""Losses of distillation: a student's logits against those of one or several teachers.

With student logits ``s`` and logits ``z_t`` of teacher ``t`` with temperature ``T_t``, a sample's
loss by one teacher is the cross-entropy of both networks' softened probabilities::

    H_t = -sum_c softmax(z_t / T_t)_c log_softmax(s / T_t)_c        L_t = T_t**2 H_t

whose square of the temperature keeps the size of the gradient (arXiv 1503.02531).

**mean**: the mean of ``L_t`` over teachers and samples.

**gap_sensitive** (BNext, arXiv 2211.12933): each sample ``i`` listens most to the teacher that its
logits are furthest from, by weights that no gradient flows through::

    alpha_i = softmax over t of H_t,i         loss = mean over i of (sum_t alpha_t,i L_t,i) / n

for ``n`` teachers; with one, the plain soft-label loss. The authors' program differs in two ways,
which ``reduction="batch_mean"`` follows: in place of ``L_t,i`` stands its mean over the batch (a
name is misspelt there, so that losses by sample never come about), and with one teacher alpha is
1/2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Reduction = Literal["sample", "batch_mean"]


def soft_cross_entropy(logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """``H_t`` of every sample in nats: logits [N, classes] of both networks to [N]."""
    targets = torch.softmax(teacher_logits / temperature, 1)
    return nn.functional.cross_entropy(logits / temperature, targets, reduction="none")


def gap_weights(
    logits: Tensor, teacher_logits: Sequence[Tensor], temperatures: Sequence[float] | None = None
) -> Tensor:
    """``alpha``: how much each sample listens to each teacher, [N, teachers], rows sum to 1.

    Args:
        logits: the student's, [N, classes].
        teacher_logits: the same of every teacher.
        temperatures: one a teacher; 1 if left out.

    Returns:
        Weights without gradient.

    Raises:
        ValueError: there is no teacher, or another number of temperatures.
    """
    with torch.no_grad():
        return _weights(_gaps(logits, teacher_logits, _checked(teacher_logits, temperatures)))


def gap_sensitive_loss(
    logits: Tensor,
    teacher_logits: Sequence[Tensor],
    temperatures: Sequence[float] | None = None,
    reduction: Reduction = "sample",
) -> Tensor:
    """The gap-sensitive ensemble of this module's text, a scalar.

    Args:
        logits: the student's, [N, classes].
        teacher_logits: the same of every teacher.
        temperatures: one a teacher; 1 if left out.
        reduction: ``"sample"``, or ``"batch_mean"`` for what the authors' program computes.

    Raises:
        ValueError: there is no teacher, or another number of temperatures.
    """
    temperatures = _checked(teacher_logits, temperatures)
    gaps = _gaps(logits, teacher_logits, temperatures)
    losses = gaps * gaps.new_tensor([t**2 for t in temperatures])
    if reduction == "batch_mean":
        losses = losses.mean(0, keepdim=True)
        if len(teacher_logits) == 1:
            return losses.mean() / 2
    return (_weights(gaps.detach()) * losses).sum(1).mean() / len(teacher_logits)


def mean_loss(
    logits: Tensor, teacher_logits: Sequence[Tensor], temperatures: Sequence[float] | None = None
) -> Tensor:
    """The mean of the teachers' soft-label losses, a scalar; arguments and errors as above."""
    temperatures = _checked(teacher_logits, temperatures)
    gaps = _gaps(logits, teacher_logits, temperatures)
    return (gaps * gaps.new_tensor([t**2 for t in temperatures])).mean()


def _checked(
    teacher_logits: Sequence[Tensor], temperatures: Sequence[float] | None
) -> Sequence[float]:
    if not teacher_logits:
        raise ValueError("distillation needs at least one teacher's logits")
    if temperatures is None:
        return [1.0] * len(teacher_logits)
    if len(temperatures) != len(teacher_logits):
        raise ValueError(f"{len(teacher_logits)} teachers but {len(temperatures)} temperatures")
    return temperatures


def _gaps(
    logits: Tensor, teacher_logits: Sequence[Tensor], temperatures: Sequence[float]
) -> Tensor:
    """``H_t`` of every sample and teacher, [N, teachers]."""
    pairs = zip(teacher_logits, temperatures, strict=True)
    return torch.stack([soft_cross_entropy(logits, z, t) for z, t in pairs], 1)


def _weights(gaps: Tensor) -> Tensor:
    return torch.softmax(gaps, 1)

"""Adaptive gradient clipping: what keeps networks without batch norm from diverging."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def clip_gradients_(parameters: Iterable[nn.Parameter], clip_factor: float, eps: float) -> None:
    """Clip every gradient in proportion to its parameter, in place.

    Of a parameter W [O, ...] with gradient G, each output unit by itself: ``G *= min(1, clip_factor
    * max(||W||, eps) / max(||G||, 1e-6))`` with Euclidean norms. Parameters of at most one
    dimension are one unit. Those without a gradient are passed over. Source: arXiv 2102.06171.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            limit = _unit_norm(parameter).clamp_min_(eps).mul_(clip_factor)
            limit /= _unit_norm(parameter.grad).clamp_min_(1e-6)
            parameter.grad.mul_(limit.clamp_max_(1.0))


def _unit_norm(x: Tensor) -> Tensor:
    """Euclidean norm of each output unit: [O, ...] -> [O, 1, ...]; at most one dimension: one."""
    if x.ndim <= 1:
        return torch.linalg.vector_norm(x)
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), keepdim=True)

"""Adaptive gradient clipping against its rule."""

import numpy as np
import pytest
import torch
from torch import nn

from signbit.training.agc import clip_gradients_


def expected(weight: np.ndarray, gradient: np.ndarray, factor: float, eps: float) -> np.ndarray:
    """The rule, one output unit after the other."""
    if weight.ndim <= 1:
        weight, gradient = weight.reshape(1, -1), gradient.reshape(1, -1)
    clipped = []
    for w, g in zip(weight, gradient, strict=True):
        limit = factor * max(np.linalg.norm(w), eps) / max(np.linalg.norm(g), 1e-6)
        clipped.append(g * min(1.0, limit))
    return np.stack(clipped)


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 1, 1, 1), (5, 7), (6,), ()])
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e3])
def test_rule(shape, size):
    weight = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    with torch.no_grad():
        weight.view(-1)[: weight.numel() // 2].zero_()  # units below eps
    gradient = torch.randn(shape, dtype=torch.float64) * size
    weight.grad = gradient.clone()
    clip_gradients_([weight], 0.02, 1e-3)
    wanted = expected(weight.detach().numpy(), gradient.numpy(), 0.02, 1e-3).reshape(shape)
    np.testing.assert_allclose(weight.grad.numpy(), wanted, rtol=1e-12)


def test_zero_and_missing_gradients():
    still, unused = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(2))
    still.grad = torch.zeros(3, 2)
    clip_gradients_([still, unused], 0.02, 1e-3)
    assert torch.equal(still.grad, torch.zeros(3, 2))
    assert unused.grad is None

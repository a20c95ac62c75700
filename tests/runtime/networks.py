"""Small networks with awkward parameters, compiled: what the engine's tests run."""

from __future__ import annotations

import functools

import torch
from torch import nn

import signbit
from signbit.compiler import CompiledModel
from signbit.nn import RPReLU, RSign

MEAN, STD = [0.48, 0.45, 0.41], [0.23, 0.22, 0.26]


def make_awkward(model: nn.Module, seed: int) -> None:
    """Batch-norm gains that are negative, zero and tiny; slopes of both signs; shifts off zero."""
    generator = torch.Generator().manual_seed(seed)

    def normal(like: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator) * scale

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(normal(module.weight))
                module.weight[::7] = 0.0
                module.weight[3::11] = 1e-6
                module.bias.copy_(normal(module.bias, 0.3))
                module.running_mean.copy_(normal(module.running_mean, 2.0))
                module.running_var.copy_(normal(module.running_var, 4.0).abs() + 0.1)
            elif isinstance(module, RPReLU):
                module.shift_in.copy_(normal(module.shift_in, 0.5))
                module.slope.copy_(normal(module.slope, 0.5))
                module.shift_out.copy_(normal(module.shift_out, 0.5))
            elif isinstance(module, RSign):
                module.bias.copy_(normal(module.bias, 0.5))


@functools.cache
def compiled_network(
    name: str,
    stem: str,
    size: int = 32,
    width: float = 0.25,
    pixels: bool = True,
    awkward: bool = True,
) -> CompiledModel:
    torch.manual_seed(1)
    model = signbit.create_model(name, num_classes=10, stem=stem, width=width)
    if awkward:
        make_awkward(model, 2)
    x = torch.randn(4, 3, size, size)
    signbit.calibrate(model, [x])
    preprocessing = {"mean": MEAN, "std": STD} if pixels else None
    return signbit.compile(model, x[:1], preprocessing=preprocessing, verify=False)

"""Tracing: modules that are called twice, and sizes that are read in a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import signbit
from signbit import nn as snn
from signbit.compiler.emit import emit


class Shared(nn.Module):
    """Calls a function within a module, which its owner calls twice."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.function(x))


class Twice(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.stem = snn.QuantConv2d(3, 4, 3, padding=1)
        self.shared = Shared(function)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.shared(x) + self.shared(-x)


def test_a_module_may_be_called_twice() -> None:
    model, x = Twice(F.relu), torch.randn(2, 3, 6, 6)
    signbit.calibrate(model, [x])
    compiled = signbit.compile(model, x)
    assert compiled.report.engine == "equal"
    paths = [node.path for node in compiled.captured.nodes]
    assert paths.count("shared.relu") == 2


def test_the_path_of_a_second_call_is_the_modules() -> None:
    model, x = Twice(lambda x: torch.cumsum(x, 1)), torch.randn(2, 3, 6, 6)
    signbit.calibrate(model, [x])
    with pytest.raises(signbit.CompileError, match=r"\n?.*shared \(Shared\): it calls cumsum") as e:
        signbit.compile(model, x)
    assert "@" not in str(e.value)


@pytest.mark.parametrize(
    "size",
    [
        lambda x: tuple(2 * s for s in x.shape[2:]),
        lambda x: [s * 2 for s in x.size()[-2:]],
    ],
    ids=["shape", "size"],
)
def test_sizes_may_be_read_in_a_loop(size) -> None:
    class Up(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = snn.QuantConv2d(3, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return F.interpolate(x, size=size(x), mode="bilinear", align_corners=True)

    model, x = Up(), torch.randn(1, 3, 5, 6)
    signbit.calibrate(model, [x])
    compiled = signbit.compile(model, x)
    other = torch.randn(2, 3, 9, 4)
    found = signbit.load(emit(compiled.graph))(other.numpy())
    expected = model.eval()(other).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_other_loops_over_tensors_are_still_refused() -> None:
    class Loop(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return sum(image for image in x)

    with pytest.raises(signbit.CompileError, match="forward cannot be traced"):
        signbit.compile(Loop(), torch.randn(1, 3, 4, 4))


class Optional(nn.Module):
    """Takes more than images, but can do without."""

    def __init__(self):
        super().__init__()
        self.stem = snn.QuantConv2d(3, 4, 3, padding=1)
        self.stem.set_input_range(-3, 3)

    def forward(self, x: Tensor, scale: float = 2.0, skip: Tensor | None = None, *, also=True):
        y = self.stem(x) * scale
        y = y + 1 if also else y
        return y if skip is None else skip


class Starred(Optional):
    def forward(self, *images: Tensor, **options: object) -> Tensor:
        return self.stem(images[0]) * len(images)


class Several(Optional):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.stem(x) + y


class Nothing(Optional):
    def forward(self) -> Tensor:
        return self.stem(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("kind", [Optional, Starred])
def test_arguments_have_their_defaults(kind: type[nn.Module]) -> None:
    model, x = kind(), torch.randn(2, 3, 5, 6)
    found = signbit.compile(model, x).session()(x.numpy())
    np.testing.assert_allclose(found, model.eval()(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_model_has_one_input() -> None:
    with pytest.raises(signbit.CompileError, match=r"Several\): it takes several inputs"):
        signbit.compile(Several(), torch.randn(1, 3, 4, 4))
    with pytest.raises(signbit.CompileError, match=r"Nothing\): its forward takes no images"):
        signbit.compile(Nothing(), torch.randn(1, 3, 4, 4))

"""Layers and calls that work in place: what reads the tensor later reads what they left there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import signbit
from signbit import nn as snn
from signbit.compiler import reference
from signbit.compiler.capture import capture
from signbit.errors import CompileError
from tests.compiler.build import check_in_float64


class Net(nn.Module):
    def __init__(self, function: Callable):
        super().__init__()
        self.stem, self.bn = snn.QuantConv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.sign, self.conv = snn.Sign(), snn.BinaryConv2d(8, 8, 3, padding=1)
        self.bn2, self.relu = nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.q, self.q2 = snn.QuantConv2d(8, 8, 1), snn.QuantConv2d(8, 8, 1)
        self.pool, self.identity, self.drop = nn.AdaptiveAvgPool2d(1), nn.Identity(), nn.Dropout()
        for layer in (self.stem, self.q, self.q2):
            layer.set_input_range(-3, 3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def relu_seen_by_the_shortcut(m: Net, x: Tensor) -> Tensor:
    y = m.bn(m.stem(x))
    z = m.bn2(m.conv(m.sign(m.relu(y))))
    return z + y


def add_without_its_result(m: Net, x: Tensor) -> Tensor:
    y = m.bn(m.stem(x))
    y.add_(m.q(y))
    return m.q2(y)


def augmented_addition_to_an_alias(m: Net, x: Tensor) -> Tensor:
    y = m.bn(m.stem(x))
    z = y
    z += m.q(y)
    return m.q2(y)


def relu_without_its_result(m: Net, x: Tensor) -> Tensor:
    y = m.bn(m.stem(x))
    m.relu(y)
    return y


def through_identity_and_dropout(m: Net, x: Tensor) -> Tensor:
    y = m.bn(m.stem(x))
    z = m.drop(m.identity(y))
    m.relu(z)
    return m.q(y) + z


def twice(m: Net, x: Tensor) -> Tensor:
    y = m.bn(m.stem(x))
    z = m.relu(y)
    z += m.q(y)
    y += m.q2(z)
    return z


def on_the_input(m: Net, x: Tensor) -> Tensor:
    m.relu(x)
    return m.stem(x)


def both_returned(m: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    y = m.bn(m.stem(x))
    return y, y.add_(m.q(y))


def residual_block(m: Net, x: Tensor) -> Tensor:
    y = m.relu(m.bn(m.stem(x)))
    out = m.bn2(m.conv(m.sign(y)))
    out += y
    return m.relu(out)


def flat_and_not_read_again(m: Net, x: Tensor) -> Tensor:
    return m.relu(torch.flatten(m.pool(m.bn(m.stem(x))), 1))


FUNCTIONS = [
    relu_seen_by_the_shortcut, add_without_its_result, augmented_addition_to_an_alias,
    relu_without_its_result, through_identity_and_dropout, twice, on_the_input, both_returned,
    residual_block, flat_and_not_read_again,
]  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_later_readers_see_the_change(function: Callable) -> None:
    torch.manual_seed(0)
    model, x = Net(function).eval(), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        nn.init.normal_(model.bn.bias)
    before = x.clone()
    report = signbit.compile(model, x).report
    assert torch.equal(x, before)  # the user's own tensor
    assert report.engine == "equal"
    assert report.max_error < 1e-4
    expected = model.double()(x.double())
    expected = expected if isinstance(expected, tuple) else (expected,)
    graph = check_in_float64(model, x)
    for want, got in zip(
        expected, reference.run(graph, x.double().numpy(), precision=float), strict=True
    ):
        torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-9, atol=1e-9)


def test_plain_models_are_captured_alike_in_place_and_not() -> None:
    model, x = Net(residual_block), torch.randn(1, 3, 6, 6)
    ops = [node.op for node in capture(model, x).graph.nodes]
    model.relu.inplace = False
    assert [node.op for node in capture(model, x).graph.nodes] == ops


def test_a_view_that_cannot_be_followed_is_refused_by_name() -> None:
    def function(m: Net, x: Tensor) -> Tensor:
        y = m.pool(m.bn(m.stem(x)))
        m.relu(torch.flatten(y, 1))
        return m.q(y)

    model, x = Net(function), torch.randn(1, 3, 6, 6)
    message = r"q \(QuantConv2d\): it reads a view of pool, .* write that one out of place"
    with pytest.raises(CompileError, match=message):
        signbit.compile(model, x)

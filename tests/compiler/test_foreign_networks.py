"""Definitions that nobody wrote for this compiler: verified, or refused with layer and reason."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks.foreign_networks import NETWORKS, Network, put_through
from torch import nn

import signbit
from signbit.compiler import reference
from signbit.compiler.capture import capture
from signbit.compiler.emit import emit
from signbit.compiler.ir import Type
from signbit.compiler.passes import lower
from signbit.compiler.verify import values_of_model

pytest.importorskip("pytorchcv", reason="pip install --no-deps pytorchcv==0.0.74")


def cases(refused: bool) -> list[object]:
    return [
        pytest.param(network, id=network.name, marks=() if network.quick else pytest.mark.slow)
        for network in NETWORKS
        if (network.refused is not None) == refused
    ]


@pytest.mark.parametrize("network", cases(refused=False))
def test_networks_verify(network: Network) -> None:
    net, compiled = put_through(network)
    report = compiled.report
    assert report.engine == "equal"
    assert report.float64_error < 1e-6
    done = net.binarization
    assert len(done.eight_bit) == 2
    assert len(done.binary) > 3
    binary = sum(node.op == "conv_b1" for node in compiled.graph.nodes)
    assert binary >= len(done.binary)  # a layer may be called twice

    x = network.images(2, network.other, seed=2).numpy()
    found = signbit.load(emit(compiled.graph))(x)
    found = list(found) if isinstance(found, tuple | list) else [found]
    for got, want in zip(found, reference.run(compiled.graph, x), strict=True):
        np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
    check_other_size(net, network)


def check_other_size(net: nn.Module, network: Network) -> None:
    """In float64 the program is the network for another size, unless a sign hangs on rounding."""
    net, x = net.double(), network.images(1, network.other, seed=2).double()
    captured = capture(net, network.images(1).double())
    graph = lower(captured.graph, np.float64)
    outputs, values = reference.run(graph, x.numpy(), collect=True, precision=np.float64)
    expected = values_of_model(captured, captured.module, x)
    for node in graph.nodes:
        for value in node.outputs:
            if value.type == Type.B1 and value.name in expected:
                bits = expected[value.name] > 0
                wrong = (values[value.name] > 0) != bits.reshape(values[value.name].shape)
                assert wrong.mean() < 0.001, value.name
                if wrong.any():
                    return
    with torch.no_grad():
        found = net(x)
    for got, want in zip(outputs, found if isinstance(found, tuple) else [found], strict=True):
        assert got.shape == tuple(want.shape)
        np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=1e-6 * float(want.abs().max()))


@pytest.mark.filterwarnings("ignore:Default grid_sample")  # what the definitions' calls mean
@pytest.mark.parametrize("network", cases(refused=True))
def test_networks_are_refused_for_a_reason(network: Network) -> None:
    with pytest.raises(signbit.SignbitError, match=network.refused):
        put_through(network)


def test_there_are_ten_families() -> None:
    verified = {network.family for network in NETWORKS if network.refused is None}
    assert len(verified) >= 10
    assert len({network.name for network in NETWORKS}) == len(NETWORKS)

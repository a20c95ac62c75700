"""Definitions that nobody wrote for this compiler: verified, or refused with layer and reason."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.foreign_networks import NETWORKS, Network, put_through

import signbit
from signbit.compiler import reference
from signbit.compiler.emit import emit

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


@pytest.mark.filterwarnings("ignore:Default grid_sample")  # what the definitions' calls mean
@pytest.mark.parametrize("network", cases(refused=True))
def test_networks_are_refused_for_a_reason(network: Network) -> None:
    with pytest.raises(signbit.SignbitError, match=network.refused):
        put_through(network)


def test_there_are_ten_families() -> None:
    verified = {network.family for network in NETWORKS if network.refused is None}
    assert len(verified) >= 10
    assert len({network.name for network in NETWORKS}) == len(NETWORKS)

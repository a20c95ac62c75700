"""Over-parameterised BiNeal blocks: each integer means at inference what it meant in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import signbit
from signbit.compiler.capture import capture
from signbit.compiler.ir import Node, Step
from signbit.compiler.passes import lower
from signbit.compiler.reference import _channels, _quant4_ladder, _quant4_shift
from signbit.models.bineal import BinealBlock
from signbit.nn import BinaryConv2d, QuantConv2d, RPReLU, Sign
from signbit.quantizers import OverParameterizedSign
from tests.runtime.networks import make_awkward

GRANULARITIES = [None, *OverParameterizedSign.GRANULARITIES]


def network(granularity: str | None, parametric: bool, seed: int) -> nn.Sequential:
    """One block between 8-bit layers, whose every parameter is random, slopes of both signs too."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        QuantConv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        Sign(),
        BinealBlock(8, 12, 2, "clipped_identity", granularity, parametric),
        QuantConv2d(12, 4, 1),
    )
    x = torch.randn(4, 3, 9, 9)
    model(x)
    make_awkward(model, seed)
    for module in model.modules():
        if isinstance(module, OverParameterizedSign):
            nn.init.normal_(module.factor)
            nn.init.normal_(module.magnitude)
            nn.init.constant_(module.gain, -0.7)
        if isinstance(module, RPReLU):
            nn.init.normal_(module.slope, std=0.5)
    return signbit.calibrate(model, [x]).eval().double()


def trained(conv: BinaryConv2d, layers: list[nn.Module], integers: np.ndarray) -> Tensor:
    """What layers behind a binary convolution make of each sum in each channel: float64 [C, n]."""
    _, scale = conv.binary_weight()
    sums = torch.from_numpy(integers).double()[:, None, None, None] * scale.view(1, -1, 1, 1)
    with torch.no_grad():
        for layer in layers:
            sums = layer(sums)
    return sums[:, :, 0, 0].T


def bits(step: Step, integers: np.ndarray) -> np.ndarray:
    """+-1 [C, n] of a threshold."""
    low, high, flip = (step.params[name][:, None] for name in ("low", "high", "flip"))
    inside = (low <= integers) & (integers <= high)
    return np.where(inside != (flip != 0), 1, -1)


def operand(step: Step, integers: np.ndarray) -> np.ndarray:
    """The 4-bit integers [C, n] that a step makes of sums."""
    function = {"quant4_shift": _quant4_shift, "quant4_ladder": _quant4_ladder}[step.kind]
    channels = len(next(iter(step.params.values())))
    v = np.broadcast_to(integers, (1, channels, len(integers)))[..., None]
    return function(v, step, _channels(step), {}, np.float64)[0, ..., 0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("parametric", [True, False])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_integer_of_every_channel(
    granularity: str | None, parametric: bool, seed: int
) -> None:
    model = network(granularity, parametric, seed)
    block = model[3]
    assert isinstance(block, BinealBlock)
    graph = lower(capture(model, torch.zeros(1, 3, 9, 9).double()).graph, np.float64)
    nodes: dict[str, Node] = {node.path.rpartition(".")[2]: node for node in graph.nodes}

    def reach(conv: BinaryConv2d) -> np.ndarray:
        k = conv.weight[0].numel()
        return np.arange(-k, k + 1)  # at borders, and with zeros there, every integer occurs

    integers = reach(block.conv1)
    (threshold,) = nodes["conv1"].epilogue
    wanted = trained(block.conv1, [block.bn1, block.act1, block.sign1], integers)
    np.testing.assert_array_equal(bits(threshold, integers), wanted)

    for name, norm in (("conv2", block.bn2), ("skip_conv", block.skip_bn)):
        conv = getattr(block, name)
        integers = reach(conv)
        values = trained(conv, [norm], integers) / block.add.scale
        quantised = np.clip(np.rint(values.numpy()), block.add.LOW, block.add.HIGH)
        np.testing.assert_array_equal(operand(nodes[name].epilogue[0], integers), quantised)

    sums = np.arange(2 * block.add.LOW, 2 * block.add.HIGH + 1)
    last = nodes["conv2"].epilogue[-1]
    x = torch.from_numpy(sums * block.add.scale).double()[:, None, None, None].expand(-1, 12, 1, 1)
    with torch.no_grad():
        wanted = block.sign_out(block.act_out(block.bn_out(x)))[:, :, 0, 0].T
    np.testing.assert_array_equal(bits(last, sums), wanted)


@pytest.mark.parametrize("granularity", OverParameterizedSign.GRANULARITIES)
def test_factors_are_no_part_of_the_program(granularity: str, tmp_path: Path) -> None:
    """The bits are those of a * w, and the file is as small as without the factors."""
    x = torch.randn(1, 3, 9, 9)
    plain = signbit.compile(network(None, True, 0).float(), x).save(tmp_path / "plain.signbit")
    model = network(granularity, True, 0).float()
    file = signbit.compile(model, x).save(tmp_path / "model.signbit")  # verifies itself
    assert abs(file.stat().st_size - plain.stat().st_size) <= 64  # of names and hashes
    conv = model[3].conv1
    signs, scale = conv.binary_weight()
    binarizer = conv.weight_quantizer
    assert isinstance(binarizer, OverParameterizedSign)
    assert torch.equal(signs, torch.where(binarizer.factor * conv.weight >= 0, 1, -1).to(signs))
    assert torch.equal(scale, binarizer.gain * binarizer.magnitude)

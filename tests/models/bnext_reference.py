"""The networks of BNext (arXiv 2211.12933) as plain functions of a published state dict.

Written from the description of the method and the names in the published files, then compared with
the authors' code by reading it. Nothing of signbit is imported, so that the networks of
`signbit.models` can be held against it. Plan, stem's kernel and ablation are read off the tensors.
The dynamically quantised variants (stem, squeeze-and-excite and head of 8 or 4 bits) are functions
of the same tensors.

The code clamps mixing factors to [0, 1] when it trains, so that in evaluation those of 3x3 units
may be outside by one last step of the optimiser; here they are clamped throughout.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

# of the stem, then of each block
WIDTHS = {
    "tiny": (32, 64, *[128] * 2, *[256] * 2, *[512] * 6, *[1024] * 2),
    "small": (48, 96, *[192] * 2, *[384] * 2, *[768] * 6, *[1536] * 2),
    "middle": (48, 96, *[192] * 4, *[384] * 4, *[768] * 8, *[1536] * 4),
    "large": (64, 128, *[256] * 4, *[512] * 4, *[1024] * 16, *[2048] * 4),
}
WIDTHS_18 = (64, 128, 256, 512)
SOFTEST = 1e-7, 1e-5  # weights are signs where the temperature is below; of BNext-18
FLOAT = (32, 32, 32)  # bits of stem, squeeze-and-excite and head
EPSILON = 1e-5  # of batch norm


def shapes(
    widths: Sequence[int], classes: int, elm_attention: bool = True, info_rcp: bool = True
) -> Shapes:
    """Tensor names and shapes of a published file, in its order."""
    found: Shapes = {}
    spatial = "Attention" if elm_attention else "FFN_3x3"
    found["feature.0.conv1.weight"] = (widths[0], 3, 3, 3)
    _norm_shapes(found, "feature.0.bn1", widths[0])
    found["feature.0.prelu.weight"] = (widths[0],)
    for index, outputs in enumerate(widths[1:], 1):
        inputs = widths[index - 1]
        _unit_shapes(found, f"feature.{index}.{spatial}", inputs, inputs, 3, info_rcp)
        for name in ("FFN",) if inputs == outputs else ("FFN_1", "FFN_2"):
            _unit_shapes(found, f"feature.{index}.{name}", inputs, inputs, 1, info_rcp)
    _head_shapes(found, widths[-1], classes)
    return found


def shapes_18(widths: Sequence[int], classes: int, stem: str) -> Shapes:
    """Tensor names and shapes of a file of BNext-18, in its order."""
    found: Shapes = {}
    kernel = 7 if stem == "imagenet" else 3
    found["conv1.weight"] = (widths[0], 3, kernel, kernel)
    _norm_shapes(found, "bn1", widths[0])
    inputs = widths[0]
    for stage, outputs in enumerate(widths):
        for block in ("0", "1"):
            name = f"layer{stage}.{block}"
            _unit_shapes(found, f"{name}.Attention", inputs, outputs, 3, info_rcp=True)
            _unit_shapes(found, f"{name}.FFN", outputs, outputs, 3, info_rcp=True)
            inputs = outputs
    _head_shapes(found, widths[-1], classes)
    return found


def _unit_shapes(
    found: Shapes, name: str, inputs: int, outputs: int, kernel: int, info_rcp: bool
) -> None:
    hidden = outputs // 8
    if info_rcp:
        found[f"{name}.scale"] = (1, outputs, 1, 1)
    found[f"{name}.move.bias"] = (1, inputs, 1, 1)
    found[f"{name}.binary_activation.temperature"] = (1,)
    found[f"{name}.binary_conv.weight"] = (outputs, inputs, kernel, kernel)
    found[f"{name}.binary_conv.temperature"] = (1,)
    _norm_shapes(found, f"{name}.norm1", outputs)
    _norm_shapes(found, f"{name}.norm2", outputs)
    found[f"{name}.activation1.weight"] = (inputs,)
    found[f"{name}.activation2.weight"] = (outputs,)
    if inputs != outputs:
        found[f"{name}.downsample.1.weight"] = (outputs, inputs, 1, 1)
        _norm_shapes(found, f"{name}.downsample.2", outputs)
    if info_rcp:
        found[f"{name}.se.se.1.weight"] = (hidden, outputs, 1, 1)
        found[f"{name}.se.se.1.bias"] = (hidden,)
        found[f"{name}.se.se.3.weight"] = (outputs, hidden, 1, 1)
        found[f"{name}.se.se.3.bias"] = (outputs,)


def _norm_shapes(found: Shapes, name: str, channels: int) -> None:
    for part in ("weight", "bias", "running_mean", "running_var"):
        found[f"{name}.{part}"] = (channels,)
    found[f"{name}.num_batches_tracked"] = ()


def _head_shapes(found: Shapes, channels: int, classes: int) -> None:
    found["prelu.weight"] = (channels,)
    found["fc.weight"] = (classes, channels)
    found["fc.bias"] = (classes,)


def random_state(shapes: Shapes, seed: int = 0) -> State:
    """Random tensors of these names and shapes, far from their first values.

    float32, but for the int64 counters of batch norm. Some slopes and batch-norm weights are
    negative, some mixing factors lie outside of [0, 1]; the weights are binary.
    """
    generator = torch.Generator().manual_seed(seed)
    state: State = {}
    fan_in = 1
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) in (2, 4) and name.endswith("weight"):
            fan_in = noise[0].numel()
        # sums of fan_in products of signs; of reals with weights of 1 / fan_in
        sums = fan_in if name.rpartition(".")[0].endswith("norm1") else 1
        part = name.rpartition(".")[2]
        if part == "num_batches_tracked":
            state[name] = torch.tensor(1000)
        elif part == "temperature":
            state[name] = torch.full(shape, 0.9**200)
        elif part == "running_mean":
            state[name] = 0.3 * sums**0.5 * noise
        elif part == "running_var":
            state[name] = sums * (0.5 + noise.abs())
        elif part == "scale":
            state[name] = 0.5 + 0.4 * noise
        elif re.search(r"(bn1|norm\d|downsample\.2)\.", name):
            state[name] = 0.3 * noise if part == "bias" else 0.8 + 0.5 * noise
        elif "prelu" in name or ".activation" in name:
            state[name] = 0.25 + 0.3 * noise
        elif part == "bias":
            state[name] = 0.3 * noise
        else:
            state[name] = noise / fan_in**0.5
    return state


def logits(state: State, x: Tensor, stem: str, bits: tuple[int, int, int] = FLOAT) -> Tensor:
    """The network's answer to normalised images [N, 3, H, W], in the precision of `x`.

    `bits` are those of stem, squeeze-and-excite and head: ranges of activations are taken of each
    sample, the images themselves stay as they are. The code brings weights between limits before
    that (and vectors between -1000 and 1000), which would need weights of 50 times their mean
    magnitude. BNext-18 has 32 bits.
    """
    read = _Reader(state, x.dtype)
    stride = 2 if stem == "imagenet" else 1
    maps = _residual(read, x, stride) if "conv1.weight" in state else _mobile(read, x, stride, bits)
    features = F.prelu(maps, read("prelu.weight")).mean(dim=(2, 3))
    if bits[2] != 32:
        features = features.clamp(-25, 25)
    features = _quantized(features, bits[2], (1,))
    return features @ _quantized(read("fc.weight"), bits[2], (1,)).T + read("fc.bias")


def _mobile(read: _Reader, x: Tensor, stride: int, bits: tuple[int, int, int]) -> Tensor:
    stem = _quantized(read("feature.0.conv1.weight"), bits[0], (2, 3))
    x = _norm(read, "feature.0.bn1", F.conv2d(x, stem, stride=stride, padding=1))
    index = 1
    while f"feature.{index}.FFN.move.bias" in read or f"feature.{index}.FFN_1.move.bias" in read:
        block = f"feature.{index}"
        halves = ("FFN_1", "FFN_2") if f"{block}.FFN_1.move.bias" in read else ("FFN",)
        stride = 2 if len(halves) == 2 and index > 1 else 1
        shortcut = F.avg_pool2d(x, 2) if stride == 2 else x
        if f"{block}.FFN_3x3.move.bias" in read:
            x = _unit(read, f"{block}.FFN_3x3", x, stride, shortcut, None, bits[1])
        else:
            bypass = None
            if index > 1 and index % 2 == 0:
                bypass = F.prelu(x, read(f"{block}.Attention.activation1.weight"))
                bypass = F.avg_pool2d(bypass, 2) if stride == 2 else bypass
            x = _unit(read, f"{block}.Attention", x, stride, shortcut, bypass, bits[1])
        x = torch.cat([_unit(read, f"{block}.{n}", x, 1, x, None, bits[1]) for n in halves], dim=1)
        index += 1
    return x


def _residual(read: _Reader, x: Tensor, stride: int) -> Tensor:
    stem = read("conv1.weight")
    x = _norm(read, "bn1", F.conv2d(x, stem, stride=stride, padding=stem.shape[2] // 2))
    if stride == 2:
        x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage in range(4):
        for block in ("0", "1"):
            name = f"layer{stage}.{block}.Attention"
            bypass, stride = F.prelu(x, read(f"{name}.activation1.weight")), 1
            if f"{name}.downsample.1.weight" in read:
                stride = 2
                down = F.conv2d(F.avg_pool2d(bypass, 2), read(f"{name}.downsample.1.weight"))
                bypass = _norm(read, f"{name}.downsample.2", down)
            x = _unit(read, name, x, stride, bypass, bypass, 32)
            x = _unit(read, f"layer{stage}.{block}.FFN", x, 1, x, None, 32)
    return x


class _Reader:
    def __init__(self, state: State, dtype: torch.dtype) -> None:
        self.state = state
        self.dtype = dtype

    def __call__(self, name: str) -> Tensor:
        return self.state[name].to(self.dtype)

    def __contains__(self, name: str) -> bool:
        return name in self.state


def _unit(
    read: _Reader,
    name: str,
    x: Tensor,
    stride: int,
    shortcut: Tensor,
    bypass: Tensor | None,
    bits: int,
) -> Tensor:
    """A unit of ELM attention, or without a bypass an FFN unit."""
    weight = _binarized(read, f"{name}.binary_conv")
    kernel = weight.shape[2]
    sums = F.conv2d(_sign(x + read(f"{name}.move.bias")), weight, None, stride, kernel // 2)
    v = F.prelu(_norm(read, f"{name}.norm1", sums), read(f"{name}.activation2.weight"))
    recoupled = f"{name}.scale" in read
    if recoupled:
        share = read(f"{name}.scale").clamp(0, 1)
        v = _gate(read, f"{name}.se.se", share * shortcut + (1 - share) * v, bits) * v
    if bypass is not None:
        return _norm(read, f"{name}.norm2", v * bypass) + bypass
    return (_norm(read, f"{name}.norm2", v) if recoupled else v) + shortcut


def _gate(read: _Reader, name: str, x: Tensor, bits: int) -> Tensor:
    vector = _linear(read, f"{name}.1", x.mean(dim=(2, 3)), bits).relu()
    return _linear(read, f"{name}.3", vector, bits).sigmoid()[:, :, None, None]


def _linear(read: _Reader, name: str, vector: Tensor, bits: int) -> Tensor:
    weight = _quantized(read(f"{name}.weight").flatten(1), bits, (1,))
    return _quantized(vector, bits, (1,)) @ weight.T + read(f"{name}.bias")


def _quantized(x: Tensor, bits: int, dims: tuple[int, ...]) -> Tensor:
    """`x` rounded to 2 ^ bits steps from its least to its greatest value along `dims`."""
    if bits == 32:
        return x
    least, greatest = x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)
    step = (greatest - least + 1e-8) / (2**bits - 1)
    return ((x - least) / step).round() * step + least


def _norm(read: _Reader, name: str, x: Tensor) -> Tensor:
    mean, variance, weight, bias = (
        read(f"{name}.{part}").view(1, -1, 1, 1)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + EPSILON).sqrt() * weight + bias


def _binarized(read: _Reader, name: str) -> Tensor:
    temperature = read(f"{name}.temperature")
    weight = read(f"{name}.weight")
    if temperature < SOFTEST[name.startswith("layer")]:
        return _sign(weight)
    return (weight / temperature).clamp(-1, 1)


def _sign(x: Tensor) -> Tensor:
    return 2 * (x >= 0).to(x.dtype) - 1

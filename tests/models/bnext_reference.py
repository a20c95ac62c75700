"""The networks of BNext (arXiv 2211.12933) as plain functions of a published state dict.

Written from the description of the method and the names in the published files alone: nothing of
signbit is imported, so that the networks of `signbit.models` can be held against it. The plan of
a network is read off its tensors. The dynamically quantised variants (stem, squeeze-and-excite and
head of 8 or 4 bits) have the same tensors.
"""

from __future__ import annotations

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
SOFTEST_BINARY = 1e-7  # weights are signs where the temperature is below
FLOAT = (32, 32, 32)  # bits of stem, squeeze-and-excite and head
EPSILON = 1e-5  # of batch norm


def shapes(widths: Sequence[int], classes: int) -> Shapes:
    """Tensor names and shapes of a published file, in its order."""
    found: Shapes = {}

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.{part}"] = (channels,)
        found[f"{name}.num_batches_tracked"] = ()

    def unit(name: str, channels: int, kernel: int) -> None:
        hidden = channels // 8
        found[f"{name}.scale"] = (1, channels, 1, 1)
        found[f"{name}.move.bias"] = (1, channels, 1, 1)
        found[f"{name}.binary_activation.temperature"] = (1,)
        found[f"{name}.binary_conv.weight"] = (channels, channels, kernel, kernel)
        found[f"{name}.binary_conv.temperature"] = (1,)
        norm(f"{name}.norm1", channels)
        norm(f"{name}.norm2", channels)
        found[f"{name}.activation1.weight"] = (channels,)
        found[f"{name}.activation2.weight"] = (channels,)
        found[f"{name}.se.se.1.weight"] = (hidden, channels, 1, 1)
        found[f"{name}.se.se.1.bias"] = (hidden,)
        found[f"{name}.se.se.3.weight"] = (channels, hidden, 1, 1)
        found[f"{name}.se.se.3.bias"] = (channels,)

    found["feature.0.conv1.weight"] = (widths[0], 3, 3, 3)
    norm("feature.0.bn1", widths[0])
    found["feature.0.prelu.weight"] = (widths[0],)
    for index, outputs in enumerate(widths[1:], 1):
        inputs = widths[index - 1]
        unit(f"feature.{index}.Attention", inputs, 3)
        for name in ("FFN",) if inputs == outputs else ("FFN_1", "FFN_2"):
            unit(f"feature.{index}.{name}", inputs, 1)
    found["prelu.weight"] = (widths[-1],)
    found["fc.weight"] = (classes, widths[-1])
    found["fc.bias"] = (classes,)
    return found


def random_state(widths: Sequence[int], classes: int, seed: int = 0) -> State:
    """Random tensors of a published file's names and shapes, far from their first values.

    float32, but for the int64 counters of batch norm. Some slopes and batch-norm weights are
    negative, some mixing factors lie outside of [0, 1]; the weights are binary.
    """
    generator = torch.Generator().manual_seed(seed)
    state: State = {}
    fan_in = 1
    for name, shape in shapes(widths, classes).items():
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
        elif ".bn1." in name or ".norm" in name:
            state[name] = 0.3 * noise if part == "bias" else 0.8 + 0.5 * noise
        elif "prelu" in name or ".activation" in name:
            state[name] = 0.25 + 0.3 * noise
        elif part == "bias":
            state[name] = 0.3 * noise
        else:
            state[name] = noise / fan_in**0.5
    return state


def logits(
    state: State,
    x: Tensor,
    stem: str,
    elm_attention: bool = True,
    info_rcp: bool = True,
    bits: tuple[int, int, int] = FLOAT,
) -> Tensor:
    """The network's answer to normalised images [N, 3, H, W], in the precision of `x`.

    `bits` are those of stem, squeeze-and-excite and head: ranges of activations are taken of each
    sample, the images themselves stay as they are.
    """
    read = _Reader(state, x.dtype)
    stem_bits, se_bits, head_bits = bits
    weight = _quantized(read("feature.0.conv1.weight"), stem_bits, (2, 3))
    x = F.conv2d(x, weight, stride=2 if stem == "imagenet" else 1, padding=1)
    x = _norm(read, "feature.0.bn1", x)
    index = 1
    while f"feature.{index}.Attention.binary_conv.weight" in state:
        block = f"feature.{index}"
        doubles = f"{block}.FFN_1.binary_conv.weight" in state
        attends = elm_attention and index > 1 and index % 2 == 0
        stride = 2 if doubles and index > 1 else 1
        x = _unit(read, f"{block}.Attention", x, stride, attends, info_rcp, se_bits)
        names = ("FFN_1", "FFN_2") if doubles else ("FFN",)
        halves = [_unit(read, f"{block}.{n}", x, 1, False, info_rcp, se_bits) for n in names]
        x = torch.cat(halves, dim=1)
        index += 1
    features = F.prelu(x, read("prelu.weight")).mean(dim=(2, 3))
    features = _quantized(features, head_bits, (1,))
    return features @ _quantized(read("fc.weight"), head_bits, (1,)).T + read("fc.bias")


class _Reader:
    def __init__(self, state: State, dtype: torch.dtype) -> None:
        self.state = state
        self.dtype = dtype

    def __call__(self, name: str) -> Tensor:
        return self.state[name].to(self.dtype)


def _unit(
    read: _Reader, name: str, x: Tensor, stride: int, attends: bool, info_rcp: bool, bits: int
) -> Tensor:
    weight = _binarized(read, f"{name}.binary_conv")
    kernel = weight.shape[2]
    sums = F.conv2d(_sign(x + read(f"{name}.move.bias")), weight, None, stride, kernel // 2)
    v = F.prelu(_norm(read, f"{name}.norm1", sums), read(f"{name}.activation1.weight"))
    shortcut = F.avg_pool2d(x, 2) if stride == 2 else x
    if info_rcp:
        share = read(f"{name}.scale").clamp(0, 1)
        v = _gate(read, f"{name}.se.se", share * shortcut + (1 - share) * v, bits) * v
    if attends:
        shortcut = F.prelu(x, read(f"{name}.activation2.weight"))
        if stride == 2:
            shortcut = F.avg_pool2d(shortcut, 2)
        v = v * shortcut
    if info_rcp:
        v = _norm(read, f"{name}.norm2", v)
    return v + shortcut


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
    if temperature < SOFTEST_BINARY:
        return _sign(weight)
    return (weight / temperature).clamp(-1, 1)


def _sign(x: Tensor) -> Tensor:
    return 2 * (x >= 0).to(x.dtype) - 1

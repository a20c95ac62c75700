"""The networks of A&B BNN (arXiv 2403.03739) as plain functions of a published state dict.

Written from the description of the method and the names in the published files alone: nothing of
signbit is imported, so that the networks of `signbit.models` can be held against it. All networks
are those of the second training step, with binary weights and activations.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

ALPHA = 0.25
DEPTHS = {
    "xnornet18": (4, 4, 4, 4),
    "birealnet18": (4, 4, 4, 4),
    "birealnet34": (6, 8, 12, 6),
    "reactnet18": (4, 4, 4, 4),
    "reactnet34": (6, 8, 12, 6),
}
WIDTHS = (64, 128, 256, 512)
MOBILE_WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
NETWORKS = (*DEPTHS, "reactnet_a")


def shapes(network: str, stem: str, classes: int) -> Shapes:
    """Tensor names and shapes of a published file, in its order."""
    found: Shapes = {}

    def conv(name: str, inputs: int, outputs: int, kernel: int) -> None:
        found[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
        found[f"{name}.gain"] = (outputs, 1, 1, 1)

    def move(name: str, channels: int) -> None:
        found[f"{name}.bias"] = (1, channels, 1, 1)

    def activation(first: str, prelu: str, second: str, channels: int) -> None:
        move(first, channels)
        found[f"{prelu}.L_alpha"] = (channels,)
        move(second, channels)

    if network == "reactnet_a":
        conv("feature.0.conv1", 3, 32, 3)
        for index, (inputs, outputs) in enumerate(_pairs(MOBILE_WIDTHS), 1):
            block = f"feature.{index}"
            move(f"{block}.move11", inputs)
            conv(f"{block}.binary_3x3", inputs, inputs, 3)
            activation(f"{block}.move12", f"{block}.prelu1", f"{block}.move13", inputs)
            move(f"{block}.move21", inputs)
            if inputs == outputs:
                conv(f"{block}.binary_pw", inputs, inputs, 1)
            else:
                conv(f"{block}.binary_pw_down1", inputs, inputs, 1)
                conv(f"{block}.binary_pw_down2", inputs, inputs, 1)
            activation(f"{block}.move22", f"{block}.prelu2", f"{block}.move23", outputs)
        head = MOBILE_WIDTHS[-1]
    else:
        react = network.startswith("reactnet")
        conv("conv1", 3, 64, 7 if stem == "imagenet" else 3)
        if not react:
            found["prelu1.weight"] = (64,)
            found["prelu2.weight"] = (512,)
        inputs = 64
        for stage, (depth, width) in enumerate(zip(DEPTHS[network], WIDTHS, strict=True), 1):
            for index in range(depth):
                block = f"layer{stage}.{index}"
                if react:
                    move(f"{block}.move0", inputs)
                conv(f"{block}.conv1", inputs, width, 3)
                if react:
                    activation(f"{block}.move1", f"{block}.prelu", f"{block}.move2", width)
                if inputs != width:
                    place = 0 if network == "xnornet18" else 1
                    conv(f"{block}.downsample.{place}", inputs, width, 1)
                inputs = width
        head = 512
    found["fc.weight"] = (classes, head)
    found["fc.bias"] = (classes,)
    return found


def random_state(network: str, stem: str, classes: int, seed: int = 0) -> State:
    """Random tensors of a published file's names and shapes, float32, far from their first values.

    Slopes of the real PReLUs are negative for some channels; exponents are no integers.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes(network, stem, classes).items():
        noise = torch.randn(shape, generator=generator)
        kind = name.rpartition(".")[2]
        if kind == "gain":
            state[name] = 1 + 0.2 * noise
        elif kind == "L_alpha":
            state[name] = -2 + 1.7 * noise
        elif name.startswith("prelu"):
            state[name] = 0.1 + 0.4 * noise
        elif name == "fc.weight":
            state[name] = 0.1 * noise
        elif kind == "bias":
            state[name] = 0.3 * noise
        else:
            state[name] = 1e-3 * (0.5 + 0.3 * noise)
    return state


def logits(network: str, stem: str, state: State, x: Tensor) -> Tensor:
    """The network's answer to normalised images [N, 3, H, W], in the precision of `x`."""
    state = {name: tensor.to(x.dtype) for name, tensor in state.items()}
    run = _mobile if network == "reactnet_a" else _residual
    features = run(network, stem, state, x).mean(dim=(2, 3))
    return features @ state["fc.weight"].T + state["fc.bias"]


def _residual(network: str, stem: str, state: State, x: Tensor) -> Tensor:
    react = network.startswith("reactnet")
    if stem == "imagenet":
        x = F.conv2d(x, _standardized(state, "conv1"), stride=2, padding=3)
    else:
        x = F.conv2d(x, _standardized(state, "conv1"), padding=1)
    if not react:
        x = F.prelu(x, state["prelu1.weight"])
    if stem == "imagenet":
        x = F.max_pool2d(x, 3, stride=2, padding=1)
    variance = 1.0
    for stage, depth in enumerate(DEPTHS[network], 1):
        for index in range(depth):
            block = f"layer{stage}.{index}"
            halved = stage > 1 and index == 0
            beta = variance**-0.5
            if halved:
                variance = 1.0
            elif index > 0:
                variance += ALPHA**2
            shifted = x + state[f"{block}.move0.bias"] / beta if react else x
            bits = _sign(shifted * beta)
            weight = _binarized(state, f"{block}.conv1")
            branch = F.conv2d(bits, weight, stride=2 if halved else 1, padding=1)
            if halved:
                x = _downsampled(network, state, block, x)
            x = ALPHA * branch + x
            if react:
                x = _qrprelu(state, x, f"{block}.move1", f"{block}.prelu", f"{block}.move2")
    return x if react else F.prelu(x, state["prelu2.weight"])


def _downsampled(network: str, state: State, block: str, x: Tensor) -> Tensor:
    if network == "xnornet18":
        return F.conv2d(x, _binarized(state, f"{block}.downsample.0"), stride=2)
    read = _binarized if network.startswith("reactnet") else _standardized
    return F.conv2d(F.avg_pool2d(x, 2), read(state, f"{block}.downsample.1"))


def _mobile(network: str, stem: str, state: State, x: Tensor) -> Tensor:
    stride = 2 if stem == "imagenet" else 1
    x = F.conv2d(x, _standardized(state, "feature.0.conv1"), stride=stride, padding=1)
    variance = 1.0
    for index, (inputs, outputs) in enumerate(_pairs(MOBILE_WIDTHS), 1):
        block = f"feature.{index}"
        halved = inputs != outputs and inputs != 32
        betas = variance**-0.5, (variance + ALPHA**2) ** -0.5
        variance = 1.0 if halved else variance + 2 * ALPHA**2

        bits = _sign((x + state[f"{block}.move11.bias"] / betas[0]) * betas[0])
        weight = _binarized(state, f"{block}.binary_3x3")
        branch = F.conv2d(bits, weight, stride=2 if halved else 1, padding=1)
        x = ALPHA * branch + (F.avg_pool2d(x, 2) if halved else x)
        x = _qrprelu(state, x, f"{block}.move12", f"{block}.prelu1", f"{block}.move13")

        bits = _sign((x + state[f"{block}.move21.bias"] / betas[1]) * betas[1])
        names = ("pw",) if inputs == outputs else ("pw_down1", "pw_down2")
        halves = [
            ALPHA * F.conv2d(bits, _binarized(state, f"{block}.binary_{name}")) + x
            for name in names
        ]
        x = torch.cat(halves, dim=1)
        x = _qrprelu(state, x, f"{block}.move22", f"{block}.prelu2", f"{block}.move23")
    return x


def _pairs(widths: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(itertools.pairwise(widths))


def _sign(x: Tensor) -> Tensor:
    return 2 * (x >= 0).to(x.dtype) - 1


def _unit_variance(weight: Tensor) -> Tensor:
    """Weights of zero mean and of variance 1 / fan-in, output channel by output channel."""
    flat = weight.flatten(1)
    mean = flat.mean(1, keepdim=True)
    deviation = ((flat - mean) ** 2).mean(1, keepdim=True).sqrt()
    return ((flat - mean) / (deviation + 1e-5) / flat.shape[1] ** 0.5).view_as(weight)


def _standardized(state: State, name: str) -> Tensor:
    return state[f"{name}.gain"] * _unit_variance(state[f"{name}.weight"])


def _binarized(state: State, name: str) -> Tensor:
    weight = _unit_variance(state[f"{name}.weight"])
    scale = weight.abs().mean(dim=(1, 2, 3), keepdim=True)
    return state[f"{name}.gain"] * scale * _sign(weight)


def _qrprelu(state: State, x: Tensor, first: str, prelu: str, second: str) -> Tensor:
    shifted = x + state[f"{first}.bias"]
    slope = torch.exp2(state[f"{prelu}.L_alpha"].round()).view(1, -1, 1, 1)
    return torch.where(shifted >= 0, shifted, slope * shifted) + state[f"{second}.bias"]

"""BNext-T against the 8-bit networks of its accuracy class.

Times `bnext_tiny` (72.4 % on ImageNet as published) beside ResNet-34 (73.3 %) and MobileNetV1
(70.6 %, the plan that BNext follows), 8-bit and fp32, in OpenVINO, ONNX Runtime and PyTorch, as
`benchmarks/networks.py` does for ResNet-18: one image, random weights, ranges calibrated on
photographs, the fastest of several ways to make the rival 8-bit, each rival's contenders
interleaved with BNext-T.

    python -m benchmarks.bnext_speed --isa avx2 --calibration PATH
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.common import (
    add_arguments,
    calibration_batch,
    thread_counts,
    wide_console,
    write_csv,
)
from benchmarks.networks import compile_networks, measure, show, with_rival
from signbit.models import ResNet
from signbit.rivals.engines import prepare_rivals

NETWORKS = (("bnext_tiny", 1.0),)
# (outputs, stride) of the separable convolutions of MobileNetV1, arXiv 1704.04861
_SEPARABLE = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)
)  # fmt: skip


def resnet34() -> nn.Module:
    return ResNet((3, 4, 6, 3), 1000, "imagenet", 1.0, 3)


def mobilenet_v1() -> nn.Module:
    """MobileNetV1 of width 1: a 3x3 convolution, then depthwise and 1x1 ones in turn."""

    def conv(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )

    channels = 32
    layers: list[nn.Module] = [conv(3, channels, 3, 2)]
    for outputs, stride in _SEPARABLE:
        layers += [conv(channels, channels, 3, stride, channels), conv(channels, outputs, 1, 1)]
        channels = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)]
    return nn.Sequential(*layers, *head)


RIVALS = {"ResNet-34": resnet34, "MobileNetV1": mobilenet_v1}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser, "results/bnext-speed.csv")
    parser.add_argument("--calibration", type=Path, help="folder or .tar of photographs")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", default="1,all", help="thread counts, separated by commas")
    options = parser.parse_args()
    prepare_rivals(options.isa)
    warnings.filterwarnings("ignore")

    console = wide_console()
    calibration = calibration_batch(options.calibration, options.size, 32)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        console.print("compiling")
        binary = compile_networks(calibration, Path(folder), NETWORKS)
        for rival, make in RIVALS.items():
            torch.manual_seed(0)
            files = with_rival(binary, rival, make(), calibration, Path(folder))
            for threads in thread_counts(options.threads):
                measured = measure(files, calibration[:1], threads, options, console)
                show(measured, console)
                rows += [{"rival": rival, **row} for row in measured]
    write_csv(options.output, rows)
    console.print(f"wrote {options.output}")


if __name__ == "__main__":
    main()

"""Networks that were not written for signbit: made binary, calibrated, compiled, verified, timed.

Plain PyTorch definitions from the package `pytorchcv`, with random weights and random statistics of
batch norms, go through `binarize`, `calibrate` and `compile` as they are. What cannot be compiled
is refused, with the layer and the reason. Prints a table and writes it as CSV.

    pip install --no-deps pytorchcv==0.0.74    # its definitions need PyTorch alone
    python -m benchmarks.foreign_networks [NAME ...]
"""

from __future__ import annotations

import argparse
import importlib
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import signbit
from benchmarks.common import write_csv
from signbit.binarization import Binarization
from signbit.compiler.emit import emit
from signbit.runtime.benchmark import benchmark, cpu_name

COLUMNS = (
    "network", "family", "input", "parameters", "binary_layers", "8bit_layers", "result", "bytes",
    "ms",
)  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A definition of `pytorchcv`.

    Attributes:
        family: what the table calls it.
        module: below `pytorchcv.models`.
        function: the function or class in it that makes the network.
        size: (H, W) that it is compiled for.
        other: another (H, W) that it takes (where a linear layer stands behind a map of fixed size,
            one that rounds to the same map); None if there is none near.
        channels: of the input.
        arguments: of the function.
        refused: why it cannot be compiled, as a regular expression; None: it can.
        quick: small enough for the quick tests.
    """

    family: str
    module: str
    function: str
    size: tuple[int, int]
    other: tuple[int, int] | None
    channels: int = 3
    arguments: dict[str, object] = field(default_factory=dict)
    refused: str | None = None
    quick: bool = False

    @property
    def name(self) -> str:
        version = self.arguments.get("version")
        return self.function if version is None else f"{self.function} {version}"

    def build(self, seed: int = 0) -> nn.Module:
        """The network in evaluation mode, with statistics as training might leave them."""
        torch.manual_seed(seed)
        module = importlib.import_module(f"pytorchcv.models.{self.module}")
        net = getattr(module, self.function)(**self.arguments).eval()
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                if norm.affine:
                    nn.init.uniform_(norm.weight, 0.5, 1.5)
                    nn.init.normal_(norm.bias, std=0.3)
                nn.init.normal_(norm.running_mean, std=0.3)
                nn.init.uniform_(norm.running_var, 0.5, 2.0)
        return net

    def images(self, count: int, size: tuple[int, int] | None = None, seed: int = 1) -> Tensor:
        """Random images of that size."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, self.channels, *(size or self.size), generator=generator)


_LARGE, _CIFAR = (224, 224), (32, 32)
# Sizes that come to the same map at the end, where halves are rounded up or down.
_UP, _DOWN, _CIFAR_UP, _CIFAR_DOWN = (222, 218), (228, 230), (30, 31), (33, 34)

NETWORKS: tuple[Network, ...] = (
    Network("AlexNet", "alexnet", "alexnet", _LARGE, _UP, refused=r"calls local_response_norm"),
    Network("AlexNet", "alexnet", "alexnet", _LARGE, _UP, arguments={"version": "b"}),
    Network("VGG", "vgg", "vgg11", _LARGE, _DOWN),
    Network("VGG, batch norm", "vgg", "bn_vgg11", _LARGE, _DOWN),
    Network("NIN", "nin_cifar", "nin_cifar10", _CIFAR, _CIFAR_UP),
    Network("ResNet", "resnet_cifar", "resnet20_cifar10", _CIFAR, _CIFAR_UP, quick=True),
    Network("ResNet", "resnet", "resnet18", _LARGE, _UP),
    Network("PreResNet", "preresnet_cifar", "preresnet20_cifar10", _CIFAR, _CIFAR_UP),
    Network("SE-ResNet", "seresnet_cifar", "seresnet20_cifar10", _CIFAR, _CIFAR_UP, quick=True),
    Network(
        "CBAM-ResNet", "cbamresnet", "cbam_resnet18", _LARGE, _UP,
        refused=r"unit1\.cbam\.sp_gate \(SpatialGate\): it calls max, which the compiler",
    ),
    Network("DenseNet", "densenet_cifar", "densenet40_k12_cifar10", _CIFAR, _CIFAR_DOWN),
    Network("SqueezeNet", "squeezenet", "squeezenet_v1_1", _LARGE, _UP),
    Network("SqueezeNext", "squeezenext", "sqnxt23_w1", _LARGE, _UP),
    Network("MobileNet", "mobilenet", "mobilenet_wd4", _LARGE, _UP),
    Network("MobileNetV2", "mobilenetv2", "mobilenetv2_wd4", _LARGE, _UP),
    Network("MobileNetV3", "mobilenetv3", "mobilenetv3_small_wd2", _LARGE, _UP),
    Network("MNASNet", "mnasnet", "mnasnet_small", _LARGE, _UP),
    Network("EfficientNet", "efficientnet", "efficientnet_b0", _LARGE, _UP),
    Network(
        "EfficientNet, TensorFlow padding", "efficientnet", "efficientnet_b0b", _LARGE, _UP,
        refused=r"features\.init_block \(EffiInitBlock\): its forward cannot be traced",
    ),
    Network("GhostNet", "ghostnet", "ghostnet", _LARGE, _UP),
    Network("ShuffleNet", "shufflenet", "shufflenet_g3_wd4", _LARGE, _UP),
    Network("ShuffleNetV2", "shufflenetv2", "shufflenetv2_wd2", _LARGE, _UP),
    Network("DarkNet", "darknet", "darknet_tiny", _LARGE, _DOWN),
    Network("VoVNet", "vovnet", "vovnet27s", _LARGE, _DOWN),
    Network("HRNet", "hrnet", "hrnet_w18_small_v1", _LARGE, None),
    Network("InceptionV3", "inceptionv3", "inceptionv3", (299, 299), None),
    Network("Xception", "xception", "xception", (299, 299), None),
    Network(
        "SKNet", "sknet", "sknet50", _LARGE, _UP,
        refused=r"features\.stage1\.unit1\.body\.conv2\.branches \(Concurrent\): it calls stack",
    ),
    Network("ESPNet-C", "espcnet", "espcnet_cityscapes", (64, 64), (96, 72), quick=True),
    Network("U-Net", "unet", "unet_cityscapes", (64, 64), (96, 64)),
    Network(
        "SegNet", "segnet", "segnet_cityscapes", (64, 64), None, quick=True,
        refused=r"down_stage1\.unit3 \(MaxPool2d\): return_indices=True is not supported",
    ),
    Network(
        "LinkNet", "linknet", "linknet_cityscapes", (64, 64), None, quick=True,
        refused=r"up_seq\.up4\.conv2\.conv \(ConvTranspose2d\): a transposed convolution can only",
    ),
    Network(
        "SuperPoint", "superpointnet", "superpointnet", (64, 64), None, channels=1, quick=True,
        refused=r"the model \(SuperPointNet\): its forward cannot be traced",
    ),
)  # fmt: skip


def put_through(network: Network) -> tuple[nn.Module, signbit.CompiledModel]:
    """Make a network binary, calibrate, compile and verify it; returns both forms.

    Raises SignbitError where it is refused.
    """
    x = network.images(2)
    net = signbit.binarize(network.build(), example_input=x).eval()
    signbit.calibrate(net, [x])
    return net, signbit.compile(net, x[:1])


def row(network: Network, rounds: int) -> dict[str, object]:
    """What becomes of one network, by the names of `COLUMNS`."""
    size = "x".join(map(str, (network.channels, *network.size)))
    found = dict.fromkeys(COLUMNS, "") | {
        "network": network.name,
        "family": network.family,
        "input": size,
        "parameters": sum(p.numel() for p in network.build().parameters()),
    }
    try:
        net, compiled = put_through(network)
    except signbit.SignbitError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        return found | {"result": f"refused: {lines[min(1, len(lines) - 1)]}"}
    done: Binarization = net.binarization
    program = emit(compiled.graph)
    session = signbit.load(program, threads=1)
    x = network.images(1).numpy()
    return found | {
        "binary_layers": len(done.binary),
        "8bit_layers": len(done.eight_bit),
        "result": "verified",
        "bytes": len(program),
        "ms": round(benchmark(session, x, rounds=rounds)["median_ms"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks, by their name in the table [all]")
    parser.add_argument("--rounds", type=int, default=10, help="timed runs, of which the median")
    parser.add_argument("--output", type=Path, default=Path("results/foreign_networks.csv"))
    options = parser.parse_args()
    unknown = set(options.names) - {network.name for network in NETWORKS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    console = Console()
    rows = []
    for network in NETWORKS:
        if not options.names or network.name in options.names:
            rows.append(row(network, options.rounds))
            console.print(f"{network.name}: {rows[-1]['result']}", highlight=False, soft_wrap=True)
    table = Table(title=f"Networks of pytorchcv on {cpu_name()}, 1 thread, 1 image")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:3] else "right")
    for found in rows:
        table.add_row(*(textwrap.shorten(str(found[column]), 90) for column in COLUMNS))
    console.print(table)
    write_csv(options.output, rows)
    console.print(f"wrote {options.output}")


if __name__ == "__main__":
    main()

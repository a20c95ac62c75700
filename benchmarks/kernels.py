"""One convolution in a network: signbit's binary one against 8-bit, binary and float32 rivals.

What is timed is the marginal cost of a layer: the time of a network with 24 equal layers minus that
of one with 8, divided by 16, so that the conversion of input and output cancels. A layer is the
convolution with what stands between two of them in a network: signbit's with batch norm and sign,
the 8-bit ones with ReLU and requantisation, OpenVINO's BinaryConvolution with the thresholds that
make bits again.

- Convolutions of stride 1 form a chain.
- Those that change the shape cannot: a trunk of 24 1x1 layers, always whole, is tapped behind its
  last 24 or 8 layers by such a convolution. Each tap reads another map, and so pays for the layout
  that a strided convolution wants; and it is read by a 1x1 convolution to 8 channels, so that it
  writes what a next layer reads. That adds 8 / (9 C) to the multiply-accumulates, and is charged
  to every contender, uncounted. (Of stride 1: OpenVINO moves the stride of a 1x1 convolution into
  the layer before it.)

The 8-bit networks' ranges are those of the input that is timed: their time does not depend on them.
Every round runs each network once, and the loops of `signbit bench --peak`; ratios and shares of
the peaks are taken within the round. With --scaling one thread is timed on each of the CPUs that
several threads have, at whose mean speed it counts: CPUs of a machine that others use are not
equally fast. BinaryConvolution keeps bits between layers only where its
thresholds give 0 and 1 ("bits"); giving -1 and +1 means the same and goes by float32 maps ("+-1").

    python -m benchmarks.kernels                    # one thread, pinned
    python -m benchmarks.kernels --isa avx2         # both sides held to AVX2
    python -m benchmarks.kernels --threads all
    python -m benchmarks.kernels --scaling 2        # signbit alone: two threads against one
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import signbit
from benchmarks.common import (
    add_arguments,
    geometric_mean,
    machine_columns,
    thread_counts,
    wide_console,
    write_csv,
)
from signbit.nn import BinaryConv2d, Sign
from signbit.rivals.engines import (
    OnnxRuntime,
    OpenVINO,
    TorchModel,
    export_onnx,
    pinned,
    prepare_rivals,
    quantize,
)
from signbit.rivals.timing import Quartiles, interleave
from signbit.runtime import measure_peak
from signbit.runtime.benchmark import cpu_name

SIGNBIT, INT8 = "signbit", "OpenVINO int8"
END_CHANNELS = 8
SETTLE = 0.02  # seconds


@dataclass(frozen=True)
class Shape:
    """A convolution: side and channels of its input, channels of its output, kernel, stride."""

    side: int
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates, those with padding included."""
        side = self.side // self.stride
        return side * side * self.inputs * self.outputs * self.kernel**2

    @property
    def input(self) -> tuple[int, int, int, int]:
        return (1, self.inputs, self.side, self.side)

    def __str__(self) -> str:
        kernel = f"{self.kernel}x{self.kernel}"
        name = f"{kernel} {self.side}x{self.side}x{self.inputs}"
        if self.stride == 1:
            return name
        side = self.side // self.stride
        return f"{name} -> {side}x{side}x{self.outputs}"


SHAPES = (
    Shape(56, 64, 64, 3),
    Shape(28, 128, 128, 3),
    Shape(14, 256, 256, 3),
    Shape(7, 512, 512, 3),
    Shape(56, 64, 128, 3, 2),
    Shape(28, 128, 256, 3, 2),
    Shape(14, 256, 512, 3, 2),
    Shape(28, 256, 256, 1),
    Shape(14, 512, 512, 1),
)

# (input channels, output channels, kernel, stride) -> a layer that can be called on a map
Maker = Callable[[int, int, int, int], Any]


class Chain:
    """Equal layers one behind the other; the last gives real numbers."""

    def __init__(self, shape: Shape, depth: int, layer: Maker, last: Maker) -> None:
        sizes = (shape.inputs, shape.outputs, shape.kernel, shape.stride)
        self.layers = [layer(*sizes) for _ in range(depth - 1)] + [last(*sizes)]

    def __call__(self, y: Any, join: Callable[[Sequence[Any]], Any]) -> Any:
        for layer in self.layers:
            y = layer(y)
        return y


class Taps:
    """A trunk of 1x1 layers, tapped behind its last `depth` ones."""

    def __init__(self, shape: Shape, depth: int, trunk: int, layer: Maker, last: Maker) -> None:
        self.trunk = [layer(shape.inputs, shape.inputs, 1, 1) for _ in range(trunk)]
        sizes = (shape.inputs, shape.outputs, shape.kernel, shape.stride)
        self.taps = [layer(*sizes) for _ in range(depth)]
        self.ends = [last(shape.outputs, END_CHANNELS, 1, 1) for _ in range(depth)]
        self.layers = [*self.trunk, *self.taps, *self.ends]

    def __call__(self, y: Any, join: Callable[[Sequence[Any]], Any]) -> Any:
        maps = []
        for layer in self.trunk:
            y = layer(y)
            maps.append(y)
        tapped = maps[len(maps) - len(self.taps) :]
        return join([end(tap(y)) for tap, end, y in zip(self.taps, self.ends, tapped, strict=True)])


def make(shape: Shape, depth: int, trunk: int, layer: Maker, last: Maker) -> Chain | Taps:
    if shape.stride == 1:
        return Chain(shape, depth, layer, last)
    return Taps(shape, depth, trunk, layer, last)


class Module(nn.Module):
    """A network of PyTorch layers."""

    def __init__(self, layers: Chain | Taps, first: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.parts = nn.ModuleList(layers.layers)
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(self.first(x), _join)


def _join(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(maps), 1)


def binary_layer(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return binary_end(inputs, outputs, kernel, stride).append(Sign())


def binary_end(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    conv = BinaryConv2d(inputs, outputs, kernel, stride, kernel // 2, weight_quantizer="sign")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def real_layer(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # keeps the scale through a chain
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def binary_graph(shape: Shape, depth: int, trunk: int, low: float) -> Any:
    """The network of OpenVINO's BinaryConvolution; thresholds give `low` and 1."""
    import openvino
    from openvino import op, opset1

    generator = np.random.default_rng(0)

    def layer(inputs: int, outputs: int, kernel: int, stride: int) -> Callable[[Any], Any]:
        convolve = end(inputs, outputs, kernel, stride)
        return lambda y: threshold(convolve(y), outputs)

    def end(inputs: int, outputs: int, kernel: int, stride: int) -> Callable[[Any], Any]:
        shape = openvino.Shape([outputs, inputs, kernel, kernel])
        bits = generator.integers(0, 256, outputs * inputs * kernel**2 // 8, np.uint8)
        weights = op.Constant(openvino.Tensor(bits, shape, openvino.Type.u1))
        padding = [kernel // 2, kernel // 2]
        return lambda y: opset1.binary_convolution(
            y, weights, [stride] * 2, padding, padding, [1, 1], "xnor-popcount", 0.0
        )

    def threshold(y: Any, channels: int) -> Any:
        # A constant for each bound: OpenVINO fuses none that two inputs share.
        cut = generator.normal(0, 3, (1, channels, 1, 1)).astype(np.float32)
        bounds = (cut, cut.copy(), np.full((1, 1, 1, 1), low, np.float32), np.float32([[[[1]]]]))
        return opset1.fake_quantize(y, *(op.Constant(bound) for bound in bounds), 2)

    x = opset1.parameter(list(shape.input), np.float32)
    layers = make(shape, depth, trunk, layer, end)
    y = layers(threshold(x, shape.inputs), lambda maps: opset1.concat(list(maps), 1))
    return openvino.Model([y], [x])


@dataclass(frozen=True)
class Contender:
    """The two networks of an engine, and what runs the layer in it."""

    long: Callable[[np.ndarray], object]
    short: Callable[[np.ndarray], object]
    kernel: str
    isa: str | None = None  # of signbit
    threads: int = 1


def signbit_files(shape: Shape, depths: Sequence[int]) -> list[signbit.CompiledModel]:
    torch.manual_seed(0)
    x = torch.zeros(shape.input)
    models = (
        Module(make(shape, depth, max(depths), binary_layer, binary_end), Sign()).eval()
        for depth in depths
    )
    # The tests compare every kernel with the reference; here it would take minutes.
    return [signbit.compile(model, x, verify=False) for model in models]


def signbit_contender(
    files: Sequence[signbit.CompiledModel], x: np.ndarray, threads: int, isa: str | None
) -> Contender:
    sessions = [file.session(threads=threads, isa=isa) for file in files]
    step = max(sessions[0].profile(x, rounds=1), key=lambda step: step["macs_b1"])
    return Contender(*sessions, f"{step['kernel']} {step['isa']}", sessions[0].isa, threads)


def rivals(
    shape: Shape, depths: Sequence[int], x: np.ndarray, threads: int, folder: Path
) -> Iterator[tuple[str, Contender]]:
    torch.manual_seed(0)
    models, fp32, int8 = [], [], []
    for depth in depths:
        layers = make(shape, depth, max(depths), real_layer, real_layer)
        models.append(Module(layers, nn.Identity()).eval())
        file = export_onnx(models[-1], x, folder / f"fp32-{depth}.onnx")
        fp32.append(file)
        int8.append(quantize(file, x, folder / f"int8-{depth}.onnx"))

    def openvino(models: Sequence[Any], kind: str) -> Contender:
        networks = [OpenVINO(model, shape.input, threads) for model in models]
        return Contender(*networks, ", ".join(networks[0].primitives(kind)))

    yield INT8, openvino(int8, "Convolution")
    for name, low in (("bits", 0.0), ("+-1", -1.0)):
        graphs = [binary_graph(shape, depth, max(depths), low) for depth in depths]
        yield f"OpenVINO binary, {name}", openvino(graphs, "BinaryConvolution")
    yield "OpenVINO fp32", openvino(fp32, "Convolution")
    for name, files in (("int8", int8), ("fp32", fp32)):
        runtimes = [OnnxRuntime(file, threads) for file in files]
        yield f"ONNX Runtime {name}", Contender(*runtimes, "MLAS")
    yield "PyTorch fp32", Contender(*(TorchModel(model, threads) for model in models), "ATen")


def marginal(
    contenders: dict[str, Contender],
    x: np.ndarray,
    depths: Sequence[int],
    options: argparse.Namespace,
    threads: int,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Microseconds of a layer, (rounds,) for each contender; and signbit's peaks, (rounds, 2).

    The peaks of as many cores as threads, in MACs a microsecond: of look-ups, and of the fastest
    way. They are measured in every round: a clock that changes changes both.
    """
    runs: dict[str, Callable[[], object]] = {}
    ours = {name: contender for name, contender in contenders.items() if contender.isa is not None}
    peaks: dict[str, list[np.ndarray]] = {name: [] for name in ours}
    cpus = sorted(os.sched_getaffinity(0))
    alone = options.scaling

    def measure() -> None:
        for name, contender in ours.items():
            seen = [_on([cpu], _peaks, contender) for cpu in cpus] if alone else [_peaks(contender)]
            peaks[name].append(np.mean(seen, axis=0))

    for name, contender in contenders.items():
        for where in [[cpu] for cpu in cpus] if alone and contender.threads == 1 else [cpus]:
            for key, run in (("long", contender.long), ("short", contender.short)):
                runs[f"{name} {key} {where}"] = (
                    partial(_on, where, run, x) if alone else partial(run, x)
                )
    ms = interleave(runs, options.rounds, threads, options.clock, not alone, each_round=measure)

    def times(name: str) -> np.ndarray:
        """Of a layer; where it was timed on each CPU, at their mean speed."""
        longs = np.array([ms[run] for run in runs if run.startswith(f"{name} long ")])
        shorts = np.array([ms[run] for run in runs if run.startswith(f"{name} short ")])
        return 1e3 / np.mean((depths[0] - depths[1]) / (longs - shorts), axis=0)

    us = {name: times(name) for name in contenders}
    return us, {name: np.array(seen) for name, seen in peaks.items()}


def _on(cpus: Sequence[int], run: Callable[[Any], Any], x: Any) -> Any:
    """What runs in this thread, on these CPUs; threads that it has started stay where they are.

    Those spin for a while after their work, perhaps where this one is sent, and CPUs that were idle
    are slow at first: before the first run in another place others are made until that is over.
    """
    if os.sched_getaffinity(0) != set(cpus):
        os.sched_setaffinity(0, cpus)
        settled = time.perf_counter() + SETTLE
        while time.perf_counter() < settled:
            run(x)
    return run(x)


def _peaks(contender: Contender) -> tuple[float, float]:
    assert contender.isa is not None
    look_up, *others = (measure_peak(contender.isa, n) for n in ("look_up", "word", "tile"))
    return 1e3 * contender.threads * look_up, 1e3 * contender.threads * max(look_up, *others)


def measure_shape(
    shape: Shape, threads: Sequence[int], options: argparse.Namespace
) -> list[dict[str, object]]:
    """A row a contender; ratios are to the first, as often as it is faster."""
    x = np.random.default_rng(0).normal(size=shape.input).astype(np.float32)
    contenders: dict[str, Contender] = {}
    with tempfile.TemporaryDirectory() as folder, pinned(max(threads)):
        files = signbit_files(shape, options.depths)
        for count in threads:
            name = f"{SIGNBIT}, {count} thread(s)" if options.scaling else SIGNBIT
            contenders[name] = signbit_contender(files, x, count, options.isa)
        if not options.scaling:
            contenders |= rivals(shape, options.depths, x, threads[0], Path(folder))
        us, peaks = marginal(contenders, x, options.depths, options, max(threads))
    first = next(iter(us.values()))
    return [
        {
            "shape": str(shape),
            "contender": name,
            "kernel": contenders[name].kernel,
            "gmacs": round(shape.macs / float(np.median(times)) / 1e3, 2),
            "share_of_peak": _share(shape.macs, times, peaks.get(name), 1),
            "share_of_look_up_peak": _share(shape.macs, times, peaks.get(name), 0),
            **Quartiles.of(times).columns("us"),
            **Quartiles.of(times / first).columns("ratio"),
            "threads": max(threads),
            "rounds": options.rounds,
            "clock": options.clock,
            "depths": "-".join(map(str, options.depths)),
            **machine_columns(next(iter(contenders.values())).long.isa),
        }
        for name, times in us.items()
    ]


def _share(macs: int, us: np.ndarray, peaks: np.ndarray | None, which: int) -> float | str:
    """The median over the rounds of the speed over the peak."""
    return "" if peaks is None else round(float(np.median(macs / us / peaks[:, which])), 4)


def peak_scaling(threads: int, isa: str, rounds: int) -> tuple[Quartiles, Quartiles]:
    """Look-up peaks of CPUs that all work at once, added up, and what that is of one CPU's alone.

    CPUs that share a core cannot reach `threads` times one, whatever runs on them. Of one alone:
    the mean of all, for they need not be equally fast.
    """
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    start = threading.Barrier(threads)

    def measure(cpu: int, wait: bool) -> float:
        os.sched_setaffinity(0, {cpu})  # of this thread
        if wait:
            start.wait()
        return measure_peak(isa, "look_up")

    together, times = [], []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            alone = np.mean([pool.submit(measure, cpu, False).result() for cpu in cpus])
            all_at_once = sum(pool.map(lambda cpu: measure(cpu, True), cpus))
            together.append(all_at_once)
            times.append(all_at_once / alone)
    return Quartiles.of(np.array(together)), Quartiles.of(np.array(times))


def mean_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a contender: geometric means over the shapes."""
    columns = ("gmacs", "share_of_peak", "share_of_look_up_peak", "ratio_median")
    means = []
    for name in dict.fromkeys(row["contender"] for row in rows):
        mine = [row for row in rows if row["contender"] == name]
        of = {
            column: round(geometric_mean([row[column] for row in mine]), 4)
            for column in columns
            if mine[0][column] != ""
        }
        means.append({"shape": "geometric mean", "contender": name, **of})
    return means


def show(rows: Sequence[dict[str, Any]], console: Console, title: str) -> None:
    """A line a shape, then what ran."""
    names = list(dict.fromkeys(row["contender"] for row in rows))
    table = Table(title=title)
    table.add_column("layer", no_wrap=True)
    for column in ("us", "GMAC/s", "of the peak", "of look-ups'", *names[1:]):
        table.add_column(column, justify="right")
    for shape in dict.fromkeys(row["shape"] for row in rows):
        first, *others = (row for row in rows if row["shape"] == shape)
        table.add_row(
            shape,
            f"{first['us_median']:.1f}",
            f"{first['gmacs']:.0f}",
            f"{first['share_of_peak']:.0%}",
            f"{first['share_of_look_up_peak']:.0%}",
            *(
                str(Quartiles(*(row[f"ratio_{key}"] for key in ("q1", "median", "q3"))))
                for row in others
            ),
        )
    table.add_section()
    first, *others = mean_rows(rows)
    table.add_row(
        "geometric mean",
        "",
        f"{first['gmacs']:.0f}",
        f"{first['share_of_peak']:.0%}",
        f"{first['share_of_look_up_peak']:.0%}",
        *(f"{row['ratio_median']:.2f}" for row in others),
    )
    console.print(table)
    for name in names:
        kernels = dict.fromkeys(row["kernel"] for row in rows if row["contender"] == name)
        console.print(f"{name}: {'; '.join(kernels)}", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "results/kernels.csv")
    parser.add_argument("--threads", default="1", help="a number, or all")
    parser.add_argument(
        "--scaling", metavar="THREADS", help="signbit alone, with so many threads (or all) and one"
    )
    parser.add_argument("--depths", default="24,8", help="layers of the two networks")
    parser.add_argument("--only", help="shapes whose name holds this")
    options = parser.parse_args()
    prepare_rivals(options.isa)
    options.depths = [int(part) for part in options.depths.split(",")]
    threads = thread_counts(options.threads)
    if options.scaling:
        threads = thread_counts(f"{options.scaling},1")
    console = wide_console()
    rows: list[dict[str, object]] = []
    for shape in SHAPES:
        if not options.only or options.only in str(shape):
            rows += measure_shape(shape, threads, options)
            console.print(f"{shape}: done", highlight=False)
    show(
        rows,
        console,
        f"One convolution on {cpu_name()}, {threads[0]} thread(s): times of others in signbit's",
    )
    means = mean_rows(rows)
    if options.scaling:
        isa = str(rows[0]["isa"])
        together, times = peak_scaling(max(threads), isa, options.rounds)
        console.print(
            f"look-up peaks of {max(threads)} CPUs at once: {together} GMAC/s, {times} times one"
        )
        peaks = {"gmacs": round(together.median, 2), **times.columns("ratio")}
        who = f"{max(threads)} CPUs at once"
        means.append({"shape": "look-up peak", "contender": who, **peaks})
    write_csv(options.output, [*rows, *means])
    console.print(f"wrote {options.output}")


if __name__ == "__main__":
    main()

"""Whole networks against the strongest 8-bit engines.

Times signbit's `reactnet18` and `bineal18` beside ResNet-18 in OpenVINO (int8, fp32), ONNX Runtime
(int8, fp32) and PyTorch, all on the same float32 input, interleaved: every round runs each
contender once, and the ratio to OpenVINO int8 is taken within the round. Networks have random
weights (time does not depend on them) and 8-bit ranges calibrated on photographs. ResNet-18 is made
8-bit in several ways (`INT8_VARIANTS`); OpenVINO and ONNX Runtime each run the one that is fastest
for them here, with this number of threads and images. One that OpenVINO refuses on this instruction
set is named and left out.

    python -m benchmarks.networks --calibration PATH    # PATH: a folder or .tar of photographs
    python -m benchmarks.networks --isa avx2            # both sides held to AVX2
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import signbit
from benchmarks.common import (
    add_arguments,
    calibration_batch,
    machine_columns,
    thread_counts,
    wide_console,
    write_csv,
)
from signbit.plots import plot_roofline, plot_speed
from signbit.rivals.engines import (
    INT8_VARIANTS,
    OnnxRuntime,
    OpenVINO,
    Signbit,
    TorchModel,
    export_onnx,
    pinned,
    prepare_rivals,
    quantize,
)
from signbit.rivals.timing import Quartiles, interleave
from signbit.runtime import measure_peaks
from signbit.runtime.benchmark import cpu_name

BINARY_NETWORKS = (("reactnet18", 1.0), ("bineal18", 1.0), ("bineal18", 1.5))
TRIAL_ROUNDS = 10  # to find the fastest variant


@dataclass(frozen=True)
class Contender:
    """A network in an engine: `run` takes the input.

    Attributes:
        bytes: the size of its file.
        kernels: what runs its convolutions; the library where that does not say it.
        variant: how it was made 8-bit, where there is a choice.
    """

    run: Callable[[np.ndarray], object]
    bytes: int
    kernels: str
    variant: str = ""


@dataclass(frozen=True)
class Files:
    """The networks, made once for all measurements: paths by name.

    Attributes:
        binary: compiled binary networks.
        rival: the name of the network that they are compared with.
        fp32: the rival's ONNX file.
        int8: its 8-bit forms.
        torch: the rival itself.
    """

    binary: dict[str, Path]
    rival: str
    fp32: Path
    int8: dict[str, Path]
    torch: torch.nn.Module

    @property
    def baseline(self) -> str:
        """The contender that all are compared with."""
        return f"{self.rival} int8, OpenVINO"


def make_files(
    calibration: np.ndarray,
    folder: Path,
    networks: Sequence[tuple[str, float]] = BINARY_NETWORKS,
    variants: Sequence[str] = tuple(INT8_VARIANTS),
) -> Files:
    """Compile binary networks (name and width), export ResNet-18 and make it 8-bit."""
    binary = compile_networks(calibration, folder, networks)
    torch.manual_seed(0)
    resnet = signbit.create_model("resnet18", num_classes=1000)
    return with_rival(binary, "ResNet-18", resnet, calibration, folder, variants)


def compile_networks(
    calibration: np.ndarray, folder: Path, networks: Sequence[tuple[str, float]]
) -> dict[str, Path]:
    """Compile binary networks, by name and width; the files by label."""
    binary = {}
    for name, width in networks:
        torch.manual_seed(0)
        model = signbit.create_model(name, num_classes=1000, width=width)
        images = torch.from_numpy(calibration)
        signbit.calibrate(model, [images[:4]])
        label = name if width == 1 else f"{name} width {width:g}"
        compiled = signbit.compile(model, images[:1])  # verified, or it raises
        binary[label] = compiled.save(folder / f"{label}.signbit")
    return binary


def with_rival(
    binary: dict[str, Path],
    rival: str,
    model: torch.nn.Module,
    calibration: np.ndarray,
    folder: Path,
    variants: Sequence[str] = tuple(INT8_VARIANTS),
) -> Files:
    """Binary networks beside a network in full precision, which is exported and made 8-bit."""
    model.eval()
    fp32 = export_onnx(model, calibration, folder / f"{rival} fp32.onnx")
    int8 = {
        name: quantize(fp32, calibration, folder / f"{rival} {name}.onnx", **INT8_VARIANTS[name])
        for name in variants
    }
    return Files(binary, rival, fp32, int8, model)


def signbit_contender(file: Path, threads: int, isa: str | None, x: np.ndarray) -> Contender:
    session = signbit.load(file, threads=threads, isa=isa)
    steps = session.profile(x, rounds=1)
    kernels = {f"{s['kernel']} {s['isa']}" for s in steps if s["macs_b1"] + s["macs_q8"]}
    return Contender(Signbit(session), file.stat().st_size, ", ".join(sorted(kernels)))


def openvino_contender(file: Path, threads: int, x: np.ndarray, variant: str = "") -> Contender:
    network = OpenVINO(file, x.shape, threads)
    kernels = ", ".join(network.primitives("Convolution"))
    return Contender(network, file.stat().st_size, kernels, variant)


def fastest(
    variants: dict[str, Contender], x: np.ndarray, threads: int, clock: str, console: Console
) -> Contender:
    """The variant with the lowest median in a short trial."""
    runs = {name: (lambda c=contender: c.run(x)) for name, contender in variants.items()}
    times = interleave(runs, TRIAL_ROUNDS, threads, clock)
    medians = {name: float(np.median(ms)) for name, ms in times.items()}
    for name, ms in medians.items():
        console.print(f"  {name}: {ms:.2f} ms", highlight=False)
    return variants[min(medians, key=lambda name: medians[name])]


def contenders(
    files: Files, x: np.ndarray, threads: int, options: argparse.Namespace, console: Console
) -> dict[str, Contender]:
    found = {}
    for label, file in files.binary.items():
        contender = signbit_contender(file, threads, options.isa, x)
        found[f"{label}, signbit {contender.run.session.isa}"] = contender
    openvino = {}
    for name, file in files.int8.items():
        try:
            openvino[name] = openvino_contender(file, threads, x, name)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            console.print(f"OpenVINO refuses int8, {name}: {reason}", highlight=False)
    console.print(f"{files.rival} int8, {threads} thread(s), batch {len(x)}, OpenVINO:")
    found[files.baseline] = fastest(openvino, x, threads, options.clock, console)
    console.print("ONNX Runtime:")
    runtime = {
        name: Contender(OnnxRuntime(file, threads, len(x)), file.stat().st_size, "MLAS", name)
        for name, file in files.int8.items()
    }
    found[f"{files.rival} int8, ONNX Runtime"] = fastest(
        runtime, x, threads, options.clock, console
    )
    size = files.fp32.stat().st_size
    found[f"{files.rival} fp32, OpenVINO"] = openvino_contender(files.fp32, threads, x)
    found[f"{files.rival} fp32, ONNX Runtime"] = Contender(
        OnnxRuntime(files.fp32, threads, len(x)), size, "MLAS"
    )
    found[f"{files.rival} fp32, PyTorch"] = Contender(
        TorchModel(files.torch, threads), size, "ATen"
    )
    return found


def measure(
    files: Files, x: np.ndarray, threads: int, options: argparse.Namespace, console: Console
) -> list[dict[str, Any]]:
    """A row a contender."""
    with pinned(threads):
        found = contenders(files, x, threads, options, console)
        runs = {name: (lambda c=contender: c.run(x)) for name, contender in found.items()}
        times = interleave(runs, options.rounds, threads, options.clock)
    rows = []
    for name, ms in times.items():
        time, ratio = Quartiles.of(ms), Quartiles.of(times[files.baseline] / ms)
        rows.append(
            {
                "contender": name,
                "threads": threads,
                "batch": len(x),
                "size": options.size,
                "median_ms": round(time.median, 4),
                "q1_ms": round(time.q1, 4),
                "q3_ms": round(time.q3, 4),
                "speed_to_openvino_int8": round(ratio.median, 4),
                "ratio_q1": round(ratio.q1, 4),
                "ratio_q3": round(ratio.q3, 4),
                "file_bytes": found[name].bytes,
                "kernels": found[name].kernels,
                "variant": found[name].variant,
                "rounds": options.rounds,
                "clock": options.clock,
                **machine_columns(next(iter(found.values())).run.session.isa),
            }
        )
    return rows


def show(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table(
        title=f"{cpu_name()}, {rows[0]['threads']} thread(s), batch {rows[0]['batch']}",
    )
    table.add_column("network, engine")
    for column in ("median ms", "quartiles", "times OpenVINO int8", "MB"):
        table.add_column(column, justify="right")
    table.add_column("int8 variant")
    for row in rows:
        ratio = Quartiles(row["ratio_q1"], row["speed_to_openvino_int8"], row["ratio_q3"])
        table.add_row(
            row["contender"],
            f"{row['median_ms']:.2f}",
            f"{row['q1_ms']:.2f}-{row['q3_ms']:.2f}",
            str(ratio),
            f"{row['file_bytes'] / 1e6:.1f}",
            row["variant"],
        )
    console.print(table)
    for row in rows:
        console.print(f"{row['contender']}: {row['kernels']}", highlight=False)


def draw_rooflines(files: Files, x: np.ndarray, isa: str | None, folder: Path) -> list[Path]:
    """Each binary network's steps, one thread, below what this CPU can do."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for label, file in files.binary.items():
        session = signbit.load(file, threads=1, isa=isa)
        picture = folder / f"roofline-{label.replace(' ', '-')}.png"
        title = f"{label}, one image of {x.shape[-1]}x{x.shape[-1]} on {cpu_name()}, {session.isa}"
        steps = session.profile(x, rounds=30)
        plot_roofline(steps, measure_peaks(session.isa), picture, title)
        pictures.append(picture)
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "results/networks.csv")
    parser.add_argument("--calibration", type=Path, help="folder or .tar of photographs")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", default="1,all", help="thread counts, separated by commas")
    parser.add_argument("--batch", default="1,8", help="images a run, separated by commas")
    options = parser.parse_args()
    prepare_rivals(options.isa)
    warnings.filterwarnings("ignore")

    console = wide_console()
    calibration = calibration_batch(options.calibration, options.size, 32)
    batches = [int(part) for part in options.batch.split(",")]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(calibration, Path(folder))
        for threads in thread_counts(options.threads):
            for batch in batches:
                x = np.repeat(calibration[:1], batch, axis=0)
                measured = measure(files, x, threads, options, console)
                show(measured, console)
                rows += measured
        with pinned(1):
            rooflines = draw_rooflines(files, calibration[:1], options.isa, options.output.parent)
    photographs = str(options.calibration.name if options.calibration else "scikit-learn's two")
    for row in rows:
        row["calibration"] = photographs
    write_csv(options.output, rows)
    picture = options.output.with_suffix(".png")
    images = "One image" if batches[0] == 1 else f"{batches[0]} images"
    plot_speed(
        [row for row in rows if row["batch"] == batches[0]],
        picture,
        f"{images} of {options.size}x{options.size} on {cpu_name()}",
    )
    console.print(f"wrote {options.output}, {picture}, {', '.join(map(str, rooflines))}")


if __name__ == "__main__":
    main()

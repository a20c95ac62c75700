"""Cycle ratios that were published for BiNeal networks, on systolic arrays, from real graphs.

arXiv 2202.03716 reports that binary networks take fewer cycles than 8-bit ones on a systolic array,
and does not say which array. Here the networks of this project are compiled, their rivals are
exported and made 8-bit by ONNX Runtime, and all are counted by the same code and put on the same
arrays: the two frozen presets `binE-8` and `binE-16` (our reconstruction, fixed before any ratio
was computed), and a grid of others, which shows where the published ratios hold.

| claim | rival | BiNeal | images | published |
|---|---|---|---|---|
| classification | ResNet-18, int8 | bineal18, m = 1.5 | 224 x 224 | 7 |
| segmentation | FCN on ResNet-18, int8 | FCN on bineal18, m = 2 | 512 x 1024 | 3.9 |
| binary rival | ReActNet-A | bineal18, m = 1.5 | 224 x 224 | 2.7 |

Cycles do not depend on weights, but constants that do nothing (a bias of 0, a slope of 1/4) are
left out of the counts; so all parameters are made arbitrary ones, as trained ones are. Of the ways
to make a rival 8-bit (`INT8_VARIANTS`) the one of fewest cycles counts, for each array. ReActNet-A
has its stem and classifier in 8 bits, as BiNeal has.

BiNeal's map from a sum to 4 bits is a ladder of 15 thresholds; the compiler writes a multiplication
and a shift where these give the same, which is cheaper on a CPU but not behind an array whose
columns end in comparators. Both are counted, and labelled: `int4` is "as compiled" or
"comparators", four compares a number. "as compiled" is what the presets were frozen for; the other
was added when the first ratios had been seen.

    python -m benchmarks.hardware_claims                  # results/hardware/*.csv, *.png
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import signbit
from benchmarks.common import calibration_batch, wide_console, write_csv
from signbit.compiler.ir import Graph
from signbit.eight_bit import has_real_layers, to_8bit
from signbit.hardware.elementwise import step_work
from signbit.hardware.onnx_graph import workload_of_onnx
from signbit.hardware.sweep import designs, sweep
from signbit.hardware.systolic import DATAFLOWS, SystolicArray, estimate
from signbit.hardware.workload import Workload, workload_of
from signbit.plots.figure import finish, new_figure
from signbit.rivals.engines import INT8_VARIANTS, export_onnx, quantize

PRESETS = ("binE-16", "binE-8")
OTHER_PRESETS = ("eyeriss", "google")
INT4_COMPARES = 4  # of 15 sorted thresholds: each halves those that are left
EXAMPLE = 64  # side of the images that networks are compiled and exported with
IMAGENET, CITYSCAPES = (224, 224), (512, 1024)
SWEEP = {
    "size": (8, 16, 32, 64, 128),
    "binary_lanes": (8, 16, 32, 64),
    "vector_width": (8, 16, 32, 64),
    "dataflow": DATAFLOWS,
    "vector_schedule": ("added", "overlapped"),
}


@dataclass(frozen=True)
class Claim:
    """A published ratio: cycles of `rival` over cycles of `ours`, names of networks."""

    name: str
    rival: str
    ours: str
    published: float

    def our_network(self, int4: str) -> str:
        """The name of ours in `Networks`."""
        return self.ours if int4 == INT4[0] else f"{self.ours}, {int4}"


CLAIMS = (
    Claim("classification", "ResNet-18 int8", "bineal18 m=1.5", 7.0),
    Claim("segmentation", "FCN ResNet-18 int8", "FCN bineal18 m=2", 3.9),
    Claim("binary rival", "ReActNet-A", "bineal18 m=1.5", 2.7),
)

INT4 = ("as compiled", "comparators")

# name -> forms of the network; the one of fewest cycles counts. Ours with comparators stand under
# their name and the label.
Networks = dict[str, list[Workload]]


def arbitrary_(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Move all parameters and running statistics off the special values that they start from."""
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: torch.Tensor) -> torch.Tensor:
        return torch.rand(tensor.shape, generator=generator) - 0.5

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * noise(parameter))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.add_(noise(module.running_mean))
                module.running_var.mul_(1 + noise(module.running_var))
    return model.eval()


def compiled(
    model: torch.nn.Module, name: str, images: np.ndarray, size: tuple[int, int], folder: Path
) -> Networks:
    """A network of ours: calibrated, compiled (which verifies it), counted for `size`."""
    batch = torch.from_numpy(images)
    model = arbitrary_(model)
    if has_real_layers(model):
        model = to_8bit(model, batch[:1])
    signbit.calibrate(model, [batch])
    program = signbit.compile(model, batch[:1])
    path = program.save(folder / f"{name}.signbit")
    found = workload_of(path, name, size=size)
    return {name: [found], f"{name}, {INT4[1]}": [with_comparators(found, program.graph)]}


def with_comparators(workload: Workload, graph: Graph) -> Workload:
    """Maps from sums to 4 bits by comparators instead of multiplications and shifts."""
    layers = []
    for work, node in zip(workload.layers, graph.nodes, strict=True):
        counts = Counter(work.elementwise)
        for step in node.epilogue:
            if step.kind == "quant4_shift":
                channels = node.outputs[0].channels
                for kind, number in step_work(step, channels).items():
                    counts[kind] -= number * work.product.pixels
                counts["compare"] += INT4_COMPARES * channels * work.product.pixels
        layers.append(replace(work, elementwise=counts))
    return replace(workload, layers=tuple(layers))


def eight_bit(
    model: torch.nn.Module, name: str, images: np.ndarray, size: tuple[int, int], folder: Path
) -> Networks:
    """A rival: exported, made 8-bit in several ways, each counted for `size`."""
    fp32 = export_onnx(arbitrary_(model), images, folder / f"{name}.onnx", any_size=True)
    found = []
    for variant, options in INT8_VARIANTS.items():
        path = quantize(fp32, images, folder / f"{name} {variant}.onnx", **options)
        found.append(workload_of_onnx(path, f"{name} ({variant})", size=size))
    return {name: found}


def make_networks(images: np.ndarray, folder: Path, step: Callable[[str], object]) -> Networks:
    """The networks of all claims, by name."""
    create = signbit.create_model
    builders: dict[str, tuple[Callable[..., Networks], Callable[[], Any], tuple]] = {
        "ResNet-18 int8": (eight_bit, lambda: create("resnet18", num_classes=1000), IMAGENET),
        "bineal18 m=1.5": (
            compiled,
            lambda: create("bineal18", num_classes=1000, width=1.5),
            IMAGENET,
        ),
        "ReActNet-A": (
            compiled,
            lambda: create("ab_reactnet_a", num_classes=1000, variant="batch_norm"),
            IMAGENET,
        ),
        "FCN ResNet-18 int8": (eight_bit, lambda: create("fcn_resnet18"), CITYSCAPES),
        "FCN bineal18 m=2": (compiled, lambda: create("fcn_bineal18", width=2.0), CITYSCAPES),
    }
    networks: Networks = {}
    for name, (build, create_it, size) in builders.items():
        step(name)
        torch.manual_seed(0)
        networks |= build(create_it(), name, images, size, folder)
    return networks


# --- the frozen presets ---


def best(forms: Iterable[Workload], array: SystolicArray) -> Any:
    """The estimate of fewest cycles."""
    return min((estimate(each, array) for each in forms), key=lambda found: found.cycles)


def claim_rows(networks: Networks, presets: Sequence[str]) -> list[dict[str, Any]]:
    """A row a preset, claim, scope and way to 4 bits."""
    rows = []
    for preset, claim, scope, int4 in product(presets, CLAIMS, ("body", "whole"), INT4):
        array = SystolicArray.load(preset)
        found = []
        for name in (claim.rival, claim.our_network(int4)):
            forms = networks[name]
            found.append(best([e.body for e in forms] if scope == "body" else forms, array))
        labels = {"claim": claim.name, "preset": preset, "scope": scope, "int4": int4}
        rows.append(labels | _claim_row(claim, *found))
    return rows


def _claim_row(claim: Claim, rival: Any, ours: Any) -> dict[str, Any]:
    ratio = rival.cycles / ours.cycles
    row = {
        "rival": rival.network,
        "ours": ours.network,
        "published": claim.published,
        "ratio": round(ratio, 3),
        "of_published": round(ratio / claim.published, 3),
        "array_ratio": round(rival.part("compute") / ours.part("compute"), 3),
    }
    for side, found in (("rival", rival), ("ours", ours)):
        row[f"{side}_cycles"] = found.cycles
        row[f"{side}_array_cycles"] = found.part("compute")
        row[f"{side}_vector_cycles"] = found.part("vector")
        row[f"{side}_utilisation"] = round(found.utilisation, 4)
    return row


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table(title="Cycles of the rival over cycles of BiNeal")
    labels = ("claim", "preset", "scope", "int4")
    for column in labels:
        table.add_column(column)
    for column in ("published", "ratio", "array alone", "rival: array + vector", "ours"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            *(row[name] for name in labels),
            f"{row['published']:g}",
            f"{row['ratio']:.2f}",
            f"{row['array_ratio']:.2f}",
            *(
                f"{row[f'{side}_array_cycles'] / 1e6:.2f} M + "
                f"{row[f'{side}_vector_cycles'] / 1e6:.2f} M"
                for side in ("rival", "ours")
            ),
        )
    console.print(table)


# --- the grid ---


def sensitivity(networks: Networks, base: SystolicArray) -> list[dict[str, Any]]:
    """A row a claim and design of `SWEEP`, bodies of networks."""
    arrays = designs(base, **SWEEP)
    cycles: dict[str, np.ndarray] = {}
    with Progress() as progress:
        jobs = [(name, form) for name, forms in networks.items() for form in forms]
        task = progress.add_task("designs", total=len(jobs) * len(arrays))
        for i, (name, form) in enumerate(jobs):

            def advance(done: int, of: int, before: int = i * len(arrays)) -> None:
                progress.update(task, completed=before + done)

            points = sweep(form.body, arrays, advance)
            found = np.array([point.cycles for point in points], float)
            cycles[name] = np.minimum(cycles.get(name, np.inf), found)
    return [
        {"claim": claim.name, "int4": int4}
        | _sensitivity_row(claim, array, cycles[claim.rival][i], cycles[claim.our_network(int4)][i])
        for claim, int4 in product(CLAIMS, INT4)
        for i, array in enumerate(arrays)
    ]


def _sensitivity_row(
    claim: Claim, array: SystolicArray, rival: float, ours: float
) -> dict[str, Any]:
    return {
        "published": claim.published,
        "size": array.rows,
        **{key: getattr(array, key) for key in SWEEP if key != "size"},
        "rival_cycles": int(rival),
        "ours_cycles": int(ours),
        "ratio": round(rival / ours, 3),
        "reaches_published": bool(rival / ours >= claim.published),
    }


def plot_sensitivity(rows: Sequence[dict[str, Any]], int4: str, path: Path) -> None:
    """Ratio over published, array size by lanes: a column a dataflow, a row a claim."""
    vector, schedule = 16, "added"
    figure = new_figure(10.5, 8.4)
    panels = figure.subplots(len(CLAIMS), len(DATAFLOWS), sharex=True, sharey=True)
    sizes, lanes = SWEEP["size"], SWEEP["binary_lanes"]
    for line, claim in zip(panels, CLAIMS, strict=True):
        for axes, dataflow in zip(line, DATAFLOWS, strict=True):
            held = {
                (row["size"], row["binary_lanes"]): row["ratio"]
                for row in rows
                if (row["claim"], row["dataflow"], row["int4"]) == (claim.name, dataflow, int4)
                and (row["vector_width"], row["vector_schedule"]) == (vector, schedule)
            }
            ratios = np.array([[held[size, lane] for lane in lanes] for size in sizes])
            image = axes.imshow(
                np.log2(ratios / claim.published), cmap="RdYlGn", vmin=-1.5, vmax=1.5, aspect="auto"
            )
            for (y, x), ratio in np.ndenumerate(ratios):
                weight = "bold" if ratio >= claim.published else "normal"
                axes.text(x, y, f"{ratio:.2f}", ha="center", va="center", fontweight=weight)
            axes.set_xticks(range(len(lanes)), [str(lane) for lane in lanes])
            axes.set_yticks(range(len(sizes)), [f"{size} x {size}" for size in sizes])
            if axes in panels[0]:
                axes.set_title(dataflow.replace("_", " "), fontsize=10)
        line[0].set_ylabel(f"{claim.rival}\nover {claim.ours}\npublished: {claim.published:g}")
    for axes in panels[-1]:
        axes.set_xlabel("one-bit lanes a PE")
    bar = figure.colorbar(image, ax=panels, shrink=0.6)
    bar.set_ticks([-1, 0, 1], labels=["half", "as published", "twice"])
    figure.suptitle(
        f"Ratios of cycles, bodies of networks; {vector} vector operations a cycle, {schedule}; "
        f"BiNeal's 4 bits: {int4}. Bold: at least as published",
        fontsize=10,
    )
    finish(figure, path)


def plot_vector(rows: Sequence[dict[str, Any]], int4: str, path: Path) -> None:
    """Ratio against the width of the vector unit on weight-stationary 16 x 16 arrays."""
    figure = new_figure(10.5, 3.4)
    panels = figure.subplots(1, len(CLAIMS))
    for axes, claim in zip(panels, CLAIMS, strict=True):
        for colour, lane in enumerate(SWEEP["binary_lanes"]):
            for schedule, style in (("added", "-"), ("overlapped", ":")):
                line = [
                    row["ratio"]
                    for row in rows
                    if (row["claim"], row["int4"]) == (claim.name, int4)
                    and row["size"] == 16
                    and row["dataflow"] == "weight_stationary"
                    and (row["binary_lanes"], row["vector_schedule"]) == (lane, schedule)
                ]
                label = f"{lane} lanes" if schedule == "added" else None
                axes.plot(SWEEP["vector_width"], line, style, color=f"C{colour}", label=label)
        axes.axhline(claim.published, color="black", linewidth=0.8, linestyle="--")
        axes.set_xscale("log", base=2)
        axes.set_xticks(SWEEP["vector_width"], [str(v) for v in SWEEP["vector_width"]])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("vector operations a cycle")
        axes.set_title(f"{claim.rival} over {claim.ours}", fontsize=9)
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("ratio of cycles")
    panels[-1].legend(fontsize=8)
    figure.suptitle(
        f"16 x 16, weight-stationary; BiNeal's 4 bits: {int4}; dashed: published; "
        "dotted: vector unit beside the array",
        fontsize=10,
    )
    finish(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--calibration", type=Path, help="a folder or .tar of photographs; two samples if left out"
    )
    parser.add_argument("--output", type=Path, default=Path("results/hardware"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    console = wide_console()
    images = calibration_batch(options.calibration, EXAMPLE, 2)
    with tempfile.TemporaryDirectory() as folder, console.status("networks") as status:
        networks = make_networks(images, Path(folder), status.update)
    base = SystolicArray.load(PRESETS[0])
    rows = claim_rows(networks, (*PRESETS, *OTHER_PRESETS))
    grid = sensitivity(networks, replace(base, name="grid"))
    write_csv(options.output / "claims.csv", rows)
    write_csv(options.output / "sensitivity.csv", grid)
    for int4 in INT4:
        ending = f"{int4.replace(' ', '-')}.png"
        plot_sensitivity(grid, int4, options.output / f"sensitivity-{ending}")
        plot_vector(grid, int4, options.output / f"vector-{ending}")
    show(rows, console)


if __name__ == "__main__":
    main()

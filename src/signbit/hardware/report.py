"""What a network asks of hardware and what a design makes of it: tables, JSON, one HTML page.

Counts name their graph. MACs by widths, element-wise work, bits and cycles come from the workload
(for compiled networks the lowered graph). MO and the strict count of multiplications are
conventions of networks as they are written (`signbit.hardware.multiplications`): they come from the
captured graph, and a compiled file has their totals as metadata. Multiplications of the workload
are what is left to multiply: element-wise ones and MACs whose operands both have more than one bit,
but for those that a program does by shifting and adding (`conv_shift`).

Imports NumPy only.
"""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from signbit.hardware import photonic, streaming
from signbit.hardware.counts import Count, Operations, total
from signbit.hardware.energy import Energy, EnergyTable, layer_energies, total_energy
from signbit.hardware.systolic import ArrayEstimate, SystolicArray, estimate
from signbit.hardware.workload import KINDS, Work, Workload

_SHIFTING = "conv_shift"


@dataclass(frozen=True)
class Evaluation:
    """A network on a design.

    Attributes:
        workload: what there is to do.
        graph: what it was counted on, in words.
        estimate: cycles on the array.
        body_cycles: of the layers between stem and head; None if there are none.
        energies: layer by layer.
        captured: path and count of every layer as it is written; None where that is not known.
        written: count of the network as it is written, of a compiled file its multiplications
            alone; None where that is not known.
        pipeline: the network as a streaming pipeline, if that was asked for.
        light: the network on a photonic accelerator, if that was asked for.
    """

    workload: Workload
    graph: str
    estimate: ArrayEstimate
    body_cycles: int | None
    energies: tuple[Energy, ...]
    captured: tuple[tuple[str, Count], ...] | None = None
    written: Count | None = None
    pipeline: streaming.StreamingEstimate | None = None
    light: photonic.PhotonicEstimate | None = None

    @property
    def name(self) -> str:
        """The network's."""
        return self.workload.name

    @cached_property
    def energy(self) -> Energy:
        """Of the whole network."""
        return total_energy(self.energies)

    def totals(self) -> dict[str, Any]:
        """All figures of the network, as JSON can hold them."""
        layers = self.workload.layers
        found = figures(layers) | {
            "peak_activation_bits": self.workload.peak_activation_bits,
            "cycles": self.estimate.cycles,
            "body_cycles": self.body_cycles,
            "seconds": self.estimate.seconds,
            "utilisation": self.estimate.utilisation,
            "dram_bits": self.estimate.dram_bits,
            "energy": self.energy.to_dict(),
        }
        count = None if self.written is None else self.written.to_dict()
        found["captured"] = None if self.captured is None else count
        multiplied = ("mo", "strict_mo", "multiplications")
        found["written"] = None if count is None else {key: count[key] for key in multiplied}
        return found

    def rows(self) -> list[dict[str, Any]]:
        """All figures of every layer, as JSON can hold them."""
        parts = zip(self.workload.layers, self.estimate.layers, self.energies, strict=True)
        return [
            {"layer": work.name, "operation": work.op}
            | figures([work])
            | {"live_bits": work.live_bits}
            | {"array": cycles.to_dict(), "energy": energy.to_dict()}
            for work, cycles, energy in parts
        ]

    def to_dict(self) -> dict[str, Any]:
        """The evaluation, as JSON can hold it."""
        captured = None
        if self.captured is not None:
            captured = [
                {"layer": path, "mo": count.mo, "multiplications": count.multiplications}
                for path, count in self.captured
            ]
        return {
            "network": self.name,
            "graph": self.graph,
            "accuracy": self.workload.accuracy,
            "totals": self.totals(),
            "layers": self.rows(),
            "captured_layers": captured,
            "streaming": None if self.pipeline is None else self.pipeline.to_dict(),
            "photonic": None if self.light is None else self.light.to_dict(),
        }


def evaluate(
    workload: Workload,
    array: SystolicArray,
    table: EnergyTable,
    graph: str,
    captured: Sequence[tuple[str, Count]] | None = None,
    *,
    written: Count | None = None,
    fabric: streaming.StreamingFabric | None = None,
    accelerator: photonic.PhotonicAccelerator | None = None,
) -> Evaluation:
    """Cycles and energy of a network.

    Args:
        workload: the network.
        array: the design that it runs on.
        table: energies of single operations.
        graph: what the workload was counted on, in words.
        captured: counts of its layers as they are written, if they are known.
        written: multiplications as they are written, if only these are known.
        fabric: also fold it into a streaming pipeline.
        accelerator: also run it on a photonic accelerator.

    Raises CapacityError for a layer that does not fit the array's buffers.
    """
    cycles = estimate(workload, array)
    products = sum(layer.product is not None for layer in workload.layers)
    body = estimate(workload.body, array).cycles if products > 2 else None
    energies = tuple(layer_energies(workload, table))
    known = None if captured is None else tuple(captured)
    if known is not None:
        written = total(count for _, count in known)
    pipeline = None if fabric is None else streaming.estimate(workload, fabric)
    light = None if accelerator is None else photonic.estimate(workload, accelerator)
    return Evaluation(workload, graph, cycles, body, energies, known, written, pipeline, light)


def operations(layers: Iterable[Work]) -> Operations:
    """MACs of layers by the widths of their operands."""
    found: Counter[tuple[int, int]] = Counter()
    for layer in layers:
        if layer.product is not None:
            found[layer.product.weight_bits, layer.product.input_bits] += layer.product.macs
    return Operations(found)


def figures(layers: Sequence[Work]) -> dict[str, Any]:
    """Counts of layers: MACs and what the field makes of them, element-wise work, bits."""
    counts = operations(layers)
    elementwise: Counter[str] = Counter()
    for layer in layers:
        elementwise.update(layer.elementwise)
    multiplied = operations(layer for layer in layers if layer.op != _SHIFTING)
    left = sum(macs for widths, macs in multiplied.macs.items() if min(widths) > 1)
    return counts.to_dict() | {
        "elementwise": {kind: elementwise[kind] for kind in KINDS if elementwise[kind]},
        "multiplications": left + elementwise["multiply"],
        "weight_bits": sum(layer.weight_bits for layer in layers),
        "input_bits": sum(layer.input_bits for layer in layers),
        "output_bits": sum(layer.output_bits for layer in layers),
    }


# --- words ---

LAYER_COLUMNS = (
    "layer", "operation", "MACs", "element-wise", "weights", "activations", "cycles", "array used",
    "energy",
)  # fmt: skip


def layer_cells(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """A line of words for every layer, in the order of `LAYER_COLUMNS`."""
    lines = []
    for row in evaluation.rows():
        lines.append(
            (
                row["layer"],
                row["operation"],
                _macs(row["macs"]),
                number(sum(row["elementwise"].values())),
                size(row["weight_bits"]),
                size(row["input_bits"] + row["output_bits"]),
                f"{row['array']['cycles']:,}",
                f"{row['array']['utilisation']:.0%}" if row["macs"] else "",
                _microjoules(row["energy"]["total"]),
            )
        )
    return lines


def count_cells(evaluation: Evaluation) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """What every layer counts: columns, and a line of words a layer."""
    rows = evaluation.rows()
    kinds = [kind for kind in KINDS if any(row["elementwise"].get(kind) for row in rows)]
    sums = ("bops", "flops", "ops", "cpu64", "ace")
    columns = ("layer", "BOPs", "FLOPs", "OPs", "CPU64", "ACE", *kinds, "multiplications left")
    lines = [
        (
            row["layer"],
            *(number(row[key]) for key in sums),
            *(number(row["elementwise"].get(kind, 0)) for kind in kinds),
            number(row["multiplications"]),
        )
        for row in rows
    ]
    return columns, lines


def total_cells(evaluations: Sequence[Evaluation]) -> list[tuple[str, ...]]:
    """Lines of words: a figure, and what it is of every network."""
    totals = [each.totals() for each in evaluations]
    counts = [each["written"] for each in totals]
    lines: list[tuple[str, ...]] = [("counted on", *(each.graph for each in evaluations))]
    lines.append(("MACs, weight x input bits", *(_macs(each["macs"]) for each in totals)))
    for key, label in (
        ("bops", "BOPs"), ("flops", "FLOPs"), ("ops", "OPs"), ("cpu64", "CPU64"), ("ace", "ACE"),
    ):  # fmt: skip
        lines.append((label, *(number(each[key]) for each in totals)))
    for kind in KINDS:
        numbers = [each["elementwise"].get(kind, 0) for each in totals]
        if any(numbers):
            lines.append((f"element-wise: {kind}", *map(number, numbers)))
    lines.append(("multiplications left", *(number(each["multiplications"]) for each in totals)))
    for key, label in (("mo", "MO, as written"), ("strict_mo", "multiplications, as written")):
        lines.append((label, *("-" if each is None else number(each[key]) for each in counts)))
    lines.append(("parameters", *(size(each["weight_bits"]) for each in totals)))
    moved = (size(each["input_bits"] + each["output_bits"]) for each in totals)
    lines.append(("activation traffic", *moved))
    lines.append(("peak activations", *(size(each["peak_activation_bits"]) for each in totals)))
    lines.append(("cycles", *(f"{each['cycles']:,}" for each in totals)))
    bodies = ("-" if each["body_cycles"] is None else f"{each['body_cycles']:,}" for each in totals)
    lines.append(("cycles without stem and head", *bodies))
    lines.append(("array used", *(f"{each['utilisation']:.0%}" for each in totals)))
    for part in ("macs", "elementwise", "sram", "dram", "total"):
        label = "energy" if part == "total" else f"energy: {part}"
        lines.append((label, *(_microjoules(each["energy"][part]) for each in totals)))
    return lines + _pipeline_cells(evaluations) + _light_cells(evaluations)


def _pipeline_cells(evaluations: Sequence[Evaluation]) -> list[tuple[str, ...]]:
    pipelines = [each.pipeline for each in evaluations if each.pipeline is not None]
    if not pipelines:
        return []
    name = pipelines[0].fabric.name
    return [
        (
            f"{name}: images a second",
            *(
                f"{each.frames_per_second:,.1f}{'' if each.meets_target else ' (below the target)'}"
                for each in pipelines
            ),
        ),
        (f"{name}: latency at most", *(f"{each.latency * 1e3:.3g} ms" for each in pipelines)),
        (
            f"{name}: memories of 18 Kbit for weights",
            *(f"{each.block_memories:,}{'' if each.fits else ' (too many)'}" for each in pipelines),
        ),
    ]


def _light_cells(evaluations: Sequence[Evaluation]) -> list[tuple[str, ...]]:
    lights = [each.light for each in evaluations if each.light is not None]
    if not lights:
        return []
    name = f"{lights[0].accelerator.name} ({lights[0].accelerator.variant})"
    return [
        (f"{name}: images a second", *(f"{each.frames_per_second:,.0f}" for each in lights)),
        (f"{name}: power", *(f"{each.power:.3g} W" for each in lights)),
    ]


def ratios(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """How many times as many cycles each rival takes as the first network, all in all and without
    stem and head."""
    first, *rivals = evaluations
    return [
        {
            "rival": each.name,
            "cycles": each.estimate.cycles / first.estimate.cycles,
            "body_cycles": each.body_cycles / first.body_cycles
            if each.body_cycles and first.body_cycles
            else None,
        }
        for each in rivals
    ]


def number(value: float) -> str:
    """Three digits and a letter: 118M, 0, 1.68G."""
    for letter, unit in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= unit:
            digits = f"{value / unit:.3g}" if value < 999.5 * unit else f"{value / unit:.0f}"
            return f"{digits}{letter}"
    return f"{value:.3g}" if value % 1 else f"{value:.0f}"


def size(bits: float) -> str:
    """Bits as bytes, KiB or MiB."""
    for unit, factor in (("MiB", 8 * 2**20), ("KiB", 8 * 2**10)):
        if bits >= factor:
            return f"{bits / factor:.1f} {unit}"
    return f"{bits / 8:.0f} B"


def _macs(macs: Mapping[str, int]) -> str:
    return ", ".join(f"{widths} {number(count)}" for widths, count in macs.items())


def _microjoules(bounds: Mapping[str, float]) -> str:
    low, high = (f"{bounds[key]:.3g}" for key in ("low_uJ", "high_uJ"))
    return f"{low} uJ" if low == high else f"{low} to {high} uJ"


# --- a page ---

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2329; max-width: 75rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p.lead { color: #57606a; margin-top: .2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid #e3e6ea;
       vertical-align: top; }
img { max-width: 100%; height: auto; }
"""


def render_page(
    title: str,
    assumptions: Sequence[str],
    evaluations: Sequence[Evaluation],
    pictures: Mapping[str, tuple[bytes, str]],
) -> str:
    """One HTML page with its pictures inside; everything given is escaped.

    Args:
        title: the heading.
        assumptions: a sentence each.
        evaluations: the networks, the one that is compared first.
        pictures: heading to PNG bytes and caption, in order.
    """
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        *(f'<p class="lead">{html.escape(each)}</p>' for each in assumptions),
        _table(("", *(each.name for each in evaluations)), total_cells(evaluations)),
    ]
    for heading, (png, caption) in pictures.items():
        data = base64.b64encode(png).decode("ascii")
        sections.append(
            f"<h2>{html.escape(heading)}</h2>\n<p>{html.escape(caption)}</p>\n"
            f'<img alt="{html.escape(heading)}" src="data:image/png;base64,{data}">'
        )
    for each in evaluations:
        sections.append(f"<h2>{html.escape(each.name)}, layer by layer</h2>")
        sections.append(_table(LAYER_COLUMNS, layer_cells(each)))
        sections.append(f"<h2>{html.escape(each.name)}, counts layer by layer</h2>")
        sections.append(_table(*count_cells(each)))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def _table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
        for line in lines
    )
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"

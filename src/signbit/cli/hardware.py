"""``signbit hardware``."""

from __future__ import annotations

import csv
import io
import json as jsonlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbit.cli.console import (
    JsonOption,
    plain_table,
    print_fitting,
    print_json,
    stderr,
    stdout,
)
from signbit.cli.networks import (
    example_input,
    load_network,
    network_options,
    parse_size,
    run_name,
    untrained_network,
)
from signbit.errors import CompileError, SignbitError

if TYPE_CHECKING:
    from torch import nn

    from signbit.compiler.ir import Graph
    from signbit.hardware.counts import Count
    from signbit.hardware.report import Evaluation
    from signbit.hardware.sweep import SweepPoint
    from signbit.hardware.systolic import SystolicArray
    from signbit.hardware.workload import Workload
    from signbit.training import TrainedModel

_COMPILED, _CAPTURED, _ONNX = "the compiled graph", "the captured graph", "the ONNX file"
_SIZES = "4,8,12,16,24,32,48,64,96,128"
_LANES = "4,8,16,32,64"
_VECTORS = "4,8,16,32,64,128,256"


@dataclass(frozen=True)
class _Network:
    """What a word on the command line turned out to be."""

    workload: Workload
    graph: str
    captured: list[tuple[str, Count]] | None = None
    written: Count | None = None


@dataclass(frozen=True)
class _Options:
    """What is asked of networks that are given by name, and of open sizes."""

    size: tuple[int, int] | None
    named: dict[str, Any]  # for names and for the first network
    common: dict[str, Any]  # of these, what rivals by name share
    arithmetic: str


def hardware(
    model: Annotated[
        str,
        typer.Argument(
            help="A .signbit or .onnx file, a run's folder, model.pt, or a model's name; "
            "MODEL@71.2 says its accuracy in percent."
        ),
    ],
    against: Annotated[
        list[str] | None, typer.Option(metavar="RIVAL", help="Compare with: as MODEL.")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Systolic array: a preset's name, or a YAML file of your own.")
    ] = "binE-16",
    energy: Annotated[
        str, typer.Option(help="Energies: a preset's name, or a YAML file of your own.")
    ] = "energy-45nm",
    streaming: Annotated[
        str | None,
        typer.Option(metavar="PRESET", help="Also a pipeline of a unit a layer (FINN's manner)."),
    ] = None,
    photonic: Annotated[
        str | None, typer.Option(metavar="PRESET", help="Also a photonic accelerator (OXBNN).")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", "--input-size", help="Pixels: 224 or 224x320 (height x width)."),
    ] = None,
    width: Annotated[
        float | None, typer.Option(help="For a name as MODEL: width factor [1].")
    ] = None,
    stem: Annotated[
        str | None, typer.Option(help="For names: imagenet or cifar [imagenet].")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="For names: number of classes [1000].")
    ] = None,
    channels: Annotated[
        int | None, typer.Option(min=1, help="For names: input channels [3].")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="For a name as MODEL: an argument of the network."),
    ] = None,
    arithmetic: Annotated[
        str, typer.Option(help="For names, folders, model.pt: compile to float or integer.")
    ] = "float",
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Also try all of --sizes, --lanes, --vectors.")
    ] = False,
    sizes: Annotated[
        str | None, typer.Option(help=f"With --sweep: sides of the array [{_SIZES}].")
    ] = None,
    lanes: Annotated[
        str | None, typer.Option(help=f"With --sweep: one-bit lanes a PE [{_LANES}].")
    ] = None,
    vectors: Annotated[
        str | None, typer.Option(help=f"With --sweep: vector elements a cycle [{_VECTORS}].")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("hardware"),
    json: JsonOption = False,
) -> None:
    """Count a network's work layer by layer, and what an accelerator makes of it.

    Operations, bits, cycles on a systolic array, energy; rivals by the same code. Writes
    hardware.html, hardware.json and pictures. A network by name is untrained: its shape counts.
    """
    grid = _grid(sweep, sizes, lanes, vectors)
    options = _options(size, width, stem, classes, channels, option, arithmetic)
    from signbit.hardware.energy import EnergyTable
    from signbit.hardware.photonic import PhotonicAccelerator
    from signbit.hardware.report import evaluate
    from signbit.hardware.streaming import StreamingFabric
    from signbit.hardware.systolic import SystolicArray
    from signbit.training.output import require_writable

    array, table = SystolicArray.load(preset), EnergyTable.load(energy)
    fabric = None if streaming is None else StreamingFabric.load(streaming)
    accelerator = None if photonic is None else PhotonicAccelerator.load(photonic)
    require_writable(output)
    given = [model, *(against or [])]
    networks = [_load(text, options, rival=i > 0) for i, text in enumerate(given)]
    networks = _told_apart(networks, given)
    evaluations = [
        evaluate(
            each.workload, array, table, each.graph, each.captured,
            written=each.written, fabric=fabric, accelerator=accelerator,
        )
        for each in networks
    ]  # fmt: skip
    points = _sweep([each.workload for each in networks], array, grid) if grid else []
    designs = [array, table, *(each for each in (fabric, accelerator) if each is not None)]
    report = _report(evaluations, designs, points)
    _write(output, evaluations, report, array, _assumptions(evaluations, designs))
    if json:
        print_json(report)
        return
    _print(evaluations, report, array)
    stderr().print(
        f"report: {output / 'hardware.html'}", style="bold", highlight=False, soft_wrap=True
    )


# --- what is asked ---


def _grid(
    sweep: bool, sizes: str | None, lanes: str | None, vectors: str | None
) -> dict[str, list[int]] | None:
    given = {"sizes": sizes, "lanes": lanes, "vectors": vectors}
    if not sweep:
        unused = [f"--{name}" for name, text in given.items() if text is not None]
        if unused:
            raise SignbitError(f"{', '.join(unused)}: only with --sweep")
        return None
    defaults = {"sizes": _SIZES, "lanes": _LANES, "vectors": _VECTORS}
    return {name: _numbers(name, text or defaults[name]) for name, text in given.items()}


def _numbers(name: str, text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise SignbitError(f"--{name} {text}: expected numbers above 0, as in 8,16,32")
    return list(dict.fromkeys(map(int, words)))


def _options(
    size: str | None,
    width: float | None,
    stem: str | None,
    classes: int | None,
    channels: int | None,
    option: list[str] | None,
    arithmetic: str,
) -> _Options:
    if arithmetic not in ("float", "integer"):
        raise SignbitError(f"--arithmetic {arithmetic}: expected float or integer")
    common = {"stem": stem, "classes": classes, "channels": channels}
    common = {key: value for key, value in common.items() if value is not None}
    own = {} if width is None else {"width": width}
    if option:
        own["options"] = network_options(option)
    return _Options(parse_size(size), common | own, common, arithmetic)


# --- networks ---


def _load(text: str, options: _Options, rival: bool) -> _Network:
    word, accuracy = _accuracy(text)
    path = Path(word)
    if path.suffix in (".signbit", ".onnx") or path.exists():
        if options.named and not rival:
            named = ", ".join(
                f"--{name.rstrip('s')}" if name == "options" else f"--{name}"
                for name in options.named
            )
            raise SignbitError(f"{named}: only with a model's name; {word} is what it is")
        return _from_path(path, accuracy, options)
    trained = untrained_network(
        word, **(options.common if rival else options.named), size=options.size
    )
    return _from_model(trained, word, accuracy, options)


def _accuracy(text: str) -> tuple[str, float | None]:
    """A network and its accuracy in percent, from `NETWORK@71.2`."""
    word, at, figure = text.rpartition("@")
    if not at or Path(text).exists():
        return text, None
    try:
        value = float(figure)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise SignbitError(f"{text}: expected an accuracy in percent behind @, as in {word}@71.2")
    return word, value


def _from_path(path: Path, accuracy: float | None, options: _Options) -> _Network:
    if not path.exists():
        raise SignbitError(f"{path}: there is no such file")
    if path.suffix == ".onnx":
        from signbit.hardware.captured import workload_of_captured
        from signbit.hardware.counts import count_layers
        from signbit.hardware.onnx_graph import read_onnx

        graph = read_onnx(path, size=options.size)
        workload = workload_of_captured(graph, path.stem, accuracy=accuracy)
        return _Network(workload, _ONNX, count_layers(graph))
    if path.suffix == ".signbit":
        from signbit.compiler.emit import read_graph
        from signbit.hardware.workload import workload_of

        graph = read_graph(path)
        if accuracy is None:
            accuracy = _known_accuracy(path, graph.metadata, "engine_accuracy")
        name = path.absolute().parent.name if path.stem == "model" else path.stem
        workload = workload_of(path, name, size=options.size, accuracy=accuracy)
        as_compiled = options.size in (None, graph.input.shape[1:])
        return _Network(workload, _COMPILED, written=_written(graph) if as_compiled else None)
    trained = load_network(path)
    if options.size is not None:
        trained.input_shape = (trained.input_shape[0], *options.size)
    if accuracy is None:
        facts = {"accuracy": trained.info.get("metrics", {})}
        accuracy = _known_accuracy(path / "x" if path.is_dir() else path, facts, "pytorch_accuracy")
    return _from_model(trained, run_name(path.absolute()), accuracy, options)


def _known_accuracy(path: Path, metadata: dict[str, Any], key: str) -> float | None:
    """The accuracy in percent that a file itself, or `eval.json` beside it, says it has."""
    known = metadata.get("accuracy")
    found = known.get("test_accuracy") if isinstance(known, dict) else None
    beside = path.parent / "eval.json"
    if found is None and beside.is_file():
        try:
            facts = jsonlib.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SignbitError(f"{beside}: no JSON: {error}") from error
        found = facts.get(key) if isinstance(facts, dict) else None
    return None if found is None else 100 * float(found)


def _written(graph: Graph) -> Count | None:
    """What a file says of the multiplications of its network as it was written."""
    from signbit.hardware.counts import Count

    known = graph.metadata.get("multiplications")
    try:
        kinds = {str(kind): int(number) for kind, number in known["kinds"].items()}
        return Count(mo=int(known["mo"]), multiplications=kinds)
    except (TypeError, KeyError, ValueError, AttributeError):
        return None  # of an older version, or somebody else's metadata of that name


def _from_model(
    trained: TrainedModel, name: str, accuracy: float | None, options: _Options
) -> _Network:
    """A PyTorch model: compiled where it can be, else as it was captured."""
    from signbit.compiler.capture import capture_leniently
    from signbit.hardware.captured import workload_of_captured
    from signbit.hardware.counts import count_layers
    from signbit.hardware.workload import workload_of

    captured = capture_leniently(trained.model, example_input(trained)).graph
    counts = count_layers(captured)
    lowered = _compiled(trained, options.arithmetic)
    if lowered is None:
        return _Network(workload_of_captured(captured, name, accuracy=accuracy), _CAPTURED, counts)
    return _Network(workload_of(lowered, name, accuracy=accuracy), _COMPILED, counts)


def _compiled(trained: TrainedModel, arithmetic: str) -> Graph | None:
    """The lowered graph of a binary network, real-valued ends in 8 bits; None of any other one."""
    from signbit.compiler import compile as compile_model
    from signbit.eight_bit import has_real_layers
    from signbit.nn.binary import BinaryLayer

    model = trained.model
    if not any(isinstance(layer, BinaryLayer) for layer in model.modules()):
        if arithmetic == "integer":
            raise SignbitError("--arithmetic integer: of binary networks alone")
        return None
    x = example_input(trained)
    preprocessing = {"mean": list(trained.mean), "std": list(trained.std)}
    if arithmetic == "float" and has_real_layers(model):
        model = _in_8bit(trained)
    try:
        return compile_model(
            model, x, preprocessing=preprocessing, arithmetic=arithmetic, verify=False
        ).graph
    except CompileError as error:
        raise SignbitError(f"{(trained.spec or {}).get('name', 'the network')}: {error}") from error


def _in_8bit(trained: TrainedModel) -> nn.Module:
    """Real-valued layers in 8 bits: the ranges of random pixels do, for nothing is predicted."""
    from signbit.calibration import calibrate
    from signbit.eight_bit import to_8bit

    model = to_8bit(trained.model, example_input(trained))
    calibrate(model, [example_input(trained, 4)])
    return model


def _told_apart(networks: Sequence[_Network], given: Sequence[str]) -> list[_Network]:
    """Networks of one name are called by what was given on the command line."""
    names = [each.workload.name for each in networks]
    found = []
    for each, text in zip(networks, given, strict=True):
        name = each.workload.name
        if names.count(name) > 1:
            name = _accuracy(text)[0]
        found.append(replace(each, workload=replace(each.workload, name=name)))
    final = [each.workload.name for each in found]
    for name in final:
        if final.count(name) > 1:
            raise SignbitError(f"{name} is given twice")
    return found


# --- results ---


def _sweep(
    workloads: Sequence[Workload], array: SystolicArray, grid: dict[str, list[int]]
) -> list[dict[str, Any]]:
    """Every design's cycles, and how many times as many each rival takes; shows a progress bar."""
    from rich.progress import Progress

    from signbit.hardware.sweep import designs, sweep
    from signbit.hardware.systolic import DATAFLOWS

    arrays = designs(
        array,
        dataflow=list(DATAFLOWS),
        size=grid["sizes"],
        binary_lanes=grid["lanes"],
        vector_width=grid["vectors"],
    )
    found: list[list[SweepPoint]] = []
    with Progress(console=stderr(), transient=True) as progress:
        for workload in workloads:
            task = progress.add_task(f"{len(arrays)} designs, {workload.name}", total=len(arrays))
            found.append(
                sweep(workload, arrays, lambda done, _, t=task: progress.update(t, completed=done))
            )
    names = [each.name for each in workloads]
    return [_point(points, names) for points in zip(*found, strict=True)]


def _point(points: Sequence[SweepPoint], names: Sequence[str]) -> dict[str, Any]:
    first, *rivals = points
    array = first.array
    return {
        "dataflow": array.dataflow,
        "rows": array.rows,
        "columns": array.columns,
        "binary_lanes": array.binary_lanes,
        "vector_width": array.vector_width,
        "cycles": first.cycles,
        "utilisation": first.utilisation,
        "unfit": {
            name: point.unfit
            for name, point in zip(names, points, strict=True)
            if point.unfit is not None
        },
        "ratios": {
            name: each.cycles / first.cycles if each.cycles and first.cycles else None
            for name, each in zip(names[1:], rivals, strict=True)
        },
    }


def _report(
    evaluations: Sequence[Evaluation], designs: Sequence[Any], points: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    from signbit.hardware.report import ratios

    array, table, *others = map(_fields, designs)
    return {
        "array": array,
        "energy": table,
        "other_designs": others,
        "networks": [each.to_dict() for each in evaluations],
        "ratios": ratios(evaluations),
        "sweep": list(points),
    }


def _fields(design: Any) -> dict[str, Any]:
    """All parameters of a preset, in base units, as JSON can hold them."""
    from dataclasses import asdict

    return {
        key: "unlimited" if value == math.inf else value for key, value in asdict(design).items()
    }


def _write(
    output: Path,
    evaluations: Sequence[Evaluation],
    report: dict[str, Any],
    array: SystolicArray,
    assumptions: Sequence[str],
) -> None:
    from signbit.hardware.report import render_page
    from signbit.plots.hardware import plot_accuracy_cycles, plot_sweep, plot_timeline
    from signbit.training.files import write_json, write_text

    write_json(output / "hardware.json", report)
    pictures: dict[str, tuple[bytes, str]] = {}
    points = [
        {"label": each.name, "cycles": each.estimate.cycles, "accuracy": each.workload.accuracy}
        for each in evaluations
        if each.workload.accuracy is not None
    ]
    if points:
        png = plot_accuracy_cycles(points, output / "pareto.png", title=f"on {array.name}")
        pictures["Accuracy against cycles"] = png, "Dotted: the networks that none beats in both."
    for each in evaluations:
        file = output / f"timeline-{re.sub(r'[^A-Za-z0-9._-]+', '-', each.name)}.png"
        layers = [layer.to_dict() for layer in each.estimate.layers]
        png = plot_timeline(layers, file, title=f"{each.name} on {array.name}")
        caption = f"{each.estimate.cycles:,} cycles an image."
        pictures[f"Timeline of {each.name}"] = png, caption
    if report["sweep"]:
        write_text(output / "sweep.csv", _csv(report["sweep"]))
        drawn = [each for each in report["sweep"] if not each["unfit"]]
        if drawn:
            title = f"{evaluations[0].name}, {len(drawn)} designs on top of {array.name}"
            png = plot_sweep(drawn, output / "sweep.png", title=title)
            left_out = len(report["sweep"]) - len(drawn)
            caption = "A dot is a design; darker ones have more lanes."
            if left_out:
                caption += f" {left_out} designs left out, which a layer does not fit."
            pictures["Many designs"] = png, caption
    title = f"{evaluations[0].name} on {array.name}"
    page = render_page(title, assumptions, evaluations, pictures)
    write_text(output / "hardware.html", page)


def _assumptions(evaluations: Sequence[Evaluation], designs: Sequence[Any]) -> list[str]:
    """What the figures rest on, a sentence each."""
    from signbit.hardware import presets

    array, table, *others = designs
    real = [
        each.name
        for each in evaluations
        if any(w.product and max(w.product.weight_bits, w.product.input_bits) > 8
               for w in each.workload.layers)
    ]  # fmt: skip
    flattered = [
        f"{', '.join(real)}: has MACs of more than 8 bits, and a PE is taken to do one a cycle "
        "all the same; compare with the 8-bit file (signbit compare writes one)."
    ]
    free = ", ".join(array.output_stage) or "nothing"
    return [
        f"{array.name}: {array.rows} x {array.columns} PEs, {array.dataflow.replace('_', ' ')}, "
        f"{array.binary_lanes} one-bit lanes a PE packed by {array.packing}, "
        f"{array.vector_width} vector elements a cycle ({array.vector_schedule}); folds "
        f"{array.folds}, streams {array.streaming}; free where sums leave the array: {free}. "
        "Buffers (input, weights, output): "
        + ", ".join(
            _memory(each, presets.UNLIMITED)
            for each in (array.input_buffer, array.weight_buffer, array.output_buffer)
        )
        + f"; DRAM: {_bandwidth(array.dram_bandwidth, presets.UNLIMITED)}.",
        "One image. Every activation counts as read and written once; MACs with both operands of "
        "one bit are binary.",
        f"Energy: {table.name} ({table.node}), from low to high; the XNOR, shift and select "
        "figures are our estimates. Clocks, control and leakage are not in it. Memory on the chip "
        f"is {_memory(table.on_chip, presets.UNLIMITED)} here, whatever buffers the array has.",
        *(flattered if real else []),
        *map(_words, others),
    ]


def _words(design: Any) -> str:
    """The parameters of a pipeline or photonic preset, in base units (s, W, J, bit)."""
    name, *fields = _fields(design).items()
    words = [f"{key} {value:g}" for key, value in fields if isinstance(value, (int, float))]
    text = f"{name[1]}, in base units: {', '.join(words)}."
    if getattr(design, "variant", "") == "simulator-parity":
        text += (
            " Constants as they were noted of the authors' simulator, doubtful ones too: an "
            "adc_energy a million times the converter's power over a symbol makes its watts."
        )
    return text


def _memory(bits: float, unlimited: str) -> str:
    from signbit.hardware.report import size

    return unlimited if bits == math.inf else size(bits)


def _bandwidth(bits: float, unlimited: str) -> str:
    return unlimited if bits == math.inf else f"{bits / 8:g} B a cycle"


def _csv(points: Sequence[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    lines = []
    for point in points:
        line = {key: value for key, value in point.items() if key not in ("ratios", "unfit")}
        line |= {f"{rival} / model": ratio for rival, ratio in point["ratios"].items()}
        lines.append(line | {"unfit": "; ".join(point["unfit"].values())})
    writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _print(evaluations: Sequence[Evaluation], report: dict[str, Any], array: SystolicArray) -> None:
    from rich.table import Column

    from signbit.hardware.report import LAYER_COLUMNS, layer_cells, total_cells

    first = evaluations[0]
    narrow = (0, 2, 6, 7)
    title = f"{first.name} on {array.name}, one image"

    def table(chosen: Sequence[int]) -> Any:
        columns = [Column(LAYER_COLUMNS[i], justify="left" if i < 3 else "right") for i in chosen]
        made = plain_table(*columns, title=title)
        for cells in layer_cells(first):
            made.add_row(*(cells[i] for i in chosen))
        return made

    print_fitting(table(range(len(LAYER_COLUMNS))), table(narrow))
    totals = plain_table(
        "total", *(Column(each.name, justify="right", overflow="fold") for each in evaluations)
    )
    for cells in total_cells(evaluations):
        totals.add_row(*cells)
    stdout().print(totals)
    for each in report["ratios"]:
        body = each["body_cycles"]
        inner = "" if body is None else f" ({body:.2f} times without stem and head)"
        stdout().print(
            f"{each['rival']} takes {each['cycles']:.2f} times the cycles of {first.name}{inner}",
            highlight=False,
            soft_wrap=True,
        )

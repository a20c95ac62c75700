"""``signbit compare``."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbit.cli.compile import compile_trained
from signbit.cli.console import JsonOption, bytes_text, print_json, stderr, stdout
from signbit.cli.networks import data_fields, load_data, load_network, require_fit
from signbit.cli.recipes import find_recipe
from signbit.cli.run import DENSE, dense_runner
from signbit.errors import SignbitError

if TYPE_CHECKING:
    from rich.table import Table

    from signbit.rivals.compare import Row
    from signbit.tasks.base import Predict, Task
    from signbit.training import Recipe, TrainedModel

# task -> its recipe on embedded data, and on data of one's own; NAME-float trains the rival
RECIPES = {
    "classification": ("digits", "cifar10-bineal"),
    "detection": ("detection-demo", "bccd-centernet"),
    "segmentation": ("segmentation-demo", "camvid-fcn"),
    "superresolution": ("superresolution-demo", "sr-x2"),
    "matching": ("matching-demo", "matching"),
}
_PREVIEWS = 3


def compare(
    task: Annotated[str, typer.Argument(help=", ".join(RECIPES) + ".")],
    data: Annotated[Path | None, typer.Option(help="Where the data set lies.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe of the binary network; default: the task's.")
    ] = None,
    rival: Annotated[
        str | None, typer.Option(help="Recipe of the rival; default: RECIPE-float.")
    ] = None,
    binary: Annotated[
        Path | None, typer.Option(help="Instead of training: a run of a binary network.")
    ] = None,
    real: Annotated[
        Path | None,
        typer.Option("--float", help="Instead of training: a run in full precision."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the results; default compare/TASK.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Threads to time with; default: 1 and all.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=5, help="Timed runs of each network.")] = 30,
    isa: Annotated[
        str | None,
        typer.Option(
            help="Hold signbit to an instruction set; avx2 and avx512* hold OpenVINO too."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change both recipes."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train a binary network and its rival, make the rival 8-bit, score and time all three.

    A run that was interrupted goes on where it was: use the same --output.
    """
    if task not in RECIPES:
        from signbit.quantizers import nearest_name

        known = list(RECIPES)
        raise SignbitError(
            f"unknown task {task!r}{nearest_name(task, known)}; known: {', '.join(known)}"
        )
    counts = _require_machine(threads, isa)
    from signbit.rivals.engines import prepare_rivals
    from signbit.tasks import get_task
    from signbit.training.output import require_writable

    output = output or Path("compare") / task
    require_writable(output)
    name = recipe or RECIPES[task][data is not None]
    given = {"binary": binary, "float": real}
    words = {"binary": name, "float": rival or f"{name.removesuffix('.yaml')}-float"}
    _require_use(given, recipe, rival, overrides)
    trained = {kind: load_network(path) for kind, path in given.items() if path is not None}
    for kind, each in trained.items():
        _require_kind(each, task, kind)
    # Both recipes are checked before either is followed.
    recipes = {
        kind: _recipe(words[kind], task, output / kind, overrides or ())
        for kind in given
        if kind not in trained
    }
    for kind, checked in recipes.items():
        trained[kind] = _train(checked, data, output / kind)
        _require_kind(trained[kind], task, kind)
    network, opponent = trained["binary"], trained["float"]
    fields = _common_data(network, opponent)
    source = load_data(network.info, data)
    for kind, each in trained.items():
        path = given[kind] or output / kind
        require_fit(path, source, each.input_shape, each.class_names)

    file = output / "model.signbit"
    compiled = compile_trained(network, file)
    stderr().print(f"compiled {file}: {compiled['verify']}", highlight=False, soft_wrap=True)
    prepare_rivals(isa)
    from signbit.rivals.compare import compare as run_comparison

    the_task = get_task(task)
    rows, predicts = run_comparison(
        the_task,
        source,
        fields,
        file,
        opponent,
        output,
        threads=counts,
        rounds=rounds,
        isa=isa,
        say=lambda text: stderr().print(text, highlight=False, soft_wrap=True),
    )
    report = _write_numbers(the_task, rows, source, network, opponent, output, isa, rounds)
    pictures = _previews(the_task, source, fields, file, predicts, output)
    _write_page(the_task, rows, report, pictures, output)
    if json:
        print_json(report)
        return
    stdout().print(_table(the_task, rows))
    difference = report["binary_minus_8bit"]
    stdout().print(
        f"binary minus 8-bit, {the_task.metric}: {difference['value']:+.4f} "
        f"({difference['interval'][0]:+.4f} to {difference['interval'][1]:+.4f}, paired)",
        highlight=False,
    )
    stderr().print(f"report: {output / 'report.html'}", style="bold", highlight=False)


def _require_machine(threads: list[int] | None, isa: str | None) -> list[int]:
    """Check that this machine can compare as was asked; the numbers of threads."""
    import os
    from importlib.util import find_spec

    from signbit.runtime import available_threads, instruction_sets

    missing = [name for name in ("onnx", "onnxruntime", "openvino") if find_spec(name) is None]
    if missing:
        raise SignbitError(
            f'comparing needs {", ".join(missing)}: pip install "signbit[train,bench]"'
        )
    if not hasattr(os, "sched_setaffinity"):
        raise SignbitError("comparing pins threads to CPUs, which this system does not offer")
    if isa is not None and isa not in instruction_sets():
        raise SignbitError(f"--isa {isa}: this machine has {', '.join(instruction_sets())}")
    most = available_threads()
    if threads and max(threads) > most:
        raise SignbitError(f"--threads {max(threads)}: this process may use {most} CPUs")
    return sorted(set(threads or (1, most)))


def _require_use(
    given: dict[str, Path | None],
    recipe: str | None,
    rival: str | None,
    overrides: list[str] | None,
) -> None:
    """Check that no option would do nothing."""
    for option, value, kind in (("--recipe", recipe, "binary"), ("--rival", rival, "float")):
        if value is not None and given[kind] is not None:
            raise SignbitError(f"{option}: --{kind} gives a network that is trained already")
    if overrides and all(given.values()):
        raise SignbitError("--set: both networks are trained already")


def _recipe(words: str, task: str, folder: Path, overrides: Any) -> Recipe:
    """A recipe, checked as far as can be without its data."""
    from signbit.training import load_recipe
    from signbit.training.checks import check_data, check_machine, check_model
    from signbit.training.output import prepare_output

    recipe = load_recipe(find_recipe(words), overrides)
    if recipe.task != task:
        raise SignbitError(f"{words} is a recipe of {recipe.task}, not of {task}")
    check_data(recipe)
    check_model(recipe.model)
    check_machine(recipe)
    prepare_output(folder, recipe, (folder / "recipe.resolved.yaml").exists())
    return recipe


def _train(recipe: Recipe, data: Path | None, folder: Path) -> TrainedModel:
    """The network of a recipe: from the folder where it is complete, else trained there."""
    from signbit.tasks import get_task
    from signbit.training import load_trained, train

    if (folder / "model.pt").exists():
        stderr().print(f"{folder}: trained before", highlight=False)
        return load_trained(folder)
    source = get_task(recipe.task).load(recipe.data.model_dump(), data)
    stderr().print(f"training {recipe.model.name} on {source.name}", style="bold")
    resume = (folder / "recipe.resolved.yaml").exists()
    return train(recipe, source, folder, resume=resume, console=stderr()).trained


def _require_kind(trained: TrainedModel, task: str, kind: str) -> None:
    """Check that a network is of the task, and binary or not as it should be."""
    from signbit.nn.binary import BinaryLayer

    name = (trained.spec or {}).get("name", "the network")
    found = trained.info.get("task", "classification")
    if found != task:
        raise SignbitError(f"--{kind}: {name} was trained for {found}, not for {task}")
    binary = any(isinstance(module, BinaryLayer) for module in trained.model.modules())
    if binary != (kind == "binary"):
        raise SignbitError(
            f"--{kind}: {name} has {'' if binary else 'no '}binary layers; --binary takes a "
            "network with some and --float one without"
        )


def _common_data(network: TrainedModel, opponent: TrainedModel) -> dict[str, Any]:
    """What both recipes say of the data; batches and augmentation may differ."""
    fields, others = data_fields(network.info), data_fields(opponent.info)
    for name in ("name", "val_size", "image_size", "scale", "options"):
        if fields[name] != others[name]:
            raise SignbitError(
                f"data.{name} was {fields[name]!r} for the binary network and {others[name]!r} "
                "for its rival: they cannot be scored on the same examples"
            )
    epochs = [each.info.get("metrics", {}).get("epochs") for each in (network, opponent)]
    if epochs[0] != epochs[1]:
        stderr().print(
            f"not the same budget: {epochs[0]} epochs and {epochs[1]} of the rival", style="yellow"
        )
    return fields


class _Session:
    """What draws pictures takes a session: this one's outputs come from another engine."""

    def __init__(self, like: Any, predict: Predict) -> None:
        self.metadata, self.input_shape = like.metadata, like.input_shape
        self.output_scales = [1.0] * len(like.output_scales)
        self._predict = predict

    def __call__(self, pixels: Any) -> Any:
        outputs = self._predict(pixels if pixels.ndim == 4 else pixels[None])
        return outputs[0] if len(outputs) == 1 else outputs


def _previews(
    task: Task,
    source: Any,
    fields: dict[str, Any],
    file: Path,
    predicts: dict[str, Predict],
    output: Path,
) -> dict[str, list[Path]]:
    """Pictures of a few test examples by each kind of network."""
    from signbit.runtime import load

    if task.name not in DENSE:
        return {}
    examples = task.examples(source, "test", fields, False)
    chosen = [len(examples) * i // _PREVIEWS for i in range(min(_PREVIEWS, len(examples)))]
    inputs = []
    for index in sorted(set(chosen)):
        images = task.images(source, "test", fields, index)
        several = len(images) > 1
        inputs += [
            (f"test-{index}-{k}" if several else f"test-{index}", image)
            for k, image in enumerate(images)
        ]
    session = load(file)
    found = {}
    for kind, predict in predicts.items():
        folder = output / "previews" / kind.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        dense_runner(task.name)(_Session(session, predict), inputs, folder)
        found[kind] = sorted(folder.glob("*.png"))
    return found


def _write_numbers(
    task: Task,
    rows: list[Row],
    source: Any,
    network: TrainedModel,
    opponent: TrainedModel,
    output: Path,
    isa: str | None,
    rounds: int,
) -> dict[str, Any]:
    from importlib.metadata import version

    import signbit
    from signbit.rivals.compare import BINARY, INT8, as_table, paired_difference
    from signbit.runtime.benchmark import cpu_name
    from signbit.training.files import write_json, write_text

    table = as_table(task, rows)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_text(output / "compare.csv", buffer.getvalue())
    # Against the form that scores best: the times are relative to the fastest one.
    eight = [row for row in rows if row.network == INT8]
    best = max(eight, key=lambda row: row.scores[task.metric][0])
    binary = next(r for r in rows if r.network == BINARY)
    value, low, high = paired_difference(task, binary.records, best.records)
    _, height, width = source.input_shape
    report = {
        "task": task.name,
        "data": source.name,
        "metric": task.metric,
        "image": [height, width],
        "cpu": cpu_name(),
        "isa_cap": isa,
        "rounds": rounds,
        "versions": {
            "signbit": signbit.__version__,
            **{name: version(name) for name in ("openvino", "onnxruntime", "onnx", "torch")},
        },
        "binary": network.spec,
        "float": opponent.spec,
        "binary_minus_8bit": {
            "value": value,
            "interval": [low, high],
            "engine": best.engine,
            "variant": best.variant,
        },
        "rows": table,
    }
    write_json(output / "compare.json", report)
    return report


def _write_page(
    task: Task,
    rows: list[Row],
    report: dict[str, Any],
    previews: dict[str, list[Path]],
    output: Path,
) -> None:
    from signbit.plots import plot_pareto, render_report
    from signbit.training.files import write_text

    first = min(rows[0].ms)
    height, width = report["image"]
    points = [
        {
            "label": _label(row),
            "kind": row.network,
            "ms": row.ms[first].median,
            "value": row.scores[task.metric][0],
            "low": row.scores[task.metric][1],
            "high": row.scores[task.metric][2],
        }
        for row in rows
    ]
    title = f"{task.name} on {report['data']}, {height}x{width} pixels, {report['cpu']}"
    pareto = plot_pareto(
        points, output / "pareto.png", metric=task.metric, threads=first, title=title
    )
    unit = task.units[task.metric]
    numbers = []
    for row in rows:
        times = ", ".join(
            f"{count} thread{'s' if count > 1 else ''}: {ms.median:.2f} ms"
            f" ({row.speed[count].median:.2f}x)"
            for count, ms in row.ms.items()
        )
        score, bottom, top = row.scores[task.metric]
        numbers.append(
            (
                _label(row),
                f"{unit.format(score)} ({unit.format(bottom)} to {unit.format(top)})",
                f"{times}; {bytes_text(row.bytes)}",
            )
        )
    value, (low, high) = (report["binary_minus_8bit"][key] for key in ("value", "interval"))
    numbers.append(
        ("binary minus 8-bit", f"{value:+.4f} ({low:+.4f} to {high:+.4f})", "paired, 95 %")
    )
    pictures = {"Score and time": (pareto, "Bars: 95 % of 1,000 draws of the test examples.")}
    for kind, files in previews.items():
        for path in files:
            pictures[f"{kind}: {path.stem}"] = (path.read_bytes(), "")
    networks = " beside ".join((report[kind] or {}).get("name", "") for kind in ("binary", "float"))
    lead = (
        f"{networks} on {report['data']}, {len(rows[0].records)} test examples; times relative to "
        "the fastest 8-bit engine."
    )
    page = render_report(f"signbit compare {task.name}", lead, numbers, pictures)
    write_text(output / "report.html", page)


def _label(row: Row) -> str:
    return ", ".join(part for part in (row.network, row.engine, row.variant) if part)


def _table(task: Task, rows: list[Row]) -> Table:
    from rich.table import Table

    table = Table("network", "engine", "8-bit form", task.metric, "95 %")
    counts = list(rows[0].ms)
    for count in counts:
        table.add_column(f"ms, {count} thread{'s' if count > 1 else ''}", justify="right")
        table.add_column("times 8-bit", justify="right")
    table.add_column("file", justify="right")
    unit = task.units[task.metric]
    for row in rows:
        value, low, high = (unit.format(each) for each in row.scores[task.metric])
        cells = [row.network, row.engine, row.variant, value, f"{low} to {high}"]
        for count in counts:
            cells += [f"{row.ms[count].median:.2f}", str(row.speed[count])]
        table.add_row(*cells, bytes_text(row.bytes))
    return table

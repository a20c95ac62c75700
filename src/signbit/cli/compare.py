"""``signbit compare``."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbit.cli.compile import compile_trained
from signbit.cli.console import JsonOption, bytes_text, print_json, stderr, stdout
from signbit.cli.networks import data_fields, load_data, load_network
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
        typer.Option(help="Cap signbit's instruction set; avx2 caps OpenVINO's too."),
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
    _require_engines()
    from signbit.rivals.engines import prepare_rivals
    from signbit.runtime import available_threads
    from signbit.tasks import get_task
    from signbit.training.output import require_writable

    prepare_rivals(isa)
    output = output or Path("compare") / task
    require_writable(output)
    name = recipe or RECIPES[task][data is not None]
    trained = {
        "binary": binary and load_network(binary),
        "float": real and load_network(real),
    }
    recipes = {"binary": name, "float": rival or f"{_bare(name)}-float"}
    for kind, words in recipes.items():
        if trained[kind] is None:
            trained[kind] = _train(words, task, data, output / kind, overrides or ())
    network, opponent = trained["binary"], trained["float"]
    assert network is not None
    assert opponent is not None
    _require_task(network, task, "the binary network")
    _require_task(opponent, task, "the rival")
    if not _is_binary(network) or _is_binary(opponent):
        raise SignbitError(
            "--binary takes a network with binary layers and --float one without: recipes "
            f"{recipes['binary']} and {recipes['float']}"
        )

    file = output / "model.signbit"
    compiled = compile_trained(network, file)
    stderr().print(f"compiled {file}: {compiled['verify']}", highlight=False, soft_wrap=True)
    source = load_data(network.info, data)
    fields = data_fields(network.info)
    from signbit.rivals.compare import compare as run_comparison

    the_task = get_task(task)
    rows, predicts = run_comparison(
        the_task,
        source,
        fields,
        file,
        opponent,
        output,
        threads=threads or sorted({1, available_threads()}),
        rounds=rounds,
        isa=isa,
        say=lambda text: stderr().print(text, highlight=False, soft_wrap=True),
    )
    pictures = _previews(the_task, source, fields, file, predicts, output)
    report = _write(the_task, rows, source, network, opponent, pictures, output)
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


def _require_engines() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnxruntime", "openvino") if find_spec(name) is None]
    if missing:
        raise SignbitError(
            f'comparing needs {", ".join(missing)}: pip install "signbit[train,bench]"'
        )


def _bare(name: str) -> str:
    return name.removesuffix(".yaml")


def _train(words: str, task: str, data: Path | None, folder: Path, overrides: Any) -> TrainedModel:
    """The network of a recipe: from the folder where it is complete, else trained there."""
    from signbit.tasks import get_task
    from signbit.training import load_recipe, load_trained, train
    from signbit.training.checks import check_data, check_machine, check_model
    from signbit.training.output import prepare_output

    recipe: Recipe = load_recipe(find_recipe(words), overrides)
    if recipe.task != task:
        raise SignbitError(f"{words} is a recipe of {recipe.task}, not of {task}")
    resume = (folder / "recipe.resolved.yaml").exists()
    prepare_output(folder, recipe, resume)
    if (folder / "model.pt").exists():
        stderr().print(f"{folder}: trained before", highlight=False)
        return load_trained(folder)
    check_data(recipe)
    check_model(recipe.model)
    check_machine(recipe)
    source = get_task(task).load(recipe.data.model_dump(), data)
    stderr().print(f"training {recipe.model.name} on {source.name}", style="bold")
    return train(recipe, source, folder, resume=resume, console=stderr()).trained


def _require_task(trained: TrainedModel, task: str, what: str) -> None:
    found = trained.info.get("task", "classification")
    if found != task:
        raise SignbitError(f"{what} was trained for {found}, not for {task}")


def _is_binary(trained: TrainedModel) -> bool:
    from signbit.nn.binary import BinaryLayer

    return any(isinstance(module, BinaryLayer) for module in trained.model.modules())


class _Session:
    """What draws pictures takes a session: this one's outputs come from another engine."""

    def __init__(self, like: Any, predict: Predict) -> None:
        self.metadata, self.input_shape = like.metadata, like.input_shape
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
        pixels, _ = examples.example(index, None)
        inputs += [(f"test-{index}-{k}" if len(pixels) > 1 else f"test-{index}", image)
                   for k, image in enumerate(pixels)]  # fmt: skip
    session = load(file)
    found = {}
    for kind, predict in predicts.items():
        folder = output / "previews" / kind.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        dense_runner(task.name)(_Session(session, predict), inputs, folder)
        found[kind] = sorted(folder.glob("*.png"))
    return found


def _write(
    task: Task,
    rows: list[Row],
    source: Any,
    network: TrainedModel,
    opponent: TrainedModel,
    previews: dict[str, list[Path]],
    output: Path,
) -> dict[str, Any]:
    from signbit.plots import plot_pareto, render_report
    from signbit.rivals.compare import BINARY, INT8, as_table, paired_difference
    from signbit.runtime.benchmark import cpu_name
    from signbit.training.files import write_json, write_text

    table = as_table(task, rows)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_text(output / "compare.csv", buffer.getvalue())
    first = min(rows[0].ms)
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
    title = f"{task.name} on {source.name}, {height}x{width} pixels, {cpu_name()}"
    pareto = plot_pareto(points, output / "pareto.png", metric=task.metric, title=title)
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
    numbers.append(
        ("binary minus 8-bit", f"{value:+.4f} ({low:+.4f} to {high:+.4f})", "paired, 95 %")
    )
    pictures = {"Score and time": (pareto, "Bars: 95 % of 1,000 draws of the test examples.")}
    for kind, files in previews.items():
        for path in files:
            pictures[f"{kind}: {path.stem}"] = (path.read_bytes(), "")
    lead = (
        f"{(network.spec or {}).get('name')} beside {(opponent.spec or {}).get('name')} on "
        f"{source.name}, {len(rows[0].records)} test examples; times relative to the fastest "
        "8-bit engine."
    )
    write_text(
        output / "report.html",
        render_report(f"signbit compare {task.name}", lead, numbers, pictures),
    )
    return report


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

"""``signbit eval`` for networks that do not classify images."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signbit.cli.console import print_json, print_pairs, stderr
from signbit.cli.networks import data_fields, load_data, load_network, require_fit
from signbit.errors import SignbitError

if TYPE_CHECKING:
    from signbit.data.base import Source
    from signbit.tasks.base import Predict, Task


def dense(
    task: Task,
    target: Path,
    data: Path | None,
    engine: Path | None,
    split: str,
    limit: int | None,
    threads: int | None,
    json: bool,
) -> None:
    """Score a run, a compiled file, or both, and print it; the arguments are the verb's."""
    from signbit.runtime import load
    from signbit.tasks.base import bootstrap, engine_predict, torch_predict

    file = target if target.suffix == ".signbit" else engine
    if target.suffix == ".signbit" and engine is not None:
        raise SignbitError("--engine: the first argument is a .signbit file already")
    predicts: dict[str, Predict] = {}
    if target.suffix != ".signbit":
        trained = load_network(target)
        info, shape, names = trained.info, trained.input_shape, trained.class_names
        predicts["PyTorch"] = torch_predict(trained.model, trained.mean, trained.std)
    if file is not None:
        session = load(file, threads=threads)
        if target == file:
            info, shape = session.metadata, session.input_shape
            names = session.metadata.get("class_names")
        predicts["engine"] = engine_predict(session)
    source = load_data(info, data)
    require_fit(target, source, shape, names)
    fields = data_fields(info)
    report: dict[str, Any] = {"target": str(target), "data": source.name, "split": split}
    for name, predict in predicts.items():
        records = _records(task, predict, source, split, fields, limit, name)
        report |= {"examples": len(records)}
        intervals = bootstrap(task, records)
        report[name.lower()] = {
            score: {"value": value, "interval": list(intervals[score])}
            for score, value in task.summarize(records).items()
        }
    if file is not None:
        report |= {"file": str(file), "isa": session.isa, "threads": session.threads}
    if json:
        print_json(report)
        return
    pairs = {"examples": f"{report['examples']} ({source.name}, {split})"}
    for name in predicts:
        for score, found in report[name.lower()].items():
            unit = task.units[score]
            low, high = (unit.format(bound) for bound in found["interval"])
            pairs[f"{score}, {name}"] = f"{unit.format(found['value'])}  ({low} to {high})"
    print_pairs(f"{task.name}: {target}", pairs)
    stderr().print(
        "in brackets: 95 % of 1,000 draws of the examples, with replacement", style="dim"
    )


def _records(
    task: Task,
    predict: Predict,
    source: Source,
    split: str,
    fields: dict[str, Any],
    limit: int | None,
    name: str,
) -> list[Any]:
    from rich.progress import track

    stream = islice(task.evaluate(predict, source, split, fields), limit)
    return list(track(stream, f"scoring, {name}", console=stderr(), transient=True))

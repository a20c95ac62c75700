"""``signbit eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbit.cli.console import JsonOption, print_json, print_pairs, stderr
from signbit.cli.evaluate_dense import dense
from signbit.cli.networks import check_split, load_data, load_network, require_fit, task_of
from signbit.errors import SignbitError

if TYPE_CHECKING:
    from signbit.data import DataSource, ImageDataset
    from signbit.tasks.base import Task

_CHUNK = 100  # images at a time in the reference


def evaluate(
    target: Annotated[Path, typer.Argument(help="A run's folder, model.pt, or a .signbit file.")],
    data: Annotated[Path | None, typer.Option(help="Where the data set lies.")] = None,
    engine: Annotated[
        Path | None, typer.Option(help="A .signbit file to compare the network with.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the engine.")] = None,
    saturations: Annotated[
        bool,
        typer.Option(
            "--saturations",
            help="Count what an integer program saturates, by its NumPy reference (slow).",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure accuracy: in PyTorch, in the engine, or both and their difference."""
    check_split(split)
    if (task := _task(target)).name != "classification":
        if saturations:
            raise SignbitError("--saturations: of classifiers alone")
        dense(task, target, data, engine, split, limit, threads, json)
        return
    if target.suffix == ".signbit":
        if engine is not None:
            raise SignbitError("--engine: the first argument is a .signbit file already")
        result, dataset = _engine_only(target, data, split, limit, threads)
    else:
        if saturations and engine is None:
            raise SignbitError("--saturations: needs a .signbit file, as the target or --engine")
        result, dataset = _network(target, data, engine, split, limit, threads)
    if saturations:
        result["saturations"] = _saturations(engine or target, dataset)
    if json:
        print_json(result)
        return
    pairs = {"images": f"{result['images']} ({result['data']}, {split})"}
    for key, name in (("pytorch", "PyTorch"), ("engine", "engine")):
        if f"{key}_accuracy" in result:
            low, high = result[f"{key}_interval"]
            pairs[name] = f"{result[f'{key}_accuracy']:.2%}  ({low:.2%} to {high:.2%})"
    if "difference_points" in result:
        pairs["difference"] = f"{result['difference_points']:+.2f} points"
        pairs["same prediction"] = f"{result['equal_predictions']} of {result['images']}"
    if saturations:
        counts = result["saturations"]
        where = ", ".join(f"{path} {count}" for path, count in counts.items())
        pairs["saturations"] = where or "none"
    print_pairs(f"accuracy of {target}", pairs)


def _task(target: Path) -> Task:
    if target.suffix == ".signbit":
        from signbit.runtime import load

        return task_of(load(target).metadata)
    return task_of(load_network(target).info)


def _saturations(file: Path, dataset: ImageDataset) -> dict[str, int]:
    """How many numbers each layer of an integer program saturates over the images."""
    from rich.progress import track

    from signbit.compiler import read_graph, reference

    graph = read_graph(file)
    if graph.metadata.get("arithmetic") != "integer":
        raise SignbitError(f"--saturations: {file} is not an integer program")
    images = dataset.images
    batches = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
    shown = track(batches, "counting saturations", console=stderr(), transient=True)
    return reference.count_saturations(graph, shown)


def _engine_only(
    path: Path, data: Path | None, split: str, limit: int | None, threads: int | None
) -> tuple[dict[str, Any], ImageDataset]:
    from signbit.runtime import load
    from signbit.tasks.classification import evaluate_engine

    session = load(path, threads=threads)
    metadata = session.metadata
    source = load_data(metadata, data)
    require_fit(path, source, tuple(session.input_shape), metadata.get("class_names"))
    dataset = _images(source, split, limit)
    result = evaluate_engine(session, dataset)
    report = {
        "target": str(path),
        "data": source.name,
        "split": split,
        "images": len(dataset),
        "engine_accuracy": result.accuracy,
        "engine_interval": result.interval(),
        "isa": session.isa,
        "threads": session.threads,
    }
    return report, dataset


def _network(
    path: Path,
    data: Path | None,
    engine: Path | None,
    split: str,
    limit: int | None,
    threads: int | None,
) -> tuple[dict[str, Any], ImageDataset]:
    from signbit.tasks import classification

    session = None
    if engine is not None:
        from signbit.runtime import load

        session = load(engine, threads=threads)
    trained = load_network(path)
    source = load_data(trained.info, data)
    require_fit(path, source, trained.input_shape, trained.class_names)
    dataset = _images(source, split, limit)
    torch_result = classification.evaluate(trained.model, dataset, trained.mean, trained.std)
    result: dict[str, Any] = {
        "target": str(path),
        "data": source.name,
        "split": split,
        "images": len(dataset),
        "pytorch_accuracy": torch_result.accuracy,
        "pytorch_interval": torch_result.interval(),
    }
    if session is not None:
        engine_result = classification.evaluate_engine(session, dataset)
        equal = int((engine_result.predictions == torch_result.predictions).sum())
        result |= {
            "engine": str(engine),
            "engine_accuracy": engine_result.accuracy,
            "engine_interval": engine_result.interval(),
            "difference_points": 100 * (engine_result.accuracy - torch_result.accuracy),
            "equal_predictions": equal,
            "isa": session.isa,
            "threads": session.threads,
        }
    return result, dataset


def _images(source: DataSource, split: str, limit: int | None) -> ImageDataset:
    return (source if limit is None else source.limited(limit)).split(split)

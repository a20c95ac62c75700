"""``signbit demo``: train, compile, compare and time a network, and write a report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbit.cli.compile import compile_trained
from signbit.cli.console import JsonOption, bytes_text, print_json, print_pairs, stderr
from signbit.cli.recipes import find_recipe
from signbit.errors import SignbitError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from signbit.tasks.classification import Evaluation
    from signbit.training import Recipe, RunResult

RECIPE = "digits"


def demo(
    output: Annotated[
        Path, typer.Option(help="Folder for everything that the demo writes.")
    ] = Path("demo"),
    rounds: Annotated[int, typer.Option(min=5, help="Timed runs of each network.")] = 200,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change the recipe: stages.1.epochs=3"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train a binary network on handwritten digits, compile it, check it and time it."""
    started = time.perf_counter()
    console = stderr()

    def say(text: str) -> None:
        console.print(text, style="bold", highlight=False, soft_wrap=True)

    from signbit.data import load_source
    from signbit.training import load_recipe
    from signbit.training.output import require_writable

    recipe = load_recipe(find_recipe(RECIPE), overrides or ())
    require_writable(output)
    run_folder = output / "run"
    _require_demo(run_folder, recipe)
    from signbit.runtime import load
    from signbit.tasks import classification
    from signbit.training import train
    from signbit.training.checks import check_machine, check_model

    check_model(recipe.model)
    check_machine(recipe)
    if run_folder.exists():
        shutil.rmtree(run_folder)  # an earlier demo's
    source = load_source(
        recipe.data.name, val_size=recipe.data.val_size, image_size=recipe.data.image_size
    )
    say(f"1/3  training {recipe.model.name} on {len(source.train)} digits")
    result = train(recipe, source, run_folder, console=console)
    trained = result.trained

    say("2/3  compiling, and comparing with PyTorch")
    file = output / "model.signbit"
    compiled = compile_trained(trained, file)
    session = load(file, threads=1)
    in_torch = classification.evaluate(trained.model, source.test, trained.mean, trained.std)
    in_engine = classification.evaluate_engine(session, source.test)

    say("3/3  timing one image on one thread, the networks taking turns")
    times = _time_networks(result, session, source.test.images[:1], rounds)
    profile = session.profile(source.test.images[:1])
    numbers = _numbers(result, compiled, in_torch, in_engine, times, session)
    numbers["seconds"] = round(time.perf_counter() - started, 1)
    report = output / "report.html"
    rows = _rows(numbers)
    _write_report(report, result, rows, profile, in_engine, source)
    if json:
        print_json(numbers)
        return
    print_pairs("signbit demo", {name: f"{value}  {remark}" for name, value, remark in rows})
    say(f"report: {report}")


def _require_demo(folder: Path, recipe: Recipe) -> None:
    """Check that what lies in ``folder`` is an earlier demo's run, or nothing.

    Raises:
        SignbitError: it is something else, which the demo must not replace.
    """
    from signbit.training import load_recipe

    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        before = load_recipe(folder / "recipe.resolved.yaml")
    except SignbitError:
        before = None
    if before is None or (before.data.name, before.model.name) != (
        recipe.data.name,
        recipe.model.name,
    ):
        raise SignbitError(
            f"{folder} is not of an earlier demo with {recipe.model.name} on {recipe.data.name}, "
            "and would be deleted: choose another folder with --output"
        )


def _time_networks(
    result: RunResult, session: Any, pixels: np.ndarray, rounds: int
) -> dict[str, float]:
    """Median milliseconds for an image: this network in PyTorch, its real twin, and the engine."""
    import numpy as np
    import torch

    from signbit.data.normalize import normalize
    from signbit.training.trained import build_model

    trained = result.trained
    images = torch.from_numpy(normalize(pixels, trained.mean, trained.std)).contiguous()
    twin = build_model({**(trained.spec or {}), "name": "resnet18"}).eval()

    def in_torch(model: nn.Module, batch: Tensor) -> Callable[[], object]:
        def call() -> object:
            with torch.inference_mode():
                return model(batch)

        return call

    contiguous = trained.model.to(memory_format=torch.contiguous_format)
    calls: dict[str, Callable[[], object]] = {
        "pytorch": in_torch(contiguous, images),
        "pytorch_resnet18": in_torch(twin, images),
        "signbit": lambda: session(pixels),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    try:
        for turn in range(rounds + 5):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if turn >= 5:  # the first turns warm caches
                    samples[name].append(1000 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    return {name: float(np.median(values)) for name, values in samples.items()}


def _numbers(
    result: RunResult,
    compiled: dict[str, Any],
    in_torch: Evaluation,
    in_engine: Evaluation,
    times: dict[str, float],
    session: Any,
) -> dict[str, Any]:
    equal = int((in_torch.predictions == in_engine.predictions).sum())
    return {
        "model": result.trained.info["recipe"]["model"],
        "test_images": len(in_torch.predictions),
        "pytorch_accuracy": in_torch.accuracy,
        "engine_accuracy": in_engine.accuracy,
        "equal_predictions": equal,
        "file_bytes": compiled["bytes"],
        "float32_bytes": compiled["float32_bytes"],
        "size_ratio": compiled["ratio"],
        "verify": compiled["verify"],
        "ms": times,
        "isa": session.isa,
        "training_seconds": result.metrics["training_seconds"],
    }


def _rows(numbers: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What is shown to people, in the terminal and in the report: (what, value, remark)."""
    ms = numbers["ms"]
    width = numbers["model"]["width"]
    return [
        ("test accuracy, PyTorch", f"{numbers['pytorch_accuracy']:.2%}", ""),
        ("test accuracy, signbit", f"{numbers['engine_accuracy']:.2%}", "native engine"),
        (
            "same prediction",
            f"{numbers['equal_predictions']} of {numbers['test_images']}",
            "all test images",
        ),
        ("size, float32", bytes_text(numbers["float32_bytes"]), "state dict of the same network"),
        (
            "size, signbit",
            bytes_text(numbers["file_bytes"]),
            f"{numbers['size_ratio']:.1f} times smaller, the whole file",
        ),
        ("time, PyTorch float32", f"{ms['pytorch']:.3f} ms", "the same network, 1 image, 1 thread"),
        (
            "time, PyTorch ResNet-18",
            f"{ms['pytorch_resnet18']:.3f} ms",
            f"real-valued, width {width:g}, not trained; for its speed",
        ),
        (
            "time, signbit",
            f"{ms['signbit']:.3f} ms",
            f"{numbers['isa']}; {ms['pytorch'] / ms['signbit']:.1f} and "
            f"{ms['pytorch_resnet18'] / ms['signbit']:.1f} times faster",
        ),
        ("training", f"{numbers['training_seconds']:.0f} s", ""),
    ]


def _write_report(
    path: Path,
    result: RunResult,
    rows: list[tuple[str, str, str]],
    profile: list[dict[str, Any]],
    in_engine: Evaluation,
    source: Any,
) -> None:
    import numpy as np

    from signbit.plots import plot_curves, plot_profile, plot_samples, render_report
    from signbit.training.files import write_text

    wrong = np.flatnonzero(in_engine.predictions != source.test.labels)
    right = np.flatnonzero(in_engine.predictions == source.test.labels)
    chosen = np.concatenate([wrong[:10], right])[:30]
    samples = plot_samples(
        source.test.images[chosen],
        source.test.labels[chosen],
        in_engine.predictions[chosen],
        source.class_names,
    )
    pictures = {
        "Training": (plot_curves(result.history), "Stage one has binary activations only."),
        "Time a layer": (plot_profile(profile), "One image on one thread, in the native engine."),
        "Predictions": (
            samples,
            f"By the engine; mistakes first ({len(wrong)} of {len(source.test)}), in red with the "
            "right class in brackets.",
        ),
    }
    lead = (
        f"{result.trained.info['recipe']['model']['name']} on {source.name}: trained in PyTorch, "
        "compiled to one bit a weight, run by signbit's native engine."
    )
    write_text(path, render_report("signbit demo", lead, rows, pictures))

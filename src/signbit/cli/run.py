"""``signbit run``."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbit.cli.console import JsonOption, print_json, print_pairs, stderr, stdout
from signbit.errors import SessionError, SignbitError

if TYPE_CHECKING:
    import numpy as np

    from signbit.runtime import Session

# task -> what decodes and draws: (session, named images, folder) -> a dict an image (or pair)
DENSE = {
    "detection": "signbit.cli.run_detection:run_detection",
    "segmentation": "signbit.cli.run_segmentation:run_segmentation",
    "superresolution": "signbit.cli.run_superresolution:run_superresolution",
    "matching": "signbit.cli.run_matching:run_matching",
}


def run(
    file: Annotated[Path, typer.Argument(help="A .signbit file.")],
    source: Annotated[
        list[Path], typer.Argument(help="Pictures, folders or .npy files.", metavar="INPUT...")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for what is drawn; default: pictures."),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="How many classes of a classifier; default: 5.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: all cores.")] = None,
    isa: Annotated[
        str | None, typer.Option(help="Cap the instruction set: scalar, avx2 ...")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run a compiled network on pictures with the native engine; PyTorch is not needed.

    A classifier's pictures are scaled to cover the size that the file was compiled for, then
    centre-cropped. Networks for other tasks draw what they find into the folder --output.
    """
    from signbit.runtime import load

    session = load(file, threads=threads, isa=isa, debug=True)
    task = session.metadata.get("task", "classification")
    if task == "classification":
        if output is not None:
            raise SignbitError(f"--output: {file} is a classifier, which draws no picture")
        report = _classify(session, file, source, top or 5, json)
    elif task in DENSE:
        if top is not None:
            raise SignbitError(f"--top: {file} was made for {task}; of classifiers alone")
        report = _run_dense(session, task, source, output or Path("pictures"), json)
    else:
        raise SignbitError(f"{file} was made for {task}; this signbit knows {', '.join(DENSE)}")
    if json:
        print_json({"file": str(file), "isa": session.isa, "results": report})


def dense_runner(task: str) -> Callable[..., list[dict[str, Any]]]:
    """What decodes and draws the outputs of a task's networks."""
    module, _, function = DENSE[task].partition(":")
    return getattr(import_module(module), function)


def _run_dense(
    session: Session, task: str, source: list[Path], output: Path, json: bool
) -> list[dict[str, Any]]:
    from signbit.cli.inputs import read_pictures

    inputs = [named for path in source for named in read_pictures(path, session.input_shape[0])]
    output.mkdir(parents=True, exist_ok=True)
    results = dense_runner(task)(session, inputs, output)
    if not json:
        stderr().print(f"{session.isa}, {session.threads} threads", highlight=False)
        for result in results:
            facts = {k: v for k, v in result.items() if not isinstance(v, (list, dict))}
            facts |= {k: str(len(v)) for k, v in result.items() if isinstance(v, (list, dict))}
            print_pairs(str(facts.pop("input", task)), {k: str(v) for k, v in facts.items()})
    return results


def _classify(
    session: Session, file: Path, source: list[Path], top: int, json: bool
) -> list[dict[str, Any]]:
    import numpy as np
    from rich.table import Table

    from signbit.cli.inputs import read_inputs

    shape = tuple(session.input_shape)
    names = session.metadata.get("class_names")
    results = []
    for name, image in (named for path in source for named in read_inputs(path, shape)):
        logits = _logits(session, image, name, file)
        exponentials = np.exp(logits - logits.max())
        shares = exponentials / exponentials.sum()
        best = np.argsort(-logits, kind="stable")[:top]
        results.append(
            {
                "input": name,
                "top": [
                    {
                        "class": names[i] if names else str(i),
                        "index": int(i),
                        "probability": float(shares[i]),
                        "logit": float(logits[i]),
                    }
                    for i in best
                ],
            }
        )
    if json:
        return results
    stderr().print(
        f"images at {shape[1]}x{shape[2]} pixels, {session.isa}, {session.threads} threads",
        highlight=False,
    )
    table = Table("input", "class", "probability")
    for result in results:
        for rank, entry in enumerate(result["top"]):
            table.add_row(
                result["input"] if rank == 0 else "", entry["class"], f"{entry['probability']:.1%}"
            )
        table.add_section()
    stdout().print(table)
    return results


def _logits(session: Session, image: np.ndarray, name: str, file: Path) -> np.ndarray:
    """One number a class: float64 [classes]."""
    import numpy as np

    try:
        output = session(image)
    except SessionError as error:
        raise SignbitError(f"{name}: {error}") from error
    if isinstance(output, tuple):
        raise SignbitError(
            f"{file} has {len(output)} outputs, and signbit run shows the classes of one: call "
            "signbit.load(FILE) from Python"
        )
    if output.ndim != 2:
        raise SignbitError(
            f"{file} gives maps of shape {output.shape}, and signbit run shows classes: call "
            "signbit.load(FILE) from Python"
        )
    (scale,) = session.output_scales
    return output[0].astype(np.float64) * scale

"""``signbit run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from signbit.cli.console import JsonOption, print_json, stderr, stdout
from signbit.errors import SessionError, SignbitError

if TYPE_CHECKING:
    import numpy as np

    from signbit.runtime import Session


def run(
    file: Annotated[Path, typer.Argument(help="A .signbit file.")],
    source: Annotated[
        Path, typer.Argument(help="A picture, a folder or an .npy.", metavar="INPUT")
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: all cores.")] = None,
    isa: Annotated[
        str | None, typer.Option(help="Cap the instruction set: scalar, avx2 ...")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Classify images with the native engine; PyTorch is not needed.

    Pictures are scaled to cover the size that the file was compiled for, then centre-cropped.
    """
    import numpy as np
    from rich.table import Table

    from signbit.cli.inputs import read_inputs
    from signbit.runtime import load

    session = load(file, threads=threads, isa=isa, debug=True)
    task = session.metadata.get("task", "classification")
    if task != "classification":
        raise SignbitError(f"{file} was made for {task}; signbit run shows classes")
    shape = tuple(session.input_shape)
    names = session.metadata.get("class_names")
    results = []
    for name, image in read_inputs(source, shape):
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
        print_json({"file": str(file), "isa": session.isa, "results": results})
        return
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

"""``signbit compile``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbit.cli.console import JsonOption, bytes_text, print_json, print_pairs, stderr
from signbit.cli.networks import example_input, load_network, parse_size, untrained_network
from signbit.errors import SignbitError

if TYPE_CHECKING:
    from torch import Tensor

    from signbit.training import TrainedModel


def compile_(
    source: Annotated[
        Path | None,
        typer.Argument(help="A run's folder, or its model.pt.", metavar="[RUN|MODEL.PT]"),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path(
        "model.signbit"
    ),
    model: Annotated[
        str | None,
        typer.Option(
            help="Instead: an untrained network of this name, for timing (random weights)."
        ),
    ] = None,
    width: Annotated[float | None, typer.Option(help="With --model: width factor [1].")] = None,
    stem: Annotated[
        str | None, typer.Option(help="With --model: imagenet or cifar [imagenet].")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="With --model: number of classes [1000].")
    ] = None,
    channels: Annotated[
        int | None, typer.Option(min=1, help="With --model: input channels [3].")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--input-size", help="With --model: pixels, 224 or 224x320.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compile a network to a bit-packed .signbit file, checked against PyTorch."""
    options = {"width": width, "stem": stem, "classes": classes, "channels": channels}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if (source is None) == (model is None):
        raise SignbitError("give either a run's folder (or model.pt), or --model NAME")
    if model is None:
        if given or size:
            names = [*given, *(["input-size"] if size else [])]
            unused = ", ".join(f"--{name}" for name in names)
            raise SignbitError(f"{unused}: only with --model; a trained network is what it is")
        assert source is not None
        trained = load_network(source)
    else:
        stderr().print(
            f"{model}: random weights, 8-bit ranges from random pixels; for timing only",
            highlight=False,
            soft_wrap=True,
        )
        trained = untrained_network(model, **given, size=parse_size(size))
    report = compile_trained(trained, output)
    if json:
        print_json(report)
        return
    print_pairs(
        f"compiled {output}",
        {
            "file": bytes_text(report["bytes"]),
            "float32 weights": f"{bytes_text(report['float32_bytes'])}, {report['ratio']:.1f}x",
            "checked": report["verify"],
        },
    )


def compile_trained(
    trained: TrainedModel, output: Path, example: Tensor | None = None
) -> dict[str, Any]:
    """Compile a trained network into ``output``.

    Args:
        trained: what to compile.
        output: the file.
        example: images to check the result with, float32 [N, C, H, W]; random pixels by default.

    Returns:
        Sizes and the verifier's words, ready for JSON.

    Raises:
        SignbitError: the folder cannot be written, or what the compiler raises.
    """
    from signbit.compiler import compile as compile_model

    if output.is_dir() or not output.resolve().parent.is_dir():
        raise SignbitError(f"{output}: not a file that can be written")
    info = trained.info
    metadata = {
        "task": info.get("task", "classification"),
        "class_names": list(trained.class_names),
        "model": trained.spec,
    }
    for key in ("data", "recipe", "untrained"):
        if key in info:
            metadata[key] = info[key]
    if "metrics" in info:
        metadata["accuracy"] = {
            key: info["metrics"][key] for key in ("test_accuracy", "val_accuracy")
        }
    compiled = compile_model(
        trained.model,
        example_input(trained) if example is None else example,
        preprocessing={"mean": list(trained.mean), "std": list(trained.std)},
        metadata=metadata,
    )
    try:
        compiled.save(output)
    except OSError as error:
        raise SignbitError(f"{output}: cannot be written ({error.strerror or error})") from error
    size, full = output.stat().st_size, float32_bytes(trained)
    return {
        "file": str(output),
        "bytes": size,
        "float32_bytes": full,
        "ratio": full / size,
        "verify": str(compiled.report),
    }


def float32_bytes(trained: TrainedModel) -> int:
    """Bytes of the weights and statistics of the same network in float32."""
    state = trained.model.state_dict().values()
    return sum(4 * tensor.numel() for tensor in state if tensor.is_floating_point())

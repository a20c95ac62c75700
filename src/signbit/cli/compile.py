"""``signbit compile``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbit.cli.console import (
    JsonOption,
    bytes_text,
    listed,
    print_json,
    print_pairs,
    stderr,
    stdout,
)
from signbit.cli.networks import (
    data_fields,
    example_input,
    load_data,
    load_network,
    parse_size,
    task_of,
    untrained_network,
)
from signbit.errors import DataError, SignbitError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from signbit.compiler import IntegerOptions
    from signbit.training import TrainedModel

_CALIBRATION_BATCHES, _CALIBRATION_IMAGES = 16, 125


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
    arithmetic: Annotated[
        str, typer.Option(help="float, or integer: no multiplication (A&B BNN).")
    ] = "float",
    integer: Annotated[
        list[str] | None,
        typer.Option(
            "--integer",
            metavar="NAME=VALUE",
            help="With integer: stem=multiply, stem_bits=7, clamp_slopes=true ...",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Where the data set lies, for networks whose ranges are measured here."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compile a network to a bit-packed .signbit file, checked against PyTorch.

    Networks with real-valued first and last layers (A&B BNN) get these in 8 bits, or in integers;
    ranges are then measured on training images.
    """
    options_given = integer_options(arithmetic, integer or [])
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
    images = calibration_images(trained, data, arithmetic)
    report = compile_trained(
        trained, output, arithmetic=arithmetic, integer=options_given, calibration=images
    )
    if json:
        del report["table"]
        print_json(report)
        return
    if report["table"] is not None:
        stdout().print(report["table"], highlight=False)
    facts = {
        "file": bytes_text(report["bytes"]),
        "float32 weights": f"{bytes_text(report['float32_bytes'])}, {report['ratio']:.1f}x",
        "checked": report["verify"],
    }
    if report["to_8bit"]:
        facts["8 bits"] = listed(report["to_8bit"])
    print_pairs(f"compiled {output}", facts)


def integer_options(arithmetic: str, words: list[str]) -> IntegerOptions | None:
    """What ``--integer NAME=VALUE`` says; None with float arithmetic.

    Raises:
        SignbitError: an unknown name, or a value of another kind.
    """
    import dataclasses

    import yaml

    from signbit.compiler import IntegerOptions
    from signbit.errors import CompileError
    from signbit.quantizers import nearest_name

    if arithmetic != "integer":
        if words:
            raise SignbitError("--integer: only with --arithmetic integer")
        return None
    known = {f.name: f.default for f in dataclasses.fields(IntegerOptions)}
    values: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in known:
            hint = nearest_name(name, list(known))
            raise SignbitError(
                f"--integer {word}: expected NAME=VALUE{hint}; known: {', '.join(known)}"
            )
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise SignbitError(f"--integer {word}: the value is not YAML") from None
    try:
        return IntegerOptions(**values)
    except CompileError as error:
        raise SignbitError(f"--integer: {error}") from None


def calibration_images(
    trained: TrainedModel, data: Path | None, arithmetic: str
) -> list[Tensor] | None:
    """Batches of training images, or of random pixels for an untrained network.

    None where the network brings its ranges with it.

    Raises:
        SignbitError: the data set that the network was trained on is not found, or has images of
            another shape.
    """
    from signbit.eight_bit import has_real_layers

    if arithmetic == "float" and not has_real_layers(trained.model):
        if data is not None:
            raise SignbitError("--data: this network brings its 8-bit ranges with it")
        return None
    if trained.info.get("untrained"):
        if data is not None:
            raise SignbitError("--data: an untrained network (--model) is compiled without any")
        return [example_input(trained, 8)]
    source = load_data(trained.info, data)
    if source.input_shape != tuple(trained.input_shape):
        raise DataError(
            f"the network takes images of {tuple(trained.input_shape)}, {source.name} has "
            f"{source.input_shape}: say where its data set lies (--data PATH)"
        )
    fields = {**data_fields(trained.info), "batch_size": _CALIBRATION_IMAGES}
    return task_of(trained.info).calibration_batches(source, fields, count=_CALIBRATION_BATCHES)


def compile_trained(
    trained: TrainedModel,
    output: Path,
    example: Tensor | None = None,
    *,
    arithmetic: str = "float",
    integer: IntegerOptions | None = None,
    calibration: list[Tensor] | None = None,
) -> dict[str, Any]:
    """Compile a trained network into ``output``.

    Args:
        trained: what to compile.
        output: the file.
        example: images to check the result with, float32 [N, C, H, W]; by default the first of
            `calibration`, or random pixels.
        arithmetic: ``"float"`` or ``"integer"``.
        integer: how numbers are brought to integers.
        calibration: batches of images on which ranges are measured; needed with integer arithmetic
            and where layers are real-valued, which then become 8-bit ones.

    Returns:
        Sizes, the verifier's words, the layers brought to 8 bits, and of an integer program the
        table of its streams and the whole report; ready for JSON.

    Raises:
        SignbitError: the folder cannot be written, or what the compiler raises.
    """
    from signbit.compiler import compile as compile_model
    from signbit.compiler.integer_report import IntegerReport

    if output.is_dir() or not output.resolve().parent.is_dir():
        raise SignbitError(f"{output}: not a file that can be written")
    info = trained.info
    metadata = {
        "task": info.get("task", "classification"),
        "class_names": list(trained.class_names),
        "model": trained.spec,
    }
    for key in ("data", "recipe", "untrained", "decode"):
        if key in info:
            metadata[key] = info[key]
    if "metrics" in info:
        metric = task_of(info).metric
        metadata["accuracy"] = {
            key: info["metrics"][key] for key in (f"test_{metric}", f"val_{metric}")
        }
    if example is None:
        example = example_input(trained) if calibration is None else calibration[0][:8]
    network, changed = trained.model, []
    if arithmetic == "float" and calibration is not None:
        network, changed = _in_8bit(network, example, calibration)
    compiled = compile_model(
        network,
        example,
        preprocessing={"mean": list(trained.mean), "std": list(trained.std)},
        metadata=metadata,
        arithmetic=arithmetic,
        integer=integer,
        calibration=calibration if arithmetic == "integer" else None,
    )
    try:
        compiled.save(output)
    except OSError as error:
        raise SignbitError(f"{output}: cannot be written ({error.strerror or error})") from error
    size, full = output.stat().st_size, float32_bytes(trained)
    report: dict[str, Any] = {
        "file": str(output),
        "bytes": size,
        "float32_bytes": full,
        "ratio": full / size,
        "verify": str(compiled.report),
        "to_8bit": changed,
        "table": None,
    }
    if isinstance(compiled.report, IntegerReport):
        report |= {"table": compiled.report.table(), "integer": compiled.report.to_dict()}
    return report


def _in_8bit(
    model: nn.Module, example: Tensor, calibration: list[Tensor]
) -> tuple[nn.Module, list[str]]:
    """The network with its real-valued layers in 8 bits, calibrated, and their paths."""
    from signbit import calibrate, to_8bit
    from signbit.nn.quant import QuantLayer

    network = calibrate(to_8bit(model, example), calibration)
    before = {path for path, layer in model.named_modules() if isinstance(layer, QuantLayer)}
    after = [path for path, layer in network.named_modules() if isinstance(layer, QuantLayer)]
    return network, [path for path in after if path not in before]


def float32_bytes(trained: TrainedModel) -> int:
    """Bytes of the weights and statistics of the same network in float32."""
    state = trained.model.state_dict().values()
    return sum(4 * tensor.numel() for tensor in state if tensor.is_floating_point())

"""`compile`: capture, lower, verify."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from signbit.compiler import emit
from signbit.compiler.capture import Capture, capture
from signbit.compiler.integer_report import IntegerReport, calibrated_ranges, verify_integers
from signbit.compiler.ir import Graph
from signbit.compiler.passes import lower
from signbit.compiler.passes.integer import IntegerOptions, lower_integers
from signbit.compiler.verify import Report
from signbit.compiler.verify import verify as verify_graph
from signbit.errors import CompileError
from signbit.hardware.counts import count

if TYPE_CHECKING:
    from signbit.runtime import Session


@dataclass
class CompiledModel:
    """A compiled model.

    Attributes:
        graph: the program, lowered.
        captured: the graph with one node a layer that it was made from.
        report: what verification found; None if it was not asked for.
        output_exponents: with integer arithmetic, of each output: real numbers are integers times
            `2**exponent`; None where outputs are real numbers.
    """

    graph: Graph
    captured: Graph
    report: Report | IntegerReport | None = field(default=None)
    output_exponents: list[int] | None = field(default=None)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a `.signbit` file, whole or not at all; returns its path. Raises OSError."""
        return emit.save(self.graph, path)

    def session(
        self,
        threads: int | None = None,
        isa: str | None = None,
        debug: bool = False,
        memory_limit: int | None = None,
    ) -> Session:
        """Open the program in the engine; the arguments and errors are those of `signbit.load`."""
        from signbit import runtime

        program = emit.emit(self.graph)
        return runtime.load(
            program, threads=threads, isa=isa, debug=debug, memory_limit=memory_limit
        )


def compile(
    model: nn.Module,
    example_input: Tensor,
    *,
    preprocessing: Mapping[str, Sequence[float]] | None = None,
    metadata: Mapping[str, object] | None = None,
    verify: bool = True,
    arithmetic: str = "float",
    integer: IntegerOptions | None = None,
    calibration: Iterable[Tensor] | None = None,
) -> CompiledModel:
    """Compile a model of binary and 8-bit layers to a bit-packed program.

    `arithmetic="integer"` makes a program without multiplications of the networks whose real
    numbers allow it (A&B BNN, arXiv 2403.03739): its maps are 16-bit integers, its outputs 32-bit
    ones with a power-of-two scale. First and last layer are then real-valued in the model and
    quantised here.

    Args:
        model: any module whose forward `torch.fx` can trace and whose convolutions and linear
            layers are those of `signbit.nn`, calibrated; docs/operations.md lists what may stand
            around them. It is evaluated, and left in the mode it was in.
        example_input: float32 [N, C, H, W], on which shapes are found and the result is verified.
        preprocessing: `mean` and `std`, one number a channel: with it the program also takes uint8
            pixels [N, H, W, C], as ((pixel / 255) - mean) / std.
        metadata: goes into the file for people: task, class names, recipe, accuracy. Compiling adds
            `multiplications`, those of the model as it is written
            (`signbit.hardware.multiplications`).
        verify: check the engine against the graph and the graph against the model.
        arithmetic: `"float"` or `"integer"`.
        integer: with `"integer"`, how numbers are brought to integers.
        calibration: with `"integer"`, batches of images as `example_input`, or tuples and lists
            that begin with one, on which the ranges of all maps are measured; by default the
            example itself.

    Raises:
        CompileError: layers that cannot be compiled, each with its path and what to use instead;
            numbers that are not finite; or metadata that the file cannot hold.
        VerifyError: the result does not do what the model does.
    """
    if isinstance(example_input, Tensor) and example_input.dtype != torch.float32:
        raise CompileError(f"example_input must be float32, got {example_input.dtype}")
    if arithmetic not in ("float", "integer"):
        raise CompileError(f'arithmetic must be "float" or "integer", got {arithmetic!r}')
    in_integers = arithmetic == "integer"
    if not in_integers and not (integer is None and calibration is None):
        raise CompileError('integer and calibration are for arithmetic="integer"')
    if not isinstance(integer, IntegerOptions | None):
        raise CompileError(
            f"integer must be signbit.IntegerOptions(...), got {type(integer).__name__}"
        )
    captured = capture(model, example_input, real_layers=in_integers)
    graph = captured.graph
    graph.mean, graph.std = _preprocessing(preprocessing, graph.input.channels)
    written = count(graph)
    # conventions of the network as it is written: the lowered graph does not have them any more
    multiplications = {"mo": written.mo, "kinds": written.multiplications}
    graph.metadata = {"multiplications": multiplications, **(metadata or {})}
    emit.check_metadata(graph)
    if in_integers:
        images = [example_input] if calibration is None else calibration
        return _compile_integers(captured, example_input, images, integer, verify)
    lowered = lower(graph)
    report = verify_graph(lowered, captured, example_input) if verify else None
    return CompiledModel(lowered, graph, report)


def _compile_integers(
    captured: Capture,
    example_input: Tensor,
    images: Iterable[Tensor],
    options: IntegerOptions | None,
    verify: bool,
) -> CompiledModel:
    ranges = calibrated_ranges(captured, images)
    integers = lower_integers(captured.graph, ranges, options or IntegerOptions())
    graph, exponents = integers.graph, integers.output_exponents
    graph.metadata |= {"arithmetic": "integer", "output_exponents": exponents}
    report = verify_integers(integers, captured, example_input) if verify else None
    return CompiledModel(graph, captured.graph, report, exponents)


def _preprocessing(
    preprocessing: Mapping[str, Sequence[float]] | None, channels: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if preprocessing is None:
        return None, None
    if not isinstance(preprocessing, Mapping):
        kind = type(preprocessing).__name__
        raise CompileError(f"preprocessing must be a mapping of mean and std, got {kind}")
    if set(preprocessing) != {"mean", "std"}:
        raise CompileError(f"preprocessing needs mean and std, got {list(preprocessing)}")
    arrays = []
    for name in ("mean", "std"):
        try:
            array = np.asarray(preprocessing[name], np.float32)
        except (TypeError, ValueError):
            raise CompileError(
                f"preprocessing {name} must be numbers, got {preprocessing[name]!r}"
            ) from None
        if array.shape != (channels,):
            raise CompileError(
                f"preprocessing {name} must have one number for each of {channels} channels, got "
                f"{preprocessing[name]!r}"
            )
        arrays.append(array)
    if not (np.isfinite(arrays).all() and (arrays[1] > 0).all()):
        raise CompileError("preprocessing must be finite, and std positive")
    return arrays[0], arrays[1]

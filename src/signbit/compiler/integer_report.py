"""Calibration and verification of integer programs.

An integer program is an approximation of its model, with known error: nothing here asks for equal
numbers. The engine must equal the reference bit for bit; how far the program is from the model is
measured and reported, with the range and headroom of every stream and what saturated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from signbit.compiler import reference
from signbit.compiler.capture import Capture
from signbit.compiler.ir import Graph
from signbit.compiler.passes.integer import Integers, Stream
from signbit.compiler.verify import (
    LIMIT,
    LayerBits,
    check_engine,
    compare_bits,
    equal_predictions,
    outputs_of,
    values_of_model,
)
from signbit.errors import CompileError, VerifyError

if TYPE_CHECKING:
    import torch


def calibrated_ranges(
    captured: Capture, images: Iterable[torch.Tensor | Sequence[torch.Tensor]]
) -> dict[str, tuple[float, float]]:
    """Least and greatest number of every captured value over batches.

    A batch is float32 [N, C, H, W] of the example's size, or a tuple or list that begins with one.
    The images' own range is that of all pixels where the graph knows how these are normalised.
    Raises CompileError for other batches, without any image, and for values that are not finite.
    """
    if hasattr(images, "shape"):
        raise CompileError("calibration must be batches of images: put the tensor into a list")
    found: dict[str, tuple[float, float]] = {}
    for item in images:
        batch = item[0] if isinstance(item, tuple | list) and item else item
        _check_batch(batch, captured.graph.input.shape)
        values = values_of_model(captured, captured.module, batch)
        values[captured.graph.input.name] = batch.detach().cpu().numpy()
        for name, array in values.items():
            low, high = float(array.min()), float(array.max())
            if not np.isfinite(low + high):
                raise CompileError(f"{name} is NaN or infinite for a calibration image")
            before = found.get(name, (low, high))
            found[name] = min(low, before[0]), max(high, before[1])
    if not found:
        raise CompileError("calibration holds no images")
    graph = captured.graph
    if graph.mean is not None:
        ends = [(pixel - graph.mean) / graph.std for pixel in (0.0, 1.0)]
        found[graph.input.name] = float(ends[0].min()), float(ends[1].max())
    return found


def _check_batch(batch: object, shape: tuple[int, int, int]) -> None:
    import torch

    found = f"{type(batch).__name__}"
    if isinstance(batch, torch.Tensor):
        fits = batch.ndim == 4 and len(batch) and tuple(batch.shape[1:]) == shape
        if fits and batch.dtype == torch.float32:
            return
        found = f"{batch.dtype} {list(batch.shape)}"
    raise CompileError(
        f"calibration must hold float32 batches [N, {', '.join(map(str, shape))}], as the example "
        f"is; got {found}"
    )


@dataclass
class IntegerReport:
    """What verification of an integer program found.

    Attributes:
        engine: `equal` (bit for bit with the reference), or why the engine was not checked.
        streams: every int16 map, with its calibrated range and headroom.
        layers: the layers' bits against the float32 model.
        equal_predictions: share of the example's images with the model's arg-max.
        max_error: greatest difference of an output from the model's, in real numbers.
        relative_error: the same, relative to the output's greatest magnitude.
        saturations: by the node's path, how many numbers of the example saturated.
    """

    engine: str
    streams: list[Stream]
    layers: list[LayerBits] = field(default_factory=list)
    equal_predictions: float = 1.0
    max_error: float = 0.0
    relative_error: float = 0.0
    saturations: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """The report as JSON can hold it."""
        return asdict(self)

    def table(self) -> str:
        """A line a stream: calibrated range, limit and headroom."""
        width = max((len(stream.name) for stream in self.streams), default=0)
        lines = [f"{'stream':{width}}  {'lowest':>9} {'highest':>9} {'limit':>8} {'headroom':>9}"]
        lines += [
            f"{s.name:{width}}  {s.low:9.3f} {s.high:9.3f} {s.limit:8.1f} {s.headroom:5.1f} bit"
            for s in self.streams
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        bits = sum(layer.bits for layer in self.layers)
        wrong = sum(layer.differing for layer in self.layers)
        lines = [f"engine against reference: {self.engine}"]
        if self.streams:
            least = min(self.streams, key=lambda stream: stream.headroom)
            places = sorted({stream.fraction_bits for stream in self.streams})
            span = "-".join(map(str, dict.fromkeys((places[0], places[-1]))))
            lines.append(
                f"{len(self.streams)} streams of 16 bits, {span} behind the point; least headroom "
                f"{least.headroom:.1f} bits ({least.name})"
            )
        where = ", ".join(f"{path} {count}" for path, count in self.saturations.items())
        lines.append(f"saturations on the example: {where or 'none'}")
        if bits:
            lines.append(f"bits against PyTorch: {wrong / bits:.2%} of {bits} differ")
        lines.append(
            f"equal predictions: {self.equal_predictions:.2%}; greatest difference "
            f"{self.max_error:.3g} ({self.relative_error:.2%} of the greatest output)"
        )
        return "\n".join(lines)


def _check_saturations(graph: Graph, saturations: dict[str, int], images: int) -> None:
    for path, count in saturations.items():
        nodes = [node for node in graph.nodes if node.path == path]
        sizes = [int(np.prod(value.shape)) for node in nodes for value in node.outputs]
        numbers = images * max(sizes)
        if count > LIMIT * numbers:
            raise VerifyError(
                f"{path}: {count} of {numbers} numbers saturate on the example: calibrate with "
                "images like it, or use fewer fraction_bits"
            )


def verify_integers(
    integers: Integers, captured: Capture, example_input: torch.Tensor
) -> IntegerReport:
    """Check an integer program on an example [N, C, H, W]; returns what was found.

    Raises VerifyError if the engine differs from the reference at all, or if more than 0.1 % of a
    layer's numbers saturate on the example: its ranges are then not those of the calibration.
    """
    graph = integers.graph
    x = example_input.detach().cpu().float().numpy()
    saturations: dict[str, int] = {}
    outputs, values = reference.run(graph, x, collect=True, saturations=saturations)
    report = IntegerReport(check_engine(graph, x, outputs), integers.streams)
    report.saturations = saturations
    _check_saturations(graph, saturations, len(x))
    model_values = values_of_model(captured, captured.module, example_input)
    report.layers = compare_bits(graph, values, model_values)
    wanted = outputs_of(captured.model, example_input)
    found = [
        output.astype(np.float64) * 2.0**exponent
        for output, exponent in zip(outputs, integers.output_exponents, strict=True)
    ]
    pairs = list(zip(found, wanted, strict=True))
    report.max_error = max(float(np.abs(a - b).max()) for a, b in pairs)
    greatest = max(float(np.abs(b).max()) for _, b in pairs)
    report.relative_error = report.max_error / greatest if greatest else 0.0
    report.equal_predictions = equal_predictions(found, wanted)
    return report

"""Verification: the engine against the graph, the graph against the model it came from.

The engine must equal the reference bit for bit. Against PyTorch that cannot be asked: a real number
may round differently and flip a sign that hangs on it, and one flipped bit can move a deep network
far. So the float32 model is only measured against: the share of bits that differ, layer by layer,
and the outputs. What decides is float64, where rounding does not reach: the program must be the
float64 lowering rounded once, and that must give the bits and the outputs of the model in float64.
A network that agrees there is compiled well, even if many bits differ in float32: it is sensitive.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from signbit.compiler import reference
from signbit.compiler.emit import emit
from signbit.compiler.ir import FLOAT_ATTRS, Graph, Type, Value
from signbit.compiler.passes import lower
from signbit.errors import SignbitError, VerifyError

if TYPE_CHECKING:
    import torch

    from signbit.compiler.capture import Capture

LIMIT = 0.001  # share of a layer's bits
TOLERANCE = 1e-6  # of an output in float64, relative to its greatest magnitude
_IMAGES = 2  # of the example, in float64


@dataclass(frozen=True)
class LayerBits:
    """How the bits of one layer compare with the model's."""

    layer: str
    bits: int
    differing: int

    @property
    def share(self) -> float:
        return self.differing / self.bits


@dataclass
class Report:
    """What verification found.

    Attributes:
        engine: `equal` (bit for bit), or why the engine was not checked.
        layers: the layers' bits against the float32 model.
        equal_predictions: share of the example's images with the model's arg-max, or of equal
            signs where an output has one channel.
        max_error: greatest difference of an output from the model's.
        float64: the layers' bits where both sides run in float64; empty unless that was needed to
            tell rounding from errors.
        float64_error: greatest difference of an output from the model's where both sides run in
            float64 and agree on all bits, relative to the output's greatest magnitude; None if no
            image of the example allowed that.
    """

    engine: str = "engine not checked"
    layers: list[LayerBits] = field(default_factory=list)
    equal_predictions: float = 1.0
    max_error: float = 0.0
    float64: list[LayerBits] = field(default_factory=list)
    float64_error: float | None = None

    @property
    def worst(self) -> LayerBits | None:
        """The layer with the greatest share of differing bits."""
        return max(self.layers, key=lambda layer: layer.share, default=None)

    def to_dict(self) -> dict[str, object]:
        """The report as JSON can hold it."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"engine against reference: {self.engine}"]
        if self.worst is not None:
            wrong, total = (
                sum(la.differing for la in self.layers),
                sum(la.bits for la in self.layers),
            )
            lines.append(
                f"bits against PyTorch: {wrong} of {total} differ in {len(self.layers)} layers; at "
                f"worst {self.worst.share:.4%} ({self.worst.layer})"
            )
        if self.float64:
            lines.append("what differs is rounding: in float64 both agree")
        lines.append(
            f"equal predictions: {self.equal_predictions:.2%}; greatest difference "
            f"{self.max_error:.3g}"
        )
        return "\n".join(lines)


def verify(
    graph: Graph, captured: Capture | None = None, example_input: torch.Tensor | None = None
) -> Report:
    """Check a lowered graph on an example [N, C, H, W]; returns what was found.

    Without a capture only the engine is checked, on random numbers if there is no example.
    Raises VerifyError if the engine differs from the reference at all, if the graph's numbers are
    not the model's, or if in float64 more than 0.1 % of a layer's bits or, where all bits agree, an
    output by more than 1e-6 of its magnitude are not the model's.
    """
    report = Report()
    if example_input is None:
        x = np.random.default_rng(0).standard_normal((1, *graph.input.shape)).astype(np.float32)
    else:
        x = example_input.detach().cpu().float().numpy()
    outputs, values = reference.run(graph, x, collect=True)
    report.engine = _check_engine(graph, x, outputs)
    if captured is not None and example_input is not None:
        _check_model(report, graph, captured, example_input, outputs, values)
    return report


def _check_engine(graph: Graph, x: np.ndarray, expected: list[np.ndarray]) -> str:
    from signbit import runtime
    from signbit.runtime.library import library

    try:
        library()
    except SignbitError as error:
        return f"engine not checked: {error}"
    found = runtime.load(emit(graph))(x)
    found = list(found) if isinstance(found, tuple | list) else [found]
    for value, want, got in zip(graph.outputs, expected, found, strict=True):
        if want.shape != got.shape:
            raise VerifyError(f"{value.name}: the engine gives {got.shape}, not {want.shape}")
        differing = int((want.view(np.uint32) != np.ascontiguousarray(got).view(np.uint32)).sum())
        if differing:
            error = float(np.abs(want - got).max())
            raise VerifyError(
                f"{value.name}: the engine differs from the reference in {differing} of "
                f"{want.size} numbers, by up to {error:.3g}; please report this model"
            )
    return "equal"


def _check_model(
    report: Report,
    graph: Graph,
    captured: Capture,
    example: torch.Tensor,
    outputs: list[np.ndarray],
    values: dict[str, np.ndarray],
) -> None:
    wanted = _outputs(captured.model, example)
    report.layers = _compare(graph, values, values_of_model(captured, captured.module, example))
    report.max_error = max(float(np.abs(a - b).max()) for a, b in zip(outputs, wanted, strict=True))
    report.equal_predictions = float(
        np.mean(
            [
                (_prediction(a) == _prediction(b)).mean()
                for a, b in zip(outputs, wanted, strict=True)
            ]
        )
    )
    _check_in_float64(report, graph, captured, example[:_IMAGES])


def _check_in_float64(
    report: Report, graph: Graph, captured: Capture, example: torch.Tensor
) -> None:
    """Raise VerifyError unless the graph computes the model's function, rounding aside."""
    sensitive = report.worst is not None and report.worst.share > LIMIT
    exact = lower(captured.graph, np.float64)
    _check_rounding(graph, exact)
    example = example.detach().cpu().double()
    model, traced = _in_float64(captured)
    model_values = values_of_model(captured, traced, example)
    outputs, values = reference.run(exact, example.numpy(), collect=True, precision=np.float64)
    layers = _compare(exact, values, model_values)
    if sensitive:
        report.float64 = layers
    first = next((layer for layer in layers if layer.share > LIMIT), None)
    if first is not None:
        raise VerifyError(
            f"{first.layer}: {first.differing} of {first.bits} bits ({first.share:.2%}) differ "
            f"from the PyTorch model, in float64 too; the limit is {LIMIT:.1%}"
        )
    # One bit that hangs on a tie may move an image's outputs far: those say nothing.
    alike = ~_images_that_differ(exact, values, model_values, len(example))
    if not alike.any():
        return
    report.float64_error = 0.0
    for value, got, want in zip(graph.outputs, outputs, _outputs(model, example), strict=True):
        if got.shape != want.shape:
            raise VerifyError(f"{value.name}: the graph gives {got.shape}, not {want.shape}")
        scale = max(float(np.abs(want).max()), 1e-6)  # cancellation may leave next to nothing
        error = float(np.abs(got - want)[alike].max()) / scale
        report.float64_error = max(report.float64_error, error)
        if error > TOLERANCE:
            raise VerifyError(
                f"{value.name}: this output differs from the PyTorch model's by {error:.3g} of its "
                f"magnitude, in float64 too; the limit is {TOLERANCE:g}"
            )


def _in_float64(captured: Capture) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Copies in float64 of the model and of its traced form, with the numbers of the float32 one.

    A mean over weights is another number in float64; the binarizers' copies keep the one that
    the layer has in float32.
    """
    from signbit.nn.binary import BinaryLayer, FixedWeight

    copies = []
    for module in (captured.model, captured.module):
        double = copy.deepcopy(module).cpu()
        for layer in double.modules():
            if isinstance(layer, BinaryLayer) and layer.binary_weights:
                layer.weight_quantizer = FixedWeight(*layer.binary_weight())
        copies.append(double.double())
    return copies[0], copies[1]


def _outputs(model: torch.nn.Module, example: torch.Tensor) -> list[np.ndarray]:
    """What the model itself gives, not its traced form."""
    from signbit.compiler.tracing import evaluating, on_device_of

    with evaluating(model):
        found = model(on_device_of(model, example).clone())
    found = list(found) if isinstance(found, tuple | list) else [found]
    return [output.detach().cpu().numpy() for output in found]


def _check_rounding(graph: Graph, exact: Graph) -> None:
    """Raise VerifyError, naming the node, unless `graph` is `exact` rounded to float32."""
    if len(graph.nodes) != len(exact.nodes):
        raise VerifyError(f"the graph has {len(graph.nodes)} nodes, not {len(exact.nodes)}")
    for node, same in zip(graph.nodes, exact.nodes, strict=True):
        kinds = [[node.op, *(step.kind for step in node.epilogue)] for node in (node, same)]
        if kinds[0] != kinds[1]:
            raise VerifyError(f"{node.path}: its steps are not those of the PyTorch model")
        pairs = [(node, same), *zip(node.epilogue, same.epilogue, strict=True)]
        for a, b in pairs:
            equal = a.attrs == _rounded(b.attrs) and a.params.keys() == b.params.keys()
            if not equal or any(
                not np.array_equal(a.params[name], b.params[name].astype(a.params[name].dtype))
                for name in b.params
            ):
                raise VerifyError(f"{node.path}: its numbers are not those of the PyTorch model")


def _rounded(attrs: dict[str, int | float]) -> dict[str, int | float]:
    """Attributes as the file holds them."""
    return {k: float(np.float32(v)) if k in FLOAT_ATTRS else v for k, v in attrs.items()}


def _prediction(output: np.ndarray) -> np.ndarray:
    return output >= 0 if output.shape[1] == 1 else output.argmax(1)


def values_of_model(
    captured: Capture, traced: torch.nn.Module, example: torch.Tensor
) -> dict[str, np.ndarray]:
    """What the traced model computes, by the names of graph values."""
    from signbit.compiler.tracing import evaluating, record

    with evaluating(traced):
        found = record(traced, example)
    return {
        value.name: found[name].detach().cpu().numpy()
        for name, value in captured.values.items()
        if name in found
    }


def _images_that_differ(
    graph: Graph, values: dict[str, np.ndarray], model_values: dict[str, np.ndarray], images: int
) -> np.ndarray:
    """Which images have a bit that is not the model's."""
    found = np.zeros(images, bool)
    for _, bits, expected in _bits(graph, values, model_values):
        found |= (bits != expected).reshape(images, -1).any(1)
    return found


def _compare(
    graph: Graph, values: dict[str, np.ndarray], model_values: dict[str, np.ndarray]
) -> list[LayerBits]:
    return [
        LayerBits(value.name, expected.size, int((bits != expected).sum()))
        for value, bits, expected in _bits(graph, values, model_values)
    ]


def _bits(
    graph: Graph, values: dict[str, np.ndarray], model_values: dict[str, np.ndarray]
) -> Iterator[tuple[Value, np.ndarray, np.ndarray]]:
    """Every map of bits that the model has too: the graph's, and the model's."""
    for value in (value for node in graph.nodes for value in node.outputs):
        if value.type == Type.B1 and value.name in model_values:
            expected = model_values[value.name] > 0
            yield value, values[value.name].reshape(expected.shape) != 0, expected

"""Verification: the engine against the graph, the graph against the model it came from.

The engine must equal the reference bit for bit. Against PyTorch that cannot be asked: a real number
may round differently and flip a sign that hangs on it, and one flipped bit can move a deep network
far. So the share of bits that differ is taken layer by layer, and where it is above the limit in
float32, both sides are evaluated again in float64, where rounding does not reach: a network that
agrees there is compiled well, and merely sensitive.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from signbit.compiler import reference
from signbit.compiler.emit import emit
from signbit.compiler.ir import Graph, Type
from signbit.compiler.passes import lower
from signbit.errors import SignbitError, VerifyError

if TYPE_CHECKING:
    import torch

    from signbit.compiler.capture import Capture

LIMIT = 0.001  # share of a layer's bits


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
        float64: the layers' bits where both sides run in float64; empty unless that was needed.
    """

    engine: str = "engine not checked"
    layers: list[LayerBits] = field(default_factory=list)
    equal_predictions: float = 1.0
    max_error: float = 0.0
    float64: list[LayerBits] = field(default_factory=list)

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
    Raises VerifyError if the engine differs from the reference at all, or a layer's bits from the
    model's by more than 0.1 %.
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
    names, model_values = _model_values(captured, example)
    report.layers = _compare(graph, values, model_values)
    wanted = [model_values[name] for name in names]
    report.max_error = max(float(np.abs(a - b).max()) for a, b in zip(outputs, wanted, strict=True))
    report.equal_predictions = float(
        np.mean(
            [
                (_prediction(a) == _prediction(b)).mean()
                for a, b in zip(outputs, wanted, strict=True)
            ]
        )
    )
    if report.worst is None or report.worst.share <= LIMIT:
        return
    double = copy.copy(captured)
    double.module = copy.deepcopy(captured.module).double()
    _, model_values = _model_values(double, example.double())
    exact = lower(captured.graph, np.float64)
    _check_rounding(graph, exact)
    _, values = reference.run(
        exact, example.detach().cpu().double().numpy(), collect=True, precision=np.float64
    )
    report.float64 = _compare(exact, values, model_values)
    worst = max(report.float64, key=lambda layer: layer.share)
    if worst.share > LIMIT:
        first = next(layer for layer in report.float64 if layer.share > LIMIT)
        raise VerifyError(
            f"{first.layer}: {first.differing} of {first.bits} bits ({first.share:.2%}) differ "
            f"from the PyTorch model, in float64 too; the limit is {LIMIT:.1%}"
        )


def _check_rounding(graph: Graph, exact: Graph) -> None:
    """Raise VerifyError, naming the node, unless `graph` is `exact` rounded to float32."""
    for node, same in zip(graph.nodes, exact.nodes, strict=True):
        pairs = [(node, same), *zip(node.epilogue, same.epilogue, strict=True)]
        for a, b in pairs:
            equal = a.attrs == b.attrs and a.params.keys() == b.params.keys()
            if not equal or any(
                not np.array_equal(a.params[name], b.params[name].astype(a.params[name].dtype))
                for name in b.params
            ):
                raise VerifyError(f"{node.path}: its numbers are not those of the PyTorch model")


def _prediction(output: np.ndarray) -> np.ndarray:
    return output >= 0 if output.shape[1] == 1 else output.argmax(1)


def _model_values(
    captured: Capture, example: torch.Tensor
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names of the outputs, and what the traced model computes, by the names of graph values."""
    from signbit.compiler.capture import evaluating, record

    with evaluating(captured.module):
        found = record(captured.module, example)
    values = {
        value.name: found[name].detach().cpu().numpy()
        for name, value in captured.values.items()
        if name in found
    }
    return [value.name for value in captured.graph.outputs], values


def _compare(
    graph: Graph, values: dict[str, np.ndarray], model_values: dict[str, np.ndarray]
) -> list[LayerBits]:
    written = [value for node in graph.nodes for value in node.outputs]
    layers = []
    for value in written:
        if value.type == Type.B1 and value.name in model_values:
            expected = (model_values[value.name] > 0).reshape(values[value.name].shape)
            differing = int((expected != (values[value.name] != 0)).sum())
            layers.append(LayerBits(value.name, expected.size, differing))
    return layers

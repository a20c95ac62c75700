"""Verification: the engine against the graph, the graph against the model it came from.

The engine must equal the reference bit for bit. Against PyTorch that cannot be asked: a real number
may round differently and flip a sign that hangs on it, and one flipped bit can move a deep network
far. So the float32 model is only measured against: the share of bits that differ, layer by layer,
and the outputs, which are judged where no bit differs. What decides is float64, where rounding
hardly reaches: the program must be the float64 lowering rounded once, and that must give the bits
and the outputs of the model in float64. A bit may differ there only where the model takes the sign
of what is 0 but for its rounding; the evaluation then goes on with the model's bit, so that all
that follows is compared as well. A network that agrees there is compiled well, even if many bits
differ in float32: it is sensitive.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from signbit.compiler import reference
from signbit.compiler.emit import emit
from signbit.compiler.ir import FLOAT_ATTRS, Graph, Node, Type, Value
from signbit.compiler.passes import lower
from signbit.errors import SignbitError, VerifyError

if TYPE_CHECKING:
    import torch

    from signbit.compiler.capture import Capture

LIMIT = 0.001  # share of a layer's bits in float32: beyond it the network is sensitive
TIE = 1e-11  # of a number before a sign in float64, relative to its map's greatest magnitude
TOLERANCE = 1e-6  # of an output in float64, relative to its greatest magnitude
TOLERANCE_F32 = 1e-3  # of an output in float32, likewise
_ROUNDING = 10  # times the rounding of the float32 model itself, where that is more
_LEAST = 1e-6  # magnitude that errors are relative to: cancellation may leave next to nothing
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
        float32_error: greatest difference of an output from the float32 model's, relative to the
            output's greatest magnitude, over the first images whose bits and 8-bit numbers are all
            the model's; None if there is no such image, or if the model was not checked.
        float64: the layers' bits where both sides run in float64; empty unless that was needed to
            tell rounding from errors.
        float64_error: greatest difference of an output from the model's where both sides run in
            float64, relative to the output's greatest magnitude; None if the model was not checked.
    """

    engine: str = "engine not checked"
    layers: list[LayerBits] = field(default_factory=list)
    equal_predictions: float = 1.0
    max_error: float = 0.0
    float32_error: float | None = None
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
        if self.float64_error is not None and self.float32_error is None:
            lines.append(
                "outputs compared in float64 alone: in float32 each image checked has a bit or an "
                "8-bit number that differs"
            )
        return "\n".join(lines)


def verify(
    graph: Graph, captured: Capture | None = None, example_input: torch.Tensor | None = None
) -> Report:
    """Check a lowered graph on an example [N, C, H, W]; returns what was found.

    Without a capture only the engine is checked, on random numbers if there is no example.
    Raises VerifyError if the engine differs from the reference at all, if the graph's numbers are
    not the model's, if the model itself gives NaN or infinity for the example, or if one of these
    is not the model's: in float64 a bit that no tie explains, or an output by more than 1e-6 of
    its magnitude; in float32, in images without a differing bit, an output by more than 1e-3 of it
    and ten times what the model's own output rounds.
    """
    report = Report()
    if example_input is None:
        x = np.random.default_rng(0).standard_normal((1, *graph.input.shape)).astype(np.float32)
    else:
        x = example_input.detach().cpu().float().numpy()
    model_values = None
    if captured is not None and example_input is not None:
        model_values = values_of_model(captured, captured.module, example_input)
        _check_finite(captured, model_values)
    outputs, values = reference.run(graph, x, collect=True)
    report.engine = check_engine(graph, x, outputs)
    if model_values is not None:
        _check_model(report, graph, captured, example_input, outputs, values, model_values)
    return report


def _check_finite(captured: Capture, model_values: dict[str, np.ndarray]) -> None:
    """Raise VerifyError, naming the layer, if the model leaves the real numbers on its example."""
    for node in captured.graph.nodes:
        for value in node.outputs:
            found = model_values.get(value.name)
            if found is None or np.isfinite(found).all():
                continue
            word = "NaN" if np.isnan(found).any() else "infinity"
            raise VerifyError(
                f"{node.path}: the PyTorch model itself gives {word} here for the example input; "
                "mend the layer, or give an example as the model was trained on"
            )


def check_engine(graph: Graph, x: np.ndarray, expected: list[np.ndarray]) -> str:
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
    model_values: dict[str, np.ndarray],
) -> None:
    wanted = outputs_of(captured.model, example)
    for value, got, want in zip(graph.outputs, outputs, wanted, strict=True):
        if got.shape != want.shape:
            raise VerifyError(f"{value.name}: the graph gives {got.shape}, not {want.shape}")
    report.layers = compare_bits(graph, values, model_values)
    report.max_error = max(float(np.abs(a - b).max()) for a, b in zip(outputs, wanted, strict=True))
    report.equal_predictions = equal_predictions(outputs, wanted)
    exact = _check_in_float64(report, graph, captured, example[:_IMAGES])
    alike = ~_images_that_differ(captured, graph, values, model_values, len(example))[:_IMAGES]
    if alike.any():
        first = [[y[:_IMAGES][alike] for y in found] for found in (outputs, wanted, exact)]
        report.float32_error = _check_in_float32(graph, *first)


def _check_in_float64(
    report: Report, graph: Graph, captured: Capture, example: torch.Tensor
) -> list[np.ndarray]:
    """Raise VerifyError unless the graph computes the model's function, ties aside.

    Returns the model's outputs in float64.
    """
    sensitive = report.worst is not None and report.worst.share > LIMIT
    exact = lower(captured.graph, np.float64)
    _check_rounding(graph, exact)
    example = example.detach().cpu().double()
    model, traced = _in_float64(captured)
    with _reading_as_float32():
        wanted = outputs_of(model, example)
        settle = _Settle(captured, values_of_model(captured, traced, example))
    outputs = reference.run(exact, example.numpy(), precision=np.float64, settle=settle)
    if sensitive:
        report.float64 = settle.layers
    report.float64_error = 0.0
    for value, got, want in zip(graph.outputs, outputs, wanted, strict=True):
        if got.shape != want.shape:
            raise VerifyError(f"{value.name}: the graph gives {got.shape}, not {want.shape}")
        error = float(np.abs(got - want).max()) / max(float(np.abs(want).max()), _LEAST)
        if not error <= TOLERANCE:  # NaN is no agreement
            raise VerifyError(
                f"{value.name}: this output differs from the PyTorch model's by {error:.3g} of its "
                f"magnitude, in float64 too; the limit is {TOLERANCE:g}"
            )
        report.float64_error = max(report.float64_error, error)
    return wanted


def _check_in_float32(
    graph: Graph, outputs: list[np.ndarray], wanted: list[np.ndarray], exact: list[np.ndarray]
) -> float:
    """The greatest relative difference of float32 outputs, of images whose bits all agree.

    `exact` is what the model gives in float64: an output on which float32 itself is as wrong is
    not held against the program. Raises VerifyError beyond the limit.
    """
    worst = 0.0
    for value, got, want, truth in zip(graph.outputs, outputs, wanted, exact, strict=True):
        scale = max(float(np.abs(want).max()), _LEAST)
        error = float(np.abs(got - want).max()) / scale
        rounding = float(np.abs(want - truth).max()) / scale
        limit = max(TOLERANCE_F32, _ROUNDING * rounding)
        if not error <= limit:
            raise VerifyError(
                f"{value.name}: in float32 this output differs from the PyTorch model's by "
                f"{error:.3g} of its magnitude, though all bits agree; the limit is {limit:.3g}"
            )
        worst = max(worst, error)
    return worst


class _Settle:
    """Compares the bits of a float64 evaluation with the model's while it runs.

    A bit that differs where the model's number is a tie is put right, and the evaluation goes on
    from there as the model did. Raises VerifyError, naming layer and pixel, at any other.

    Attributes:
        layers: how the bits compare, in the order of execution.
    """

    def __init__(self, captured: Capture, model_values: dict[str, np.ndarray]):
        self.model_values = model_values
        self.producers = {node.outputs[0].name: node for node in captured.graph.nodes}
        self.layers: list[LayerBits] = []

    def __call__(self, value: Value, bits: np.ndarray) -> np.ndarray:
        if value.type != Type.B1 or value.name not in self.model_values:
            return bits
        expected = (self.model_values[value.name] > 0).reshape(bits.shape)
        wrong = (bits != 0) != expected
        self.layers.append(LayerBits(value.name, expected.size, int(wrong.sum())))
        if not wrong.any():
            return bits
        untied = wrong & ~self._ties(value.name, bits.shape)
        if untied.any():
            self._refuse(value.name, untied)
        return expected.astype(bits.dtype)

    def _ties(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Where the model's bits `name` hang on rounding."""
        node = self.producers[name]
        if node.op == "sign":
            before = number_before_sign(node, self.model_values)
            if before is None:
                return np.zeros(shape, bool)
            scale = max(float(np.abs(self.model_values[node.inputs[0].name]).max()), _LEAST)
            return (np.abs(before) <= TIE * scale).reshape(shape)
        # Bits that were pooled or moved: a tie anywhere in the image may be theirs.
        images = np.zeros(shape[0], bool)
        for source in node.inputs:
            if source.type == Type.B1 and source.name in self.model_values:
                ties = self._ties(source.name, self.model_values[source.name].shape)
                images |= ties.reshape(shape[0], -1).any(1)
        return np.broadcast_to(images.reshape(-1, *[1] * (len(shape) - 1)), shape)

    def _refuse(self, name: str, untied: np.ndarray) -> None:
        at = np.unravel_index(int(np.argmax(untied)), untied.shape)
        image, channel, row, column = (*map(int, at), 0, 0)[:4]
        before = number_before_sign(self.producers[name], self.model_values)
        number = ""
        if before is not None:
            found = float(before.reshape(untied.shape)[at])
            number = f"; the model's number before the sign is {found:.3g}"
        raise VerifyError(
            f"{name}: {int(untied.sum())} of {untied.size} bits differ from the PyTorch model, in "
            f"float64 too, where rounding does not explain it; the first: image {image}, channel "
            f"{channel}, row {row}, column {column}{number}"
        )


def number_before_sign(sign: Node, model_values: dict[str, np.ndarray]) -> np.ndarray | None:
    """What a captured sign is taken of, with an RSign's bias; None where the model has no such."""
    if sign.op != "sign" or sign.inputs[0].name not in model_values:
        return None
    before = model_values[sign.inputs[0].name]
    if "bias" in sign.params:
        before = before + sign.params["bias"].reshape(1, -1, *[1] * (before.ndim - 2))
    return before


def _reading_as_float32() -> torch.overrides.TorchFunctionMode:
    """While on, resizing to the nearest pixel reads the same pixels at any precision.

    PyTorch computes the pixel's place at the precision of the map, and in float64 otherwise for
    some memory layouts than for others. Programs run in float32, and so do the places.
    """
    import torch
    from torch.nn.functional import interpolate
    from torch.overrides import TorchFunctionMode

    def places(size: int, axis: int, arguments: dict[str, object]) -> torch.Tensor:
        line = torch.arange(size, dtype=torch.float32)
        shape = [1, 1, 1, 1]
        shape[axis] = size
        other = [*arguments["input"].shape]
        other[:2], other[axis] = [1, 1], size
        found = interpolate(**arguments | {"input": line.reshape(shape).expand(other)})
        return found.select(5 - axis, 0).flatten().long()

    class Reading(TorchFunctionMode):
        def __torch_function__(
            self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None
        ) -> object:
            kwargs = kwargs or {}
            if function is not interpolate:
                return function(*args, **kwargs)
            arguments = inspect.signature(interpolate).bind(*args, **kwargs).arguments
            x = arguments["input"]
            if arguments.get("mode", "nearest") != "nearest" or x.dtype != torch.float64:
                return interpolate(**arguments)
            rows, columns = (places(x.shape[axis], axis, arguments) for axis in (2, 3))
            return x[:, :, rows][..., columns]

    return Reading()


def _in_float64(captured: Capture) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Copies in float64 of the model and of its traced form, with the numbers of the float32 one.

    A mean over weights is another number in float64; the binarizers' copies keep the one that
    the layer has in float32.
    """
    import torch

    from signbit.nn.binary import BinaryLayer, FixedWeight

    # Copied together, for the traced form has the model's own layers: these are there once.
    copies = copy.deepcopy((captured.model, captured.module))
    for double in copies:
        for layer in double.cpu().modules():
            if not (isinstance(layer, BinaryLayer) and layer.binary_weights):
                continue
            if isinstance(layer.weight_quantizer, FixedWeight):
                continue  # met in the other one
            layer.weight_quantizer = FixedWeight(*layer.binary_weight())
            if "weight" in layer._parameters:  # and not computed by a parametrization
                # With fixed bits its shape alone is needed, in no memory.
                latent = torch.zeros((), dtype=torch.float64).expand(layer.weight.shape)
                layer.weight = torch.nn.Parameter(latent, requires_grad=False)
        double.double()
    return copies


def outputs_of(model: torch.nn.Module, example: torch.Tensor) -> list[np.ndarray]:
    """What the model itself gives, not its traced form."""
    from signbit.compiler.tracing import on_device_of
    from signbit.nn.modes import evaluating

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


def equal_predictions(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """Share of images for which two networks' outputs say the same."""
    pairs = zip(found, wanted, strict=True)
    return float(np.mean([(_prediction(a) == _prediction(b)).mean() for a, b in pairs]))


def _prediction(output: np.ndarray) -> np.ndarray:
    return output >= 0 if output.shape[1] == 1 else output.argmax(1)


def values_of_model(
    captured: Capture, traced: torch.nn.Module, example: torch.Tensor
) -> dict[str, np.ndarray]:
    """What the traced model computes, by the names of graph values."""
    from signbit.compiler.tracing import record
    from signbit.nn.modes import evaluating

    with evaluating(traced):
        found = record(traced, example)
    return {
        value.name: found[name].detach().cpu().numpy()
        for name, value in captured.values.items()
        if name in found
    }


def _images_that_differ(
    captured: Capture,
    graph: Graph,
    values: dict[str, np.ndarray],
    model_values: dict[str, np.ndarray],
    images: int,
) -> np.ndarray:
    """Which images have a bit or an 8-bit number that is not the model's."""
    found = np.zeros(images, bool)
    for _, bits, expected in _bits(graph, values, model_values):
        found |= (bits != expected).reshape(images, -1).any(1)
    sources = {node.outputs[0].name: node.inputs[0].name for node in captured.graph.nodes}
    for node in graph.nodes:
        for step in node.epilogue:
            if step.kind != "quant8":
                continue
            name = step.value.name
            want = model_values.get(sources.get(name.removesuffix(":u8"), name))
            if want is None:
                continue
            q = np.rint(want * np.float32(step.attrs["inv_scale"])) + step.attrs["zero_point"]
            differs = (
                np.clip(q, 0, step.attrs["levels"]).reshape(values[name].shape) != values[name]
            )
            found |= differs.reshape(images, -1).any(1)
    return found


def compare_bits(
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

"""Verification finds what it is there to find."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import signbit
from signbit import nn as snn
from signbit import runtime
from signbit.compiler import verify as verification
from signbit.compiler.capture import capture
from signbit.compiler.passes import lower
from signbit.compiler.verify import verify
from signbit.errors import SignbitError, VerifyError
from signbit.quantizers import MeanAbsScale
from tests.runtime.networks import make_awkward

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network(name: str = "bineal18") -> torch.nn.Module:
    torch.manual_seed(0)
    model = signbit.create_model(name, num_classes=5, stem="cifar", width=0.0625)
    make_awkward(model, 1)
    return signbit.calibrate(model, [X])


@pytest.mark.parametrize("name", ["bineal18", "reactnet18"])
def test_report(name: str) -> None:
    report = signbit.compile(network(name), X).report
    assert report.engine == "equal"
    assert report.equal_predictions == 1
    assert len(report.layers) == {"bineal18": 17, "reactnet18": 16}[name]
    assert report.worst.share <= 0.001 or report.float64
    assert report.float64_error < 1e-12
    assert "engine against reference: equal" in str(report)
    assert report.to_dict()["layers"][0]["bits"] == report.layers[0].bits


def test_wrong_threshold_is_found_and_named() -> None:
    captured = capture(network(), X)
    graph = lower(captured.graph)
    node = next(node for node in graph.nodes if node.path == "stages.1.0.conv1")
    node.epilogue[0].params["flip"][0] ^= 1
    with pytest.raises(VerifyError, match=r"stages\.1\.0\.conv1: its numbers are not those"):
        verify(graph, captured, X)


def real_network() -> torch.nn.Module:
    """A network without any bits."""
    torch.manual_seed(0)
    model = nn.Sequential(
        snn.QuantConv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        snn.QuantLinear(8, 5),
    )  # fmt: skip
    return signbit.calibrate(model, [X])


@pytest.mark.parametrize("make", [network, real_network])
def test_wrong_scale_of_the_head_is_found_and_named(make: Callable) -> None:
    captured = capture(make(), X)
    graph = lower(captured.graph)
    head = graph.nodes[-1]
    head.epilogue[0].params["scale"] *= -3
    with pytest.raises(VerifyError, match=rf"{head.path}: its numbers are not those"):
        verify(graph, captured, X)


@pytest.mark.parametrize("make", [network, real_network])
def test_output_that_is_wrong_in_float64_too_is_found_and_named(
    make: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = capture(make(), X)

    def wrong(graph, precision=np.float32):
        lowered = lower(graph, precision)
        lowered.nodes[-1].epilogue[0].params["bias"] += 0.25
        return lowered

    monkeypatch.setattr(verification, "lower", wrong)
    name = captured.graph.outputs[0].name
    with pytest.raises(VerifyError, match=rf"{name}: this output differs from the PyTorch model's"):
        verify(wrong(captured.graph), captured, X)


def test_outputs_are_those_of_the_model_and_not_of_its_trace() -> None:
    """A trace that computes another function agrees with its own graph, and is found."""
    captured = capture(real_network(), X)
    captured.model = nn.Sequential(captured.model, nn.ReLU())
    with pytest.raises(VerifyError, match="this output differs from the PyTorch model's"):
        verify(lower(captured.graph), captured, X)


def test_step_too_many_is_found() -> None:
    captured = capture(real_network(), X)
    graph = lower(captured.graph)
    head = graph.nodes[-1]
    head.epilogue.insert(0, head.epilogue[0])
    with pytest.raises(VerifyError, match="its steps are not those"):
        verify(graph, captured, X)


def test_wrong_lowering_is_found_in_float64_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong in both precisions is no rounding."""
    captured = capture(network(), X)

    def wrong(graph, precision=np.float32):
        lowered = lower(graph, precision)
        next(n for n in lowered.nodes if n.path == "stages.0.0.conv1").params["weight"] *= -1
        return lowered

    monkeypatch.setattr(verification, "lower", wrong)
    with pytest.raises(VerifyError, match=r"stages\.0\.0\.sign1"):
        verify(wrong(captured.graph), captured, X)


def test_rounding_is_told_from_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits that differ in float32 alone are reported and accepted."""
    captured = capture(network("reactnet18"), X)
    graph = lower(captured.graph)
    monkeypatch.setattr(verification, "LIMIT", -1.0)
    report = verify(graph, captured, X)
    assert len(report.float64) == 16
    assert all(layer.differing == 0 for layer in report.float64)
    assert "in float64 both agree" in str(report)


def smuggle(layer: nn.Module, hook: Callable) -> None:
    """Let a layer do something else, as a hook would, which the compiler refuses."""
    forward = layer.forward
    layer.forward = lambda x: hook(layer, (x,), forward(x))


def wide_sign(hook: Callable) -> tuple[nn.Module, torch.Tensor]:
    """2048 bits a image; the hook makes of the sign what no trace can see."""
    torch.manual_seed(0)
    sign = snn.Sign()
    model = nn.Sequential(nn.Flatten(), sign, snn.BinaryLinear(2048, 4)).eval()
    smuggle(sign, hook)
    return model, torch.randn(4, 2048, 1, 1)


def test_one_channel_in_thousands_is_found_and_named() -> None:
    """Fewer wrong bits than rounding may make, but no tie explains them."""

    def negate(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        return torch.cat([output[:, :5], -output[:, 5:6], output[:, 6:]], 1)

    model, x = wide_sign(negate)
    with pytest.raises(VerifyError, match=r"^1: 2 of 4096 bits .* image 0, channel 5, row 0"):
        signbit.compile(model, x)


def test_outputs_are_compared_where_every_image_has_a_tie() -> None:
    def turn_zeros(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        return torch.where(inputs[0].abs() < 1e-13, -output, output)

    model, x = wide_sign(turn_zeros)
    x[:, 7] = 1e-14
    report = signbit.compile(model, x).report
    assert report.float32_error is None
    assert report.float64_error < 1e-12
    assert "compared in float64 alone" in str(report)
    compiled = capture(model, x)
    compiled.model = nn.Sequential(compiled.model, nn.ReLU())
    with pytest.raises(VerifyError, match=r"this output differs .* in float64 too"):
        verify(lower(compiled.graph), compiled, x)


def test_pooled_bits_may_hang_on_a_tie_too() -> None:
    """The program may take the sign behind the maximum: the model's tie is elsewhere then."""
    torch.manual_seed(0)
    sign = snn.Sign()
    smuggle(
        sign, lambda layer, inputs, output: torch.where(inputs[0].abs() < 1e-13, -output, output)
    )
    layers = [nn.Identity(), sign, nn.MaxPool2d(2), snn.BinaryConv2d(3, 4, 3)]
    x = -torch.rand(2, 3, 8, 8) - 0.1
    x[0, 1, 2, 3] = 1e-14
    report = signbit.compile(nn.Sequential(*layers).eval(), x).report
    assert report.float64_error < 1e-12


def test_float32_outputs_are_judged_where_all_bits_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    run = verification.reference.run

    def wrong_in_float32(graph, x, **options):
        outputs, values = found = run(graph, x, **options)
        if options.get("precision", np.float32) == np.float32:
            return [1.01 * y for y in outputs], values
        return found

    captured = capture(real_network(), X)
    graph = lower(captured.graph)
    assert verify(graph, captured, X).float32_error < 1e-5
    monkeypatch.setattr(verification.reference, "run", lambda g, x, **o: (
        wrong_in_float32(g, x, **o) if o.get("collect") else run(g, x, **o)
    ))  # fmt: skip
    monkeypatch.setattr(verification, "check_engine", lambda *_: "equal")
    with pytest.raises(VerifyError, match=r"in float32 this output differs .* by 0\.01 "):
        verify(graph, captured, X)


def test_a_model_that_overflows_on_its_example_is_named() -> None:
    model = real_network()
    model[1] = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU())
    nn.init.constant_(model[1][0].weight, 3e38)
    with pytest.raises(VerifyError, match=r"^1\.0: the PyTorch model itself gives infinity here"):
        signbit.compile(model.eval(), 100 * X)


def test_nan_is_no_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    captured = capture(real_network(), X)
    run = verification.reference.run

    def nan_in_float64(graph, x, **options):
        found = run(graph, x, **options)
        if options.get("precision") == np.float64:
            found[0][:] = np.nan
        return found

    monkeypatch.setattr(verification.reference, "run", nan_in_float64)
    with pytest.raises(VerifyError, match="this output differs from the PyTorch model's by nan"):
        verify(lower(captured.graph), captured, X)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_nearest_resizing_verifies_where_float64_reads_other_rows(
    layout: torch.memory_format,
) -> None:
    """From 4 rows to 82 PyTorch reads other rows in float64, and others for other layouts."""
    torch.manual_seed(0)
    model = nn.Sequential(snn.QuantConv2d(3, 4, 1), nn.Upsample(size=(82, 94)))
    x = torch.randn(1, 3, 4, 4).contiguous(memory_format=layout)
    signbit.calibrate(model, [x])
    report = signbit.compile(model.to(memory_format=layout), x).report
    assert report.float64_error < 1e-12
    assert report.float32_error < 1e-5


def test_engine_that_differs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def __init__(self, data: bytes):
            self.session = runtime.Session(data)

        def __call__(self, x: np.ndarray) -> np.ndarray:
            y = self.session(x)
            y[0, 2] = np.nextafter(y[0, 2], np.float32(1e9))
            return y

    monkeypatch.setattr(runtime, "load", Wrong)
    with pytest.raises(VerifyError, match=r"head: the engine differs .* in 1 of 10 numbers"):
        signbit.compile(network(), X)


def test_missing_engine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing():
        raise SignbitError("the native library cannot be loaded")

    monkeypatch.setattr(runtime.library, "library", missing)
    report = signbit.compile(network(), X).report
    assert report.engine == "engine not checked: the native library cannot be loaded"


def test_compile_without_verification() -> None:
    compiled = signbit.compile(network(), X, verify=False)
    assert compiled.report is None
    found = compiled.session(threads=1)(X.numpy())
    assert found.shape == (2, 5)


def test_output_that_cancels_to_nothing_is_no_error() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(snn.QuantConv2d(3, 8, 3), nn.BatchNorm2d(8))
    nn.init.constant_(model[1].weight, 1e-12)
    report = signbit.compile(signbit.calibrate(model, [X]), X).report
    assert report.float64_error < 1e-6


def test_learned_scales_and_means_are_the_same_numbers_in_float64() -> None:
    """A mean over weights rounds otherwise in float64; the check must not mistake that."""
    torch.manual_seed(0)
    layers = [snn.QuantConv2d(3, 8, 3), snn.Sign(), snn.BinaryConv2d(8, 8, 3)]
    layers[2].weight_quantizer = MeanAbsScale()
    layers += [snn.Sign(), snn.BinaryConv2d(8, 8, 3, weight_quantizer="learned")]
    model = nn.Sequential(*layers)
    assert signbit.compile(signbit.calibrate(model, [X]), X).report.float64_error < 1e-12

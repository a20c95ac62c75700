"""Integer programs: their arithmetic, how close they come to the model, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import signbit
from signbit.compiler import IntegerOptions, read_graph, reference
from signbit.compiler.capture import capture
from signbit.compiler.compiled import compile
from signbit.compiler.emit import emit
from signbit.compiler.integer_report import calibrated_ranges
from signbit.compiler.ir import Graph, Node, Step, Type, Value
from signbit.compiler.passes.check import check
from signbit.compiler.passes.integer import lower_integers
from signbit.errors import CompileError, VerifyError
from signbit.nn import BinaryConv2d, QRPReLU, RSign
from tests.compiler.build import conv_attrs, pool_attrs


def sat16(v: int) -> int:
    return max(-32768, min(32767, v))


def shift(v: int, k: int) -> int:
    return v << k if k >= 0 else v >> -k  # Python's right shift rounds down


def pointwise(steps: list[Step], x: np.ndarray) -> np.ndarray:
    """The steps on int16 maps [N, C, H, W]; the last one stores."""
    shape = x.shape[1:]
    source = Value("x", Type.I16, shape)
    out = Value("y", Type.I16, shape)
    steps = [*steps, Step("store", value=out)]
    read = [step.value for step in steps if step.kind == "add"]
    node = Node("pointwise", "node", [source, *read], [out], {}, {}, steps)
    values = {source: x}
    values |= {value: np.roll(x, 1) for value in read}
    reference._OPS["pointwise"](node, values, np.float32)
    return values[out]


NUMBERS = np.random.default_rng(3).integers(-32768, 32768, (2, 4, 3, 5)).astype(np.int16)
NUMBERS[0, :, 0, :4] = [-32768, 32767, -1, 0]


def by_hand(function) -> np.ndarray:
    """A function of (number, channel) on every number, in Python's integers."""
    found = np.empty(NUMBERS.shape, np.int64)
    for index in np.ndindex(NUMBERS.shape):
        found[index] = function(int(NUMBERS[index]), index[1])
    return found


def test_a_sum_of_shifts_rounds_down_and_saturates() -> None:
    shifts = np.array([[2, -1], [0, -3], [-15, 0], [5, 3]], np.int32)
    signs = np.array([[1, -1], [-1, 0], [1, 1], [0, 1]], np.int32)
    found = pointwise(
        [Step("shift_sum", {"shifts": shifts, "signs": signs}, {"digits": 2})], NUMBERS
    )
    expected = by_hand(
        lambda v, c: sat16(
            sum(s * shift(v, k) for k, s in zip(shifts[c].tolist(), signs[c].tolist(), strict=True))
        )
    )
    np.testing.assert_array_equal(found, expected)


def test_a_prelu_of_shifts_saturates_at_each_of_its_additions() -> None:
    before = np.array([0, 40000, -700, 5], np.int32)
    after = np.array([9, -40000, 12, -65535], np.int32)
    shifts = np.array([[-3], [-15], [7], [-1]], np.int32)
    signs = np.array([[1], [1], [1], [-1]], np.int32)
    params = {"shift_in": before, "shifts": shifts, "signs": signs, "shift_out": after}
    found = pointwise([Step("shift_prelu", params, {"digits": 1})], NUMBERS)

    def prelu(v: int, c: int) -> int:
        u = sat16(v + int(before[c]))
        if u < 0:
            u = sat16(int(signs[c, 0]) * shift(u, int(shifts[c, 0])))
        return sat16(u + int(after[c]))

    np.testing.assert_array_equal(found, by_hand(prelu))


def test_adding_a_stream_saturates() -> None:
    other = Value("other", Type.I16, NUMBERS.shape[1:])
    found = pointwise([Step("add", value=other)], NUMBERS)
    exact = NUMBERS.astype(np.int64) + np.roll(NUMBERS, 1)
    np.testing.assert_array_equal(found, np.clip(exact, -32768, 32767))


def run_one(node: Node, x: np.ndarray, graph_input: Value) -> np.ndarray:
    values = {graph_input: x}
    reference._OPS[node.op](node, values, np.float32)
    return values[node.outputs[0]]


def test_pools_of_streams() -> None:
    x = np.random.default_rng(0).integers(-32768, 32768, (2, 3, 4, 6)).astype(np.int16)
    source = Value("x", Type.I16, (3, 4, 6))
    half = Value("y", Type.I16, (3, 2, 3))
    avg = Node("avg_pool", "avg", [source], [half], pool_attrs("avg_pool", 2, 2, 0))
    windows = x.reshape(2, 3, 2, 2, 3, 2).astype(np.int64)
    np.testing.assert_array_equal(run_one(avg, x, source), windows.sum((3, 5)) >> 2)
    whole = Value("z", Type.I16, (3, 2, 3))
    pool = Node("max_pool", "max", [source], [whole], pool_attrs("max_pool", 3, 2, 1))
    expected = torch.nn.functional.max_pool2d(torch.from_numpy(x).double(), 3, 2, 1)
    np.testing.assert_array_equal(run_one(pool, x, source), expected.numpy())
    total = Value("s", Type.I32, (3, 1, 1))
    node = Node("global_sum", "sum", [source], [total], {"area": 24})
    found = run_one(node, x, source)
    np.testing.assert_array_equal(found[..., 0, 0], x.sum((2, 3), dtype=np.int64))
    assert found.dtype == np.int32


def test_sums_of_shifted_weights_are_those_of_products_modulo_32_bits() -> None:
    generator = np.random.default_rng(5)
    x = generator.integers(-(2**31), 2**31, (1, 3, 5, 5)).astype(np.int32)
    weight = generator.integers(-127, 128, (2, 3, 3, 3)).astype(np.int8)
    source, out = Value("x", Type.I32, (3, 5, 5)), Value("y", Type.I32, (2, 5, 5))
    attrs = conv_attrs(3, 2, 3, 1, 1, zero_point=0)
    node = Node("conv_shift", "c", [source], [out], attrs, {"weight": weight})
    node.epilogue = [Step("store", value=out)]
    padded = np.pad(x.astype(object), ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = np.empty((1, 2, 5, 5), object)
    for o, i, j in np.ndindex(2, 5, 5):
        window = padded[0, :, i : i + 3, j : j + 3]
        total = int((window * weight[o].astype(object)).sum())
        expected[0, o, i, j] = (total + 2**31) % 2**32 - 2**31
    np.testing.assert_array_equal(run_one(node, x, source), expected.astype(np.int64))


class Small(nn.Module):
    """Stem, pool, a binary layer with a shortcut that halves the map, head."""

    def __init__(self, slope_exponent: float = -3.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, 2, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.sign = RSign(8)
        self.conv = BinaryConv2d(8, 12, 3, 2, 1)
        self.average = nn.AvgPool2d(2, 2)
        self.shortcut = BinaryConv2d(8, 12, 1)
        self.act = QRPReLU(12)
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(12, 5)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            self.act.exponent.copy_(
                slope_exponent + torch.randint(0, 2, (12,), generator=generator)
            )

    def forward(self, x):
        x = self.pool(self.stem(x))
        main = 0.25 * self.conv(self.sign(x))
        x = self.act(main + self.shortcut(self.average(x)))
        return self.head(self.flatten(self.gap(x)))


PIXELS = {"mean": [0.5, 0.4, 0.45], "std": [0.25, 0.2, 0.22]}


def images(count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(count, 3, 32, 32, generator=generator)
    mean, std = (torch.tensor(PIXELS[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    return (pixels - mean) / std


@pytest.mark.parametrize(
    "options", [IntegerOptions(), IntegerOptions(stem="multiply"), IntegerOptions(stem_bits=5)]
)
def test_an_integer_program_comes_close_to_its_model(options: IntegerOptions) -> None:
    model = Small().eval()
    compiled = compile(model, images(), arithmetic="integer", integer=options, preprocessing=PIXELS)
    report = compiled.report
    assert report.engine == "equal"
    assert report.relative_error < 0.03
    assert report.equal_predictions == 1
    assert not report.saturations
    bits = {stream.name: stream.fraction_bits for stream in report.streams}
    assert bits["stem"] == bits["pool"] == bits["average"]
    assert bits["mul"] == bits["shortcut"] == bits["add"] == bits["act"]
    assert all(s.headroom >= 1 for s in report.streams)
    kinds = {node.op for node in compiled.graph.nodes}
    assert ("conv_q8" in kinds) == (options.stem == "multiply")
    assert "act" in report.table()


def test_a_file_gives_the_same_graph_and_its_scale(tmp_path) -> None:
    compiled = compile(Small().eval(), images(), arithmetic="integer", preprocessing=PIXELS)
    path = compiled.save(tmp_path / "small.signbit")
    again = read_graph(path)
    x = images().numpy()
    want, got = reference.run(compiled.graph, x)[0], reference.run(again, x)[0]
    np.testing.assert_array_equal(got, want)
    assert again.metadata["output_exponents"] == compiled.output_exponents
    session = signbit.load(path)
    found = session(x)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, want)
    assert session.output_scales == [2.0 ** compiled.output_exponents[0]]


def test_pixels_and_their_normalised_numbers_give_the_same() -> None:
    compiled = compile(Small().eval(), images(), arithmetic="integer", preprocessing=PIXELS)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    real = reference.load_input(compiled.graph, pixels)
    session = compiled.session()
    np.testing.assert_array_equal(session(pixels), session(real))


def test_powers_of_two_are_met_exactly_by_one_digit() -> None:
    model = Small().eval()
    model.conv.weight_quantizer = model.shortcut.weight_quantizer = _Halves()
    captured = capture(model, images(), real_layers=True)
    ranges = calibrated_ranges(captured, [images()])
    graph = lower_integers(captured.graph, ranges, IntegerOptions(scale_digits=1)).graph
    steps = [
        s for n in graph.nodes for s in n.epilogue if s.kind == "shift_sum" and "conv" in n.path
    ]
    streams = lower_integers(captured.graph, ranges, IntegerOptions()).streams
    fraction_bits = next(s.fraction_bits for s in streams if s.name == "mul")
    assert (steps[-1].params["shifts"] == fraction_bits - 3).all()  # 0.25 * 0.5


class _Halves(signbit.quantizers.WeightQuantizer):
    def forward(self, weight):
        return torch.where(weight >= 0, 1.0, -1.0), torch.full((len(weight),), 0.5)


def test_streams_that_would_overflow_are_named() -> None:
    with pytest.raises(CompileError, match=r"stream .* overflows 16 bits with fraction_bits=14"):
        compile(
            Small().eval(),
            images(),
            arithmetic="integer",
            integer=IntegerOptions(fraction_bits=14),
        )
    model = Small().eval()
    with torch.no_grad():
        model.act.shift_out[3] = 1e5
    with pytest.raises(CompileError, match="act: the stream act reaches 1e"):
        compile(model, images(), arithmetic="integer")


@pytest.mark.parametrize("exponent", [-17.0, 9.0])
def test_a_slope_outside_the_fixed_point_range_is_named(exponent: float) -> None:
    model = Small(exponent).eval()
    with pytest.raises(CompileError, match=r"act: the slope of channel \d+ .* range -15\.\.7"):
        compile(model, images(), arithmetic="integer")
    if exponent > 0:
        return  # the maps of the model itself are then too large
    options = IntegerOptions(clamp_slopes=True)
    graph = compile(model, images(), arithmetic="integer", integer=options).graph
    prelus = [s for n in graph.nodes for s in n.epilogue if s.kind == "shift_prelu"]
    assert (prelus[0].params["shifts"] == -15).all()


def test_what_has_no_form_in_integers_is_named() -> None:
    normed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    with pytest.raises(CompileError, match="1: a batch norm has no form in integers"):
        compile(normed.eval(), torch.randn(2, 3, 3, 3), arithmetic="integer")
    smooth = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 2, 1))
    with pytest.raises(CompileError, match="1: sigmoid has no form in integers"):
        compile(smooth.eval(), torch.randn(2, 3, 3, 3), arithmetic="integer")
    no_head = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with pytest.raises(CompileError, match="ends with a linear layer"):
        compile(no_head.eval(), torch.randn(2, 3, 3, 3), arithmetic="integer")
    nine = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(3), nn.Conv2d(4, 2, 1))
    with pytest.raises(CompileError, match="1: averages 3x3 pixels"):
        compile(nine.eval(), torch.randn(2, 3, 11, 11), arithmetic="integer")


def test_arguments_are_checked() -> None:
    model, x = Small().eval(), images()
    with pytest.raises(CompileError, match='"float" or "integer"'):
        compile(model, x, arithmetic="fixed")
    with pytest.raises(CompileError, match='are for arithmetic="integer"'):
        compile(model, x, calibration=[x])
    with pytest.raises(CompileError, match="calibration holds no images"):
        compile(model, x, arithmetic="integer", calibration=[])
    with pytest.raises(CompileError, match="stem must be"):
        IntegerOptions(stem="digits")
    with pytest.raises(CompileError, match=r"stem_bits must be 2\.\.8, got 9"):
        IntegerOptions(stem_bits=9)
    with pytest.raises(CompileError, match="scale_digits must be 1, 2, 3 or 4"):
        IntegerOptions(scale_digits=5)
    with pytest.raises(CompileError, match=r"fraction_bits must be 4\.\.14"):
        IntegerOptions(fraction_bits=20)
    with pytest.raises(CompileError, match="computes in real numbers"):
        compile(model, x)


def test_a_program_of_another_size_is_refused() -> None:
    compiled = compile(Small().eval(), images(), arithmetic="integer")
    with pytest.raises(signbit.SignbitError, match="16 pixels"):
        compiled.session()(np.zeros((1, 3, 64, 64), np.float32))


def test_saturations_are_counted_by_layer() -> None:
    compiled = compile(Small().eval(), images(), arithmetic="integer")
    found: dict[str, int] = {}
    reference.run(compiled.graph, images().numpy(), saturations=found)
    assert not found
    wide = _with_wide_head(compiled.graph)
    reference.run(wide, images().numpy(), saturations=found)
    assert found.keys() == {"head"}
    assert found["head"] > 0


def _with_wide_head(graph: Graph) -> Graph:
    again = read_graph(emit(graph))
    step = next(s for s in again.nodes[-1].epilogue if s.kind == "shift_sum")
    step.params["shifts"] = step.params["shifts"] + 4
    return again


@pytest.mark.parametrize(
    "name", ["ab_reactnet18", "ab_birealnet18", "ab_xnornet18", "ab_reactnet_a"]
)
def test_networks_of_the_zoo_run_in_integers(name: str) -> None:
    torch.manual_seed(0)
    model = signbit.create_model(name, num_classes=4, stem="cifar", width=0.125).eval()
    compiled = compile(model, torch.randn(2, 3, 32, 32), arithmetic="integer")
    assert compiled.report.engine == "equal"
    multiplying = {"affine", "rprelu", "prelu", "mul", "sigmoid", "quant4_shift"}
    assert not multiplying & {s.kind for n in compiled.graph.nodes for s in n.epilogue}
    check(compiled.graph)


def test_more_digits_come_closer() -> None:
    errors = []
    for digits in (1, 2, 4):
        options = IntegerOptions(scale_digits=digits)
        compiled = compile(Small().eval(), images(16), arithmetic="integer", integer=options)
        errors.append(compiled.report.max_error)
    assert errors[0] > errors[1] > errors[2]


def one_layer(channels: int = 8) -> nn.Module:
    torch.manual_seed(0)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4))
    return nn.Sequential(nn.Conv2d(3, channels, 1), *head).eval()


def test_constants_that_cancel_a_sum_do_not_let_it_saturate() -> None:
    model = one_layer()
    x = 0.5 + 0.1 * images(4)
    with torch.no_grad():
        model[0].weight.fill_(31.0)
        model[0].bias.fill_(-46.5)
        model[3].weight.fill_(15.875)
        model[3].bias.copy_(-127 * model[:3](x).mean() + 100 * torch.arange(4.0))
    report = compile(model, x, arithmetic="integer").report
    assert not report.saturations
    assert report.relative_error < 0.5  # weights rounded to 1 % do not cancel as real ones do
    assert report.equal_predictions == 1


def test_channels_that_are_as_good_as_dead_do_not_matter() -> None:
    model = one_layer()
    with torch.no_grad():
        model[0].weight[2] *= 1e-9
        model[0].bias[2] = 0.25
        model[3].weight[1] *= 1e-12
        model[3].weight[3] = 0
    report = compile(model, images(), arithmetic="integer").report
    assert not report.saturations
    assert report.relative_error < 0.02


def test_an_example_beyond_the_calibration_is_refused() -> None:
    with pytest.raises(VerifyError, match="numbers saturate on the example: calibrate with"):
        compile(
            Small().eval(),
            images(),
            arithmetic="integer",
            preprocessing=PIXELS,
            calibration=[0.01 * images()],
        )


def test_calibration_takes_batches_of_the_examples_kind() -> None:
    model, x = Small().eval(), images()
    labelled = [(x, torch.zeros(len(x)))]
    want = compile(model, x, arithmetic="integer", calibration=[x])
    got = compile(model, x, arithmetic="integer", calibration=labelled)
    assert emit(got.graph) == emit(want.graph)
    for bad in ([x.double()], [x[:0]], [x[:, :, ::2]], ["images"], [()]):
        with pytest.raises(CompileError, match="calibration must hold float32 batches"):
            compile(model, x, arithmetic="integer", calibration=bad)
    with pytest.raises(CompileError, match="put the tensor into a list"):
        compile(model, x, arithmetic="integer", calibration=x)


@pytest.mark.parametrize(
    "wrong", [{"stem_bits": 6.0}, {"scale_digits": True}, {"clamp_slopes": "no"}]
)
def test_options_have_their_types(wrong: dict[str, object]) -> None:
    with pytest.raises(CompileError, match="must be of type"):
        IntegerOptions(**wrong)
    with pytest.raises(CompileError, match=r"integer must be signbit\.IntegerOptions"):
        compile(Small().eval(), images(), arithmetic="integer", integer=wrong)


def test_slopes_too_small_for_the_models_numbers_are_named() -> None:
    with pytest.raises(CompileError, match=r"act: the slope of channel .* exponent -inf"):
        compile(Small(-200.0).eval(), images(), arithmetic="integer")

"""What the compiler refuses: each message names the layer and the way out, all at once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import signbit
from signbit import nn as snn
from signbit.compiler.capture import capture, capture_leniently
from signbit.errors import CompileError
from signbit.quantizers import WeightQuantizer

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A calibrated 8-bit stem, the layer under test, and a function behind it."""

    def __init__(self, layer: nn.Module, function=lambda x: x):
        super().__init__()
        self.stem = snn.QuantConv2d(3, 8, 3, padding=1)
        self.stem.set_input_range(-4, 4)
        self.layer = layer
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(self.stem(x)))


def calibrated(layer: snn.QuantLayer) -> snn.QuantLayer:
    layer.set_input_range(-1, 1)
    return layer


def latent(layer: snn.BinaryLayer) -> nn.Module:
    layer.set_binary_weights(False)
    return nn.Sequential(snn.Sign(), layer)


class Halves(WeightQuantizer):
    def forward(self, weight: Tensor) -> tuple[Tensor, None]:
        return weight.sign() / 2, None


class Silent(snn.Sign):
    def forward(self, x: Tensor) -> Tensor:
        return x


REFUSED = [
    (
        nn.Conv2d(8, 4, 1),
        r"layer \(Conv2d\): .*BinaryConv2d \(after a Sign\) or signbit\.nn\.QuantConv2d; for a "
        r'trained network, signbit\.to_8bit\(model, x\) or arithmetic="integer"',
    ),
    (nn.Conv2d(8, 4, 3, padding="same"), r"layer \(Conv2d\): .*signbit\.nn\.QuantConv2d"),
    (nn.Conv2d(8, 4, 2, padding="same"), r"layer \(Conv2d\): padding='same' is not symmetric"),
    (
        nn.Sequential(nn.Flatten(), nn.Linear(512, 2)),
        r"layer\.1 \(Linear\): .*BinaryLinear.*Quant.*signbit\.to_8bit",
    ),
    (nn.GELU(), r"layer \(GELU\): .*PReLU.*signbit\.nn\.RPReLU"),
    (nn.GroupNorm(2, 8), r"layer \(GroupNorm\): .*torch\.nn\.BatchNorm2d"),
    (nn.ConvTranspose2d(8, 8, 2), r"layer \(ConvTranspose2d\): .*torch\.nn\.Upsample"),
    (nn.Fold((8, 8), 1), r"layer \(Fold\): .*the compiler knows .*BinaryConv2d"),
    (
        snn.BinaryConv2d(8, 4, 1),
        r"layer \(BinaryConv2d\): .*put signbit\.nn\.Sign or signbit\.nn\.RSign before it; for a "
        r'trained network, signbit\.to_8bit\(model, x\) or arithmetic="integer"',
    ),
    (latent(snn.BinaryConv2d(8, 4, 1)), r"layer\.1 .*set_binary_weights\(model, True\)"),
    (snn.QuantConv2d(8, 4, 1), r"layer \(QuantConv2d\): .*signbit\.calibrate"),
    (
        nn.Sequential(snn.Sign(), snn.BinaryConv2d(8, 4, 91, padding=45)),
        r"layer\.1: sums 66248 products, more than 65535: use fewer inputs, more groups or a small",
    ),
    (
        calibrated(snn.QuantConv2d(8, 4, 91, padding=45)),
        r"layer: sums 66248 products, more than 65535: use fewer inputs, more groups or a smaller",
    ),
    (
        calibrated(snn.QuantConv2d(8, 4, 1, stride=(1, 5000))),
        r"layer: stride_w is 5000, more than 4096: use a smaller one",
    ),
    (nn.MaxPool2d(2, dilation=3, padding=2), r"layer \(MaxPool2d\): .*more than half"),
    (nn.MaxPool2d(2, return_indices=True), r"layer \(MaxPool2d\): return_indices"),
    (nn.AvgPool2d(2, divisor_override=3), r"layer \(AvgPool2d\): divisor_override"),
    (nn.AdaptiveAvgPool2d((None, 1)), r"layer \(AdaptiveAvgPool2d\): output_size=\(None, 1\)"),
    (nn.Flatten(2), r"layer \(Flatten\): it moves pixels in a way.*it can flatten"),
    (nn.PixelUnshuffle(2), r"layer \(PixelUnshuffle\): .*convolution with a stride"),
    (nn.Upsample(scale_factor=1.5), r"layer \(Upsample\): scale_factor=1.5 .*whole numbers"),
    (nn.Upsample(scale_factor=2, mode="bicubic"), r'layer \(Upsample\): mode="bicubic"'),
    (nn.Softmax(1), r"layer \(Softmax\): .*outside of the model"),
    (nn.Threshold(0.1, 2), r"layer \(Threshold\): .*torch\.nn\.PReLU"),
    (nn.ZeroPad2d(1), r"layer \(ZeroPad2d\): .*padding of the layer behind it"),
    (nn.RNN(8, 8), r"layer \(RNN\): .*recurrent layers and attention"),
    (nn.BatchNorm2d(8, track_running_stats=False), r"layer \(BatchNorm2d\): .*running statistics"),
    (calibrated(snn.QuantLinear(8, 4)), r"layer \(QuantLinear\): .*torch\.nn\.Flatten before it"),
    (
        nn.Sequential(snn.Sign(), snn.BinaryConv2d(8, 4, 1, weight_quantizer=Halves())),
        r"layer\.1 \(BinaryConv2d\): Halves: .*exactly -1 or \+1",
    ),
    (Silent(), r"layer \(Silent\): it overrides the forward of Sign"),
]


@pytest.mark.parametrize(("layer", "message"), REFUSED)
def test_refused_layers(layer: nn.Module, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        signbit.compile(Net(layer), X)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (F.gelu, r"the model \(Net\): it calls gelu, .*torch\.nn\.Hardswish"),
        (lambda x: F.max_pool2d(x, 2, return_indices=True), r"it calls max_pool2d.*return_ind"),
        (lambda x: F.avg_pool2d(x, x.size(2) // 2), r"it calls avg_pool2d: its window follows"),
        (lambda x: F.avg_pool2d(F.max_pool2d(x, 2), x.size(2)), r"its window follows|fails on"),
        (lambda x: x.mean(1), r"it calls mean: it is only known over all pixels"),
        (lambda x: x.mean((2, 3), dtype=torch.float64), r"it calls mean in a way .*dtype"),
        (lambda x: x.max(), r"it calls max, .*adaptive_max_pool2d"),
        (lambda x: x * torch.ones(8), r"it calls mul: its constant is \[8\]: .*\[1, 8, 1, 1\]"),
        (lambda x: x * x.size(2), r"it calls mul: its number depends on the image's size"),
        (lambda x: x.mean((2, 3), True).squeeze(), r"it calls squeeze without a .* use flatten\(1"),
        (
            lambda x: torch.cat([x, torch.zeros(1, 1, 8, 8)], 1),
            r"it calls cat, which joins a const",
        ),
        (lambda x: torch.cat([x, torch.arange(64).view(1, 1, 8, 8)], 1), r"cat, which joins a con"),
        (
            lambda x: torch.stack([x[:, 0], torch.ones(1, 8, 8)], 1),
            r"stack, which joins a constant",
        ),
        (lambda x: x * float("inf"), r"it calls mul: its constant is not finite"),
        (lambda x: x / 0, r"it calls div|it calls truediv: it divides by 0"),
        (lambda x: x / x, r"it calls truediv: a map can only be divided by constants"),
        (lambda x: 2 / x, r"it calls truediv: a map can only be divided by constants"),
        (lambda x: torch.add(x, x, alpha=2), r"it calls add: alpha"),
        (lambda x: x.mean((2, 3)) + x, r"it calls add: it meets maps of .*gate\[:, :, None, None"),
        (lambda x: x[:, :1] * x.mean((2, 3), True), r"one of them must have the shape of the"),
        (lambda x: x**2, r"it calls pow, .*torch\.nn\.Hardswish"),
        (F.dropout, r"it calls dropout: .*training=self\.training"),
        (lambda x: F.softmax(x, 1), r"it calls softmax, .*outside of the model"),
        (lambda x: x[:, :, ::2], r"it calls getitem, which moves pixels in a way"),
        (lambda x: torch.cat([x, x], 2), r"it calls cat, which moves pixels"),
        (lambda x: F.interpolate(x, scale_factor=1.5), r"interpolate: scale_factor=1.5"),
        (lambda x: F.interpolate(x, size=x.size(2) + 1), r"its size is computed from the image"),
        (lambda x: F.interpolate(x, 9, mode="bicubic"), r'interpolate: mode="bicubic"'),
        (lambda x: F.pad(x, (1, 1)), r"it calls pad, .*padding of the layer behind"),
        (lambda x: x.permute(0, 1, 3, 2), r"it calls permute, which moves pixels"),
        (lambda x: x.view(8, -1), r"it calls view, which moves pixels"),
        (lambda x: x.flatten(), r"it calls flatten, which moves pixels"),
        (lambda x: x.view(1, 8, 64), r"it calls view, which moves pixels"),
        (lambda x: x[:, :, :8, :8], r"its call getitem does something else with images of ano"),
        (lambda x: x.cumsum(1), r"it calls cumsum, .*docs/operations\.md.*BinaryConv2d"),
        (lambda x: torch.matmul(x, x), r"it calls matmul, .*product of two activations"),
        (
            lambda x: F.conv2d(x, torch.ones(4, 8, 1, 1)),
            r"it calls conv2d.*signbit\.nn\.QuantConv2d",
        ),
        (lambda x: x if x.sum() > 0 else -x, r"the model \(Net\): its forward cannot be traced"),
        (lambda x: {"y": x}, r"must return a tensor or a tuple of tensors"),
        (lambda x: torch.flatten(x, 2), r"it calls flatten, which moves pixels"),
    ],
)
def test_refused_functions(function, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        signbit.compile(Net(nn.Identity(), function), X)


def hooked(layer: nn.Module, before: bool = False) -> nn.Module:
    if before:
        layer.register_forward_pre_hook(lambda m, inputs: (inputs[0] * 2,))
    else:
        layer.register_forward_hook(lambda m, inputs, output: output * 2)
    return layer


@pytest.mark.parametrize("before", [False, True])
def test_hooks_of_layers_are_refused(before: bool) -> None:
    with pytest.raises(
        CompileError, match=r"layer \(ReLU\): it has forward hooks, which a program"
    ):
        signbit.compile(Net(hooked(nn.ReLU(), before)), X)
    with pytest.raises(CompileError, match=r"the model \(Net\): it has forward hooks"):
        signbit.compile(hooked(Net(nn.ReLU()), before), X)


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_weights_that_hooks_make_are_refused() -> None:
    conv = nn.utils.weight_norm(snn.BinaryConv2d(8, 8, 1))
    with pytest.raises(CompileError, match=r"layer\.1 \(BinaryConv2d\): it has forward hooks"):
        signbit.compile(Net(nn.Sequential(snn.Sign(), conv)), X)


def test_hooks_of_blocks_and_parametrized_weights_are_compiled() -> None:
    conv = nn.utils.parametrizations.weight_norm(snn.BinaryConv2d(8, 8, 1))
    block = hooked(nn.Sequential(snn.Sign(), conv))
    assert signbit.compile(Net(block), X).report.engine == "equal"


def test_an_untraceable_model_with_hooks() -> None:
    model = Net(hooked(nn.ReLU()), lambda x: x if x.sum() > 0 else -x)
    found = capture_leniently(model, X)
    assert [problem.path for problem in found.problems] == ["", "layer"]


def test_functions_inside_a_block_name_the_block() -> None:
    class Block(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.gelu(x)

    with pytest.raises(CompileError, match=r"layer\.0 \(Block\): it calls gelu"):
        signbit.compile(Net(nn.Sequential(Block())), X)


def test_all_refused_layers_are_named_at_once() -> None:
    body = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Tanh(), snn.QuantConv2d(8, 8, 1), nn.ReLU())
    with pytest.raises(CompileError, match="3 layers cannot be compiled") as caught:
        signbit.compile(Net(body), X)
    text = str(caught.value)
    assert [path in text for path in ("layer.0", "layer.1", "layer.2")] == [True] * 3
    assert "layer.3" not in text


LOWERING = [
    (snn.Sign(), r"layer: the model returns bits"),
    (
        nn.Sequential(nn.Flatten(), nn.BatchNorm1d(8 * 64)),
        r"layer\.1: reads a flattened map of 8x8.*before Flatten",
    ),
    (nn.Flatten(), r"layer: a flattened map of several pixels cannot be an output"),
    (
        nn.Sequential(snn.Sign(), snn.BinaryConv2d(8, 4, 91, padding=45)),
        r"layer\.1: sums 66248 prod",
    ),
]


@pytest.mark.parametrize(("layer", "message"), LOWERING)
def test_refused_where_layers_meet(layer: nn.Module, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        signbit.compile(Net(layer), X)


def test_int4_add_wants_convolutions() -> None:
    class Add(nn.Module):
        def __init__(self):
            super().__init__()
            self.sign, self.conv, self.add = snn.Sign(), snn.BinaryConv2d(8, 8, 1), snn.Int4Add()
            self.pool = nn.AvgPool2d(1)

        def forward(self, x: Tensor) -> Tensor:
            return self.add(self.conv(self.sign(x)), self.pool(x))

    with pytest.raises(
        CompileError, match=r"layer\.add: operand layer\.pool is not a convolution's"
    ):
        signbit.compile(Net(Add()), X)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(value: float) -> None:
    model = Net(nn.BatchNorm2d(8))
    with pytest.raises(CompileError, match="example_input holds NaN"):
        signbit.compile(model, X.clone().fill_(value))
    model.layer.running_var[3] = value
    with pytest.raises(CompileError, match=r"layer\.running_var holds NaN"):
        signbit.compile(model, X)


def test_variance_below_zero_and_scales_beyond_float32() -> None:
    model = Net(nn.BatchNorm2d(8))
    model.layer.running_var[3] = -1
    with pytest.raises(CompileError, match=r"layer \(BatchNorm2d\): its running_var plus eps"):
        signbit.compile(model, X)
    model.layer.running_var[3] = 1e-30
    model.layer.eps = 0.0
    model.layer.weight.data[3] = 3e38
    with pytest.raises(CompileError, match=r"stem: scale of channel 3 is .* beyond float32"):
        signbit.compile(model, X)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(3, 8, 8), r"\[N, C, H, W\]"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.float64), "float32"),
        ([1, 2], r"\[N, C, H, W\]"),
        (torch.zeros(1, 4, 8, 8), "it fails on the example"),
        (torch.zeros(0, 3, 8, 8), "needs at least one image"),
    ],
)
def test_examples_that_do_not_fit(example: object, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        signbit.compile(Net(nn.ReLU()), example)


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        ({"mean": [0.5], "std": [1, 1, 1]}, r"mean must have one number for each of 3 channels"),
        ({"mean": [0, 0, 0], "std": [1, 0, 1]}, "std positive"),
        ({"mean": [0, 0, 0]}, "needs mean and std"),
        ({"mean": ["a", 0, 0], "std": [1, 1, 1]}, r"mean must be numbers, got \['a'"),
        ("imagenet", "must be a mapping of mean and std, got str"),
    ],
)
def test_preprocessing_that_does_not_fit(preprocessing: dict, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        signbit.compile(Net(nn.ReLU()), X, preprocessing=preprocessing)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "model must be a torch.nn.Module, got NoneType"),
        (lambda x: x, "model must be a torch.nn.Module, got function"),
        (torch.jit.trace(nn.ReLU(), X), "the model is TorchScript"),
        (Net(torch.jit.trace(nn.ReLU(), X)), "layer is TorchScript, .* compile the module that it"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_what_is_no_module(model: object, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        signbit.compile(model, X)


def test_sessions_of_a_compiled_model_take_all_options() -> None:
    compiled = signbit.compile(Net(nn.ReLU()), X)
    with pytest.raises(signbit.SignbitError, match="NaN"):
        compiled.session(debug=True)(X.numpy() * float("nan"))
    with pytest.raises(signbit.SignbitError, match="memory"):
        compiled.session(memory_limit=1)(X.numpy())


def test_subclass_with_the_same_forward_is_its_parent() -> None:
    class MySign(snn.Sign):
        pass

    model = Net(nn.Sequential(MySign(), snn.BinaryConv2d(8, 4, 1)))
    assert [n.op for n in capture(model, X).graph.nodes] == [
        "quant_conv2d",
        "sign",
        "binary_conv2d",
    ]


def test_untraceable_model_still_lists_its_layers() -> None:
    model = Net(nn.Sequential(snn.Sign(), nn.Conv2d(8, 4, 1)), lambda x: x if x.sum() > 0 else -x)
    found = capture_leniently(model, X)
    assert [node.op for node in found.graph.nodes] == ["quant_conv2d", "sign", "conv2d"]
    assert [problem.path for problem in found.problems] == ["", "layer.1"]


@pytest.mark.parametrize("key", ["format", "version", "sha256", "input_shape", "signbit"])
def test_metadata_under_the_formats_own_names_is_refused(key: str) -> None:
    with pytest.raises(CompileError, match=f"metadata '{key}' is the format's own"):
        signbit.compile(Net(nn.ReLU()), X, metadata={key: "mine"}, verify=False)


def test_integer_programs_pad_with_zeros_alone() -> None:
    conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")
    with pytest.raises(CompileError, match=r"0 \(Conv2d\): padding_mode='reflect' is not known"):
        signbit.compile(nn.Sequential(conv, nn.ReLU()), X, arithmetic="integer")

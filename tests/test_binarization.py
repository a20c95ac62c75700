"""Networks made binary: what each layer becomes, what is refused, and that training works."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import signbit
from signbit import BinarizeError
from signbit.binarization import METHODS, binarize
from signbit.data.digits import load_digits
from signbit.nn import (
    BinaryConv2d,
    BinaryLinear,
    QuantConv2d,
    QuantLinear,
    RPReLU,
    RSign,
    Sign,
    set_binary_weights,
)
from signbit.quantizers import ApproxSign, ClippedIdentity, MeanAbsScale, PlainSign


class Plain(nn.Module):
    """Convolutions and linear layers as many people write them: functions in the forward."""

    def __init__(self):
        super().__init__()
        self.tail = nn.Linear(24, 10)  # defined first, runs last
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 12, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.hidden = nn.Linear(12 * 16, 24)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.norm(self.conv2(x))), 2)
        return self.tail(F.relu(self.hidden(x.view(x.size(0), -1))))


def layered() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, stride=2, groups=2, dilation=2, padding=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 4),
    )  # fmt: skip


X = torch.randn(4, 3, 8, 8)


@pytest.mark.parametrize("example", [None, X], ids=["traced", "run"])
@pytest.mark.parametrize("method", METHODS)
def test_what_each_method_makes_of_a_layer(method: str, example: Tensor | None) -> None:
    model = layered()
    before = copy.deepcopy(model.state_dict())
    net = binarize(model, method, example_input=example)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(isinstance(m, BinaryConv2d) for m in model.modules())

    assert isinstance(net[0], QuantConv2d)
    assert isinstance(net[10], QuantLinear)
    assert isinstance(net[3].conv, BinaryConv2d)
    assert isinstance(net[8].linear, BinaryLinear)
    surrogate = ApproxSign if method in ("bireal", "reactnet") else ClippedIdentity
    quantizer = PlainSign if method == "bineal" else MeanAbsScale
    assert isinstance(net[3].sign, RSign if method == "reactnet" else Sign)
    for pair in (net[3], net[8]):
        assert isinstance(pair.sign.surrogate, surrogate)
        assert isinstance(pair[1].weight_quantizer, quantizer)
    if method in ("xnor", "bireal"):
        assert [type(net[i]) for i in (2, 5, 9)] == [nn.Identity] * 3
    elif example is None:
        assert [type(net[i]) for i in (2, 5, 9)] == [nn.PReLU] * 3
    else:
        assert [net[i].channels for i in (2, 5, 9)] == [8, 8, 6]
        assert isinstance(net[2], RPReLU)

    conv, old = net[3].conv, model[3]
    assert torch.equal(conv.weight, old.weight)
    assert torch.equal(conv.bias, old.bias)
    assert conv.weight is not old.weight
    geometry = ("stride", "padding", "dilation", "groups", "kernel_size")
    assert [getattr(conv, n) for n in geometry] == [getattr(old, n) for n in geometry]
    assert conv.padding_value == 0
    assert net[0].bias is None
    assert torch.equal(net[10].weight, model[10].weight)
    assert net(X).shape == (4, 4)
    assert net.binarization.binary == ["3", "8"]
    assert net.binarization.eight_bit == ["0", "10"]


def test_the_binary_layer_computes_signs_times_mean_magnitudes() -> None:
    model = layered()
    net = binarize(model, "xnor")
    x = torch.randn(2, 8, 6, 6)
    weight = model[3].weight.detach()
    scale = weight.abs().mean((1, 2, 3)).view(1, -1, 1, 1)
    signs = torch.where(weight >= 0, 1.0, -1.0)
    expected = F.conv2d(torch.where(x >= 0, 1.0, -1.0), signs, None, 2, 2, 2, 2) * scale
    torch.testing.assert_close(net[3](x), expected + model[3].bias.view(1, -1, 1, 1))


def test_modes_and_random_state_stay() -> None:
    model = layered()
    model[3].eval()
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    net = binarize(model, example_input=X)
    assert torch.equal(torch.randn(3), expected)
    assert not net[3].conv.training
    assert net[0].training
    assert net.training
    assert model.training
    # statistics of batch norms do not follow the example
    for name, buffer in model[1].named_buffers():
        assert torch.equal(net[1].get_buffer(name), buffer)


# --- which layers stay at 8 bits ---


def test_the_last_layer_is_the_one_that_runs_last() -> None:
    images = torch.rand(2, 1, 8, 8)
    for net in (binarize(Plain()), binarize(Plain(), example_input=images)):
        assert net.binarization.eight_bit == ["conv1", "tail"]
        assert [layer.path for layer in net.binarization.layers][:2] == ["conv1", "conv2"]


class Branching(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else self.tail(x.new_zeros(1, 24))


def test_without_a_trace_the_order_is_that_of_definition() -> None:
    assert binarize(Branching()).binarization.eight_bit == ["tail", "hidden"]
    net = binarize(Branching(), example_input=torch.rand(2, 1, 8, 8))
    assert net.binarization.eight_bit == ["conv1", "tail"]
    # what does not run on the example is not the last layer
    net = binarize(Branching(), example_input=-torch.ones(2, 1, 8, 8), skip=())
    assert net.binarization.binary[0] == "tail"


@pytest.mark.parametrize(
    ("skip", "kept"),
    [
        ("3", ["3"]),
        (["0", "1?"], ["0", "10"]),
        ((), []),
        (["[03]"], ["0", "3"]),
    ],
)
def test_skip_names_layers_and_patterns(skip, kept: list[str]) -> None:
    net = binarize(layered(), skip=skip)
    assert net.binarization.eight_bit == kept
    assert len(net.binarization.binary) == 4 - len(kept)
    assert all(la.why.startswith("skip: ") for la in net.binarization.layers if la.now == "8-bit")


def test_skip_names_blocks() -> None:
    model = nn.Sequential(layered(), nn.Linear(4, 2))
    assert binarize(model, skip="0").binarization.binary == ["1"]


def test_skip_that_matches_nothing_or_everything() -> None:
    with pytest.raises(BinarizeError, match=r"'tial' matches no .*did you mean 'tail'"):
        binarize(Plain(), skip=["conv1", "tial"])
    with pytest.raises(BinarizeError, match=r"'norm' matches no"):
        binarize(Plain(), skip="norm")
    with pytest.raises(BinarizeError, match="let skip match fewer"):
        binarize(Plain(), skip="*")
    with pytest.raises(BinarizeError, match=r"skip=\(\) makes"):
        binarize(nn.Sequential(nn.Conv2d(1, 4, 3)))
    net = binarize(nn.Conv2d(1, 4, 3), skip=())
    assert isinstance(net.conv, BinaryConv2d)
    with pytest.raises(BinarizeError, match="nothing to binarize"):
        binarize(nn.Sequential(nn.ReLU()))


# --- signs that would be constant ---


def information(net: nn.Module, x: Tensor) -> dict[str, float]:
    """The share of +1 behind each sign."""
    shares: dict[str, float] = {}
    for path, module in net.named_modules():
        if isinstance(module, Sign | RSign):
            module.register_forward_hook(
                lambda m, i, out, path=path: shares.__setitem__(path, (out > 0).float().mean())
            )
    net(x)
    return shares


@pytest.mark.parametrize("method", METHODS)
def test_thresholds_behind_functional_relu_start_at_the_mean(method: str) -> None:
    torch.manual_seed(0)
    x = torch.rand(8, 1, 8, 8)
    net = binarize(Plain().eval(), method, example_input=x)
    for path in ("conv2", "hidden"):
        sign = net.get_submodule(path).sign
        assert isinstance(sign, RSign)
        assert (sign.bias < 0).all()
    seen = []
    net.conv2.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    net.norm.train()  # thresholds fit the statistics that training begins with
    assert all(0.05 < share < 0.95 for share in information(net, x).values())
    means = seen[0].mean((0, 2, 3))
    expected = -torch.where(means > 0, means, seen[0].mean())
    torch.testing.assert_close(net.conv2.sign.bias, expected)
    assert net.hidden.sign.bias.shape == (1,)
    whys = {layer.path: layer.why for layer in net.binarization.layers}
    assert "above 0" in whys["conv2"]


def test_thresholds_without_an_example() -> None:
    net = binarize(Plain(), "xnor")
    for path in ("conv2", "hidden"):
        assert net.get_submodule(path).sign.bias.tolist() == pytest.approx(
            [-0.4] * net.get_submodule(path).sign.channels
        )
    # behind a layer that gives both signs there is nothing to do
    assert isinstance(binarize(layered(), "xnor")[3].sign, Sign)


def test_an_example_of_zeros_moves_no_threshold() -> None:
    net = binarize(layered(), "xnor", example_input=torch.zeros(1, 3, 8, 8))
    assert isinstance(net[3].sign, Sign)


def test_activations() -> None:
    class Own(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.LeakyReLU(0.1), nn.Conv2d(4, 4, 1), nn.PReLU(4), nn.Conv2d(4, 4, 1),
        Own(), nn.Conv2d(4, 4, 1), nn.ReLU6(), nn.Conv2d(4, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 4, 1),
    )  # fmt: skip
    net = binarize(model, "reactnet", example_input=X)
    assert net[1].weight.tolist() == pytest.approx([0.1])
    assert net[3].weight.shape == (4,)
    assert type(net[5]) is Own
    assert isinstance(net[7], RPReLU)
    assert isinstance(net[9], nn.Sigmoid)
    assert (net[8].sign.bias == 0).all()


# --- sharing ---


class Sharing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.again = nn.Conv2d(4, 4, 1)
        self.alias = self.again
        self.tied = nn.Conv2d(4, 4, 1)
        self.tied.weight = self.again.weight
        self.act = nn.ReLU()
        self.wide = nn.Conv2d(4, 6, 1)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.again(self.first(x)))
        x = self.tied(self.alias(x))
        return self.last(self.act(self.wide(x)))


def test_shared_layers_stay_shared() -> None:
    net = binarize(Sharing(), example_input=X)
    assert net.again is net.alias
    assert net.tied is not net.again
    assert net.tied.conv.weight is net.again.conv.weight
    # maps of 4 and of 6 channels go through one activation: one slope serves both
    assert isinstance(net.act, nn.PReLU)
    assert net.binarization.binary == ["again", "tied", "wide"]
    assert binarize(Sharing(), skip=["alias"]).binarization.eight_bit == ["again"]


# --- transposed convolutions ---


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_transposed_convolution_becomes_a_shuffle(factor: int, groups: int) -> None:
    old = nn.ConvTranspose2d(6, 4, factor, stride=factor, groups=groups)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), old, nn.Conv2d(4, 2, 1))
    x = torch.randn(2, 6, 5, 7)
    kept = binarize(model, skip="1").get_submodule("1")  # uncalibrated: real numbers
    torch.testing.assert_close(kept.eval()(x), old(x))
    made = binarize(model, "xnor", skip=("0", "2"))[1]
    set_binary_weights(made, False)
    signs = torch.where(x >= 0, 1.0, -1.0)
    torch.testing.assert_close(made(x), old(signs))
    assert made.conv.weight.requires_grad


# --- refused ---


class OwnForward(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Conv1d(3, 4, 3), r"body \(Conv1d\): only 2-D convolutions"),
        (nn.Conv3d(3, 4, 3), r"body \(Conv3d\): only 2-D"),
        (nn.ConvTranspose1d(3, 4, 3), r"\(ConvTranspose1d\): only 2-D"),
        (nn.LSTM(3, 4), r"\(LSTM\): recurrent"),
        (nn.GRUCell(3, 4), r"\(GRUCell\): recurrent"),
        (nn.MultiheadAttention(4, 2), r"body \(MultiheadAttention\): attention"),
        (nn.Embedding(3, 4), "embeddings"),
        (nn.Bilinear(3, 4, 5), "bilinear"),
        (nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1), "kernel is its stride"),
        (nn.ConvTranspose2d(3, 4, 3, stride=2), "kernel is its stride"),
        (nn.ConvTranspose2d(3, 4, (2, 1), stride=(2, 1)), "square kernel"),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), "padding_mode='reflect'"),
        (nn.Conv2d(3, 4, 2, padding="same"), "not symmetric"),
        (OwnForward(3, 4, 3), r"body \(OwnForward\): it overrides the forward of Conv2d"),
        (nn.LazyConv2d(4, 3), "run the model once"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), "parametrized"),
        (nn.Sequential(BinaryConv2d(3, 4, 3)), r"body.0 \(BinaryConv2d\): it is binary already"),
        (nn.Sequential(RSign(3), nn.Conv2d(3, 4, 3)), r"body.0 \(RSign\): it is binary already"),
    ],
)
def test_layers_that_cannot_be_taken(layer: nn.Module, reason: str) -> None:
    model = nn.ModuleDict({"stem": nn.Conv2d(3, 3, 1), "body": layer})
    with pytest.raises(BinarizeError, match=reason):
        binarize(model)


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(BinarizeError, match=r"(?s)2 layers.*0 \(LSTM\).*1 \(Conv1d\)"):
        binarize(nn.Sequential(nn.LSTM(3, 4), nn.Conv1d(3, 4, 3), nn.Conv2d(3, 3, 1)))


def test_hooks_and_tied_transposed_weights_are_refused() -> None:
    model = layered()
    model[3].register_forward_hook(lambda *_: None)
    with pytest.raises(BinarizeError, match=r"3 \(Conv2d\): it has hooks"):
        binarize(model)
    conv, up = nn.Conv2d(4, 6, 2, stride=2), nn.ConvTranspose2d(6, 4, 2, stride=2)
    up.weight = nn.Parameter(torch.randn(6, 4, 2, 2))
    conv.weight = up.weight
    with pytest.raises(BinarizeError, match=r"1 \(ConvTranspose2d\): its weight is also another"):
        binarize(nn.Sequential(conv, up, nn.Conv2d(4, 2, 1)))


def test_twice_is_an_error() -> None:
    with pytest.raises(BinarizeError, match="binary already: give binarize the network that"):
        binarize(binarize(layered()))


def test_unknown_methods_and_examples_that_do_not_fit() -> None:
    with pytest.raises(BinarizeError, match="did you mean 'reactnet'"):
        binarize(layered(), "reacnet")
    with pytest.raises(BinarizeError, match="fails on example_input: RuntimeError"):
        binarize(layered(), example_input=torch.zeros(1, 2, 8, 8))

    class Reaching(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.conv2.out_channels

    with pytest.raises(BinarizeError, match="does not fit binary layers: AttributeError"):
        binarize(Reaching(), example_input=torch.rand(1, 1, 8, 8))


def test_examples_that_are_no_finite_tensors() -> None:
    x = torch.rand(2, 3, 8, 8)
    with pytest.raises(BinarizeError, match=r"torch\.Tensor, got ndarray: .*from_numpy"):
        binarize(layered(), example_input=x.numpy())
    x[1, 0, 2, 3] = float("nan")
    with pytest.raises(BinarizeError, match="example_input holds NaN or infinity"):
        binarize(layered(), example_input=x)
    with pytest.raises(BinarizeError, match=r"torch\.nn\.Module, got NoneType"):
        binarize(None)


def test_numbers_that_overflow_give_no_threshold() -> None:
    class Huge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
            self.middle = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.middle(F.relu(self.first(x)) * 1e38 * 1e38))

    with pytest.raises(BinarizeError, match=r"^middle: NaN or infinity reaches this layer"):
        binarize(Huge(), example_input=torch.rand(2, 3, 8, 8))


def test_padding_by_name() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, (3, 5), padding="same", dilation=(2, 1)),
        nn.Conv2d(4, 4, 2, padding="valid"),
    )
    net = binarize(model, skip=())
    assert net[0].conv.padding == (2, 2)
    assert net[1].conv.padding == (0, 0)


# --- afterwards ---


@pytest.mark.parametrize("method", METHODS)
def test_training_after_it_reduces_the_loss(method: str) -> None:
    source = load_digits()
    torch.manual_seed(0)
    images = torch.from_numpy(source.train.images[:256, ..., 0].astype(np.float32))[:, None]
    x, labels = images / 128 - 1, torch.from_numpy(source.train.labels[:256])
    net = binarize(Plain(), method, example_input=x)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    net.train()
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), labels)
        loss.backward()
        if not losses:
            for path in ("conv2.conv", "hidden.linear"):
                assert net.get_submodule(path).weight.grad.abs().max() > 0
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.6 * losses[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_result_compiles(method: str) -> None:
    x = torch.randn(4, 3, 8, 8)
    model = layered()
    model[6] = nn.Identity()  # the linear layer reads a flattened map: one threshold for all of it
    model[8] = nn.Linear(8 * 16, 6)
    net = signbit.calibrate(signbit.binarize(model, method, example_input=x), [x])
    assert signbit.compile(net, x).report.engine == "equal"


WHYS = ("why", "the first", "a sign")


def test_the_report_reads_well() -> None:
    lines = str(binarize(layered()).binarization).splitlines()
    assert lines[0] == "reactnet (ReActNet, arXiv 2003.03488): 2 layers binary, 2 8-bit"
    assert lines[1].split() == ["layer", "was", "now", "why"]
    assert lines[2].split(maxsplit=3) == ["0", "Conv2d", "8-bit", "the first layer"]
    assert (
        len(
            {
                line.index(word)
                for line, word in zip(lines[1:4], ("why", "the", "a sign"), strict=True)
            }
        )
        == 1
    )

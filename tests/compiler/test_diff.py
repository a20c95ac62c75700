"""`diff`: the first layer that differs, and where."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import signbit
from signbit import nn as snn
from signbit.compiler import emit, reference
from signbit.compiler.compiled import CompiledModel
from signbit.errors import SignbitError


class Net(nn.Module):
    """A chain of bits, a sum of real numbers, a linear layer behind a flattened map."""

    def __init__(self):
        super().__init__()
        self.stem = snn.QuantConv2d(3, 8, 3, padding=1)
        self.sign1 = snn.RSign(8)
        self.conv1 = snn.BinaryConv2d(8, 12, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(12)
        self.sign2 = snn.Sign()
        self.conv2 = snn.BinaryConv2d(12, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.act = nn.PReLU(8)
        self.flatten = nn.Flatten()
        self.sign3 = snn.RSign(1)
        self.hidden = snn.BinaryLinear(8 * 36, 9, bias=True)
        self.head = snn.QuantLinear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.bn2(self.conv2(self.sign2(self.bn1(self.conv1(self.sign1(x))))))
        return self.head(self.hidden(self.sign3(self.flatten(self.act(y + x)))))


@pytest.fixture
def case() -> tuple[Net, CompiledModel, Tensor]:
    torch.manual_seed(3)
    net = Net()
    nn.init.normal_(net.sign1.bias, std=0.2)
    nn.init.constant_(net.sign3.bias, 0.3)
    for norm, conv in ((net.bn1, net.conv1), (net.bn2, net.conv2)):
        nn.init.uniform_(conv.weight, -1, 1)
        nn.init.uniform_(norm.running_var, 1, 9)
        nn.init.normal_(norm.bias, std=0.3)
    x = torch.randn(3, 3, 6, 6)
    signbit.calibrate(net, [x])
    return net.eval(), signbit.compile(net, x), x


@pytest.mark.parametrize("form", ["model", "bytes", "file"])
def test_equal_models_are_equal(case, form: str, tmp_path: Path) -> None:
    net, compiled, x = case
    program = {
        "model": lambda: compiled,
        "bytes": lambda: emit.emit(compiled.graph),
        "file": lambda: compiled.save(tmp_path / "net.signbit"),
    }[form]()
    found = signbit.diff(net, program, x)
    assert found.equal
    assert found.first is None
    assert found.engine == "equal"
    assert [value.name for value in found.values] == [
        "sign1", "stem", "sign2", "sign3", "hidden", "head"
    ]  # fmt: skip
    assert [value.type for value in found.values] == [
        "bits", "real", "bits", "bits", "real", "real"
    ]  # fmt: skip
    assert found.values[3].layers == ("conv2", "bn2", "add", "act", "flatten", "sign3")
    assert "equal: 6 maps compared" in str(found)
    assert ">" not in str(found)


def flip_weight(layer: snn.BinaryLayer) -> None:
    with torch.no_grad():
        layer.weight[2].neg_()


PERTURBED = {
    "conv1": (lambda net: flip_weight(net.conv1), "sign2", "conv1"),
    "conv2": (lambda net: flip_weight(net.conv2), "sign3", "conv2"),
    "hidden": (lambda net: flip_weight(net.hidden), "hidden", "hidden"),
    "bias": (lambda net: net.hidden.bias.data.add_(0.5), "hidden", "hidden"),
    "threshold": (lambda net: net.sign1.bias.data[1].sub_(3.0), "sign1", "sign1"),
    "norm": (lambda net: net.bn1.weight.data[3].neg_(), "sign2", "bn1"),
    "head": (lambda net: net.head.weight.data[1].neg_(), "head", "head"),
}


@pytest.mark.parametrize("form", ["model", "bytes"])
@pytest.mark.parametrize("what", PERTURBED)
def test_a_changed_layer_is_found(case, what: str, form: str) -> None:
    net, compiled, x = case
    change, value, layer = PERTURBED[what]
    change(net)
    program = compiled if form == "model" else emit.emit(compiled.graph)
    found = signbit.diff(net, program, x)
    assert not found.equal
    assert found.first.name == value
    assert layer in found.first.layers
    assert found.engine == "equal"
    marked = [line for line in str(found).splitlines() if line.startswith(">")]
    assert len(marked) == 1
    assert value in marked[0]
    assert f"first difference: {value}, image" in str(found)


def test_the_place_is_that_of_the_first_wrong_bit(case) -> None:
    net, compiled, x = case
    values = reference.run(compiled.graph, x.numpy(), collect=True)[1]
    flip_weight(net.conv1)
    seen = []
    hook = net.bn1.register_forward_hook(lambda m, i, out: seen.append(out))
    net(x)
    hook.remove()
    model, program = seen[0].detach().numpy(), values["sign2"]
    place = signbit.diff(net, compiled, x).first.first
    wrong = (model >= 0) != (program == 1)
    assert (place.image, place.channel, place.row, place.column) == tuple(np.argwhere(wrong)[0])
    assert place.channel == 2
    at = place.image, place.channel, place.row, place.column
    assert place.before_sign == pytest.approx(model[at])
    assert place.model == (1 if model[at] >= 0 else -1)
    assert place.program == -place.model

    node = next(n for n in compiled.graph.nodes if n.path == "conv1")
    step = node.epilogue[0]
    sums = torch.nn.functional.conv2d(
        torch.from_numpy(values["sign1"]).float() * 2 - 1,
        torch.from_numpy(node.params["weight"]).float(),
        padding=1,
    )
    assert place.sum == sums[at].item()
    low, high, flip = (int(step.params[name][2]) for name in ("low", "high", "flip"))

    def bit(total: int) -> bool:
        return (low <= total <= high) != bool(flip)

    assert bit(place.sum) == (place.program == 1)
    nearer = range(place.sum - place.distance + 1, place.sum + place.distance)
    assert {bit(total) for total in nearer} == {bit(place.sum)}
    assert {bit(place.sum - place.distance), bit(place.sum + place.distance)} != {bit(place.sum)}
    assert f"the program's sum is {place.sum}" in str(place)


def test_the_share_and_the_error_are_those_of_the_map(case) -> None:
    net, compiled, x = case
    before = net.hidden(torch.ones(1, 288))
    net.hidden.bias.data[4] += 100.0
    found = signbit.diff(net, compiled, x).first
    assert found.elements == 3 * 9
    assert found.differing == 3
    assert found.share == pytest.approx(3 / 27)
    assert found.max_error > 0.9
    assert found.first.channel == 4
    assert before.shape == (1, 9)
    relaxed = signbit.diff(net, compiled, x, tolerance=2.0)
    assert [value.differing for value in relaxed.values if value.name == "hidden"] == [0]


def test_another_size_of_image(case) -> None:
    net, _, _ = case
    body = nn.Sequential(net.stem, net.sign1, net.conv1, net.bn1)
    compiled = signbit.compile(body, torch.randn(1, 3, 6, 6))
    assert signbit.diff(body, compiled, torch.randn(2, 3, 9, 11)).equal


def test_bits_that_are_pooled(case) -> None:
    net, _, x = case
    body = nn.Sequential(
        net.stem, net.sign1, net.conv1, nn.MaxPool2d(2), net.bn1, net.sign2, net.conv2
    )
    with torch.no_grad():
        net.bn1.weight[5].neg_()
    compiled = signbit.compile(body, x)
    assert signbit.diff(body, compiled, x).equal
    flip_weight(net.conv1)
    found = signbit.diff(body, compiled, x).first
    assert found.layers == ("2", "3", "4", "5")
    assert found.first.sum is None


def test_an_engine_that_differs_is_told(case, monkeypatch: pytest.MonkeyPatch) -> None:
    net, compiled, x = case
    run = reference.run

    def wrong(graph, x, collect=False):
        outputs, values = run(graph, x, collect=True)
        return [outputs[0] + np.float32(1)], values

    monkeypatch.setattr(reference, "run", wrong)
    found = signbit.diff(net, compiled, x)
    assert not found.equal
    assert "differs in 12 of 12 numbers of output 0, by up to 1" in str(found)


def test_programs_of_other_models_are_refused(case) -> None:
    net, compiled, x = case
    other = nn.Sequential(copy.deepcopy(net.stem), snn.Sign(), snn.BinaryConv2d(8, 4, 1))
    for program in (compiled, emit.emit(compiled.graph)):
        with pytest.raises(signbit.SignbitError, match="compiled from another model"):
            signbit.diff(other, program, x)
    small = nn.Sequential(snn.QuantConv2d(1, 4, 3))
    signbit.calibrate(small, [x[:, :1]])
    with pytest.raises(signbit.SignbitError, match="compiled from another model"):
        signbit.diff(small, compiled, x[:, :1])
    with pytest.raises(signbit.FormatError):
        signbit.diff(net, b"no program", x)


@pytest.mark.parametrize("shape", [(0, 3, 16, 16), (3, 16, 16)])
def test_an_input_without_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SignbitError, match=r"x must be \[N, C, H, W\] with at least one image"):
        signbit.diff(nn.Identity(), b"", torch.zeros(shape))


@pytest.mark.parametrize("form", ["model", "bytes"])
def test_integer_programs_are_refused(form: str) -> None:
    model = signbit.create_model("ab_reactnet18", num_classes=10, stem="cifar", width=0.125).eval()
    x = torch.randn(1, 3, 32, 32)
    compiled = signbit.compile(model, x, arithmetic="integer", verify=False)
    program = compiled if form == "model" else emit.emit(compiled.graph)
    with pytest.raises(SignbitError, match=r"diff compares float programs .* how many bits differ"):
        signbit.diff(model, program, x)

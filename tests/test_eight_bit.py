"""`to_8bit`: what becomes an 8-bit layer, what stays, and what is refused by name."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import signbit
from signbit import nn as snn
from signbit.errors import CompileError

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net(stem: nn.Module, *layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(stem, *layers).eval()


def quantised(model: nn.Module) -> list[str]:
    kind = snn.quant.QuantLayer
    return [path for path, layer in model.named_modules() if isinstance(layer, kind)]


def test_a_network_of_the_zoo_is_calibrated_and_compiled() -> None:
    torch.manual_seed(1)
    model = signbit.create_model("ab_reactnet18", num_classes=10, stem="cifar", width=0.125)
    labels = torch.arange(10)
    images = torch.randn(10, 3, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    # Before training, changes of 0.001 in the pixels decide what such a network says.
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()
    before = copy.deepcopy(model.state_dict())
    changed = signbit.calibrate(signbit.to_8bit(model, images[:1]), [images])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    # the stem, three shortcuts that read real numbers, the classifier
    assert len(quantised(changed)) == 5
    logits = torch.as_tensor(signbit.compile(changed, images).session()(images.numpy()))
    with torch.no_grad():
        real, in_8bit = model(images), changed(images)
    assert (logits.argmax(1) == in_8bit.argmax(1)).all()
    assert len(set(real.argmax(1).tolist())) >= 6
    assert (logits.argmax(1) == real.argmax(1)).sum() >= 9
    assert (logits - real).norm() < 0.2 * real.norm()


@pytest.mark.parametrize(
    ("stem", "message"),
    [
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), "padding_mode='reflect'.*'zeros'"),
        (nn.Conv2d(3, 4, 2, padding="same"), "padding='same' is not symmetric.*odd kernel"),
        (snn.BinaryConv2d(3, 4, 3, padding=1, padding_value=1), "pads with 1, .*padding_value=0"),
    ],
)
def test_padding_that_8_bit_layers_do_not_know(stem: nn.Module, message: str) -> None:
    with pytest.raises(CompileError, match=rf"0\.1 \({type(stem).__name__}\): .*{message}"):
        signbit.to_8bit(net(nn.Sequential(nn.Identity(), stem), nn.ReLU()), X)


def test_layers_that_are_not_what_their_class_says_are_refused() -> None:
    class Doubling(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    with pytest.raises(CompileError, match=r"0 \(Doubling\): it overrides the forward of Conv2d"):
        signbit.to_8bit(net(Doubling(3, 4, 1)), X)
    hooked = nn.Conv2d(3, 4, 1)
    hooked.register_forward_hook(lambda layer, inputs, output: -output)
    with pytest.raises(CompileError, match=r"0 \(Conv2d\): it has forward hooks"):
        signbit.to_8bit(net(hooked), X)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name(padding: str) -> None:
    model = net(nn.Conv2d(3, 4, (3, 5), padding=padding, dilation=(2, 1), bias=False))
    changed = signbit.to_8bit(model, X)
    assert changed[0].padding == ((2, 2) if padding == "same" else (0, 0))
    assert torch.equal(changed(X), model(X))  # in real numbers, before it is calibrated


class Shared(nn.Module):
    """One convolution under two names, in one container under two names, and a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1)
        self.alias = self.stem
        self.block = nn.Sequential(nn.Conv2d(3, 3, 1))
        self.again = self.block
        self.tied = nn.Conv2d(3, 3, 1)
        self.tied.weight = self.stem.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(self.again(self.block(self.alias(self.stem(x)))))


def test_what_is_shared_stays_shared() -> None:
    model = Shared().eval()
    changed = signbit.to_8bit(model, X)
    assert isinstance(changed.stem, snn.QuantConv2d)
    assert changed.alias is changed.stem
    assert changed.again is changed.block
    assert isinstance(changed.block[0], snn.QuantConv2d)
    assert changed.tied.weight is changed.stem.weight
    assert changed.stem.weight is not model.stem.weight
    assert torch.equal(changed(X), model(X))


def test_what_reads_real_numbers_is_read_off_the_network() -> None:
    stem = nn.Conv2d(3, 4, 1)
    model = net(
        stem, snn.Sign(), snn.BinaryConv2d(4, 4, 1), nn.Hardtanh(), snn.BinaryConv2d(4, 4, 1)
    )
    with torch.no_grad():
        stem.weight.fill_(0)
        stem.bias.fill_(1)  # every sum is far beyond 1 and clipped to it
        model[2].weight.fill_(9)
    assert (model[:4](X).abs() == 1).all()
    assert quantised(signbit.to_8bit(model, X)) == ["0", "4"]


def test_networks_that_cannot_be_followed() -> None:
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) if x.sum() > 0 else x

    with pytest.raises(CompileError, match=r"the model \(Choosing\): its forward cannot be traced"):
        signbit.to_8bit(Choosing(), X)
    with pytest.raises(CompileError, match="it fails on the example: RuntimeError"):
        signbit.to_8bit(net(nn.Conv2d(5, 4, 1)), X)


def test_nothing_to_change_and_bare_layers() -> None:
    with pytest.raises(CompileError, match="no real-valued convolution or linear layer"):
        signbit.to_8bit(net(snn.Sign(), snn.BinaryConv2d(3, 4, 1)), X)
    for layer in (nn.Conv2d(3, 4, 1), snn.BinaryConv2d(3, 4, 1)):
        name = type(layer).__name__
        with pytest.raises(CompileError, match=rf"single {name}, .*torch\.nn\.Sequential"):
            signbit.to_8bit(layer, X)


def test_dtype_and_requires_grad_are_kept() -> None:
    model = net(
        nn.Conv2d(3, 4, 1), snn.ScaledStdConv2d(4, 4, 3), snn.BinaryConv2d(4, 4, 1), nn.Flatten(),
        nn.Linear(144, 2),
    ).double()  # fmt: skip
    for index in (0, 1, 2):
        model[index].weight.requires_grad_(False)
    model[4].bias.requires_grad_(False)
    changed = signbit.to_8bit(model, X.double())
    assert quantised(changed) == ["0", "1", "2", "4"]
    assert {parameter.dtype for parameter in changed.parameters()} == {torch.float64}
    grads = {name: parameter.requires_grad for name, parameter in changed.named_parameters()}
    assert [name for name, wanted in grads.items() if wanted] == ["0.bias", "4.weight"]
    torch.testing.assert_close(changed(X.double()), model(X.double()))

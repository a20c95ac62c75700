"""Networks for matching: sizes by hand, bits between layers, one plan for both, exact programs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import signbit
import signbit.nn as snn
from signbit.calibration import calibrate
from signbit.models import create_model
from signbit.models.bineal import BinealBlock

BOTH = ["r2d2_bineal", "r2d2"]


def small(name: str, **arguments) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, **{"width": 0.5, "descriptor_size": 16, **arguments})


def learnt(model: nn.Module) -> nn.Module:
    """As after training: batch norms with statistics of their own, 8-bit ranges frozen."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1, 1)
            nn.init.normal_(module.bias)
        if isinstance(module, snn.RPReLU):
            for parameter in module.parameters():
                nn.init.uniform_(parameter, 0.05, 0.5)
    images = torch.randn(2, 3, 64, 96)
    for _ in range(3):
        model(images)
    calibrate(model, [images])
    return model.eval()


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("stride", [4, 8])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 77)])
def test_shapes(name, stride, height, width):
    model = small(name, stride=stride)
    descriptors, reliability, repeatability = model(torch.randn(2, 3, height, width))
    h, w = -(-height // stride), -(-width // stride)
    assert descriptors.shape == (2, 16, h, w)
    assert reliability.shape == (2, 1, h, w)
    assert repeatability.shape == (2, 1, 4 * -(-height // 4), 4 * -(-width // 4))


def test_parameters_by_hand():
    def pair(i, o, own):
        return 9 * (i * o + o * o) + 2 * own * o

    stem, heads = 27 * 16 + 2 * 16, 64 * (64 + 1 + 16) + 64 + 1 + 16
    plan = [(16, 32), (32, 64), (64, 64)]
    real = create_model("r2d2")
    assert sum(p.numel() for p in real.parameters()) == stem + heads + sum(
        pair(i, o, 2) for i, o in plan
    )
    binary = stem + heads + sum(pair(i, o, 5) for i, o in plan)
    bits = create_model("r2d2_bineal", width=1.0)
    assert sum(p.numel() for p in bits.parameters()) == binary
    # PReLU and 8-bit convolution of the stem, binary one of bits, batch norm, PReLU; narrower heads
    carry = 16 + 9 * 16 * 48 + 48 + 9 * 64 * 48 + 2 * 48 + 48 - (64 - 48) * (64 + 1 + 16)
    both = create_model("r2d2_bineal", width=1.0, features=48)
    assert sum(p.numel() for p in both.parameters()) == binary + carry


def test_the_rival_has_the_same_convolutions():
    def plan(model):
        kinds = (nn.Conv2d, snn.BinaryConv2d, snn.QuantConv2d)
        fields = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
        return {
            path: [getattr(m, f) for f in fields]
            for path, m in model.named_modules()
            if isinstance(m, kinds)
        }

    for options in ({"width": 1.5}, {"stride": 8, "width": 1.0}):
        wanted = plan(create_model("r2d2", **options))
        assert plan(create_model("r2d2_bineal", **options)) == wanted


def test_everything_between_the_layers_is_bits():
    model = learnt(small("r2d2_bineal"))
    seen = []
    for module in model.modules():
        if isinstance(module, snn.BinaryConv2d) or module in (
            model.descriptors, model.reliability, model.repeatability,
        ):  # fmt: skip
            module.register_forward_pre_hook(
                lambda _, inputs: seen.append(inputs[0].unique().tolist())
            )
    model(torch.randn(2, 3, 64, 96))
    assert seen == [[-1.0, 1.0]] * 9


@pytest.mark.parametrize(
    "options",
    [{}, {"features": 48}, {"over_parameterize": "element", "features": 10},
     {"stride": 8, "over_parameterize": "filter"}, {"stride": 8, "skip": True, "features": 6}],
)  # fmt: skip
def test_compiled_it_gives_the_same_for_images_of_any_size(tmp_path, options):
    model = learnt(small("r2d2_bineal", **options))
    compiled = signbit.compile(model, torch.randn(1, 3, 64, 96))
    compiled.save(tmp_path / "m.signbit")
    session = signbit.load(tmp_path / "m.signbit", threads=1)
    for size in ((64, 96), (50, 77), (131, 40)):
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            wanted = model(images)
        for found, tensor in zip(session(images.numpy()), wanted, strict=True):
            np.testing.assert_allclose(found, tensor.numpy(), rtol=1e-5, atol=1e-5)


def test_over_parameterised_weights_are_options():
    plain, rich = (small("r2d2_bineal", over_parameterize=g) for g in (None, "element"))
    count = [sum(p.numel() for p in model.parameters()) for model in (plain, rich)]
    assert count[1] > 1.8 * count[0]
    bare = small("r2d2_bineal", parametric_activations=False)
    assert not any(isinstance(module, snn.RPReLU) for module in bare.modules())


@pytest.mark.parametrize("name", BOTH)
def test_bad_numbers_are_refused(name):
    with pytest.raises(ValueError, match="descriptor_size must be a multiple of 8, got 12"):
        create_model(name, descriptor_size=12)
    with pytest.raises(ValueError, match="stride must be 4 or 8, got 2"):
        create_model(name, stride=2)
    with pytest.raises(ValueError, match="width must be a positive number"):
        create_model(name, width=0)


def test_features_of_the_stem_reach_the_outputs_past_the_bits():
    with pytest.raises(ValueError, match="features must be at least 0, got -1"):
        create_model("r2d2_bineal", features=-1)
    torch.manual_seed(0)
    model = create_model("r2d2_bineal", width=0.5, features=48).eval()
    nn.init.zeros_(model.carry.norm.weight)  # bits say nothing
    calibrate(model, [torch.randn(2, 3, 64, 96)])
    one, other = (model(torch.randn(1, 3, 64, 96))[0] for _ in range(2))
    assert not torch.allclose(one, other)


def test_blocks_with_skip_are_those_of_bineal_networks():
    model = create_model("r2d2_bineal", stride=8, skip=True)
    assert [type(block) for block in model.blocks] == [BinealBlock] * 3
    with pytest.raises(ValueError, match="skip needs stride=8"):
        create_model("r2d2_bineal", skip=True)


def test_both_learn():
    """A few steps lower a loss that all outputs take part in."""
    images = torch.randn(4, 3, 32, 32)
    for name in BOTH:
        model = small(name)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        losses = []
        for _ in range(12):
            loss = sum((y - 1).square().mean() for y in model(images))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.9 * losses[0], name
        assert all(p.grad is not None for p in model.parameters()), name


def test_filters_start_out_smooth():
    """So that a place keeps something in common with itself before anything is learnt."""
    torch.manual_seed(0)
    coarse = torch.randn(1, 3, 20, 26)
    image = nn.functional.interpolate(coarse, scale_factor=8, mode="bicubic")
    views = torch.cat([image, image + 0.3 * torch.randn_like(image)])
    agreement = []
    for smooth in (True, False):
        model = create_model("r2d2_bineal", width=1.0)
        for module in model.modules():
            if isinstance(module, snn.BinaryConv2d) and not smooth:
                module.reset_parameters()
        with torch.no_grad():
            first, second = model.blocks(model.stem(views)).chunk(2)
        agreement.append(float((first * second).mean()))
    assert agreement[0] > 2 * agreement[1]

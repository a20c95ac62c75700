"""BNext's networks: plans, features, ablations, bits, what is refused, compiling."""

import numpy as np
import pytest
import torch
from torch import nn

import signbit
import signbit.nn as snn
from signbit.models import create_model
from signbit.models.bnext import BNextUnit
from signbit.quantizers import ProgressiveSign

PLANS = {
    "bnext_tiny": (32, 13, 6),
    "bnext_small": (48, 13, 6),
    "bnext_middle": (48, 21, 10),
    "bnext_large": (64, 29, 14),
}
REAL = {"stem_bits": 32, "se_bits": 32, "head_bits": 32}


def small(name: str, **arguments) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, **{"num_classes": 10, "stem": "cifar", "width": 0.125, **arguments})


def units(model: nn.Module) -> list[BNextUnit]:
    return [module for module in model.modules() if isinstance(module, BNextUnit)]


@pytest.mark.parametrize("name", PLANS)
def test_plans(name):
    base, blocks, attending = PLANS[name]
    with torch.device("meta"):
        model = create_model(name)
    assert model.stem[0].out_channels == base
    assert sum(len(stage) for stage in model.stages) == blocks
    assert sum(unit.attention for unit in units(model)) == attending
    assert model.head.in_features == 32 * base


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_features_halve_from_map_to_map(stem):
    model = small("bnext_tiny", stem=stem, **REAL).eval()
    x = torch.randn(2, 3, 64, 64)
    first = 32 if stem == "imagenet" else 64
    maps = model.features(x)
    assert [m.shape for m in maps] == [(2, 8 << i, first >> i, first >> i) for i in range(5)]
    logits = model.head(model.flatten(model.pool(model.act(maps[-1]))))
    torch.testing.assert_close(logits, model(x), rtol=0, atol=0)


def test_features_of_bnext18():
    maps = small("bnext18", stem="imagenet").eval().features(torch.randn(1, 3, 64, 64))
    assert [m.shape[1:] for m in maps] == [(8 << i, 16 >> i, 16 >> i) for i in range(4)]


@pytest.mark.parametrize("name", ["bnext_tiny", "bnext18"])
def test_ablations_leave_out_what_they_say(name):
    whole = units(small(name))
    assert any(unit.attention for unit in whole)
    assert all(isinstance(unit.se, nn.Sequential) for unit in whole)
    assert not any(unit.attention for unit in units(small(name, elm_attention=False)))
    plain = small(name, elm_attention=False, info_rcp=False)
    assert not any(hasattr(unit, "se") or hasattr(unit, "scale") for unit in units(plain))
    assert all(unit.norm2 is None for unit in units(plain))


# The stream of the deeper plan has one sign all over at first where nothing normalises it.
@pytest.mark.parametrize("elm_attention", [True, False])
@pytest.mark.parametrize(
    ("name", "info_rcp"), [("bnext_tiny", True), ("bnext18", True), ("bnext18", False)]
)
def test_every_parameter_has_a_gradient(name, elm_attention, info_rcp):
    model = small(name, elm_attention=elm_attention, info_rcp=info_rcp, **REAL)
    for unit in units(model):
        unit.conv.weight.data.mul_(100)  # as after a while of training
        if info_rcp:
            unit.se[1].bias.data.fill_(3.0)  # so few hidden channels could all be off
    model(torch.randn(24, 3, 32, 32)).square().sum().backward()
    lacking = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not lacking


def test_binary_layers_are_the_authors():
    model = small("bnext_tiny")
    for unit in units(model):
        assert isinstance(unit.conv.weight_quantizer, ProgressiveSign)
        assert unit.conv.latent_clamp == 1.5
        assert unit.conv.padding_value == 0
        assert unit.sign.surrogate.window == 1.5
    weights = [unit.conv.weight.detach() for unit in units(model)]
    stds = [float(weight.std()) for weight in weights if weight.numel() > 99]
    assert stds == pytest.approx([1e-3] * len(stds), rel=0.5)


@pytest.mark.parametrize(
    ("bits", "kind"), [(32, nn.Conv2d), (8, snn.QuantConv2d), (4, snn.QuantConv2d)]
)
def test_bits(bits, kind):
    model = small("bnext_tiny", stem_bits=bits, se_bits=bits, head_bits=bits)
    convs = [model.stem[0], units(model)[0].se[1], units(model)[0].se[3]]
    assert [type(conv) for conv in convs] == [kind] * 3
    if bits < 32:
        assert [conv.bits for conv in [*convs, model.head]] == [bits] * 4


def test_dynamic_ranges():
    model = small("bnext18", ranges="dynamic", se_bits=4)
    assert type(model.stem[0]) is snn.DynamicQuantConv2d
    assert not model.stem[0].quantize_input
    squeeze = units(model)[0].se[1]
    assert (type(squeeze), squeeze.bits, squeeze.quantize_input) == (
        snn.DynamicQuantConv2d,
        4,
        True,
    )
    assert type(model.head) is snn.DynamicQuantLinear
    with pytest.raises(ValueError, match="did you mean 'dynamic'"):
        small("bnext18", ranges="dynamical")
    with pytest.raises(ValueError, match="all bits are 32"):
        small("bnext18", ranges="dynamic", **REAL)
    with pytest.raises(ValueError, match="all bits are 32"):
        small("bnext_tiny", ranges="dynamic", info_rcp=False, stem_bits=32, head_bits=32)
    with pytest.raises(ValueError, match="there is no squeeze-and-excite"):
        small("bnext18", info_rcp=False, se_bits=4)


def test_shares_come_back_from_outside_their_range():
    model = small("bnext18", **REAL)
    unit = units(model)[0]
    unit.se[1].bias.data.fill_(3.0)  # so few hidden channels could all be off
    unit.scale.data[:3] = torch.tensor([-0.5, 0.25, 1.5])
    model.eval()(torch.randn(2, 3, 32, 32))
    assert unit.scale[:3].tolist() == [-0.5, 0.25, 1.5]
    model.train()(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert unit.scale[:3].tolist() == [0.0, 0.25, 1.0]
    assert unit.scale.grad.any()


@pytest.mark.parametrize("field", ["stem_bits", "se_bits", "head_bits"])
@pytest.mark.parametrize("bits", [16, 1, 0, "8"])
def test_other_bits_are_refused(field, bits):
    with pytest.raises(ValueError, match=rf"{field} must be one of 32, 8, 4, got {bits!r}"):
        small("bnext_tiny", **{field: bits})


@pytest.mark.parametrize(
    ("name", "bits", "elm_attention", "info_rcp"),
    [
        ("bnext_tiny", (8, 4, 8), True, True),
        ("bnext18", (8, 8, 8), True, True),
        ("bnext18", (8, 8, 8), True, False),
        ("bnext18", (8, 8, 8), False, True),
    ],
)
def test_compiled_networks_are_the_model(name, bits, elm_attention, info_rcp):
    """`compile` verifies every layer bit for bit against the reference and raises otherwise."""
    stem, se, head = bits
    model = small(
        name,
        elm_attention=elm_attention,
        info_rcp=info_rcp,
        stem_bits=stem,
        se_bits=se,
        head_bits=head,
    )
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        if isinstance(module, BNextUnit) and info_rcp:
            module.scale.data.uniform_(-0.2, 1.2)
    x = torch.randn(4, 3, 32, 32)
    model.eval()
    signbit.calibrate(model, [x])
    compiled = signbit.compile(model, x)
    assert compiled.report.engine == "equal"
    # One image's gates are the same for all its pixels, those of several are not.
    session = compiled.session()
    np.testing.assert_array_equal(session(x[:1].numpy()), session(x.numpy())[:1])


def test_real_ends_are_refused_by_name_and_to_8bit_helps():
    model = small("bnext18", **REAL).eval()
    x = torch.randn(2, 3, 32, 32)
    with pytest.raises(signbit.CompileError, match=r"stages\.0\.0\.0\.se\.1 \(Conv2d\)"):
        signbit.compile(model, x)
    eight = signbit.to_8bit(model, x)
    signbit.calibrate(eight, [x])
    signbit.compile(eight, x)

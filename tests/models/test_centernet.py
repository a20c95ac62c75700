"""CenterNet: shapes, one bit between layers, sizes other than the example's in the engine."""

import numpy as np
import pytest
import torch
from torch import nn

import signbit
from signbit import nn as snn
from signbit.compiler.ir import Type
from signbit.models import create_model
from tests.compiler.build import check_in_float64

BOTH = ["centernet_bineal18", "centernet_resnet18"]


def small(name, **arguments):
    torch.manual_seed(2)
    return create_model(name, **{"num_classes": 5, "width": 0.125, **arguments})


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("upsample", ["shuffle", "nearest"])
@pytest.mark.parametrize(("stem", "multiple"), [("imagenet", 32), ("cifar", 8)])
def test_shapes(name, upsample, stem, multiple):
    model = small(name, stem=stem, upsample=upsample, in_channels=1)
    assert model.multiple == multiple
    heatmap, size, offset = model(torch.randn(2, 1, 2 * multiple, 3 * multiple))
    assert heatmap.shape == (2, 5, multiple // 2, 3 * multiple // 4)
    assert size.shape == offset.shape == (2, 2, multiple // 2, 3 * multiple // 4)


@pytest.mark.parametrize("name", BOTH)
def test_a_fresh_heatmap_says_one_in_ten(name):
    heatmap, _, _ = small(name)(torch.randn(2, 3, 64, 64))
    assert torch.sigmoid(heatmap).mean().item() == pytest.approx(0.1, abs=0.05)


def test_the_rival_has_the_same_plan():
    """Layer by layer the same convolutions, but for shortcuts that ResNet needs none for."""

    def shapes(name):
        model = small(name, width=0.25)
        return {
            tuple(m.weight.shape)
            for m in model.modules()
            if isinstance(m, (nn.Conv2d, snn.BinaryConv2d, snn.QuantConv2d))
        }

    binary, real = (shapes(name) for name in BOTH)
    assert real <= binary
    assert all(shape[2:] == (1, 1) and shape[0] == shape[1] for shape in binary - real)


def test_wrong_arguments_are_named():
    for arguments, message in (
        ({"heads": "reel"}, "unknown heads 'reel'.*'real'"),
        ({"upsample": "shufle"}, "unknown upsample 'shufle'.*'shuffle'"),
        ({"decoder_channels": 0}, "decoder_channels must be a positive whole number, got 0"),
        ({"head_channels": 1.5}, "head_channels must be a positive whole number"),
        ({"stem": "vgg"}, "unknown stem 'vgg'"),
        ({"stem_kernel": 4}, "stem_kernel must be an odd number of pixels, got 4"),
        ({"stem_kernel": 3, "stem": "cifar"}, 'stem_kernel is of stem="imagenet"'),
        ({"over_parameterize": "elements"}, "element"),
    ):
        with pytest.raises(ValueError, match=message):
            small("centernet_bineal18", **arguments)


def trained(**arguments):
    """A network whose batch norms have seen something, and images of 64x96 pixels."""
    model = small("centernet_bineal18", **arguments)
    x = torch.randn(2, 3, 64, 96)
    model(x)
    signbit.calibrate(model, [x])
    return model.eval(), x


@pytest.mark.parametrize(
    "arguments",
    [
        {"heads": "real"},
        {"heads": "binary", "over_parameterize": "element"},
        {"upsample": "nearest", "stem_kernel": 3},
        {"stem": "cifar"},
    ],
)
def test_equal_to_pytorch_in_float64_with_bits_between_layers(arguments):
    model, x = trained(**arguments)
    graph = check_in_float64(model, x)
    stored = {value.type for node in graph.nodes for value in node.outputs}
    assert Type.B1 in stored
    # Real-valued maps: the image, the outputs, and what becomes 8 bits before the head's layers.
    real = [
        node.path
        for node in graph.nodes
        if any(value.type == Type.F32 for value in node.outputs)
        and not node.path.startswith(("outputs", "hidden", "backbone.stem"))
    ]
    assert not [path for path in real if path.startswith(("backbone.stages", "decoder"))]


@pytest.mark.parametrize("heads", ["real", "binary"])
def test_the_engine_runs_other_sizes(heads, tmp_path):
    model, x = trained(heads=heads)
    compiled = signbit.compile(model, x[:1])
    session = signbit.load(compiled.save(tmp_path / "c.signbit"), threads=1)
    for size in ((64, 96), (32, 32), (96, 160)):
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            expected = [y.numpy() for y in model(images)]
        found = session(images.numpy())
        assert [y.shape for y in found] == [y.shape for y in expected]
        for ours, theirs in zip(found, expected, strict=True):
            # A sum within an ulp of its threshold may flip a bit.
            assert np.mean(np.abs(ours - theirs) > 1e-3 * (1 + np.abs(theirs))) < 0.05

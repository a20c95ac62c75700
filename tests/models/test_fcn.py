"""FCN: shapes at any size, one bit between layers, in the engine as in PyTorch."""

import numpy as np
import pytest
import torch
from torch import nn

import signbit
from signbit import nn as snn
from signbit.compiler.ir import Type
from signbit.models import create_model
from tests.compiler.build import check_in_float64

BOTH = ["fcn_bineal18", "fcn_resnet18"]


def small(name, **arguments):
    torch.manual_seed(2)
    return create_model(name, **{"num_classes": 5, "width": 0.125, **arguments})


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("arguments", "stride"),
    [
        ({}, 4),
        ({"decoder_channels": [64, 32]}, 8),
        ({"decoder_channels": []}, 32),
        ({"stem": "cifar"}, 1),
        ({"stem_kernel": 3}, 4),
    ],
)
@pytest.mark.parametrize("size", [(64, 96), (90, 50)])
def test_shapes(name, arguments, stride, size):
    model = small(name, in_channels=1, **arguments)
    scores = model(torch.randn(2, 1, *size))
    assert scores.shape == (2, 5, *(-(-side // stride) for side in size))


def test_the_rival_has_the_same_plan():
    """Layer by layer the same convolutions, but for shortcuts that ResNet needs none for."""

    def shapes(name):
        model = small(name, width=0.25, stem_kernel=5)
        return {
            tuple(m.weight.shape)
            for m in model.modules()
            if isinstance(m, (nn.Conv2d, snn.BinaryConv2d, snn.QuantConv2d))
        }

    binary, real = (shapes(name) for name in BOTH)
    assert real <= binary
    assert all(shape[2:] == (1, 1) and shape[0] == shape[1] for shape in binary - real)


def test_coarser_scores_are_added_to_finer_ones():
    model = small("fcn_resnet18").eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(x)
        model.heads[0].bias += 3  # of the coarsest map
    assert torch.allclose(model(x), before + 3, atol=1e-5)


@pytest.mark.parametrize("name", BOTH)
def test_every_parameter_gets_a_gradient(name):
    model = small(name)
    model(torch.randn(4, 3, 64, 64)).square().sum().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path


@pytest.mark.parametrize("name", BOTH)
def test_wrong_arguments_are_named(name):
    for arguments, message in (
        ({"decoder_channels": [64, 0]}, "decoder_channels must be positive .* got 64, 0"),
        ({"decoder_channels": [8] * 4}, "has 4 numbers, but there are 3 maps finer"),
        ({"stem_kernel": 4}, "stem_kernel must be an odd number of pixels, got 4"),
        ({"stem_kernel": 3, "stem": "cifar"}, "stem_kernel is of stem=.imagenet., not of 'cifar'"),
        ({"stem": "vgg"}, "unknown stem 'vgg'"),
        ({"width": 0}, "width must be a positive number"),
    ):
        with pytest.raises(ValueError, match=message):
            small(name, **arguments)


def trained(**arguments):
    """A network whose batch norms have seen something, and images of 64x96 pixels."""
    model = small("fcn_bineal18", **arguments)
    x = torch.randn(2, 3, 64, 96)
    model(x)
    signbit.calibrate(model, [x])
    return model.eval(), x


@pytest.mark.parametrize(
    "arguments",
    [
        {"stem_kernel": 3},
        {"over_parameterize": "element", "decoder_channels": [64, 32]},
        {"stem": "cifar", "decoder_channels": []},
    ],
)
def test_equal_to_pytorch_in_float64_with_bits_between_layers(arguments):
    model, x = trained(**arguments)
    graph = check_in_float64(model, x)
    stored = {value.type for node in graph.nodes for value in node.outputs}
    assert Type.B1 in stored
    # Real-valued maps: the image, the scores, and what becomes 8 bits before the heads.
    real = [
        node.path for node in graph.nodes if any(value.type == Type.F32 for value in node.outputs)
    ]
    assert not [path for path in real if path.startswith(("backbone.stages", "blocks"))]


def test_the_engine_runs_other_sizes(tmp_path):
    model, x = trained()
    compiled = signbit.compile(model, x[:1])
    session = signbit.load(compiled.save(tmp_path / "f.signbit"), threads=1)
    for size in ((64, 96), (32, 32), (90, 133), (33, 47)):
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            expected = model(images).numpy()
        found = session(images.numpy())
        assert found.shape == expected.shape
        # A sum within an ulp of its threshold may flip a bit.
        assert np.mean(np.abs(found - expected) > 1e-3 * (1 + np.abs(expected))) < 0.05

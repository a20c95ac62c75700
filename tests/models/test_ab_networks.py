"""A&B BNN's networks: published sizes, expected variances, variants, gradients, tracing."""

import math
import operator

import pytest
import torch
from torch import nn

import signbit.nn as snn
from signbit.models import create_model
from signbit.models.expected_variance import reactnet_a_betas, reactnet_betas
from tests.models.test_networks import LeafTracer, parameters

RESNETS = ["ab_reactnet18", "ab_reactnet34", "ab_birealnet18", "ab_birealnet34", "ab_xnornet18"]
NETWORKS = [*RESNETS, "ab_reactnet_a"]
SHALLOW = ["ab_reactnet18", "ab_birealnet18", "ab_xnornet18", "ab_reactnet_a"]
VARIANTS = ["ab", "normalizer_free", "batch_norm"]


def small(name: str, **arguments) -> nn.Module:
    return create_model(name, **{"num_classes": 10, "stem": "cifar", "width": 0.125, **arguments})


# The authors' own counts: of their published state dicts, and the README's in millions.
@pytest.mark.parametrize(
    ("name", "stem", "classes", "count"),
    [
        ("ab_reactnet18", "cifar", 10, 11_184_074),
        ("ab_reactnet18", "cifar", 100, 11_230_244),
        ("ab_reactnet18", "imagenet", 1000, 11_699_624),
        ("ab_reactnet34", "imagenet", 1000, 21_818_920),
        ("ab_reactnet_a", "cifar", 10, 28_317_898),
        ("ab_reactnet_a", "cifar", 100, 28_410_148),
        ("ab_reactnet_a", "imagenet", 1000, 29_332_648),
        ("ab_birealnet18", "imagenet", 1000, 11_685_288),
        ("ab_xnornet18", "imagenet", 1000, 11_685_288),
    ],
)
def test_parameters_are_the_published_counts(name, stem, classes, count):
    with torch.device("meta"):
        assert parameters(create_model(name, num_classes=classes, stem=stem)) == count


def test_betas_of_reactnet18():
    first = [1.0, 1.0, 1 / math.sqrt(1.0625), 1 / math.sqrt(1.125)]
    later = [1 / math.sqrt(1.1875), *first[1:]]
    betas = reactnet_betas((4, 4, 4, 4), 0.25)
    for stage, expected in zip(betas, [first, later, later, later], strict=True):
        assert stage == pytest.approx(expected, rel=1e-15)
    model = small("ab_reactnet18")
    built = [[layer.sign.beta for layer in stage] for stage in model.stages]
    assert built == betas


def test_betas_of_reactnet34():
    variances = [[1 / beta**2 for beta in stage] for stage in reactnet_betas((6, 8, 12, 6), 0.25)]
    assert variances[0] == pytest.approx([1.0, 1.0, 1.0625, 1.125, 1.1875, 1.25])
    assert [stage[0] for stage in variances] == pytest.approx([1.0, 1.3125, 1.4375, 1.6875])
    assert variances[2][-1] == pytest.approx(1.625)


def test_betas_of_reactnet_a():
    betas = reactnet_a_betas((1, 2, 1, 1), 0.25)
    variances = [1 / beta**2 for pair in betas for beta in pair]
    assert variances == pytest.approx([1.0, 1.0625, 1.125, 1.1875, 1.0, 1.0625, 1.125, 1.1875])
    block = small("ab_reactnet_a").blocks[1]
    assert (block.sign1.beta, block.sign2.beta) == betas[1]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_shapes(name, variant):
    size = 16 if name == "ab_reactnet_a" else 8
    model = small(name, variant=variant, in_channels=1)
    assert model(torch.randn(2, 1, size, size)).shape == (2, 10)
    model = small(name, variant=variant, stem="imagenet", width=0.0625)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_maps_and_channels():
    model = small("ab_reactnet_a", stem="imagenet", width=0.25).eval()
    sizes = []
    for module in model.blocks:
        module.register_forward_hook(lambda _, __, y: sizes.append(tuple(y.shape[1:3])))
    model(torch.randn(1, 3, 64, 64))
    channels = [16, 32, 32, 64, 64, *[128] * 6, 256, 256]
    side = [32, 16, 16, 8, 8, *[4] * 6, 2, 2]
    assert sizes == list(zip(channels, side, strict=True))


@pytest.mark.parametrize("binary_weights", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", SHALLOW)
def test_every_parameter_gets_a_finite_gradient(name, variant, binary_weights):
    torch.manual_seed(0)
    model = small(name, variant=variant)
    snn.set_binary_weights(model, binary_weights)
    size = 32 if name == "ab_reactnet_a" else 16
    model(torch.randn(8, 3, size, size)).square().sum().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path
        assert parameter.grad.abs().sum() > 0, path


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", SHALLOW)
def test_binary_convolutions_read_bits_but_for_the_downsampling(name, variant):
    model = small(name, variant=variant).eval()
    on_bits, on_reals = [], []

    def hook(module, args):
        bits = bool((args[0].abs() == 1).all())
        (on_bits if bits else on_reals).append(module.kernel_size)

    for module in model.modules():
        if isinstance(module, snn.BinaryConv2d):
            module.register_forward_pre_hook(hook)
    model(torch.randn(2, 3, 16, 16))
    binary_downsampling = name == "ab_xnornet18" or (
        name == "ab_reactnet18" and variant != "batch_norm"
    )
    assert on_reals == ([(1, 1)] * 3 if binary_downsampling else [])
    assert len(on_bits) == (13 + 13 + 5 if name == "ab_reactnet_a" else 16)


def kinds(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


def test_what_each_family_is_made_of():
    react, bireal, xnor = (small(f"ab_{name}18") for name in ("reactnet", "birealnet", "xnornet"))
    assert [kinds(m, snn.QRPReLU) for m in (react, bireal, xnor)] == [16, 0, 0]
    assert [kinds(m, nn.PReLU) for m in (react, bireal, xnor)] == [0, 2, 2]
    assert [kinds(m, nn.AvgPool2d) for m in (react, bireal, xnor)] == [3, 3, 0]
    assert [kinds(m, snn.ScaledStdConv2d) for m in (react, bireal, xnor)] == [1, 4, 1]
    assert [kinds(m, snn.ScaledStdBinaryConv2d) for m in (react, bireal, xnor)] == [19, 16, 19]
    assert all(m.sign.bias is None for stage in bireal.stages for m in stage)
    assert all(m.sign.bias is not None for stage in react.stages for m in stage)
    for model in (react, bireal, xnor):
        assert kinds(model, nn.BatchNorm2d) == 0
        assert kinds(model, snn.QuantLayer) == 0


def test_variants_differ_in_what_they_are_named_for():
    free, batch_norm = (small("ab_reactnet18", variant=v) for v in VARIANTS[1:])
    assert {m.alpha for m in free.modules() if hasattr(m, "alpha")} == {0.2}
    assert {type(layer.sign.surrogate).__name__ for layer in free.stages[1]} == {"ApproxSign"}
    assert kinds(free, snn.RPReLU) == kinds(batch_norm, snn.RPReLU) == 16
    assert kinds(free, nn.BatchNorm2d) == 0
    assert kinds(batch_norm, nn.BatchNorm2d) == 1 + 16 + 3
    assert kinds(batch_norm, snn.ScaledStdBinaryConv2d) == 0
    assert kinds(batch_norm, nn.Conv2d) == 1 + 3


def test_activation_scale_and_surrogate_reach_every_layer():
    for activation, kind in (("rleakyrelu", snn.RLeakyReLU), ("rprelu", snn.RPReLU)):
        assert kinds(small("ab_reactnet18", activation=activation), kind) == 16
        assert kinds(small("ab_reactnet_a", activation=activation), kind) == 26
    for name in SHALLOW:
        model = small(name, scale="power_of_two", surrogate="swish")
        for module in model.modules():
            if isinstance(module, snn.ScaledStdBinaryConv2d):
                mantissa, _ = torch.frexp(module.binary_weight()[1])
                assert (mantissa.abs() == 0.5).all()
            if isinstance(module, snn.NormalizedSign):
                assert type(module.surrogate).__name__ == "SwishSign"


@pytest.mark.parametrize("name", SHALLOW)
def test_alpha_is_a_multiplication_that_a_trace_sees(name):
    model = small(name).eval()
    graph = LeafTracer().trace(model)
    calls = [n for n in graph.nodes if n.op == "call_function"]
    factors = [n.args for n in calls if n.target is operator.mul]
    assert len(factors) == (31 if name == "ab_reactnet_a" else 16)
    assert all(0.25 in args for args in factors)
    expected = {operator.mul, operator.add} | ({torch.cat} if name == "ab_reactnet_a" else set())
    assert {n.target for n in calls} == expected
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(torch.fx.GraphModule(model, graph)(x), model(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_wrong_arguments_are_refused(name):
    with pytest.raises(ValueError, match="did you mean 'cifar'"):
        create_model(name, stem="cifar10")
    with pytest.raises(ValueError, match="width must be a positive number, got 0"):
        create_model(name, width=0)
    with pytest.raises(ValueError, match=r"unknown variant 'bn'.*batch_norm"):
        create_model(name, variant="bn")
    with pytest.raises(ValueError, match=r"unknown scale 'pow2'"):
        create_model(name, scale="pow2")
    with pytest.raises(ValueError, match="variant 'batch_norm' has scale 'real' only"):
        create_model(name, variant="batch_norm", scale="power_of_two")


def test_wrong_activations_are_refused():
    with pytest.raises(ValueError, match=r"unknown activation 'prelu' .*'rprelu'"):
        small("ab_reactnet18", activation="prelu")
    with pytest.raises(ValueError, match="variant 'normalizer_free' has activation 'rprelu' only"):
        small("ab_reactnet_a", variant="normalizer_free", activation="qrprelu")


def test_networks_say_what_they_are_when_printed():
    assert "2403.03739; variant normalizer_free" in repr(
        small("ab_reactnet18", variant="normalizer_free")
    )


def test_networks_learn_in_two_stages():
    """Noise images are memorised: real weights first, then binary ones from where these are."""
    torch.manual_seed(0)
    model = small("ab_reactnet18", num_classes=2)
    x, labels = torch.randn(16, 3, 8, 8), torch.arange(16) % 2
    for binary, steps in ((False, 10), (True, 25)):
        snn.set_binary_weights(model, binary)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(steps):
            loss = nn.functional.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert (model.eval()(x).argmax(1) == labels).sum() >= 14

"""The networks: shapes, sizes by hand, bits between layers, tracing, state, learning."""

import operator

import pytest
import torch
from torch import fx, nn

import signbit.nn as snn
from signbit.calibration import calibrate
from signbit.models import create_model
from signbit.quantizers import SwishSign

BINARY = ["bineal18", "reactnet18"]
ALL = [*BINARY, "resnet18"]


class LeafTracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return type(module).__module__.startswith("signbit.nn") or super().is_leaf_module(
            module, path
        )


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def small(name: str, **arguments) -> nn.Module:
    return create_model(name, **{"num_classes": 10, "stem": "cifar", "width": 0.125, **arguments})


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("stem", "size", "channels"), [("imagenet", 64, 3), ("cifar", 32, 3), ("cifar", 8, 1)]
)
def test_shapes(name, stem, size, channels):
    model = small(name, stem=stem, in_channels=channels)
    assert model(torch.randn(2, channels, size, size)).shape == (2, 10)
    pooled = 32 if stem == "imagenet" else 8
    maps = model.stages(model.stem(torch.randn(2, channels, size, size)))
    assert maps.shape == (2, 64, size // pooled, size // pooled)


def test_bineal18_parameters_by_hand():
    c1, c2, c3, c4 = 64, 128, 256, 512

    def block(i, o):
        weights = i * o * 9 + o * o * 9 + i * o
        batch_norms, rprelus, scale = 4 * 2 * o, 2 * 3 * o, 1
        return weights + batch_norms + rprelus + scale

    blocks = [(c1, c1), (c1, c1), (c1, c2), (c2, c2), (c2, c3), (c3, c3), (c3, c4), (c4, c4)]
    stem, head = 3 * c1 * 49 + 2 * c1, c4 * 1000 + 1000
    expected = stem + sum(block(i, o) for i, o in blocks) + head
    assert parameters(create_model("bineal18")) == expected == 12_059_184


def test_reactnet18_parameters_by_hand():
    c1, c2, c3, c4 = 64, 128, 256, 512

    def layer(i, o):
        bias, weights, batch_norm, rprelu = i, i * o * 9, 2 * o, 3 * o
        downsample = 0 if i == o else i * o + 2 * o
        return bias + weights + batch_norm + rprelu + downsample

    first = [(c1, c1), (c1, c2), (c2, c3), (c3, c4)]
    layers = first + [(o, o) for _, o in first for _ in range(3)]
    stem, head = 3 * c1 * 49 + 2 * c1, c4 * 1000 + 1000
    expected = stem + sum(layer(i, o) for i, o in layers) + head
    assert parameters(create_model("reactnet18")) == expected == 11_704_424


def test_resnet18_parameters_are_the_published_count():
    # The number of parameters that every implementation of ResNet-18 reports.
    assert parameters(create_model("resnet18")) == 11_689_512


def test_binary_operations_of_reactnet18_are_the_published_count():
    """1.676 G binary and 137.8 M other multiply-accumulates at 224 x 224 (arXiv 2003.03488)."""
    model = create_model("reactnet18").eval()
    counts = {True: 0, False: 0}

    def hook(module, inputs, output):
        positions = output.shape[2] * output.shape[3] if output.dim() == 4 else 1
        counts[isinstance(module, snn.BinaryLayer)] += module.weight.numel() * positions

    for module in model.modules():
        if isinstance(module, snn.BinaryLayer | snn.QuantLayer):
            module.register_forward_hook(hook)
    with torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
    assert counts[True] == pytest.approx(1.676e9, rel=1e-3)
    assert counts[False] == pytest.approx(137.8e6, rel=1e-3)


@pytest.mark.parametrize(
    ("width", "expected"),
    [(1.0, [64, 128, 256, 512]), (1.5, [96, 192, 384, 768]), (0.01, [4, 4, 4, 4]),
     (0.3, [20, 40, 76, 152]), (2, [128, 256, 512, 1024])],
)  # fmt: skip
def test_width_multiplies_stem_and_stages(width, expected):
    model = create_model("bineal18", width=width, num_classes=2)
    assert model.stem[0].out_channels == expected[0]
    assert [stage[-1].conv2.out_channels for stage in model.stages] == expected
    assert model.head.in_features == expected[-1]


def test_everything_between_bineal_layers_is_bits():
    model = small("bineal18").eval()
    calibrate(model, [torch.randn(2, 3, 16, 16)])
    inputs = {}

    def hook(module, args):
        inputs[module] = args[0].unique().tolist()

    binary = [m for m in model.modules() if isinstance(m, snn.BinaryConv2d)]
    for module in binary:
        module.register_forward_pre_hook(hook)
    model(torch.randn(2, 3, 16, 16))
    assert len(binary) == 3 * 8
    assert all(set(values) == {-1.0, 1.0} for values in inputs.values())
    assert len(inputs) == len(binary)


def test_every_binary_convolution_of_reactnet_reads_bits():
    model = small("reactnet18").eval()
    seen = []

    def hook(module, args):
        seen.append(set(args[0].unique().tolist()))

    for module in model.modules():
        if isinstance(module, snn.BinaryConv2d):
            module.register_forward_pre_hook(hook)
    model(torch.randn(2, 3, 16, 16))
    assert seen == [{-1.0, 1.0}] * 16


@pytest.mark.parametrize("name", BINARY)
def test_layers_are_leaves_of_a_symbolic_trace(name):
    model = small(name).eval()
    graph = LeafTracer().trace(model)
    leaves = [model.get_submodule(n.target) for n in graph.nodes if n.op == "call_module"]
    # A surrogate lives in quantizers, inside a layer; every layer of signbit.nn appears once.
    layers = [m for m in model.modules() if type(m).__module__.startswith("signbit.nn")]
    assert {id(m) for m in layers} <= {id(m) for m in leaves}
    assert len(leaves) == len({id(m) for m in leaves})
    functions = {n.target for n in graph.nodes if n.op in ("call_function", "call_method")}
    assert functions == (set() if name == "bineal18" else {operator.add})
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(fx.GraphModule(model, graph)(x), model(x))


@pytest.mark.parametrize("name", BINARY)
def test_state_dict_round_trip_after_calibration(name):
    x = torch.randn(2, 3, 16, 16)
    model = small(name)
    model(x)
    calibrate(model, [x])
    other = small(name)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(x), model.eval()(x))
    assert other.head.calibrated
    assert other.head.frozen


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("binary_weights", [True, False])
def test_every_parameter_gets_a_gradient(name, binary_weights):
    model = small(name)
    snn.set_binary_weights(model, binary_weights)
    model(torch.randn(8, 3, 16, 16)).square().sum().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path
        assert parameter.grad.abs().sum() > 0, path


def test_surrogate_reaches_every_sign():
    for name in BINARY:
        model = small(name, surrogate="swish")
        signs = [m for m in model.modules() if isinstance(m, snn.Sign | snn.RSign)]
        assert len(signs) in (16, 17)
        assert {type(m.surrogate).__name__ for m in signs} == {"SwishSign"}
        # PyTorch keeps modules in sets: equal ones would hide each other's paths.
        assert sum(isinstance(m, SwishSign) for m in model.modules()) == len(signs)


@pytest.mark.parametrize("name", ALL)
def test_bad_arguments_are_refused(name):
    with pytest.raises(ValueError, match="did you mean 'cifar'"):
        create_model(name, stem="cifar10")
    for width in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="width must be a positive number"):
            create_model(name, width=width)


def test_models_say_what_they_are_when_printed():
    assert "reconstruction [RECON]" in repr(small("bineal18"))
    assert "2003.03488" in repr(small("reactnet18"))


@pytest.mark.parametrize("name", BINARY)
def test_networks_learn(name):
    """Noise images are memorised, and still known with running statistics and frozen ranges."""
    torch.manual_seed(0)
    model = small(name, num_classes=2)
    x, labels = torch.randn(16, 3, 8, 8), torch.arange(16) % 2
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    calibrate(model, [x])
    assert (model.eval()(x).argmax(1) == labels).sum() >= 14

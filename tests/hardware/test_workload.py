"""Workloads of compiled networks: against sums by hand, and counts of the captured graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import signbit
from signbit import nn as snn
from signbit.cli.networks import example_input, untrained_network
from signbit.compiler.capture import capture_leniently
from signbit.compiler.ir import Graph, Node, Step, Type, Value
from signbit.errors import SignbitError
from signbit.hardware import Product, Work, Workload, count, workload_of, workload_of_captured
from signbit.hardware.certificate import certify
from signbit.hardware.elementwise import (
    integer_width,
    node_work,
    parameter_bits,
    pool_work,
    step_work,
    weight_width,
)
from signbit.hardware.report import figures, operations
from signbit.hardware.workload import KINDS, live_bits


def compiled(model: nn.Module, x: torch.Tensor, **options: object) -> Graph:
    return signbit.compile(model.eval(), x, verify=False, **options).graph


def test_products_are_matrices() -> None:
    product = Product(taps=9, inputs=4, outputs=8, pixels=16, groups=2)
    assert (product.depth, product.macs) == (36, 2 * 36 * 8 * 16)
    assert not product.binary
    assert not replace(product, weight_bits=1).binary
    assert replace(product, weight_bits=1, input_bits=1).binary


def test_small_network_by_hand() -> None:
    torch.manual_seed(0)
    stem = snn.QuantConv2d(3, 8, 3, padding=1)
    binary = snn.BinaryConv2d(8, 16, 3, stride=2, padding=1, groups=2)
    model = nn.Sequential(stem, nn.MaxPool2d(2), snn.RSign(8), binary, nn.PReLU(16))
    x = torch.randn(1, 3, 8, 8)
    signbit.calibrate(model, [x])
    found = workload_of(compiled(model, x), "small")
    image, first, *middle, last = found.layers
    # an image of real numbers is quantised, which is a layer
    assert (image.op, image.elementwise) == ("pointwise", {"multiply": 192, "convert": 192})
    assert (image.input_bits, image.output_bits) == (192 * 32, 192 * 8)
    assert first.product == Product(9, 3, 8, 64, 1, 8, 8)
    # pooling may come before the sign, or work on its bits
    assert sum(layer.elementwise.get("compare", 0) for layer in middle) >= 3 * 8 * 16
    assert last.product == Product(9, 4, 8, 4, 2, 1, 1)
    assert last.product.macs == 16 * 4 * 36
    # sums to real numbers, scale and bias, slopes
    assert last.elementwise == {"convert": 64, "multiply": 128, "add": 64, "select": 64}
    assert (last.input_bits, last.output_bits) == (8 * 16, 16 * 4 * 32)
    assert last.elementwise_total == 320


def test_four_bit_numbers_take_four_bits() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        snn.QuantConv2d(3, 8, 3, bits=4, bias=False), nn.Flatten(), snn.QuantLinear(8 * 16, 10)
    )
    x = torch.randn(1, 3, 6, 6)
    signbit.calibrate(model, [x])
    layers = workload_of(compiled(model, x), "four").layers
    products = [layer.product for layer in layers if layer.product]
    assert [(p.weight_bits, p.input_bits) for p in products] == [(4, 4), (8, 8)]
    # the second layer's own quantisation follows the first one's sums
    assert layers[0].output_bits == 4 * 3 * 36


@pytest.mark.parametrize("name", ["bineal18", "reactnet18", "fcn_bineal18", "edsr_bineal"])
def test_macs_are_those_of_the_captured_graph(name: str) -> None:
    trained = untrained_network(name, width=0.25, size=(64, 64))
    x = example_input(trained)
    captured = count(capture_leniently(trained.model, x).graph)
    found = workload_of(signbit.compile(trained.model, x, verify=False), name)
    assert operations(found.layers).bops == captured.bops > 0
    assert operations(found.layers).cpu64 == pytest.approx(captured.cpu64)
    assert operations(found.layers).ace == captured.ace
    assert all(set(layer.elementwise) <= set(KINDS) for layer in found.layers)
    # weights make most of the parameters; thresholds and scales may take other widths
    weights = sum(captured.params[bits] * bits for bits in (1, 4, 8))
    assert sum(layer.weight_bits for layer in found.layers) >= weights


def test_published_operations_of_reactnet18() -> None:
    model = signbit.create_model("reactnet18", num_classes=1000)
    graph = capture_leniently(model, torch.zeros(1, 3, 224, 224)).graph
    found = operations(workload_of_captured(graph, "reactnet18").layers)
    assert found.ops == pytest.approx(164.0e6, rel=1e-3)
    assert found.bops == pytest.approx(1.676e9, rel=1e-3)


def test_published_operations_of_bnext_tiny() -> None:
    with torch.device("meta"):
        model = signbit.create_model("bnext_tiny", stem_bits=8, se_bits=4, head_bits=8)
    model = model.eval().to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.zero_()
    graph = capture_leniently(model, torch.zeros(1, 3, 224, 224)).graph
    found = workload_of_captured(graph, "bnext_tiny")
    assert operations(found.layers).cpu64 == pytest.approx(76.8e6, rel=0.01)
    assert sum(layer.weight_bits for layer in found.layers) / 8 == pytest.approx(5.66e6, rel=0.01)


def test_integer_programs_shift_and_never_multiply() -> None:
    trained = untrained_network("ab_reactnet18", width=0.125, stem="cifar", classes=10)
    x = example_input(trained, 2)
    pixels = {"mean": list(trained.mean), "std": list(trained.std)}
    graph = compiled(trained.model, x, arithmetic="integer", preprocessing=pixels)
    assert certify(graph).multiplication_free
    found = workload_of(graph, "integers")
    assert all("multiply" not in layer.elementwise for layer in found.layers)
    assert figures(found.layers)["multiplications"] == 0
    assert any(layer.elementwise.get("shift") for layer in found.layers)
    # pixels become integers by a table: 256 bytes a channel
    assert found.layers[0].elementwise == {"look_up": 3 * 32 * 32}
    assert found.layers[0].weight_bits == 3 * 256 * 8
    # binary weights of the shortcuts meet 16-bit numbers
    shortcut = next(layer for layer in found.layers if "shortcut" in layer.name and layer.product)
    assert (shortcut.product.weight_bits, shortcut.product.input_bits) == (1, 16)


def test_files_count_as_their_graphs_and_at_other_sizes(tmp_path) -> None:
    trained = untrained_network("bineal18", width=0.25, size=(64, 64))
    program = signbit.compile(trained.model, example_input(trained), verify=False)
    file = program.save(tmp_path / "net.signbit")
    assert workload_of(file) == workload_of(program, "net")
    larger = workload_of(file, size=(128, 64))
    pairs = zip(larger.layers, workload_of(file).layers, strict=True)
    growth = {a.product.pixels / b.product.pixels for a, b in pairs if b.product}
    assert growth == {2, 1}  # all but the classifier
    with pytest.raises(SignbitError, match="for files"):
        workload_of(program, "net", size=(128, 64))


def test_pixels_are_eight_bits_where_the_program_normalises_them() -> None:
    trained = untrained_network("bineal18", width=0.25, size=(32, 32))
    x = example_input(trained)
    reals = workload_of(compiled(trained.model, x), "reals")
    statistics = {"mean": list(trained.mean), "std": list(trained.std)}
    pixels = workload_of(compiled(trained.model, x, preprocessing=statistics), "pixels")
    assert reals.layers[0].input_bits == 4 * pixels.layers[0].input_bits == 32 * 3 * 32 * 32


def test_open_shapes_are_refused_with_the_way_out() -> None:
    image = Value("image", Type.F32, (3, 0, 0))
    with pytest.raises(SignbitError, match=r"net: the input 'image' is of 3x0x0.*--size 224x224"):
        workload_of(Graph([], image, [image], [False]), "net")
    fixed, open_map = Value("image", Type.F32, (3, 4, 4)), Value("map", Type.F32, (3, -1, 4))
    node = Node("pointwise", "layer", [fixed], [open_map])
    with pytest.raises(SignbitError, match="the map 'map'"):
        workload_of(Graph([node], fixed, [open_map], [False]), "net")


def test_captured_graphs_go_another_way() -> None:
    graph = capture_leniently(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8)).graph
    with pytest.raises(SignbitError, match="captured graph"):
        workload_of(graph, "net")


# --- what is alive ---


def test_maps_live_from_their_maker_to_their_last_reader() -> None:
    a, b, c, d = (Value(name, Type.B1, (1, 1, 10**i)) for i, name in enumerate("abcd"))
    widths = dict.fromkeys((a, b, c, d), 2)
    # a -> b; b -> c; a, c -> d
    runs = [([a], [b]), ([b], [c]), ([a, c], [d])]
    assert live_bits(runs, [d], widths) == [2 * 11, 2 * 111, 2 * 1101]
    # an output lives to the end
    assert live_bits(runs, [b, d], widths) == [2 * 11, 2 * 111, 2 * 1111]


def work(name: str, op: str, product: Product | None = None, live: int = 0) -> Work:
    return Work(name, op, product, {}, 0, 10, 10, live)


def test_body_has_neither_stem_nor_head() -> None:
    product = Product(1, 1, 1, 1)
    layers = (
        work("image", "pointwise"),
        work("stem", "conv_q8", product, 900),
        work("pool", "max_pool"),
        work("shift", "pointwise"),
        work("conv", "conv_b1", product, 30),
        work("add", "pointwise"),
        work("mean", "global_avg_pool"),
        work("head", "conv_q8", product),
        work("end", "pointwise"),
    )
    body = Workload("net", layers, 900, 70.0).body
    assert [layer.name for layer in body.layers] == ["shift", "conv", "add"]
    assert (body.peak_activation_bits, body.accuracy) == (30, 70.0)
    with pytest.raises(ValueError, match="has 2 convolutions"):
        Workload("net", (layers[1], layers[7]), 0).body.layers  # noqa: B018


# --- element-wise work ---


def ones(channels: int) -> np.ndarray:
    return np.ones(channels, np.float32)


@pytest.mark.parametrize(
    ("kind", "params", "attrs", "expected"),
    [
        ("affine", {"scale": 0.25 * ones(4), "bias": 0 * ones(4)}, {}, {"multiply": 4, "add": 4}),
        ("affine", {"scale": ones(4), "bias": ones(4)}, {}, {"add": 4}),
        ("prelu", {"slope": 0 * ones(4)}, {}, {"select": 4}),
        ("prelu", {"slope": 0.25 * ones(4)}, {}, {"select": 4, "multiply": 4}),
        (
            "rprelu",
            {"slope": 0.3 * ones(4), "shift_in": 0 * ones(4), "shift_out": 0 * ones(4)},
            {},
            {"select": 4, "multiply": 4, "add": 8},
        ),
        ("clip", {}, {"minimum": 0.0, "maximum": np.inf}, {"compare": 4}),
        ("clip", {}, {"minimum": 0.0, "maximum": 6.0}, {"compare": 8}),
        ("sigmoid", {}, {}, {"look_up": 4}),
        ("quant8", {}, {}, {"multiply": 4, "convert": 4}),
        ("quant4_ladder", {}, {}, {"compare": 16}),
        ("add", {}, {}, {"add": 4}),
        ("mul", {}, {}, {"multiply": 4}),
        ("store", {}, {}, {}),
    ],
)
def test_steps(kind: str, params: dict, attrs: dict, expected: dict) -> None:
    assert +step_work(Step(kind, params, attrs), 4) == expected


def test_thresholds_compare_once_a_cut() -> None:
    least, most = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    # none, one, one, two
    step = Step(
        "threshold",
        {
            "low": np.array([least, 3, least, -4], np.int32),
            "high": np.array([most, most, 7, 5], np.int32),
            "flip": np.array([0, 0, 1, 1], np.uint8),
        },
    )
    assert step_work(step, 4) == {"compare": 4}
    # four cuts of four bits (-4 to 7), and the side of each channel
    assert parameter_bits([step]) == 4 * 4 + 4


def test_shifts_and_adds_of_constants() -> None:
    params = {
        "shifts": np.array([[0, -2], [-1, 0]], np.int32),
        "signs": np.array([[1, -1], [1, 0]], np.int32),
    }
    assert step_work(Step("shift_sum", params), 2) == {"add": 1, "shift": 2}
    zeros = {"shift_in": np.zeros(2, np.int32), "shift_out": np.zeros(2, np.int32)}
    found = step_work(Step("shift_prelu", params | zeros), 2)
    assert found == {"add": 5, "shift": 2, "select": 2}
    # three digits in use, each a sign and a shift from -2 to 0
    assert parameter_bits([Step("shift_sum", params)]) == 3 * (1 + 2)


def test_integer_sums_become_real_once() -> None:
    source, bits, real = (
        Value(name, kind, (4, 2, 2)) for name, kind in (("x", Type.B1), ("y", Type.B1), ("z", 0))
    )
    sign = Step("sign", {"cut": ones(4)}, value=bits)
    affine = Step("affine", {"scale": 0.3 * ones(4), "bias": ones(4)})
    store = Step("store", value=Value("z", Type.F32, real.shape))
    node = Node("conv_b1", "conv", [source], [bits], {}, {}, [affine, sign, store])
    assert node_work(node) == {"convert": 16, "multiply": 16, "add": 16, "compare": 16}
    alone = Node("pointwise", "bits", [source], [store.value], {}, {}, [store])
    assert node_work(alone) == {"convert": 16}


def pool(op: str, shape: tuple[int, int, int], out: tuple[int, int, int], **attrs: int) -> Node:
    return Node(op, "pool", [Value("x", Type.F32, shape)], [Value("y", Type.F32, out)], attrs)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (pool("max_pool", (2, 4, 4), (2, 2, 2), kernel_h=2, kernel_w=2), {"compare": 3 * 8}),
        (
            pool("avg_pool", (2, 4, 4), (2, 2, 2), kernel_h=2, kernel_w=2),
            {"add": 3 * 8, "shift": 8},
        ),
        (
            pool("avg_pool", (2, 6, 6), (2, 2, 2), kernel_h=3, kernel_w=3),
            {"add": 8 * 8, "multiply": 8},
        ),
        (pool("global_avg_pool", (2, 7, 7), (2, 1, 1)), {"add": 2 * 48, "multiply": 2}),
        (pool("global_sum", (2, 7, 7), (2, 1, 1)), {"add": 2 * 48}),
        # windows of 3, 3 of 5 rows overlap
        (
            pool("adaptive_pool", (1, 5, 4), (1, 2, 2), out_h=2, out_w=2, take_max=0),
            {"add": 6 * 4 - 4, "multiply": 4},
        ),
        (
            pool("adaptive_pool", (1, 5, 4), (1, 1, 1), out_h=1, out_w=1, take_max=1),
            {"compare": 19},
        ),
        (pool("resize", (1, 2, 2), (1, 4, 4), mode=1), {"add": 48, "multiply": 96}),
        (pool("resize", (1, 2, 2), (1, 4, 4), mode=0), {}),
    ],
)
def test_poolings(node: Node, expected: dict) -> None:
    assert +pool_work(node) == expected


@pytest.mark.parametrize(
    ("numbers", "bits"),
    [([0], 0), ([], 0), ([1], 2), ([-1], 1), ([7, -8], 4), ([8], 5), ([-9], 5), ([127, -128], 8)],
)
def test_integers_take_the_narrowest_width(numbers: list[int], bits: int) -> None:
    assert integer_width(np.array(numbers, np.int64)) == bits


def test_weights_tell_their_width() -> None:
    assert weight_width(np.array([[-127, 127], [127, 127]], np.int8)) == 1
    assert weight_width(np.array([[-128, 127]], np.int8)) == 8
    assert weight_width(np.array([[-8, 7]], np.int8)) == 4
    assert weight_width(np.array([[0, 0]], np.int8)) == 4

"""ONNX files as captured graphs: real ones, 8-bit ones, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from signbit.compiler.capture import capture_leniently
from signbit.errors import SignbitError
from signbit.hardware import Product, count, workload_of_captured, workload_of_onnx
from signbit.hardware.onnx_graph import read_onnx

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT = onnx.TensorProto.FLOAT


def save(path: Path, nodes: list, constants: dict[str, np.ndarray], shape: list) -> Path:
    """A file of these nodes, from x to y."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


class Block(nn.Module):
    """A stem, pooling, a residual block and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(self.stem(x).relu(), 2)
        x = (self.conv(x) + x).relu()
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    pytest.importorskip("onnxruntime")
    from signbit.rivals.engines import export_onnx, quantize

    folder = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(0)
    model = Block().eval()
    images = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    real = export_onnx(model, images, folder / "real.onnx", any_size=True)
    fixed = export_onnx(model, images, folder / "fixed.onnx")
    return {
        "real": real,
        "fixed": fixed,
        "int8": quantize(fixed, list(images), folder / "int8.onnx"),
        "signed": quantize(fixed, list(images), folder / "signed.onnx", signed=True),
    }


def test_real_files_count_as_the_model_they_came_from(files) -> None:
    torch.manual_seed(0)
    expected = count(capture_leniently(Block(), torch.zeros(1, 3, 8, 8)).graph)
    assert count(read_onnx(files["fixed"])) == expected


def test_layers_of_a_real_file(files) -> None:
    found = workload_of_onnx(files["fixed"])
    assert found.name == "fixed"
    stem, pool, conv, mean, head = found.layers
    assert stem.product == Product(9, 3, 8, 64, 1, 32, 32)
    assert stem.elementwise == {"add": 512, "select": 512}  # bias, ReLU
    assert pool.elementwise == {"compare": 3 * 128}
    assert conv.product == Product(9, 4, 4, 16, 2, 32, 32)
    # bias, the shortcut, ReLU; the shortcut is read beside the input, which is the same map
    assert conv.elementwise == {"add": 256, "select": 128}
    assert (conv.input_bits, conv.output_bits) == (32 * 128, 32 * 128)
    assert mean.elementwise == {"add": 8 * 15, "shift": 8}
    assert head.product == Product(1, 8, 5, 1, 1, 32, 32)
    assert head.weight_bits == 32 * 45
    assert found.peak_activation_bits == 32 * (3 * 64 + 8 * 64)


def test_layers_of_an_8_bit_file(files) -> None:
    found = workload_of_onnx(files["int8"])
    image, stem, pool, conv, mean, head = found.layers
    assert image.elementwise == {"multiply": 192, "convert": 192}
    assert (image.input_bits, image.output_bits) == (32 * 192, 8 * 192)
    # ReLU is in the range of the result; scale and quantisation are one multiplication
    assert stem.product == Product(9, 3, 8, 64, 1, 8, 8)
    assert stem.elementwise == {"multiply": 512, "add": 512, "convert": 512}
    assert stem.weight_bits == 8 * 216 + 32 * 8 + 32 * 8  # weights, scales, biases
    assert (stem.input_bits, stem.output_bits) == (8 * 192, 8 * 512)
    # no quantisation where the numbers stay as they are
    assert pool.elementwise == {"compare": 3 * 128}
    # the result and the shortcut come to one scale, then to 8 bits
    assert conv.elementwise == {"multiply": 128 * 3, "add": 256, "convert": 256}
    assert mean.output_bits == 8 * 8
    assert head.product == Product(1, 8, 5, 1, 1, 8, 8)


def test_8_bit_files_have_the_macs_of_their_real_one(files) -> None:
    real, eight, signed = (count(read_onnx(files[name])) for name in ("fixed", "int8", "signed"))
    assert eight.macs[8] == signed.macs[8] == real.macs[32] > 0
    assert eight.macs[32] == real.macs[8] == 0
    assert eight.cpu64 == real.cpu64 / 8


def test_open_sizes_need_one(files) -> None:
    with pytest.raises(
        SignbitError, match=r"real.onnx: the height of input x is open \(H\).*--size"
    ):
        workload_of_onnx(files["real"])
    small, large = (workload_of_onnx(files["real"], size=size) for size in ((8, 8), (16, 8)))
    assert small.layers == workload_of_onnx(files["fixed"]).layers
    assert large.layers[0].product.pixels == 2 * small.layers[0].product.pixels
    with pytest.raises(SignbitError, match="has a height of 8, not 16"):
        workload_of_onnx(files["fixed"], size=(16, 8))


def test_shapes_computed_from_shapes(tmp_path) -> None:
    """A map is resized to another one's size, as PyTorch's exporter writes it."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["small"], "conv", strides=[2, 2], pads=[1] * 4),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "two", "four"], ["sides"]),
        helper.make_node("Slice", ["lengths", "zero", "two"], ["front"]),
        helper.make_node("Concat", ["front", "sides"], ["sizes"], axis=0),
        helper.make_node("Resize", ["small", "", "", "sizes"], ["y"], "resize", mode="linear"),
    ]
    constants = {"w": weights(4, 3, 3, 3), "lengths": np.array([1, 4, 9], np.int64)}
    constants |= {
        name: np.array([value], np.int64) for name, value in (("zero", 0), ("two", 2), ("four", 4))
    }
    path = save(tmp_path / "resize.onnx", nodes, constants, ["N", 3, "H", "W"])
    conv, resize = workload_of_onnx(path, size=(8, 10)).layers
    assert conv.product.pixels == 4 * 5
    assert resize.output_bits == 32 * 4 * 8 * 10
    assert resize.elementwise == {"add": 3 * 320, "multiply": 6 * 320}


def test_activations_constants_and_movement(tmp_path) -> None:
    nodes = [
        helper.make_node("HardSwish", ["x"], ["a"], "swish"),
        helper.make_node("LeakyRelu", ["a"], ["b"], "leaky"),
        helper.make_node("PRelu", ["b", "slope"], ["c"], "prelu"),
        helper.make_node("Clip", ["c", "low", "high"], ["d"], "clip"),
        helper.make_node("Mul", ["d", "scale"], ["e"], "mul"),
        helper.make_node("Sub", ["e", "one"], ["f"], "sub"),
        helper.make_node("Sigmoid", ["f"], ["g"], "gate"),
        helper.make_node("Sum", ["f", "g", "x"], ["h"], "sum"),
        helper.make_node("Split", ["h"], ["left", "right"], "split", axis=1),
        helper.make_node("Concat", ["right", "left"], ["i"], "join", axis=1),
        helper.make_node("DepthToSpace", ["i"], ["y"], "shuffle", blocksize=2),
    ]
    constants = {
        "slope": weights(4, 1, 1), "low": np.float32(0), "high": np.float32(6),
        "scale": weights(1, 4, 1, 1), "one": np.float32(1),
    }  # fmt: skip
    path = save(tmp_path / "activations.onnx", nodes, constants, [1, 4, 2, 2])
    graph = read_onnx(path)
    assert [node.op for node in graph.nodes] == [
        "affine", "clip", "mul", "prelu", "prelu", "clip", "affine", "affine", "sigmoid", "add",
        "add", "channels", "channels", "channels", "pixel_shuffle",
    ]  # fmt: skip
    found = workload_of_onnx(path)
    kinds: dict[str, int] = {}
    for layer in found.layers:
        for kind, number in layer.elementwise.items():
            kinds[kind] = kinds.get(kind, 0) + number
    # 16 numbers: the swish's ramp, bounds and product; two slopes; bounds; factor; subtraction
    # (its factor is 1, the factor's summand 0 counts); table; two additions
    assert kinds == {
        "add": 16 * 5, "multiply": 16 * 5, "compare": 16 * 4, "select": 32, "look_up": 16
    }  # fmt: skip


def test_signs_make_binary_layers(tmp_path) -> None:
    signs = np.where(weights(4, 3, 3, 3) > 0, np.float32(0.5), np.float32(-0.5))
    nodes = [
        helper.make_node("Sign", ["x"], ["bits"], "sign"),
        helper.make_node("Conv", ["bits", "w"], ["a"], "conv"),
        helper.make_node("BatchNormalization", ["a", "g", "b", "m", "v"], ["y"], "norm"),
    ]
    constants = {name: np.ones(4, np.float32) for name in "gbmv"} | {"w": signs}
    path = save(tmp_path / "binary.onnx", nodes, constants, [1, 3, 4, 4])
    sign, conv = workload_of_onnx(path).layers
    assert sign.output_bits == 48
    assert conv.product == Product(9, 3, 4, 4, 1, 1, 1)
    # batch norm takes the scale with it
    assert conv.elementwise == {"multiply": 16, "add": 16, "convert": 16}


def test_batch_norm_goes_into_real_weights(tmp_path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("BatchNormalization", ["a", "g", "b", "m", "v"], ["c"], "norm"),
        helper.make_node("Relu", ["c"], ["y"], "relu"),
    ]
    constants = {name: np.ones(4, np.float32) for name in "gbmv"} | {"w": weights(4, 3, 3, 3)}
    path = save(tmp_path / "norm.onnx", nodes, constants, [1, 3, 4, 4])
    (layer,) = workload_of_onnx(path).layers
    assert layer.elementwise == {"add": 16, "select": 16}


def test_what_cannot_be_counted_is_named_at_once(tmp_path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "/net/conv/Conv"),
        helper.make_node("Softmax", ["a"], ["b"], "/net/softmax/Softmax"),
        helper.make_node("Mul", ["b", "strange"], ["c"], "/net/mul/Mul"),
        helper.make_node("Div", ["c", "a"], ["y"], "/net/div/Div"),
    ]
    constants = {"w": weights(4, 3, 3, 3), "strange": weights(2, 1)}
    path = save(tmp_path / "strange.onnx", nodes, constants, [1, 3, 4, 4])
    with pytest.raises(SignbitError) as caught:
        read_onnx(path)
    message = str(caught.value)
    assert "strange.onnx has operators that cannot be counted" in message
    assert "net/softmax/Softmax (Softmax): no such operator is known here" in message
    assert "net/mul/Mul (Mul): a constant of shape [2, 1]" in message
    assert "net/div/Div (Div): it divides two maps" in message
    assert "conv" not in message


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([1, 3, 4], "has 3 dimensions, expected an image"),
        ([2, 3, 4, 4], "takes 2 images at once"),
        ([1, "C", 4, 4], "the channels of input x are open"),
    ],
)
def test_strange_inputs_are_refused(tmp_path, shape: list, message: str) -> None:
    path = save(tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], {}, shape)
    with pytest.raises(SignbitError, match=message):
        read_onnx(path)


def test_files_that_are_none(tmp_path) -> None:
    path = tmp_path / "none.onnx"
    path.write_bytes(b"certainly no network")
    with pytest.raises(SignbitError, match="is no ONNX file"):
        read_onnx(path)
    with pytest.raises(FileNotFoundError):
        read_onnx(tmp_path / "missing.onnx")


def test_without_onnx_the_extra_is_named(files, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(SignbitError, match=r'needs onnx: pip install "signbit\[export\]"'):
        read_onnx(files["fixed"])


def test_calls_that_nobody_knows_are_refused() -> None:
    class Strange(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.rfft(x).real

    graph = capture_leniently(Strange(), torch.zeros(1, 3, 8, 8)).graph
    with pytest.raises(SignbitError, match=r"net: .* is nothing that can be counted"):
        workload_of_captured(graph, "net")

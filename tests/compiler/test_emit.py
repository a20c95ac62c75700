"""The file: read by an independent reader, read back whole, and every damage found."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import signbit
from signbit import nn as snn
from signbit.compiler import read_graph, reference
from signbit.compiler.emit import (
    emit,
    pack_b1,
    pack_i4,
    pack_q8,
    save,
    unpack_b1,
    unpack_i4,
    unpack_q8,
)
from signbit.compiler.ir import LOWERED_OPS, STEPS, Graph, Node, Step, Type, Value
from signbit.compiler.passes.check import check
from signbit.errors import CompileError, FormatError
from signbit.runtime import Session
from tests.compiler.build import conv_attrs
from tests.runtime.networks import compiled_network


@pytest.fixture(scope="module")
def small() -> Graph:
    """A program of a few nodes, with optional tensors and several steps."""
    torch.manual_seed(0)
    model = nn.Sequential(
        snn.QuantConv2d(3, 5, 3),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(5),
        snn.Sign(),
        snn.BinaryConv2d(5, 3, 2, padding=1),
        snn.RPReLU(3),
    )
    nn.init.constant_(model[2].weight, -0.5)
    x = torch.randn(1, 3, 9, 9)
    signbit.calibrate(model, [x])
    preprocessing = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
    metadata = {"task": "classification", "class_names": ["Ä", 'b"sha256":"', "c"], "accuracy": 0.5}
    options = {"preprocessing": preprocessing, "metadata": metadata, "verify": False}
    return signbit.compile(model, x, **options).graph


def parse(data: bytes) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """A safetensors reader of its own: metadata and flat tensors in order."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length].decode())
    metadata = header.pop("__metadata__")
    kinds = {"F32": "<f4", "I32": "<i4", "I8": "i1", "U8": "u1"}
    tensors, end = {}, 0
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        assert start == end
        end = stop
        piece = data[8 + length + start : 8 + length + stop]
        tensors[name] = np.frombuffer(piece, kinds[entry["dtype"]])
        assert entry["shape"] == [tensors[name].size]
    assert end == len(data) - 8 - length
    return metadata, tensors


def test_container(small: Graph) -> None:
    data = emit(small)
    metadata, tensors = parse(data)
    assert (8 + struct.unpack("<Q", data[:8])[0]) % 64 == 0
    assert all(array.nbytes % 64 == 0 for array in tensors.values())
    assert next(iter(tensors)) == "graph"
    assert metadata["format"] == "signbit"
    assert metadata["input_shape"] == "3,9,9"
    assert json.loads(metadata["class_names"])[0] == "Ä"
    conv = next(node for node in small.nodes if node.op == "conv_b1")
    packed = pack_b1(conv.params["weight"]).ravel()
    np.testing.assert_array_equal(tensors["4.weight"][: packed.size], packed)
    assert not tensors["4.weight"][packed.size :].any()


def test_safetensors_reads_it(small: Graph) -> None:
    safetensors = pytest.importorskip("safetensors")
    found = dict(safetensors.deserialize(emit(small)))
    assert list(found["graph"]["data"][:4]) == list(b"SBG1")


def test_program_words_are_those_of_the_format(small: Graph) -> None:
    """Walk the words of `graph` as docs/format.md says, and meet its end exactly."""
    _, tensors = parse(emit(small))
    words = tensors["graph"].view("<u4")
    magic, version, n_tensors, n_values, n_nodes, n_outputs, n_words, n_strings = words[:8].tolist()
    assert (magic, version, n_nodes) == (0x31474253, 4, len(small.nodes))
    assert n_tensors == len(tensors) - 1
    assert words[8] == 1
    assert not words[12:17].any()
    table = words[17 : 17 + 4 * n_tensors].reshape(-1, 4)
    codes = {"f": 0, "i": 1, "b": 3, "u": 4}
    offset = tensors["graph"].nbytes
    for (code, count, low, high), array in zip(table, list(tensors.values())[1:], strict=True):
        kind = "b" if array.dtype == np.int8 else array.dtype.kind
        assert (code, low, high) == (codes[kind], offset, 0)
        assert 0 <= array.size - count < 64 // array.itemsize
        offset += array.nbytes
    at = 17 + 4 * n_tensors + 2 * n_values + 2 * n_outputs
    strings = tensors["graph"][4 * (at + n_words) :][:n_strings].tobytes()
    end = at + n_words
    for node in small.nodes:
        opcode, start, length, n_in, n_out, n_attrs, n_params, n_steps = words[at : at + 8].tolist()
        spec = LOWERED_OPS[node.op]
        assert opcode == spec.code
        assert strings[start : start + length].decode() == node.path
        assert (n_in, n_out) == (len(node.inputs), len(node.outputs))
        assert (n_attrs, n_params) == (len(spec.attrs), len(spec.params))
        attrs = words[at + 8 + n_in + n_out :][:n_attrs].view("<i4")
        assert attrs.tolist() == [node.attrs[name] for name in spec.attrs]
        at += 8 + n_in + n_out + n_attrs + n_params
        assert n_steps == len(node.epilogue)
        for step in node.epilogue:
            code, _, attrs, params = words[at : at + 4].tolist()
            spec = STEPS[step.kind]
            assert (code, attrs, params) == (spec.code, len(spec.attrs), len(spec.params))
            at += 4 + attrs + params
    assert at == end
    assert n_strings % 4 == 0


def same(a: Node, b: Node) -> bool:
    pairs = [(a.params, b.params)]
    pairs += [(x.params, y.params) for x, y in zip(a.epilogue, b.epilogue, strict=True)]
    arrays = all(
        list(x) == list(y) and all(np.array_equal(x[k], y[k]) for k in x) for x, y in pairs
    )
    kinds = [(s.kind, s.attrs) for s in a.epilogue] == [(s.kind, s.attrs) for s in b.epilogue]
    shapes = [(v.type, v.shape) for v in a.inputs + a.outputs]
    return (
        arrays
        and kinds
        and (a.op, a.path, a.attrs) == (b.op, b.path, b.attrs)
        and shapes == [(v.type, v.shape) for v in b.inputs + b.outputs]
    )


def test_what_is_written_is_read_back(small: Graph) -> None:
    read = read_graph(emit(small))
    assert all(same(a, b) for a, b in zip(small.nodes, read.nodes, strict=True))
    assert read.metadata == small.metadata
    assert read.flat_outputs == small.flat_outputs
    np.testing.assert_array_equal(read.mean, small.mean)
    np.testing.assert_array_equal(read.std, small.std)
    again = read_graph(emit(read))
    assert emit(again) == emit(read)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 11, 10, 3)).astype(np.uint8)
    for a, b in zip(reference.run(small, pixels), reference.run(read, pixels), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["bineal18", "reactnet18"])
def test_networks_are_read_back(name: str) -> None:
    graph = compiled_network(name, "cifar").graph
    read = read_graph(emit(graph))
    assert all(same(a, b) for a, b in zip(graph.nodes, read.nodes, strict=True))


def test_every_flipped_bit_is_found(small: Graph) -> None:
    data = emit(small)
    rng = np.random.default_rng(0)
    # every bit of the head and the JSON's ends, and a sample of everything else
    places = {*range(8 * 96), *rng.integers(0, 8 * len(data), 1500).tolist()}
    for place in places:
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(FormatError):
            read_graph(bytes(damaged))


def test_every_truncation_is_found(small: Graph) -> None:
    data = emit(small)
    for length in [*range(0, len(data), 97), len(data) - 1]:
        with pytest.raises(FormatError):
            read_graph(data[:length])
    with pytest.raises(FormatError):
        read_graph(data + b"\0" * 64)


def rehash(data: bytearray) -> bytes:
    """Make the hash of a damaged file right again."""
    import hashlib

    at = data.index(b'"sha256":"') + 10
    data[at : at + 64] = b"0" * 64
    data[at : at + 64] = hashlib.sha256(data).hexdigest().encode()
    return bytes(data)


def test_damage_under_a_right_hash_is_an_error_or_a_graph(small: Graph) -> None:
    """Hostile words never escape as anything but a FormatError."""
    data = emit(small)
    start = 8 + struct.unpack("<Q", data[:8])[0]
    size = len(parse(data)[1]["graph"].tobytes())
    errors = 0
    rng = np.random.default_rng(1)
    for _ in range(1500):
        damaged = bytearray(data)
        word = start + 4 * int(rng.integers(0, size // 4))
        value = int(rng.choice([0, 1, 2**31, 2**32 - 1, 7, 64, int(rng.integers(0, 2**32))]))
        damaged[word : word + 4] = struct.pack("<I", value)
        try:
            read_graph(rehash(damaged))
        except FormatError:
            errors += 1
    assert errors > 500


def test_newer_and_unknown_versions_say_so(small: Graph) -> None:
    data = emit(small)
    for text, message in (
        ("5", "version 5 is newer than 4, .* update"),
        ("0", "version .* unknown"),
    ):
        damaged = bytearray(data.replace(b'"version":"4"', b'"version":"%s"' % text.encode()))
        with pytest.raises(FormatError, match=message):
            read_graph(rehash(damaged))
        damaged = bytearray(data)
        at = 8 + struct.unpack("<Q", data[:8])[0] + 4
        damaged[at : at + 4] = struct.pack("<I", int(text))
        with pytest.raises(FormatError, match=f"graph.*{message}"):
            read_graph(rehash(damaged))


def test_files_of_version_1_are_read() -> None:
    path = Path(__file__).parents[2] / "results/cifar10-quick/model.signbit"
    assert b'"version":"1"' in path.read_bytes()[:4096]
    graph = read_graph(path)
    pools = [node for node in graph.nodes if node.op == "max_pool"]
    assert pools
    assert all(node.attrs["dilation_h"] == 1 and not node.attrs["ceil_mode"] for node in pools)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    again = read_graph(emit(graph))
    for a, b in zip(reference.run(graph, pixels), reference.run(again, pixels), strict=True):
        np.testing.assert_array_equal(a, b)


def test_files_of_version_3_are_read() -> None:
    path = Path(__file__).parents[2] / "results/ab_reactnet18-quick/integer.signbit"
    assert b'"version":"3"' in path.read_bytes()[:4096]
    graph = read_graph(path)
    (levels,) = [
        s.attrs["levels"] for node in graph.nodes for s in node.epilogue if s.kind == "quant8"
    ]
    assert levels == 255
    data = emit(graph)
    # the -1 and +1 of shortcuts take half a byte now
    assert len(data) < path.stat().st_size
    again = read_graph(data)
    assert all(same(a, b) for a, b in zip(graph.nodes, again.nodes, strict=True))
    size = graph.input.shape[1:]
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.uint8)
    old, new = signbit.load(path), Session(data)
    np.testing.assert_array_equal(old(pixels), new(pixels))


@pytest.mark.parametrize("least", [-8, -9])
def test_small_weights_take_half_a_byte(least: int) -> None:
    """Where all of them fit 4 bits, whatever they are weights of; else nothing changes."""
    weight = np.array([least, 7, 0, -1, 3, 5], np.int8).reshape(2, 3, 1, 1)
    x, q = Value("x", Type.F32, (3, 2, 2)), Value("q", Type.U8, (3, 2, 2))
    y = Value("y", Type.F32, (2, 2, 2))
    quant8 = Step("quant8", {}, {"inv_scale": 2.0, "zero_point": 3, "levels": 11}, q)
    affine = {"scale": np.ones(2, np.float32), "bias": np.zeros(2, np.float32)}
    conv = Node(
        "conv_q8", "conv", [q], [y], conv_attrs(3, 2, zero_point=3), {"weight": weight},
        [Step("affine", affine), Step("store", value=y)],
    )  # fmt: skip
    graph = Graph([Node("pointwise", "p", [x], [q], epilogue=[quant8]), conv], x, [y], [False])
    data = emit(check(graph))
    packed = parse(data)[1]["conv.weight"]
    if least < -8:
        assert packed.dtype == np.int8
        assert packed[:8].tolist() == [-9, 7, 0, 0, -1, 3, 5, 0]
    else:
        assert packed.dtype == np.uint8
        assert packed.tolist() == [0x78, 0x00, 0x3F, 0x05, *[0] * 60]
    read = read_graph(data)
    np.testing.assert_array_equal(read.nodes[1].params["weight"], weight)
    assert read.nodes[0].epilogue[0].attrs == quant8.attrs
    values = np.linspace(-9, 9, 60, dtype=np.float32).reshape(5, 3, 2, 2)
    np.testing.assert_array_equal(Session(data)(values), reference.run(graph, values)[0])


def test_every_pair_of_four_bit_numbers() -> None:
    packed = np.arange(256, dtype=np.uint8)
    numbers = unpack_i4(packed)
    assert numbers.dtype == np.int8
    assert sorted(set(zip(numbers[::2].tolist(), numbers[1::2].tolist(), strict=True))) == [
        (a, b) for a in range(-8, 8) for b in range(-8, 8)
    ]
    np.testing.assert_array_equal(pack_i4(numbers), packed)


@pytest.mark.parametrize("outputs", [1, 2, 5, 8])
@pytest.mark.parametrize("inputs", [1, 3, 4, 9])
def test_packed_weights(outputs: int, inputs: int) -> None:
    rng = np.random.default_rng(0)
    shape = (outputs, inputs, 3, 2)
    signs = rng.choice([-1, 1], shape).astype(np.int8)
    packed = pack_b1(signs)
    assert packed.shape == (-(-outputs // 2), 6, -(-inputs // 4))
    for pair, tap, group in np.ndindex(*packed.shape):
        expected = 0
        for bit in range(8):
            o, i = 2 * pair + bit // 4, 4 * group + bit % 4
            if o < outputs:
                expected |= int(i >= inputs or signs[o, i, tap // 2, tap % 2] > 0) << bit
        assert packed[pair, tap, group] == expected
    np.testing.assert_array_equal(unpack_b1(packed, shape), signs)
    weight = rng.integers(-127, 128, shape, np.int8)
    packed = pack_q8(weight)
    assert packed.shape == (outputs, 6, -(-inputs // 4) * 4)
    for o, tap, i in np.ndindex(*packed.shape):
        expected = weight[o, i, tap // 2, tap % 2] if i < inputs else 0
        assert packed[o, tap, i] == expected
    np.testing.assert_array_equal(unpack_q8(packed, shape), weight)


def test_wrong_padding_is_found() -> None:
    packed = pack_b1(np.ones((1, 3, 1, 1), np.int8))
    with pytest.raises(FormatError, match=r"conv_b1\.weight"):
        unpack_b1(packed & 7, (1, 3, 1, 1))
    with pytest.raises(FormatError, match=r"conv_b1\.weight"):
        unpack_b1(packed | 16, (1, 3, 1, 1))
    with pytest.raises(FormatError, match=r"conv_q8\.weight"):
        unpack_q8(np.ones(4, np.int8), (1, 3, 1, 1))


def test_save_writes_whole_files_only(small: Graph, tmp_path: Path) -> None:
    path = tmp_path / "model.signbit"
    assert save(small, path) == path
    assert path.read_bytes() == emit(small)
    small.metadata["bad"] = object()
    try:
        with pytest.raises(CompileError, match="metadata 'bad'"):
            save(small, path)
    finally:
        del small.metadata["bad"]
    assert [p.name for p in tmp_path.iterdir()] == ["model.signbit"]
    with pytest.raises(FileNotFoundError):
        save(small, tmp_path / "missing" / "model.signbit")


class Nested(nn.Module):
    def __init__(self, body: nn.Module):
        super().__init__()
        self.pretrained_feature_extractor_backbone = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pretrained_feature_extractor_backbone(x)


def test_layers_deep_within_modules(tmp_path: Path) -> None:
    """Paths that are together longer than the words of the nodes."""
    model: nn.Module = nn.Sequential(nn.AvgPool2d(2), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1))
    for _ in range(20):
        model = Nested(model)
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    compiled = signbit.compile(model.eval(), x)
    assert max(len(node.path) for node in compiled.graph.nodes) > 700
    session = signbit.load(compiled.save(tmp_path / "deep.signbit"))
    np.testing.assert_allclose(session(x.numpy()), model(x).detach().numpy(), rtol=1e-5)


def test_a_path_that_no_file_can_hold(small: Graph) -> None:
    graph = replace(small, nodes=[replace(small.nodes[0], path="p" * 4097), *small.nodes[1:]])
    with pytest.raises(CompileError, match="path has more than 4096 bytes"):
        emit(graph)

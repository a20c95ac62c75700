"""What is read from a file is what was compiled into it."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import signbit
from signbit import nn as snn
from signbit.compiler.contents import read_contents
from signbit.compiler.emit import emit, read_graph
from signbit.errors import FormatError
from tests.runtime.networks import compiled_network


@pytest.fixture(scope="module")
def compiled():
    found = compiled_network("bineal18", "cifar")
    found.graph.metadata = {"task": "classification", "class_names": ["a", "b"]}
    return found


@pytest.fixture(scope="module")
def contents(compiled):
    return read_contents(emit(compiled.graph))


def test_every_node_has_its_line(compiled, contents):
    assert [(line.layer, line.op) for line in contents.lines] == [
        (node.path, node.op) for node in compiled.graph.nodes
    ]
    assert [len(line.steps) for line in contents.lines] == [
        len(node.epilogue) for node in compiled.graph.nodes
    ]


def test_the_sections_are_the_file(compiled, contents):
    data = emit(compiled.graph)
    assert sum(contents.sections.values()) == contents.size == len(data)
    binary = [line.weight_bytes for line in contents.lines if line.op == "conv_b1"]
    # every tensor is padded to 64 bytes
    assert sum(binary) <= contents.sections["1-bit weights"] < sum(binary) + 64 * len(binary)


def test_the_facts_are_the_graphs(compiled, contents):
    assert contents.input == (3, 32, 32)
    assert contents.pixels
    assert contents.outputs == ["f32 10"]
    assert contents.metadata == {"task": "classification", "class_names": ["a", "b"]}
    convolution = next(line for line in contents.lines if line.op == "conv_b1")
    node = next(node for node in compiled.graph.nodes if node.op == "conv_b1")
    assert convolution.attrs == node.attrs
    shape = "x".join(map(str, node.inputs[0].shape))
    assert convolution.inputs[0] == f"b1 {shape}"
    assert json.loads(json.dumps(contents.to_dict()))["sha256"] == contents.sha256


def test_a_damaged_file_is_refused(compiled):
    data = bytearray(emit(compiled.graph))
    data[-1] ^= 1
    with pytest.raises(FormatError, match="sha256"):
        read_contents(bytes(data))


def test_weights_of_four_bits_have_a_section_of_their_own():
    layers = [snn.QuantConv2d(6, 10, 3, bits=4), snn.QuantConv2d(10, 4, 1)]
    for layer in layers:
        layer.set_input_range(-1, 1)
    program = signbit.compile(nn.Sequential(*layers), torch.randn(1, 6, 5, 5))
    found = read_contents(emit(program.graph))
    small, large = (line.weight_bytes for line in found.lines if line.op == "conv_q8")
    assert (small, large) == (10 * 9 * 8 // 2, 4 * 12)
    assert 0 <= found.sections["4-bit weights"] - small < 64
    assert 0 <= found.sections["8-bit weights"] - large < 64
    assert sum(found.sections.values()) == found.size


def test_older_files_hold_small_weights_in_bytes():
    path = Path(__file__).parents[2] / "results/ab_reactnet18-quick/integer.signbit"
    found = read_contents(path)
    assert "4-bit weights" not in found.sections
    taken = sum(line.weight_bytes for line in found.lines if line.op in ("conv_shift", "conv_q8"))
    assert taken <= found.sections["8-bit weights"]
    newer = read_contents(emit(read_graph(path)))
    saved = found.sections["8-bit weights"] - newer.sections["8-bit weights"]
    assert newer.sections["4-bit weights"] == saved / 2

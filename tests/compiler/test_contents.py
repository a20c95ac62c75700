"""What is read from a file is what was compiled into it."""

import json

import pytest

from signbit.compiler.contents import read_contents
from signbit.compiler.emit import emit
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

"""What has no circuit is refused by name, with the way out."""

from __future__ import annotations

import pytest

from signbit.compiler.ir import Graph
from signbit.hardware.rtl import CircuitError, Options, build, supported


def test_layers_and_blocks_are_listed_in_order(bineal_graph: Graph, ab_graph: Graph) -> None:
    assert supported(bineal_graph) == [
        "0", "3", "3.conv1", "3.skip_conv", "3.conv2", "4", "4.conv1", "4.skip_conv", "4.conv2",
        "7",
    ]  # fmt: skip
    assert "stages.0.0.branch.conv" in supported(ab_graph)


@pytest.mark.parametrize(
    ("fixture", "layer", "options", "words"),
    [
        ("bineal_graph", "nothing", {}, ["nothing", "3.conv1"]),
        ("bineal_graph", "5", {}, ["5", "global_avg_pool", "3.conv1"]),
        ("bineal_graph", "3.conv1", {"lanes": 3}, ["3.conv1", "lanes", "got 3", "1, 2, 4, 8"]),
        ("bineal_graph", "3", {"parallel": 5}, ["parallel", "got 5", "1, 2, 4, 8"]),
        ("bineal_graph", "3.conv1", {"lanes": 16}, ["lanes", "got 16"]),
        ("odd_graph", "7", {"size": (1, 1)}, ["7", "1x1", "--size"]),
        ("odd_graph", "9", {}, ["9", "2 groups"]),
        ("batch_norm_graph", "stages.0.0", {}, ["stages.0.0", "affine", "integer", "--fraction"]),
        ("eight_bit_graph", "head", {}, ["head", "affine", "fraction_bits"]),
        ("ab_graph", "stages", {}, ["convolutions", "stages.0.0.branch.conv"]),
    ],
)
def test_what_has_no_circuit_is_named(
    fixture: str, layer: str, options: dict, words: list[str], request: pytest.FixtureRequest
) -> None:
    with pytest.raises(CircuitError) as error:
        build(request.getfixturevalue(fixture), layer, Options(**options))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"lanes": 0}, "lanes"),
        ({"parallel": 0}, "parallel"),
        ({"parallel": 1.5}, "parallel"),
        ({"size": (0, 4)}, "size"),
        ({"four_bits": "tree"}, "ladder or multiply"),
        ({"fraction_bits": 15}, "0..14"),
        ({"name": "9 lives"}, "name"),
    ],
)
def test_options_are_checked(options: dict, word: str) -> None:
    with pytest.raises(CircuitError, match=word):
        Options(**options)


def test_fixed_point_without_room_is_refused(batch_norm_graph: Graph) -> None:
    for node in batch_norm_graph.nodes:
        for step in node.epilogue:
            if step.kind == "rprelu" and node.path.startswith("stages.0.1"):
                step.params["slope"] = step.params["slope"] * 1e6
    with pytest.raises(CircuitError, match=r"slope reaches .* fraction_bits"):
        build(batch_norm_graph, "stages.0.1", Options(fraction_bits=10))


def test_what_a_block_leaves_out_is_known(ab_graph: Graph) -> None:
    circuit = build(ab_graph, "stages.1.0")
    assert [node.op for node in circuit.block.left_out] == ["avg_pool", "conv_shift"]

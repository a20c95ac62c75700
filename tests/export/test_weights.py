"""A program's numbers as .npz and as a C header, compared with the graph and by a C compiler."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import signbit
from signbit import nn as snn
from signbit.cli.networks import untrained_network
from signbit.compiler import emit
from signbit.compiler.ir import Graph, Node, Step, Type, Value
from signbit.export import read_weights, save_header, save_weights
from signbit.export import weights as weights_module
from tests.cli.test_cli import call


def compiled() -> signbit.CompiledModel:
    torch.manual_seed(0)
    net = nn.Sequential(
        snn.QuantConv2d(3, 10, 3, padding=1), snn.RSign(10),
        snn.BinaryConv2d(10, 7, (3, 2), padding=1, padding_value=-1), nn.BatchNorm2d(7), snn.Sign(),
        snn.BinaryConv2d(7, 6, 1, bias=True), nn.PReLU(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        snn.QuantLinear(6, 4),
    )  # fmt: skip
    nn.init.normal_(net[1].bias)
    nn.init.normal_(net[3].bias)
    x = torch.randn(2, 3, 6, 6)
    signbit.calibrate(net, [x])
    return signbit.compile(
        net, x, preprocessing={"mean": [0.1, 0.2, 0.3], "std": [1 / 3, 0.5, 7e-9]}
    )


@pytest.fixture(scope="module")
def program() -> tuple[Graph, bytes]:
    graph = compiled().graph
    return graph, emit.emit(graph)


def test_arrays_are_the_graphs(program) -> None:
    graph, data = program
    found = read_weights(data)
    assert str(found["sha256"]) == hashlib.sha256(data).hexdigest()
    np.testing.assert_array_equal(found["input.mean"], graph.mean)
    names = list(map(str, found["layers"]))
    assert len(set(names)) == len(names) == len(graph.nodes)
    compared = set()
    for name, node in zip(names, graph.nodes, strict=True):
        assert name == node.path + (":pointwise" if node.op == "pointwise" else "")
        assert found[f"{name}.op"] == node.op
        steps = list(map(str, found[f"{name}.steps"]))
        assert [step.split("#")[0] for step in steps] == [step.kind for step in node.epilogue]
        named = zip(steps, node.epilogue, strict=True)
        sources = [(name, node), *((f"{name}.{step}", source) for step, source in named)]
        for prefix, source in sources:
            for key, value in (source.params | source.attrs).items():
                kind = None if isinstance(value, np.ndarray | int) else np.float32
                np.testing.assert_array_equal(found[f"{prefix}.{key}"], np.array(value, kind))
                compared.add(f"{prefix}.{key}")
        compared |= {f"{name}.op", f"{name}.steps"}
    assert set(found) - compared == {"layers", "sha256", "input.mean", "input.std"}
    assert set(np.unique(found["2.weight"])) == {-1, 1}
    assert found["2.weight"].dtype == np.int8
    assert found["2.weight"].shape == (7, 10, 3, 2)
    assert found["2.pad_value"] == -1


def test_npz_needs_numpy_alone(program, tmp_path: Path) -> None:
    _, data = program
    path = save_weights(data, tmp_path / "weights")  # no suffix is added
    assert path == tmp_path / "weights"
    expected = read_weights(data)
    with np.load(path, allow_pickle=False) as found:
        assert set(found) == set(expected)
        for key in expected:
            np.testing.assert_array_equal(found[key], expected[key])
            assert found[key].dtype == expected[key].dtype
    file = tmp_path / "model.signbit"
    file.write_bytes(data)
    assert read_weights(file).keys() == expected.keys()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.signbit", "weights"]


PROGRAM = """
#include "{header}"
#include <stdio.h>
#define INTS(name) do {{ \\
  unsigned i; printf(#name); \\
  for (i = 0; i < sizeof name / sizeof *name; ++i) printf(" %ld", (long)name[i]); \\
  printf("\\n"); }} while (0)
#define FLOATS(name) do {{ \\
  unsigned i; printf(#name); \\
  for (i = 0; i < sizeof name / sizeof *name; ++i) printf(" %.9g", (double)name[i]); \\
  printf("\\n"); }} while (0)
int main(void) {{
{body}
  return 0;
}}
"""
COMPILERS = {
    "c": [os.environ.get("CC", "cc"), "-x", "c", "-std=c99"],
    "c++": [os.environ.get("CXX", "c++"), "-x", "c++", "-std=c++11"],
}


def values_in_c(
    header: Path, arrays: dict[str, np.ndarray], language: str
) -> dict[str, list[float]]:
    """What a C program reads from the header, by its names."""
    body = []
    for name, array in arrays.items():
        if array.ndim:
            kind = "FLOATS" if array.dtype.kind == "f" else "INTS"
            body.append(f"  {kind}({name});")
        else:
            body.append(f'  printf("{name} %.9g\\n", (double){name});')
    source = header.with_suffix(".source")
    source.write_text(PROGRAM.format(header=header.name, body="\n".join(body)))
    binary = header.with_suffix(".exe")
    flags = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-Wno-unused-const-variable"]
    subprocess.run([*COMPILERS[language], *flags, str(source), "-o", str(binary)], check=True)
    lines = subprocess.run([str(binary)], capture_output=True, text=True, check=True).stdout
    return {line.split()[0]: list(map(float, line.split()[1:])) for line in lines.splitlines()}


def numbers(data: bytes) -> dict[str, np.ndarray]:
    return {k: a for k, a in read_weights(data).items() if a.dtype.kind != "U"}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("language", COMPILERS)
def test_header_holds_the_same_numbers(program, language: str, packed: bool, tmp_path) -> None:
    if shutil.which(COMPILERS[language][0]) is None:
        pytest.skip(f"no {COMPILERS[language][0]}")
    _, data = program
    header = save_header(data, tmp_path / "my-net.h", packed=packed)
    named = {f"my_net_{re.sub('[.:#]', '_', key)}": a for key, a in numbers(data).items()}
    found = values_in_c(header, named, language)
    assert found.keys() == named.keys()
    binary = {"my_net_2_weight", "my_net_5_weight"}
    for name, array in named.items():
        if packed and name in binary:
            outputs = array.reshape(len(array), -1)
            stored = np.array(found[name], np.uint8).reshape(len(array), -1)
            bits = [(row[i // 8] >> (i % 8)) & 1 for row in stored for i in range(outputs.shape[1])]
            np.testing.assert_array_equal(np.array(bits) * 2.0 - 1, outputs.reshape(-1))
        else:
            got = np.array(found[name], np.float32 if array.dtype.kind == "f" else np.int64)
            np.testing.assert_array_equal(got, array.reshape(-1))
    text = header.read_text()
    assert hashlib.sha256(data).hexdigest() in text
    assert text.count("SIGNBIT_WEIGHTS_MY_NET_H") == 3
    assert max(map(len, text.splitlines())) < 160


def awkward_program() -> bytes:
    """Limits of the types, names that C cannot have, and names that fall together there."""
    source, middle = Value("x", Type.F32, (2, 1, 1)), Value("y", Type.F32, (2, 1, 1))
    bits, end = Value("b", Type.B1, (2, 1, 1)), Value("z", Type.F32, (2, 1, 1))
    window = {f"{n}_{a}": v for a in "hw" for n, v in
              {"kernel": 1, "stride": 1, "pad": 0, "dilation": 1}.items()}  # fmt: skip
    attrs = window | {"in_channels": 2, "out_channels": 2, "groups": 1, "pad_value": 0}
    affine = {
        "scale": np.array([1e-38, 3.0], np.float32),
        "bias": np.array([-1e9, 0.1], np.float32),
    }
    signs = [Step("sign", {"cut": np.array([-0.0, 1e-45], np.float32)}, {}, bits)]
    nodes = [
        Node("pointwise", "a.b*/ü", [source], [middle], {}, {},
             [Step("affine", affine), Step("affine", affine), Step("store", value=middle)]),
        Node("pointwise", "a_b", [middle], [bits], {}, {}, signs),
        Node("conv_b1", "a.b", [bits], [end], attrs,
             {"weight": np.array([[[[1]], [[-1]]], [[[-1]], [[1]]]], np.int8)},
             [Step("affine", affine), Step("store", value=end)]),
    ]  # fmt: skip
    other = Value("t", Type.B1, (2, 1, 1))
    limits = {
        "low": np.array([-(2**31), -1], np.int32),
        "high": np.array([2**31 - 1, 0], np.int32),
        "flip": np.array([0, 1], np.uint8),
    }
    threshold = [Step("threshold", limits, {}, other)]
    nodes.append(Node("conv_b1", "a.b", [bits], [other], attrs, dict(nodes[2].params), threshold))
    last = Value("w", Type.F32, (2, 1, 1))
    nodes.append(Node("global_avg_pool", "", [other], [last]))
    return emit.emit(Graph(nodes, source, [end, last], [False, False]))


@pytest.mark.parametrize("language", COMPILERS)
def test_header_of_awkward_names_and_numbers(language: str, tmp_path: Path) -> None:
    if shutil.which(COMPILERS[language][0]) is None:
        pytest.skip(f"no {COMPILERS[language][0]}")
    data = awkward_program()
    arrays = numbers(data)
    assert [str(layer) for layer in read_weights(data)["layers"]] == [
        "a.b*/ü:pointwise", "a_b:pointwise", "a.b", "a.b#2", "model"
    ]  # fmt: skip
    names = {
        "w_2_a_b_pointwise_affine_scale": "a.b*/ü:pointwise.affine.scale",
        "w_2_a_b_pointwise_affine_2_bias": "a.b*/ü:pointwise.affine#2.bias",
        "w_2_a_b_pointwise_sign_cut": "a_b:pointwise.sign.cut",
        "w_2_a_b_weight": "a.b.weight",
        "w_2_a_b_affine_scale": "a.b.affine.scale",
        "w_2_a_b_2_threshold_low": "a.b#2.threshold.low",
        "w_2_a_b_2_threshold_high": "a.b#2.threshold.high",
        "w_2_a_b_2_threshold_flip": "a.b#2.threshold.flip",
    }
    header = save_header(data, tmp_path / "2.h")
    found = values_in_c(header, {name: arrays[key] for name, key in names.items()}, language)
    for name, key in names.items():
        array = arrays[key]  # nine digits give back a float32; int32 fit a double
        got = np.array(found[name]).astype(array.dtype)
        np.testing.assert_array_equal(got, array.reshape(-1), name)


def test_infinities_have_a_name_in_c() -> None:
    literals = weights_module._literals(np.array([np.inf, -np.inf, 1, 1e10], np.float32))
    assert literals == ["INFINITY", "-INFINITY", "1.0f", "1e+10f"]


def test_nothing_is_left_where_writing_fails(program, tmp_path: Path) -> None:
    _, data = program
    old = tmp_path / "net.h"
    old.write_text("before")
    with pytest.raises(signbit.FormatError):
        save_header(data[:-1], old)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        save_weights(data, tmp_path / "folder")
    assert old.read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "net.h"]


# --- the command ---


def test_command(program, tmp_path: Path, capsys) -> None:
    file = tmp_path / "net.signbit"
    file.write_bytes(program[1])
    output, header = tmp_path / "out.npz", tmp_path / "out.h"
    status, out, _ = call(
        capsys, "export-weights", file, "-o", output, "--header", header, "--packed"
    )
    assert status == 0
    assert "binary weights" in out
    with np.load(output) as found:
        assert "2.weight" in found
    assert "an output channel, bit 1 is +1" in header.read_text()
    for arguments, message in [
        ((tmp_path / "none.signbit",), "no such file"),
        ((file, "--packed"), "only with --header"),
        ((file, "-o", tmp_path), "not a file that can be written"),
        ((output,), "header"),
    ]:
        status, _, err = call(capsys, "export-weights", *arguments)
        assert status == 2
        assert message in err


def test_command_takes_what_was_trained(tmp_path: Path, capsys) -> None:
    trained = untrained_network("bineal18", width=0.0625, stem="cifar", classes=10, size=(16, 16))
    trained.save(tmp_path / "model.pt")
    status, out, _ = call(capsys, "export-weights", tmp_path, "-o", tmp_path / "out.npz", "--json")
    assert status == 0
    report = json.loads(out)
    layers = [m for m in trained.model.modules() if isinstance(m, snn.BinaryLayer)]
    assert report["binary_weights"] == sum(layer.weight.numel() for layer in layers)
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_array_equal(found["input.mean"], np.float32(trained.mean))
        signs = trained.model.stages[0][0].conv1.binary_weight()[0]
        np.testing.assert_array_equal(found["stages.0.0.conv1.weight"], signs)

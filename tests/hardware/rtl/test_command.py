"""`signbit rtl`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from signbit.cli.app import main
from signbit.compiler import emit
from signbit.compiler.ir import Graph
from signbit.hardware.rtl import tools


@pytest.fixture
def file(bineal_graph: Graph, tmp_path: Path) -> Path:
    return emit.save(bineal_graph, tmp_path / "net.signbit")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["rtl", *map(str, arguments)])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def test_without_a_layer_it_lists_them(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, file)
    assert code == 0
    assert out.split()[:3] == ["0", "3", "3.conv1"]


def test_what_has_no_circuit_is_listed_with_the_reason(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, err = run(capsys, file)
    assert "7" not in out.split()
    assert "not 7: " in err
    assert "--fraction-bits" in err
    report = json.loads(run(capsys, file, "--json")[1])
    assert list(report["refused"]) == ["7"]
    report = json.loads(run(capsys, file, "--json", "--fraction-bits", 10)[1])
    assert not report["refused"]
    assert "7" in report["layers"]


def test_it_writes_a_circuit_and_its_test_bench(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "rtl"
    code, out, _ = run(capsys, file, "--layer", "3", "-o", folder, "--parallel", 2, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["vectors"] == 4 * 64
    assert {*report["sources"], "signbit_3_tb.v"} <= {path.name for path in folder.iterdir()}
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    if tools.has("icarus"):
        code, out, _ = run(
            capsys, file, "--layer", "3.conv1", "-o", folder, "--simulate", "icarus",
            "--images", 1, "--size", "3x4",
        )  # fmt: skip
        assert code == 0
        assert "passed: 12 vectors, 0 mismatches" in out


@pytest.mark.slow
@pytest.mark.skipif(not tools.has("yosys"), reason="yosys is not installed: no cells are counted")
def test_it_counts_cells(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, file, "--layer", "3.skip_conv", "-o", tmp_path / "rtl", "--synthesize", "--json",
        "--four-bits", "multiply", "--size", "4x4",
    )  # fmt: skip
    assert code == 0
    cells = json.loads(out)["cells"]
    assert cells["with DSP"]["dsp"] >= cells["without DSP"]["dsp"] == 0
    assert 0 < cells["with DSP"]["lut"] <= cells["without DSP"]["lut"]
    assert cells["without DSP"]["ff"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layer", "3"], "--output"),
        (["--layer", "conv9", "-o", "x"], "no layer 'conv9'"),
        (["--layer", "3", "-o", "x", "--size", "0x3"], "size must be"),
        (["--layer", "3", "-o", "x", "--size", "3"], "HEIGHTxWIDTH"),
        (["--layer", "3", "-o", "x", "--lanes", "0"], "lanes"),
        (["--layer", "3", "-o", "x", "--images", "-1"], "--images"),
        (["--layer", "3", "-o", "x", "--images", "0", "--simulate", "icarus"], "--images"),
        (["--layer", "3", "-o", "x", "--simulate", "questa"], "icarus or verilator"),
        (["--layer", "3", "-o", "x", "--size", "90000x90000"], "fewer images"),
    ],
)
def test_bad_words_are_errors(
    file: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, file, *arguments)
    assert code == 2
    assert words in err
    assert not (tmp_path / "x").exists()


def test_an_absent_tool_is_named(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools.shutil, "which", lambda program: None)
    code, _, err = run(
        capsys, file, "--layer", "3", "-o", tmp_path / "rtl", "--simulate", "icarus"
    )  # fmt: skip
    assert code == 2
    assert "install Debian's iverilog" in err

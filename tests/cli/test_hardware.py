"""``signbit hardware``: what it prints and writes, and how it fails."""

import csv
import json

import pytest
import torch

import signbit
from signbit.cli.networks import example_input, untrained_network

from .test_cli import call

SMALL = ["--width", "0.25", "--classes", "10", "--size", "32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A binary network's file and its rival's, real and of open size."""
    pytest.importorskip("onnxruntime")
    from signbit.rivals.engines import export_onnx, quantize

    folder = tmp_path_factory.mktemp("networks")
    trained = untrained_network("bineal18", width=0.25, classes=10, size=(32, 32))
    program = signbit.compile(
        trained.model,
        example_input(trained),
        metadata={"accuracy": {"test_accuracy": 0.5}},
        verify=False,
    )
    program.save(folder / "binary.signbit")
    torch.manual_seed(0)
    rival = signbit.create_model("resnet18", width=0.25, num_classes=10).eval()
    x = example_input(trained, 2).numpy()
    export_onnx(rival, x, folder / "open.onnx", any_size=True)
    export_onnx(rival, x, folder / "fixed.onnx")
    quantize(folder / "fixed.onnx", list(x), folder / "int8.onnx")
    return folder


def test_a_network_beside_its_rival(capsys, folder, tmp_path):
    out = tmp_path / "out"
    rival = f"{folder / 'int8.onnx'}@60"
    arguments = ["hardware", folder / "binary.signbit", "--against", rival, "--output", out]
    status, printed, err = call(capsys, *arguments, "--json")
    assert status == 0, err
    report = json.loads(printed)
    assert json.loads((out / "hardware.json").read_text()) == report
    binary, eight = report["networks"]
    assert (binary["network"], eight["network"]) == ("binary", "int8")
    assert (binary["graph"], eight["graph"]) == ("the compiled graph", "the ONNX file")
    # from the file's own words, and from the command line
    assert (binary["accuracy"], eight["accuracy"]) == (50.0, 60.0)
    totals, others = binary["totals"], eight["totals"]
    assert totals["macs"]["1x1"] == totals["bops"] > 0
    assert list(others["macs"]) == ["8x8"]
    # a compiled file has no layers as they were written any more, but what was to multiply in all
    assert totals["captured"] is None
    assert totals["written"]["strict_mo"] >= totals["written"]["mo"] > 0
    # which is that of images of the size that it was compiled for
    arguments = ["hardware", folder / "binary.signbit", "--size", "64", "--json"]
    _, printed, _ = call(capsys, *arguments, "--output", tmp_path / "larger")
    (larger,) = json.loads(printed)["networks"]
    assert larger["totals"]["bops"] == 4 * totals["bops"]
    assert larger["totals"]["written"] is None
    assert others["captured"]["macs"]["8-bit"] == others["macs"]["8x8"]
    assert len(eight["captured_layers"]) >= len(eight["layers"])
    (ratio,) = report["ratios"]
    assert ratio["cycles"] == pytest.approx(others["cycles"] / totals["cycles"])
    assert report["array"]["rows"] == 16
    assert report["sweep"] == []
    names = {path.name for path in out.iterdir()}
    assert names == {
        "hardware.html", "hardware.json", "pareto.png", "timeline-binary.png", "timeline-int8.png",
    }  # fmt: skip
    page = (out / "hardware.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "int8, layer by layer" in page
    assert "<th>CPU64</th>" in page
    # every parameter of what was used
    assert report["energy"]["dram_access"] == {"low": 1.3e-9, "high": 2.6e-9}
    assert "1.0 MiB here, whatever buffers the array has" in page
    assert "16 x 16 PEs, weight stationary" in page


def test_words_for_people(capsys, folder, tmp_path, monkeypatch):
    arguments = ["hardware", folder / "int8.onnx", "--output", tmp_path]
    status, printed, err = call(capsys, *arguments)
    assert status == 0
    assert "int8 on binE-16, one image" in printed
    assert "stages/stages.3/stages.3.1/conv2" in printed
    assert "cycles without stem and head" in printed
    assert f"report: {tmp_path / 'hardware.html'}" in err
    # nobody knows its accuracy
    assert not (tmp_path / "pareto.png").exists()
    monkeypatch.setenv("COLUMNS", "90")
    _, printed, _ = call(capsys, *arguments)
    assert "more columns: --json" in printed


def test_names_are_compiled_or_captured(capsys, tmp_path):
    arguments = ["hardware", "bineal18", *SMALL, "--against", "resnet18", "--output", tmp_path]
    status, printed, err = call(capsys, *arguments, "--json")
    assert status == 0, err
    binary, real = json.loads(printed)["networks"]
    assert (binary["graph"], real["graph"]) == ("the compiled graph", "the captured graph")
    # the rival takes the number of classes and the size, not the width
    shapes = [network["layers"][-1]["output_bits"] // 32 for network in (binary, real)]
    assert shapes == [10, 10]
    assert real["totals"]["weight_bits"] > 11e6 * 32
    assert binary["totals"]["captured"]["bops"] == binary["totals"]["bops"]


def test_real_ends_are_counted_in_8_bits_or_integers(capsys, tmp_path):
    arguments = ["hardware", "ab_reactnet18", *SMALL, "--output", tmp_path, "--json"]
    status, printed, err = call(capsys, *arguments)
    assert status == 0, err
    (eight,) = json.loads(printed)["networks"]
    assert set(eight["totals"]["macs"]) == {"1x1", "1x8", "8x8"}
    assert eight["totals"]["captured"]["mo"] == 0
    status, printed, err = call(capsys, *arguments, "--arithmetic", "integer")
    assert status == 0, err
    (integers,) = json.loads(printed)["networks"]
    assert integers["totals"]["multiplications"] == 0


def test_a_run_knows_its_accuracy(capsys, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    untrained_network("bineal18", width=0.125, classes=10, size=(32, 32)).save(run / "model.pt")
    (run / "eval.json").write_text(json.dumps({"pytorch_accuracy": 0.25}))
    arguments = ["hardware", run, "--output", tmp_path / "out", "--json"]
    status, printed, err = call(capsys, *arguments)
    assert status == 0, err
    (network,) = json.loads(printed)["networks"]
    assert (network["network"], network["accuracy"]) == ("run", 25.0)
    status, _, err = call(capsys, "hardware", run, "--width", "2", "--output", tmp_path / "out")
    assert status == 2
    assert "--width: only with a model's name" in err


def test_sweep(capsys, folder, tmp_path):
    arguments = [
        "hardware", folder / "binary.signbit", "--against", folder / "int8.onnx", "--sweep",
        "--sizes", "8,16", "--lanes", "8,16", "--vectors", "16", "--output", tmp_path,
    ]  # fmt: skip
    status, printed, err = call(capsys, *arguments, "--json")
    assert status == 0, err
    report = json.loads(printed)
    points = report["sweep"]
    assert len(points) == 3 * 2 * 2
    preset = next(
        p for p in points
        if (p["dataflow"], p["rows"], p["binary_lanes"]) == ("weight_stationary", 16, 16)
    )  # fmt: skip
    assert preset["cycles"] == report["networks"][0]["totals"]["cycles"]
    assert preset["ratios"]["int8"] == pytest.approx(report["ratios"][0]["cycles"])
    assert not any(point["unfit"] for point in points)
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert [int(row["cycles"]) for row in rows] == [point["cycles"] for point in points]
    assert "int8 / model" in rows[0]
    assert (tmp_path / "sweep.png").stat().st_size > 1000


def test_thousand_designs_by_default(capsys, folder, tmp_path):
    arguments = ["hardware", folder / "int8.onnx", "--sweep", "--output", tmp_path, "--json"]
    status, printed, err = call(capsys, *arguments)
    assert status == 0, err
    assert len(json.loads(printed)["sweep"]) >= 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["open.onnx"], "the height of input x is open (H)"),
        (["fixed.onnx", "--size", "64"], "has a height of 32, not 64"),
        (["missing.onnx"], "missing.onnx: there is no such file"),
        (["int8.onnx@much"], "expected an accuracy in percent behind @"),
        (["int8.onnx@101"], "expected an accuracy in percent behind @"),
        (["int8.onnx", "--against", "int8.onnx"], "int8.onnx is given twice"),
        (["int8.onnx", "--preset", "binE16"], "did you mean binE-16?"),
        (["int8.onnx", "--energy", "energy-45"], "did you mean energy-45nm?"),
        (["int8.onnx", "--lanes", "4"], "--lanes: only with --sweep"),
        (["int8.onnx", "--sweep", "--sizes", "8,0"], "--sizes 8,0: expected numbers above 0"),
        (["int8.onnx", "--option", "stem_bits=8"], "--option: only with a model's name"),
        (["int8.onnx", "--arithmetic", "real"], "expected float or integer"),
        (["int8.onnx", "--size", "big"], "expected pixels"),
    ],
)
def test_errors_say_the_way_out(capsys, folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    status, _, err = call(capsys, "hardware", *arguments, "--output", tmp_path / "out")
    assert status == 2
    assert message in err
    assert not (tmp_path / "out" / "hardware.json").exists()


def test_unknown_names_and_real_networks_in_integers(capsys, tmp_path):
    out = ["--output", tmp_path]
    status, _, err = call(capsys, "hardware", "bineall8", *out)
    assert status == 2
    assert "did you mean 'bineal18'?" in err
    status, _, err = call(
        capsys, "hardware", "resnet18", "--arithmetic", "integer", "--size", "32", *out
    )
    assert status == 2
    assert "of binary networks alone" in err


def test_layers_that_do_not_fit_are_named(capsys, folder, tmp_path):
    from signbit.hardware.presets import FOLDER

    own = tmp_path / "tiny.yaml"
    text = (FOLDER / "binE-16.yaml").read_text()
    own.write_text(text.replace("input_buffer: unlimited", "input_buffer: 64 B"))
    out = ["--output", tmp_path / "out"]
    status, _, err = call(capsys, "hardware", folder / "int8.onnx", "--preset", own, *out)
    assert status == 2
    assert "stem/stem.0/stem.0.0/Conv does not fit tiny" in err
    # a sweep leaves such designs out
    sweep = ["--sweep", "--sizes", "4", "--lanes", "8", "--vectors", "8"]
    roomy = tmp_path / "roomy.yaml"
    roomy.write_text(text.replace("input_buffer: unlimited", "input_buffer: 64 KiB"))
    status, printed, err = call(
        capsys, "hardware", folder / "int8.onnx", "--preset", roomy, *sweep, *out, "--json"
    )
    assert status == 0, err
    assert len(json.loads(printed)["sweep"]) == 3


def test_pipelines_and_light(capsys, folder, tmp_path):
    arguments = [folder / "binary.signbit", "--streaming", "finn", "--photonic", "oxbnn-50-cleaned"]
    status, printed, err = call(capsys, "hardware", *arguments, "--output", tmp_path, "--json")
    assert status == 0, err
    (network,) = json.loads(printed)["networks"]
    pipeline, light = network["streaming"], network["photonic"]
    assert pipeline["fabric"] == "finn"
    assert pipeline["meets_target"]
    assert pipeline["frames_per_second"] >= 100
    assert (light["accelerator"], light["variant"]) == ("oxbnn-50-cleaned", "cleaned")
    fabric, accelerator = json.loads(printed)["other_designs"]
    assert (fabric["clock"], accelerator["units"]) == (200e6, 224)
    assert "oxbnn-50-cleaned (cleaned): power" in (tmp_path / "hardware.html").read_text()

    status, _, err = call(capsys, "hardware", folder / "binary.signbit", "--streaming", "fin")
    assert status != 0
    assert "finn" in err

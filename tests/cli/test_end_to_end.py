"""Train, compile, evaluate, run, time and report, as a user does it."""

import json

import numpy as np
import pytest

from .test_cli import call

QUICK = [
    "--set", "stages.0.epochs=1", "--set", "stages.1.epochs=2", "--set", "model.width=0.125",
    "--set", "threads=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A short demo in a folder, and what it printed as JSON."""
    from signbit.cli import main

    folder = tmp_path_factory.mktemp("demo")
    printed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("signbit.cli.demo.print_json", printed.append)
        with pytest.raises(SystemExit) as caught:
            main(["demo", "--output", str(folder), "--rounds", "5", "--json", *QUICK])
    assert caught.value.code == 0
    return folder, printed[0]


def test_demo_compares_all_test_images(demo):
    _, numbers = demo
    assert numbers["test_images"] == 359
    assert numbers["equal_predictions"] == 359
    assert numbers["engine_accuracy"] == numbers["pytorch_accuracy"]
    assert numbers["ms"]["signbit"] > 0


def test_demo_measures_the_file_that_it_wrote(demo):
    folder, numbers = demo
    size = (folder / "model.signbit").stat().st_size
    assert numbers["file_bytes"] == size
    assert numbers["size_ratio"] == pytest.approx(numbers["float32_bytes"] / size)


def test_demo_report_has_its_pictures_inside(demo):
    folder, numbers = demo
    page = (folder / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 3
    assert "http" not in page
    assert f"{numbers['engine_accuracy']:.2%}" in page


def test_demo_can_run_again(demo, capsys):
    folder, before = demo
    status, out, _ = call(capsys, "demo", "--output", folder, "--rounds", 5, "--json", *QUICK)
    assert status == 0
    again = json.loads(out)
    assert again["engine_accuracy"] == before["engine_accuracy"]
    assert again["file_bytes"] == before["file_bytes"]


def test_run_refuses_values_that_are_not_finite(demo, capsys, tmp_path):
    values = np.zeros((2, 1, 16, 16), np.float32)
    values[1, 0, 3, 4] = np.nan
    np.save(tmp_path / "v.npy", values)
    status, out, err = call(capsys, "run", demo[0] / "model.signbit", tmp_path / "v.npy")
    assert (status, out) == (2, "")
    assert "v.npy[1]: " in err
    assert 'layer "stem.0": its input holds NaN at image 0, channel 0, row 3, column 4' in err


def test_train_refuses_the_folder_of_a_run(demo, capsys):
    status, _, err = call(capsys, "train", "digits", "--output", demo[0] / "run", *QUICK)
    assert status == 2
    assert "--resume" in err


def test_eval_compares_network_and_engine(demo, capsys):
    folder, numbers = demo
    arguments = ("eval", folder / "run", "--engine", folder / "model.signbit")
    status, out, _ = call(capsys, *arguments, "--json")
    assert status == 0
    result = json.loads(out)
    assert result["pytorch_accuracy"] == numbers["pytorch_accuracy"]
    assert result["engine_accuracy"] == numbers["engine_accuracy"]
    assert result["equal_predictions"] == result["images"] == 359
    low, high = result["engine_interval"]
    assert low <= result["engine_accuracy"] <= high
    assert result["pytorch_interval"] == [low, high]
    _, out, _ = call(capsys, *arguments)
    assert "+0.00 points" in out


def test_eval_of_the_file_alone(demo, capsys):
    folder, numbers = demo
    _, out, _ = call(capsys, "eval", folder / "model.signbit", "--json")
    assert json.loads(out)["engine_accuracy"] == numbers["engine_accuracy"]
    _, out, _ = call(
        capsys, "eval", folder / "model.signbit", "--split", "val", "--limit", 9, "--json"
    )
    assert json.loads(out)["images"] == 9


def test_eval_refuses_other_data(demo, capsys, tmp_path):
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("RGB", (8, 8), i).save(tmp_path / name / f"{i}.png")
    status, _, err = call(capsys, "eval", demo[0] / "model.signbit", "--data", tmp_path)
    assert status == 2
    assert "digits is embedded" in err


def test_compile_gives_the_same_file_again(demo, capsys, tmp_path):
    folder, _ = demo
    status, out, _ = call(
        capsys, "compile", folder / "run" / "model.pt", "-o", tmp_path / "m.signbit", "--json"
    )
    assert status == 0
    assert json.loads(out)["verify"]
    assert (tmp_path / "m.signbit").read_bytes() == (folder / "model.signbit").read_bytes()


def test_run_on_pixels_agrees_with_eval(demo, capsys, tmp_path):
    from signbit.data import load_source

    folder, numbers = demo
    test = load_source("digits", image_size=16).test
    np.save(tmp_path / "test.npy", test.images)
    status, out, _ = call(
        capsys, "run", folder / "model.signbit", tmp_path / "test.npy", "--json", "--top", 1
    )
    assert status == 0
    found = [result["top"][0]["index"] for result in json.loads(out)["results"]]
    assert (np.array(found) == test.labels).mean() == numbers["engine_accuracy"]


def test_bench_and_summary(demo, capsys):
    folder, _ = demo
    status, out, _ = call(capsys, "bench", folder / "model.signbit", "--rounds", 3, "--json")
    assert status == 0
    assert json.loads(out)["timings"][0]["median_ms"] > 0
    status, out, _ = call(capsys, "summary", folder / "run", "--json")
    assert status == 0
    assert "stages.0.0.conv1" in out
    status, out, _ = call(capsys, "summary", "reactnet18", "--width", 0.125, "--input-size", 64)
    assert status == 0
    assert "QuantConv2d" in out


def test_untrained_network_compiles_and_says_so(capsys, tmp_path):
    status, _, err = call(
        capsys, "compile", "--model", "bineal18", "--stem", "cifar", "--width", 0.125,
        "--classes", 3, "--input-size", 16, "-o", tmp_path / "u.signbit",
    )  # fmt: skip
    assert status == 0
    assert "random weights" in err
    from signbit.runtime import load

    session = load(tmp_path / "u.signbit")
    assert session.metadata["untrained"] is True
    assert session(np.zeros((1, 16, 16, 3), np.uint8)).shape == (1, 3)


def test_networks_without_classes_or_stems(capsys, tmp_path):
    status, out, _ = call(
        capsys, "summary", "edsr_bineal", "--width", 0.125, "--option", "scale=3",
        "--input-size", 16,
    )  # fmt: skip
    assert status == 0
    assert "3x48x48" in out


def test_a_damaged_file_is_a_clear_error(demo, capsys, tmp_path):
    damaged = tmp_path / "d.signbit"
    damaged.write_bytes((demo[0] / "model.signbit").read_bytes()[:-64])
    status, out, err = call(capsys, "bench", damaged)
    assert status == 2
    assert out == ""
    assert "d.signbit" in err

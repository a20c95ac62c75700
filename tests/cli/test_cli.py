"""The command line: what it imports, what it prints where, and how it fails."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from signbit.cli import main
from signbit.cli.console import listed
from signbit.cli.inputs import read_inputs
from signbit.cli.networks import parse_size
from signbit.cli.recipes import find_recipe
from signbit.errors import DataError, RecipeError, SignbitError


def call(capsys, *arguments):
    """(exit status, stdout, stderr) of a command line."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


class FakeSession:
    """Answers like a session, without the engine: the class is that of the brightest channel."""

    input_shape = (3, 8, 8)
    isa = "scalar"
    accepts_pixels = True
    output_scales = (1.0,)

    def __init__(self, path, threads=None, isa=None, debug=False):
        self.threads = threads or 1
        self.metadata = {"task": "classification", "class_names": ["red", "green", "blue"]}

    def __call__(self, x):
        x = x[None] if x.ndim == 3 else x
        axes = (1, 2) if x.dtype == np.uint8 else (2, 3)
        return x.mean(axes).astype(np.float32)


@pytest.fixture
def fake_engine(monkeypatch):
    monkeypatch.setattr("signbit.runtime.load", FakeSession)


# --- imports ---


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["doctor", "--json"]])
def test_light_verbs_import_no_torch(arguments):
    code = (
        "import sys\nfrom signbit.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    status = end.code\n"
        "heavy = {'torch', 'lightning', 'matplotlib', 'openvino'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy), status)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert "HEAVY [] 0" in done.stdout


def test_every_verb_has_help(capsys):
    status, out, _ = call(capsys, "--help")
    assert status == 0
    verbs = ["demo", "train", "eval", "compile", "run", "bench", "profile", "inspect", "summary"]
    for verb in [*verbs, "doctor"]:
        assert verb in out
        status, text, _ = call(capsys, verb, "--help")
        assert status == 0
        assert "Usage" in text


# --- errors ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "digts"], "did you mean 'digits'?"),
        (["train", "digits", "--set", "stages.0.epoch=1"], "did you mean 'epochs'?"),
        (
            ["train", "digits", "--output", "{tmp}/o", "--set", "model.options.surogate=swish"],
            "model.options.surogate: bineal18 has no such option; did you mean 'surrogate'?",
        ),
        (["train", "digits", "--output", "{tmp}/file"], "a file of that name is in the way"),
        (["train", "digits", "--output", "{tmp}/file/x"], "cannot be written (Not a directory)"),
        (["train", "digits", "--output", "{tmp}/o", "--resume"], "no run to resume"),
        (["train", "cifar10-quick", "--output", "{tmp}/o"], "--data PATH"),
        (
            ["train", "cifar10-quick", "--output", "{tmp}/o", "--data", "{tmp}/none"],
            "none: no such",
        ),
        (["eval", "{tmp}/none"], "none: no such file"),
        (["eval", "{tmp}", "--split", "tset"], "expected train, val or test"),
        (["compile"], "give either a run's folder"),
        (["compile", "{tmp}", "--model", "bineal18"], "give either a run's folder"),
        (["compile", "{tmp}", "--width", "2"], "--width: only with --model"),
        (["compile", "{tmp}"], "is that run complete?"),
        (["compile", "--model", "bineal81"], "bineal18"),
        (["compile", "--model", "bineal18", "--input-size", "7y"], "expected pixels"),
        (["compile", "--model", "bineal18", "--stem", "x"], "stem"),
        (["compile", "--model", "bineal18", "--width", "0"], "width must be a positive number"),
        (["compile", "--model", "bineal18", "--width", "nan"], "width must be a positive number"),
        (
            ["compile", "--model", "reactnet18", "--stem", "cifar", "--input-size", "33"],
            "--input-size: reactnet18 cannot take 33x33 pixels; try multiples of 32",
        ),
        (
            ["compile", "--model", "reactnet18", "--stem", "cifar", "--input-size", "1"],
            "--input-size: reactnet18 cannot take 1x1 pixels",
        ),
        (["summary", "bineal18", "--width", "0"], "width must be a positive number"),
        (["summary", "{tmp}/file", "--width", "2", "--classes", "3"], "--width, --classes: only"),
        (["summary", "{tmp}/file"], "not a readable model file"),
        (["run", "{tmp}/none.signbit", "x.png"], "none.signbit"),
        (["run", "{tmp}/file", "x.png"], "file"),
        (["bench", "{tmp}/file"], "file"),
        (["bench"], "give a .signbit file to time, or --peak"),
        (["bench", "x.signbit", "--peak"], "takes no file: leave x.signbit away"),
        (["bench", "--peak", "--isa", "sse9"], '"sse9" is not known'),
        (["profile", "x.signbit", "--no-peak", "--roofline", "r.png"], "leave --no-peak away"),
    ],
)
def test_errors_are_one_line_and_status_2(capsys, tmp_path, arguments, message):
    (tmp_path / "file").write_text("nothing")
    status, out, err = call(capsys, *(a.replace("{tmp}", str(tmp_path)) for a in arguments))
    assert status == 2
    assert out == ""
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in err


def test_the_model_is_checked_before_data_are_read(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("signbit.data.load_source", lambda *a, **k: pytest.fail("data were read"))
    for verb in (["train", "digits"], ["demo"]):
        for change in ("model.name=bineal81", "model.options.surogate=swish"):
            status, _, _ = call(capsys, *verb, "--output", tmp_path / "o", "--set", change)
            assert status == 2


def test_diverged_training_is_one_line(capsys, tmp_path):
    changes = [
        "model.name=reactnet18", "model.width=0.125", "threads=1",
        "stages.0.optimizer={name: sgd, lr: 100, momentum: 0.99}",
    ]  # fmt: skip
    sets = [word for change in changes for word in ("--set", change)]
    status, _, err = call(capsys, "train", "digits", "--output", tmp_path / "o", *sets)
    assert status == 2
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("error: training diverged in epoch ")
    assert "lower stages.0.optimizer.lr, now 100" in last


@pytest.mark.parametrize("content", ["", "data: {name: mnist}\n", None])
def test_demo_deletes_no_run_but_its_own(capsys, tmp_path, content):
    kept = tmp_path / "run" / "model.pt"
    kept.parent.mkdir()
    kept.write_text("precious")
    if content is not None:
        (kept.parent / "recipe.resolved.yaml").write_text(content)
    status, _, err = call(capsys, "demo", "--output", tmp_path)
    assert status == 2
    assert "is not of an earlier demo with bineal18 on digits" in err
    assert kept.read_text() == "precious"


def test_demo_deletes_no_run_of_another_model(capsys, tmp_path):
    from signbit.training import load_recipe

    other = load_recipe(find_recipe("digits"), ["model.name=reactnet18"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.resolved.yaml").write_text(other.to_yaml())
    status, _, err = call(capsys, "demo", "--output", tmp_path)
    assert status == 2
    assert "choose another folder with --output" in err
    assert (tmp_path / "run" / "recipe.resolved.yaml").exists()


@pytest.mark.parametrize("option", ["--classes", "--channels"])
@pytest.mark.parametrize("verb", [["compile", "--model"], ["summary"]])
def test_counts_start_at_one(capsys, verb, option):
    status, _, err = call(capsys, *verb, "bineal18", option, 0)
    assert status == 2
    assert option in err


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(SignbitError, match="no such file"):
        main(["eval", str(tmp_path / "none"), "--debug"])


def test_an_error_of_ours_is_no_user_error(monkeypatch, fake_engine):
    monkeypatch.setattr("signbit.runtime.benchmark", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["bench", "x.signbit"])


def test_missing_package_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    for name in [m for m in sys.modules if m.startswith("signbit.training")]:
        monkeypatch.delitem(sys.modules, name)
    status, _, err = call(capsys, "train", "digits", "--output", tmp_path / "o")
    assert status == 2
    assert "'lightning.pytorch': pip install 'signbit[train]'" in err


# --- recipes and sizes ---


def test_recipes_are_found_by_name_and_path(tmp_path):
    assert find_recipe("digits") == find_recipe("digits.yaml")
    own = tmp_path / "own.yaml"
    own.write_text("")
    assert find_recipe(str(own)) == own
    with pytest.raises(RecipeError, match=r"no such file or recipe; known: .*digits"):
        find_recipe(str(tmp_path / "qqq.yaml"))
    with pytest.raises(RecipeError, match=r"recipe; did you mean 'digits'\? known: .*digits"):
        find_recipe("digts")


def test_sizes():
    assert parse_size("224") == (224, 224)
    assert parse_size("224x320") == (224, 320)
    assert parse_size(None) is None
    for bad in ("", "0", "a", "1x2x3", "-5"):
        with pytest.raises(SignbitError, match="expected pixels"):
            parse_size(bad)


# --- inputs ---


def picture(path, colour, size=(8, 8)):
    Image.new("RGB", size, colour).save(path)
    return path


def test_pictures_cover_the_size_and_lose_their_margins(tmp_path):
    image = Image.new("RGB", (40, 16), (255, 0, 0))
    image.paste((0, 0, 255), (12, 0, 28, 16))
    image.save(tmp_path / "wide.png")
    ((_, pixels),) = read_inputs(tmp_path / "wide.png", (3, 8, 8))
    assert pixels.shape == (8, 8, 3)
    assert (pixels[:, 1:-1] == (0, 0, 255)).all()


def test_grey_and_transparent_pictures_become_what_is_needed(tmp_path):
    Image.new("RGBA", (8, 8), (10, 20, 30, 128)).save(tmp_path / "a.png")
    Image.new("L", (8, 8), 77).save(tmp_path / "b.png")
    shapes = [x.shape for _, x in read_inputs(tmp_path, (3, 8, 8))]
    assert shapes == [(8, 8, 3)] * 2
    assert [x.shape for _, x in read_inputs(tmp_path / "a.png", (1, 8, 8))] == [(8, 8, 1)]


def test_arrays_keep_their_values(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    np.save(tmp_path / "u.npy", pixels)
    np.save(tmp_path / "f.npy", pixels.transpose(0, 3, 1, 2).astype(np.float32))
    found = [x for _, x in read_inputs(tmp_path / "u.npy", (3, 8, 8))]
    assert (np.stack(found) == pixels).all()
    assert [x.shape for _, x in read_inputs(tmp_path / "f.npy", (3, 8, 8))] == [(1, 3, 8, 8)] * 2


def test_bad_inputs_are_named(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((8, 8, 3), np.float64))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "none.npy", np.zeros((0, 8, 8, 3), np.uint8))
    np.save(tmp_path / "small.npy", np.zeros((2, 6, 8, 3), np.uint8))
    np.save(tmp_path / "grey.npy", np.zeros((2, 1, 8, 8), np.float32))
    for name, message in (
        ("x.npy", "float64"),
        ("bad.png", "not a readable image"),
        ("empty", "holds no picture"),
        ("absent.png", "no such file"),
        ("none.npy", "an empty batch"),
        ("small.npy", "compiled for 8x8 pixels of 3 channels"),
        ("grey.npy", "compiled for 8x8 pixels of 3 channels"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            list(read_inputs(tmp_path / name, (3, 8, 8)))
        assert name in str(caught.value)


# --- verbs with a stand-in for the engine ---


def test_run_prints_classes(capsys, tmp_path, fake_engine):
    picture(tmp_path / "a.png", (0, 255, 0))
    picture(tmp_path / "b.png", (0, 0, 255), (20, 30))
    status, out, _ = call(capsys, "run", "m.signbit", tmp_path, "--top", 2, "--json")
    assert status == 0
    results = json.loads(out)["results"]
    assert [r["top"][0]["class"] for r in results] == ["green", "blue"]
    assert all(len(r["top"]) == 2 for r in results)
    assert results[0]["top"][0]["probability"] == pytest.approx(1.0)
    status, out, err = call(capsys, "run", "m.signbit", tmp_path / "a.png")
    assert "green" in out
    assert "8x8 pixels" in err


def test_run_takes_real_values(capsys, tmp_path, fake_engine):
    values = np.zeros((1, 3, 8, 8), np.float32)
    values[:, 2] = 2
    np.save(tmp_path / "v.npy", values)
    _, out, _ = call(capsys, "run", "m.signbit", tmp_path / "v.npy", "--json")
    top = json.loads(out)["results"][0]["top"]
    assert [entry["index"] for entry in top] == [2, 0, 1]
    shares = np.exp([2, 0, 0]) / np.exp([2, 0, 0]).sum()
    assert [entry["probability"] for entry in top] == pytest.approx(shares.tolist())


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((np.zeros((1, 3), np.float32), np.zeros((1, 7), np.float32)), "has 2 outputs"),
        (np.zeros((1, 3, 4, 4), np.float32), "gives maps of shape (1, 3, 4, 4)"),
    ],
)
def test_run_shows_classes_only(capsys, tmp_path, monkeypatch, fake_engine, output, message):
    monkeypatch.setattr(FakeSession, "__call__", lambda self, x: output)
    status, out, err = call(capsys, "run", "m.signbit", picture(tmp_path / "a.png", (0, 0, 0)))
    assert (status, out) == (2, "")
    assert err.startswith("error: m.signbit")
    assert message in err


def test_run_without_pillow(tmp_path):
    """Arrays need what the base installation has, pictures need pillow."""
    picture(tmp_path / "a.png", (0, 0, 0))
    np.save(tmp_path / "a.npy", np.zeros((8, 8, 3), np.uint8))
    code = (
        "import sys\n"
        "for name in ('PIL', 'torch', 'lightning', 'yaml', 'pydantic', 'sklearn', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from signbit.cli.inputs import read_inputs\n"
        "from signbit.errors import DataError\n"
        "print(*[x.shape for _, x in read_inputs(Path('a.npy'), (3, 8, 8))])\n"
        "try:\n    list(read_inputs(Path('a.png'), (3, 8, 8)))\n"
        "except DataError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, env=environment, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "(8, 8, 3)",
        "a.png: pictures need pillow: pip install pillow; .npy files work without",
    ]


def test_bench_times_every_number_of_threads(capsys, fake_engine):
    arguments = ("bench", "m.signbit", "--threads", 1, "--threads", 2, "--rounds", 3, "--batch", 4)
    _, out, _ = call(capsys, *arguments, "--json")
    report = json.loads(out)
    assert [t["threads"] for t in report["timings"]] == [1, 2]
    assert all(0 < t["p10_ms"] <= t["median_ms"] <= t["p90_ms"] for t in report["timings"])
    _, out, _ = call(capsys, *arguments)
    assert "median ms" in out


def test_bench_times_files_that_take_no_pixels(capsys, monkeypatch, fake_engine):
    kinds = set()

    def call_session(self, x):
        kinds.add((x.dtype.name, x.shape))
        return np.zeros((len(x), 3), np.float32)

    monkeypatch.setattr(FakeSession, "accepts_pixels", False)
    monkeypatch.setattr(FakeSession, "__call__", call_session)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    status, _, _ = call(capsys, "bench", "m.signbit", "--rounds", 2, "--batch", 4)
    assert status == 0
    assert kinds == {("float32", (4, 3, 8, 8))}


def test_bench_peak_measures_the_cpu_without_a_file(capsys):
    status, out, _ = call(capsys, "bench", "--peak", "--isa", "scalar", "--json")
    report = json.loads(out)
    assert status == 0
    assert report["isa"] == "scalar"
    assert report["cpu"]
    assert report["look_up_gmacs"] > 0
    assert report["formulas"].keys() < report.keys()
    status, out, _ = call(capsys, "bench", "--peak", "--isa", "scalar")
    assert status == 0
    for text in (report["cpu"], "scalar", "GMAC/s", "GB/s", "24 MACs", "copy, memory"):
        assert text in out


def test_doctor_reports_what_is_there(capsys, monkeypatch):
    monkeypatch.setenv("SIGNBIT_ISA", "scalar")
    status, out, _ = call(capsys, "doctor", "--json")
    report = json.loads(out)
    assert status == 0
    assert report["packages"]["torch"]
    assert any("SIGNBIT_ISA=scalar" in line for line in report["advice"])


def test_doctor_names_the_extra_to_install(capsys, monkeypatch):
    monkeypatch.setattr("signbit.cli.doctor._version", lambda name: None)
    _, out, _ = call(capsys, "doctor")
    assert "pip install 'signbit[train]'" in out


def test_doctor_survives_a_missing_engine(capsys, monkeypatch):
    def missing():
        raise SignbitError("no library")

    monkeypatch.setattr("signbit.runtime.doctor_info", missing)
    status, out, _ = call(capsys, "doctor", "--json")
    report = json.loads(out)
    assert status == 1
    assert report["engine"] == {"error": "no library"}
    assert any("reinstall" in line for line in report["advice"])


def test_long_lists_are_shortened():
    names = [str(number) for number in range(9)]
    assert listed(names[:6]) == "0, 1, 2, 3, 4, 5"
    assert listed(names) == "9: 0, 1, 2, 3, 4, ..., 8"


def test_summary_of_a_network_with_arguments(capsys):
    words = ["summary", "bnext18", "--width", "0.125", "--input-size", "64", "--json"]
    status, out, _ = call(capsys, *words, "--option", "se_bits=4", "--option", "stem_bits=32")
    assert status == 0
    macs = json.loads(out)["total"]["macs"]
    assert all(macs[f"{bits}-bit"] > 0 for bits in (1, 4, 8, 32))
    for option, message in [
        ("se_bits=5", "se_bits must be one of 32, 8, 4"),
        ("se_bit=4", "se_bit"),
        ("se_bits", "expected NAME=VALUE"),
        ("width=2", "an option of its own"),
        ("se_bits=[", "not YAML"),
    ]:
        status, _, err = call(capsys, *words, "--option", option)
        assert status != 0
        assert message in err
    status, _, err = call(capsys, "summary", ".", "--option", "se_bits=4")
    assert "only with a model's name" in err

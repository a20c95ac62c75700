"""Integer arithmetic on the command line: compile, certify, run."""

import json

import numpy as np
import pytest

import signbit

from .test_cli import call

NETWORK = ["--model", "ab_reactnet18", "--stem", "cifar", "--width", 0.125, "--classes", 3]
INTEGER = ["--arithmetic", "integer"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same network in both arithmetics."""
    from signbit.cli import main

    folder = tmp_path_factory.mktemp("integers")
    for name, more in (("float", []), ("integer", INTEGER)):
        words = ["compile", *NETWORK, *more, "-o", folder / f"{name}.signbit"]
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        assert caught.value.code == 0
    np.save(folder / "image.npy", np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    return folder


def test_an_integer_program_shows_its_streams(capsys, tmp_path):
    status, out, _ = call(capsys, "compile", *NETWORK, *INTEGER, "-o", tmp_path / "a.signbit")
    assert status == 0
    assert "headroom" in out
    assert "stages.3.3.act" in out
    words = ["compile", *NETWORK, *INTEGER, "--integer", "stem_bits=4", "--json"]
    status, out, _ = call(capsys, *words, "-o", tmp_path / "b.signbit")
    assert status == 0
    report = json.loads(out)
    assert report["integer"]["engine"] == "equal"
    assert {stream["fraction_bits"] for stream in report["integer"]["streams"]}


def test_probabilities_are_those_of_real_outputs(files, capsys):
    status, out, _ = call(
        capsys, "run", files / "integer.signbit", files / "image.npy", "--top", 3, "--json"
    )
    assert status == 0
    top = json.loads(out)["results"][0]["top"]
    session = signbit.load(files / "integer.signbit")
    logits = session(np.load(files / "image.npy"))[0] * session.output_scales[0]
    assert {entry["index"]: entry["logit"] for entry in top} == pytest.approx(
        dict(enumerate(logits.tolist()))
    )
    shares = np.exp(logits) / np.exp(logits).sum()
    for entry in top:
        assert entry["probability"] == pytest.approx(shares[entry["index"]])


def test_only_the_integer_program_is_certified(files, capsys):
    status, out, _ = call(capsys, "certify", files / "integer.signbit")
    assert status == 0
    assert "no multiplication" in out
    status, out, _ = call(capsys, "certify", files / "float.signbit")
    assert status == 1
    assert "multiplies in stem.0, stages.0.0.branch.conv" in " ".join(out.split())
    status, out, _ = call(capsys, "certify", files / "float.signbit", "--json")
    assert (status, json.loads(out)["multiplication_free"]) == (1, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*INTEGER, "--integer", "stem_bit=4"], "did you mean 'stem_bits'"),
        ([*INTEGER, "--integer", "stem_bits={"], "the value is not YAML"),
        ([*INTEGER, "--integer", "stem_bits=4.5"], "stem_bits must be of type int"),
        (["--integer", "stem_bits=4"], "only with --arithmetic integer"),
        (["--arithmetic", "fixed"], 'arithmetic must be "float" or "integer"'),
        (["--data", "nowhere"], "compiled without any"),
    ],
)
def test_wrong_words_are_named(capsys, tmp_path, words, message):
    status, _, err = call(capsys, "compile", *NETWORK, *words, "-o", tmp_path / "a.signbit")
    assert status == 2
    assert message in " ".join(err.split())
    assert not (tmp_path / "a.signbit").exists()

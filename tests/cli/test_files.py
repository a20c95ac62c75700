"""Verbs that look into a compiled file: inspect and profile."""

import json

import pytest

from signbit import load
from signbit.compiler.contents import read_contents
from signbit.runtime import instruction_sets
from tests.runtime.networks import compiled_network

from .test_cli import call


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return compiled_network("bineal18", "cifar").save(
        tmp_path_factory.mktemp("files") / "model.signbit"
    )


def test_inspect_shows_the_program(capsys, file, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    status, out, _ = call(capsys, "inspect", file)
    assert status == 0
    for text in ("sha256", "3x32x32", "uint8 pixels", "conv_b1", "3x3 p1", "1-bit weights"):
        assert text in out
    _, out, _ = call(capsys, "inspect", file, "--json")
    report = json.loads(out)
    assert report["size"] == file.stat().st_size == sum(report["sections"].values())


def columns_and_rows(out: str) -> tuple[set[str], list[str]]:
    lines = out.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.strip().startswith("──"))
    return set(lines[rule - 1].split()), lines[rule + 1 :]


@pytest.mark.parametrize("verb", [("profile", "--rounds", 1), ("inspect",)], ids=lambda v: v[0])
def test_names_and_numbers_are_whole_at_any_width(capsys, file, monkeypatch, verb):
    layers = {line.layer for line in read_contents(file).lines}
    monkeypatch.delenv("COLUMNS", raising=False)
    _, piped, _ = call(capsys, verb[0], file, *verb[1:])
    everything = columns_and_rows(piped)[0]
    for width in (80, 120, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        status, out, _ = call(capsys, verb[0], file, *verb[1:])
        columns, rows = columns_and_rows(out)
        assert status == 0
        assert "…" not in out
        assert max(map(len, out.splitlines())) <= width
        for layer in layers:
            assert any(layer in row.split() for row in rows), (width, layer)
        assert ("a terminal of" in out) == (columns < everything)
        assert (columns < everything) == (width == 80) or width == 120


def test_inspect_names_what_is_wrong_with_a_file(capsys, file, tmp_path):
    damaged = tmp_path / "damaged.signbit"
    damaged.write_bytes(file.read_bytes()[:-64])
    status, _, err = call(capsys, "inspect", damaged)
    assert status == 2
    assert "damaged" in err or "bytes" in err
    status, _, err = call(capsys, "inspect", tmp_path / "none.signbit")
    assert status == 2
    assert "none.signbit" in err


def test_profile_has_a_line_a_step(capsys, file, tmp_path):
    picture, roofline = tmp_path / "profile.png", tmp_path / "roofline.png"
    arguments = ("profile", file, "--rounds", 2, "--isa", "scalar", "--batch", 2)
    status, out, _ = call(capsys, *arguments, "--json", "--plot", picture, "--roofline", roofline)
    report = json.loads(out)
    assert status == 0
    for path in (picture, roofline):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert report["isa"] == "scalar"
    session = load(file, threads=1, isa="scalar")
    assert report["memory"].keys() == session.memory.keys()
    convolutions = [step for step in report["steps"] if step["op"] == "conv_b1"]
    assert all(step["macs_b1"] and step["bytes"] and step["layout"] for step in convolutions)
    assert any(step["op"] == "repack" for step in report["steps"])
    assert report["peaks"]["isa"] == "scalar"
    for step in report["steps"]:
        if step["share_of_peak"] is not None:
            assert step["share_of_peak"] == pytest.approx(step["floor_ms"] / step["ms"])


def test_profile_of_another_size_counts_its_macs(capsys, file):
    def macs(*more):
        _, out, _ = call(capsys, "profile", file, "--rounds", 1, "--json", *more)
        return sum(step["macs_b1"] for step in json.loads(out)["steps"])

    assert macs("--input-size", "64") == 4 * macs()
    assert macs("--batch", 3) == 3 * macs()


def test_profile_prints_repacks_and_totals(capsys, file, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    status, out, _ = call(capsys, "profile", file, "--rounds", 1)
    assert status == 0
    for text in ("layout", "GMAC/s", "repacks (", "working memory", "conv_b1", "look_up"):
        assert text in out
    bounds = {"amx": "tiles", "avx512_popcnt": "words"}
    bound = bounds.get(instruction_sets()[0], "look-ups")
    for text in ("of peak", "bound by", bound, "copy"):
        assert text in out


def test_profile_without_peaks(capsys, file, monkeypatch):
    monkeypatch.setattr(
        "signbit.runtime.session.measure_peaks", lambda isa: pytest.fail("measured")
    )
    _, out, _ = call(capsys, "profile", file, "--rounds", 1, "--no-peak")
    assert "share" in out
    assert "peak" not in out
    _, out, _ = call(capsys, "profile", file, "--rounds", 1, "--no-peak", "--json")
    report = json.loads(out)
    assert "peaks" not in report
    assert "share_of_peak" not in report["steps"][0]


@pytest.mark.parametrize("verb", ["inspect", "export-weights"])
def test_what_is_no_signbit_file_is_named_and_called_so(capsys, tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "README.md"
    text.write_text("# A text of some length, and no network at all\n")
    status, _, err = call(capsys, verb, text)
    assert status == 2
    assert "README.md: not a signbit file: header_bytes" in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [text]


def test_weights_and_header_go_into_two_files(capsys, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = call(
        capsys, "export-weights", file, "-o", "w.npz", "--header", tmp_path / "w.npz"
    )
    assert status == 2
    assert "give them two names" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "more", [("--batch", 100_000_000), ("--input-size", "1000000x1000000")], ids=lambda m: m[0]
)
def test_more_images_than_the_memory_holds_are_refused(capsys, file, more):
    status, _, err = call(capsys, "profile", file, *more)
    assert status == 2
    assert "GB of memory: choose a smaller batch or size" in err
    assert len(err.splitlines()) == 1


def test_memory_that_runs_out_is_one_line(capsys, file, monkeypatch):
    def full(*_, **__):
        raise MemoryError("model.signbit: out of memory")

    monkeypatch.setattr("signbit.cli.profile.random_images", full)
    status, _, err = call(capsys, "profile", file)
    assert (status, err) == (2, "error: model.signbit: out of memory\n")

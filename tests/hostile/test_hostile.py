"""The engine and the compiler's reader refuse every hostile file, with a word on its fault."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import signbit
from signbit.compiler.emit import read_graph
from signbit.errors import FormatError, SessionError
from signbit.runtime import Session

from . import make

FOLDER = Path(__file__).parent
CASES = [line.split("\t") for line in (FOLDER / "expected.tsv").read_text().splitlines()]
NAMES = [name for name, _, _ in CASES]


@pytest.mark.parametrize(("name", "engine", "python"), CASES, ids=NAMES)
def test_refused(name: str, engine: str, python: str) -> None:
    path = FOLDER / f"{name}.signbit"
    for source in (path, path.read_bytes()):
        with pytest.raises(FormatError) as refusal:
            signbit.load(source) if isinstance(source, Path) else Session(source)
        assert engine in str(refusal.value)
        with pytest.raises(FormatError) as refusal:
            read_graph(source)
        assert python in str(refusal.value)


def test_the_folder_is_what_its_script_makes() -> None:
    assert [name for name, *_ in make.CASES] == NAMES
    assert {path.stem for path in FOLDER.glob("*.signbit")} == set(NAMES)
    for name, base, change, *_ in make.CASES:
        file = base()
        change(file)
        assert file.data() == (FOLDER / f"{name}.signbit").read_bytes(), name


@pytest.mark.parametrize("base", [make.conv, make.threshold, make.moved, make.four_bits])
def test_only_the_change_is_wrong(base) -> None:
    data = base().data()
    read_graph(data)
    assert np.isfinite(Session(data)(np.zeros((1, 4, 6, 5), np.float32))).all()


def test_an_image_smaller_than_a_window() -> None:
    file = make.conv()
    file.nodes[1].attrs[6] = file.nodes[1].attrs[7] = 0
    session = Session(file.data())
    with pytest.raises(SessionError, match='layer "conv": its input of 2x5 pixels is smaller'):
        session(np.zeros((1, 4, 2, 5), np.float32))
    assert session(np.zeros((1, 4, 3, 3), np.float32)).shape == (1, 2, 1, 1)


def test_metadata_nested_too_deeply_for_json() -> None:
    """It is for people: what is no JSON text is text."""
    file = make.conv()
    file.metadata["notes"] = "[" * 200_000
    data = file.data()
    assert Session(data).metadata["notes"] == file.metadata["notes"]
    assert read_graph(data).metadata["notes"] == file.metadata["notes"]


@pytest.mark.parametrize(
    "shape", ["4,4294967304,4", "4,0,4", "4,6,-5", "5,6,5", "4,6", "4,1048577,4"]
)
def test_an_input_shape_that_no_session_can_have(shape: str) -> None:
    file = make.conv()
    file.metadata["input_shape"] = shape
    with pytest.raises(FormatError, match="input_shape is not C,H,W"):
        Session(file.data())


def test_two_threads_in_one_session() -> None:
    """One of two callers that meet is refused; what the other gets is right."""
    session = Session(make.conv().data(), threads=1)
    x = np.random.default_rng(3).standard_normal((4, 4, 300, 300), np.float32)
    right = session(x)
    refused, wrong, start = [], [], threading.Barrier(4)

    def run() -> None:
        start.wait()
        for _ in range(10):
            try:
                wrong.append(not np.array_equal(session(x), right))
            except SessionError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong
    assert not any(wrong)
    assert refused
    assert all("open one session a thread" in message for message in refused)


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        signbit.load(tmp_path / "nothing.signbit")
    with pytest.raises(OSError, match="not a regular file"):
        signbit.load(tmp_path)

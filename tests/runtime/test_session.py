"""What a session refuses, and what its errors say."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import signbit
from signbit.compiler.emit import emit
from signbit.errors import FormatError, SessionError
from signbit.nn import QuantConv2d
from signbit.runtime import Session, instruction_sets
from signbit.runtime.session import _Open

from .networks import compiled_network


class Two(torch.nn.Module):
    """Two outputs of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = QuantConv2d(3, 4, 1), QuantConv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.first(x), self.second(x)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "model.signbit"
    return Path(compiled_network("bineal18", "cifar").save(path))


def test_a_session_says_what_it_is(file: Path) -> None:
    session = signbit.load(file, threads=1)
    assert session.input_shape == (3, 32, 32)
    assert session.threads == 1
    assert session.accepts_pixels
    assert session.isa == instruction_sets()[0]
    assert session.memory["arena"] > 0
    assert "model.signbit" in repr(session)
    assert session(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 3, 32, 32), np.float64), "dtype float64"),
        (np.zeros((1, 32, 32, 3), np.int64), "dtype int64"),
        (np.zeros((1, 32, 32, 3), np.float32), r"shape \(1, 32, 32, 3\).*float32 \(N, 3, H, W\)"),
        (
            np.zeros((1, 3, 32, 32), np.uint8),
            r"shape \(1, 3, 32, 32\).*uint8 pixels \(N, H, W, 3\)",
        ),
        (np.zeros((3, 32, 32), np.float32), "shape"),
        (np.zeros((32, 32), np.uint8), "shape"),
        (np.zeros((0, 32, 32, 3), np.uint8), "shape"),
    ],
)
def test_wrong_input(file: Path, x: np.ndarray, message: str) -> None:
    with pytest.raises(SessionError, match=message):
        signbit.load(file)(x)


@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (-math.inf, "infinity")])
def test_debug_mode_names_the_layer_that_reads_a_bad_input(
    file: Path, value: float, word: str
) -> None:
    x = np.zeros((2, 3, 32, 32), np.float32)
    session = signbit.load(file, debug=True)
    good = session(x)
    bad = x.copy()
    bad[1, 1, 2, 3] = value
    place = rf"layer \"\w+.*{word} at image 1, channel 1, row 2, column 3"
    with pytest.raises(SessionError, match=place):
        session(bad)
    assert np.array_equal(session(x), good)
    signbit.load(file)(bad)  # without it, nobody looks


def test_debug_mode_names_the_layer_that_gives_infinity(file: Path) -> None:
    x = np.full((1, 3, 32, 32), 3e38, np.float32)
    x[:, :, ::2] *= -1
    graph = compiled_network("bineal18", "cifar").graph
    affine = next(s for n in graph.nodes for s in n.epilogue if s.kind == "affine")
    assert affine.params["scale"].dtype == np.float32
    node = next(n for n in graph.nodes if affine in n.epilogue)
    kept = affine.params["scale"]
    affine.params["scale"] = np.full_like(kept, np.inf)
    expected = f'layer "{node.path}" gives (NaN|infinity) at image 0'
    try:
        with pytest.raises(SessionError, match=expected):
            Session(emit(graph), debug=True)(x)
    finally:
        affine.params["scale"] = kept


@pytest.mark.parametrize(
    ("isa", "kernel"), [("avx512_popcnt", "words"), ("amx", "tiles")], ids=["words", "tiles"]
)
def test_words_and_matrix_tiles_where_they_pay_and_memory_allows_them(
    isa: str, kernel: str
) -> None:
    if isa not in instruction_sets():
        pytest.skip(f"this CPU has no {isa}")
    file = emit(compiled_network("bineal18", "cifar").graph)
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)

    def kernels(session: Session) -> set[str]:
        steps = session.profile(x, rounds=1, peak=False)
        # those of programs in integers are called alike
        return {step["kernel"].removesuffix("_int") for step in steps if step["macs_b1"]}

    fast = Session(file, isa=isa)
    assert kernel in kernels(fast)
    looked_up = Session(file, isa="avx512")
    assert kernel not in kernels(looked_up)
    assert np.array_equal(fast(x), looked_up(x))
    # What look-ups need is enough: the others are left away.
    low, high = 10_000, 2 * sum(looked_up.memory.values())
    while high - low > 1000:
        middle = (low + high) // 2
        try:
            Session(file, isa="avx512", memory_limit=middle)(x)
        except SessionError:
            low = middle
        else:
            high = middle
    tight = Session(file, isa=isa, memory_limit=high + 4096)
    assert kernel not in kernels(tight)
    assert {step["isa"] for step in tight.profile(x, rounds=1, peak=False)} == {"avx512"}
    assert np.array_equal(tight(x), looked_up(x))


def test_a_memory_limit(file: Path) -> None:
    with pytest.raises(SessionError, match=r"at least \d+ bytes .* the memory limit of 100000"):
        signbit.load(file, memory_limit=100_000)
    limit = 2 * sum(signbit.load(file).memory.values())
    session = signbit.load(file, memory_limit=limit)
    assert session(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 10)
    with pytest.raises(SessionError, match=rf"memory limit of {limit}; .*a smaller batch"):
        session(np.zeros((50, 32, 32, 3), np.uint8))
    with pytest.raises(SessionError, match="at least 1 byte"):
        signbit.load(file, memory_limit=0)


def test_the_profile_says_how_maps_lie_in_memory(file: Path) -> None:
    steps = signbit.load(file).profile(np.zeros((1, 32, 32, 3), np.uint8), rounds=1)
    layouts = {step["op"]: step["layout"] for step in steps}
    assert layouts["conv_b1"].startswith(("b1 ", "f32 "))
    assert any("halo 1 (outside)" in step["layout"] for step in steps)


def test_pixels_need_preprocessing() -> None:
    session = compiled_network("bineal18", "cifar", pixels=False).session()
    assert not session.accepts_pixels
    with pytest.raises(SessionError, match="compile with `preprocessing`"):
        session(np.zeros((1, 32, 32, 3), np.uint8))


def test_an_unknown_instruction_set(file: Path) -> None:
    with pytest.raises(SessionError, match=r'"sse9" is not known; available: .*scalar'):
        signbit.load(file, isa="sse9")


def test_an_instruction_set_that_the_cpu_lacks(file: Path) -> None:
    lacking = {"avx2", "avx512", "avx512_popcnt", "amx", "neon", "neon_dot"} - set(
        instruction_sets()
    )
    with pytest.raises(SessionError, match="not available on this CPU"):
        signbit.load(file, isa=lacking.pop())


def test_the_environment_caps_the_instruction_set(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNBIT_ISA", "scalar")
    assert signbit.load(file).isa == "scalar"
    assert signbit.load(file, isa=instruction_sets()[0]).isa == instruction_sets()[0]


def test_results_over_those_of_the_run_before(file: Path) -> None:
    session = signbit.load(file, threads=1)
    first, second = np.random.default_rng(0).normal(0, 1, (2, 2, 3, 32, 32)).astype(np.float32)
    kept = session(first)
    expected = session(second)
    assert not np.array_equal(kept, expected)
    assert session(second, out=kept) is kept
    np.testing.assert_array_equal(kept, expected)
    assert session(second, out=[kept]) is kept


def test_results_of_several_outputs() -> None:
    network = Two()
    signbit.calibrate(network, [torch.randn(2, 3, 8, 8)])
    session = signbit.compile(network, torch.zeros(1, 3, 8, 8)).session(threads=1)
    first, second = np.random.default_rng(0).normal(0, 1, (2, 1, 3, 8, 8)).astype(np.float32)
    kept, expected = session(first), session(second)
    assert session(second, out=kept)[1] is kept[1]
    for found, wanted in zip(kept, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    with pytest.raises(SessionError, match="expected a writeable"):
        session(np.zeros((1, 3, 16, 8), np.float32), out=kept)
    with pytest.raises(SessionError, match="one array for two outputs"):
        session(first, out=[kept[0], kept[0]])


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ([], "out holds 0 arrays, the network has 1"),
        (np.empty((1, 10), np.float32), r"out\[0\] .* float32 \(2, 10\), got float32 \(1, 10\)"),
        (np.empty((2, 10), np.float64), "got float64"),
        (np.empty((2, 20), np.float32)[:, ::2], "C-contiguous"),
        (np.broadcast_to(np.float32(0), (2, 10)), "writeable"),
        ([None], "got NoneType"),
        (5, "out must be an array or a sequence of arrays, got int"),
    ],
)
def test_results_that_do_not_fit(file: Path, out: Any, message: str) -> None:
    with pytest.raises(SessionError, match=message):
        signbit.load(file, threads=1)(np.zeros((2, 3, 32, 32), np.float32), out=out)


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_out_of_range(file: Path, threads: int) -> None:
    with pytest.raises(SessionError, match="threads"):
        signbit.load(file, threads=threads)


def test_threads_have_a_limit(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signbit.runtime.session.available_threads", lambda: 2)
    with pytest.raises(SessionError, match=r"at most 256, not 1024.*2 CPUs"):
        signbit.load(file, threads=1024)
    monkeypatch.setattr("signbit.runtime.session.available_threads", lambda: 300)
    with pytest.raises(SessionError, match="at most 300"):
        signbit.load(file, threads=301)


def test_a_running_session_refuses_a_second_caller(file: Path) -> None:
    session = signbit.load(file)
    with session._lock, pytest.raises(SessionError, match="open one session a thread"):
        session(np.zeros((1, 32, 32, 3), np.uint8))


def test_profiling_holds_the_session(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of another size, from another thread, would close what is being profiled."""
    session = signbit.load(file, threads=1)
    profile, refused = _Open.profile, []

    def meet_between_runs(self: _Open) -> list[dict[str, Any]]:
        def other() -> None:
            try:
                session(np.zeros((2, 64, 64, 3), np.uint8))
            except SessionError as error:
                refused.append(str(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return profile(self)

    monkeypatch.setattr(_Open, "profile", meet_between_runs)
    steps = session.profile(np.zeros((1, 32, 32, 3), np.uint8), rounds=2)
    monkeypatch.undo()
    assert len(refused) == 2
    assert all("open one session a thread" in message for message in refused)
    assert [s["shape"] for s in steps] == [
        s["shape"] for s in session.profile(np.zeros((1, 32, 32, 3), np.uint8), rounds=1)
    ]


def test_profiling_a_running_session_is_refused(file: Path) -> None:
    session = signbit.load(file)
    with session._lock, pytest.raises(SessionError, match="open one session a thread"):
        session.profile(np.zeros((1, 32, 32, 3), np.uint8))


def test_a_path_with_a_zero_byte(file: Path) -> None:
    with pytest.raises(SessionError, match="zero byte"):
        signbit.load(f"{file}\0.txt")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.signbit"):
        signbit.load(tmp_path / "nothing.signbit")


def test_not_a_signbit_file(tmp_path: Path) -> None:
    path = tmp_path / "text.signbit"
    path.write_text("this is not a network" * 10)
    with pytest.raises(FormatError, match="header length"):
        signbit.load(path)


def test_damaged_files(file: Path) -> None:
    """Truncations and flipped bits are found; the native tests try every one of a small file."""
    good = file.read_bytes()
    rng = np.random.default_rng(5)
    for size in rng.integers(0, len(good), 60):
        with pytest.raises(FormatError):
            Session(good[:size])
    for bit in rng.integers(0, 8 * len(good), 60):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(FormatError):
            Session(bytes(bad))

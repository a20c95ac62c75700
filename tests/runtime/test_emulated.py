"""Whole networks on CPUs that this machine is not: `make test-arm`, `make test-x86-baseline` and
`make test-avx512-emulated`.

They set SIGNBIT_RUN_FILE, the command that starts native/tests/run_file.cpp on an emulated CPU, and
SIGNBIT_RUN_SETS, the instruction sets to run there. What it prints must be the reference's bytes.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import signbit
from signbit.compiler import reference

from .networks import compiled_network

COMMAND = os.environ.get("SIGNBIT_RUN_FILE", "").split()
SETS = os.environ.get("SIGNBIT_RUN_SETS", "").split(",")
COMMITTED = Path(__file__).parents[2] / "results" / "cifar10-quick" / "model.signbit"

pytestmark = pytest.mark.skipif(
    not COMMAND,
    reason="no emulated CPU: run `make test-arm`, `test-x86-baseline` or `test-avx512-emulated`",
)


def run_file(path: Path, x: np.ndarray, threads: int, isa: str) -> bytes:
    pixels = x.dtype == np.uint8
    batch, height, width = x.shape[:3] if pixels else (x.shape[0], *x.shape[2:])
    shape = [str(n) for n in (batch, height, width, threads)]
    done = subprocess.run(
        [*COMMAND, str(path), "u8" if pixels else "f32", *shape, isa],
        input=x.tobytes(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def inputs(*sizes: tuple[int, int, int]) -> list[np.ndarray]:
    """Pixels (N, H, W, 3), then normalised maps (N, 3, H, W), for each (N, H, W)."""
    rng = np.random.default_rng(11)
    pixels = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    return pixels + [rng.normal(0, 2, (n, 3, h, w)).astype(np.float32) for n, h, w in sizes]


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize(
    ("name", "stem", "size", "width"),
    [
        ("bineal18", "cifar", 16, 0.375),  # the demo's
        ("bineal18", "imagenet", 32, 0.25),
        ("reactnet18", "cifar", 32, 0.25),
        ("reactnet18", "imagenet", 32, 0.25),
    ],
)
def test_equals_the_reference(
    name: str, stem: str, size: int, width: float, isa: str, tmp_path: Path
) -> None:
    compiled = compiled_network(name, stem, size=size, width=width)
    compiled.save(tmp_path / "model.signbit")
    for x in inputs((1, size, size), (3, size + 32, size)):
        expected = reference.run(compiled.graph, x)[0].astype(np.float32).tobytes()
        for threads in (1, 3):
            assert run_file(tmp_path / "model.signbit", x, threads, isa) == expected


@pytest.mark.parametrize("isa", SETS)
def test_a_trained_network_equals_this_machine(isa: str) -> None:
    session = signbit.load(COMMITTED)
    for x in inputs((2, 32, 32)):
        assert run_file(COMMITTED, x, 2, isa) == session(x).tobytes()

"""The arrows of the architecture: which package may import which, and what importing pulls in."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "signbit"

# package -> the signbit packages and modules that it may import
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "quantizers": {"errors"},
    "nn": {"quantizers", "errors"},
    "binarization": {"nn", "quantizers", "errors"},
    "calibration": {"nn", "quantizers", "errors"},
    "eight_bit": {"compiler", "nn", "errors"},
    "models": {"nn", "quantizers", "errors"},
    "data": {"errors"},
    "plots": {"errors"},
    "runtime": {"errors"},
    "compiler": {"nn", "quantizers", "errors", "runtime", "hardware"},
    "hardware": {"compiler", "errors"},  # of the compiler, graph, digits, file, shapes: see NARROW
    "export": {"compiler", "errors"},  # of the compiler, the graph and its file: see NARROW
    "tasks": {"models", "nn", "data", "errors", "runtime"},
    "training": {"tasks", "models", "nn", "data", "plots", "calibration", "errors"},
    "rivals": {"tasks", "training", "data", "runtime", "errors"},
    "checkpoints": {"training", "models", "quantizers", "errors"},
}
# of these packages' modules, only those
NARROW: dict[str, dict[str, set[str]]] = {
    "hardware": {
        "compiler": {
            "signbit.compiler.ir",
            "signbit.compiler.digits",
            "signbit.compiler.emit",
            "signbit.compiler.shapes",
        }
    },
    "export": {"compiler": {"signbit.compiler.ir", "signbit.compiler.emit"}},
}
# never, wherever in the file: these are what the package promises to do without
FORBIDDEN = {
    "runtime": {"torch", "lightning", "signbit.compiler", "signbit.nn", "signbit.training"},
    "errors": {"torch", "numpy"},
}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_modules(path: Path, package: str) -> set[str]:
    """The modules below `package` that are imported, however that is written."""
    names = {n for n in imports(path) if n == package or n.startswith(f"{package}.")}
    return {name for name in names if not any(name.startswith(f"{m}.") for m in names - {package})}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE))
)
def test_arrows_point_one_way(path: Path) -> None:
    room = room_of(path)
    if room in {"__init__", "cli"}:  # the front doors see everything
        return
    assert room in ALLOWED, f"say in ALLOWED what {room} may import"
    names = imports(path)
    used = {name.split(".")[1] for name in names if name.startswith("signbit.")} - {"__version__"}
    assert used <= ALLOWED[room] | {room}
    for package, modules in NARROW.get(room, {}).items():
        assert imported_modules(path, f"signbit.{package}") <= modules
    assert not names & FORBIDDEN.get(room, set())


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import signbit.runtime", {"torch", "matplotlib", "typer", "PIL"}),
        ("import signbit; signbit.load", {"torch"}),
        ("import signbit.cli", {"torch", "lightning"}),
        ("import signbit.compiler.ir, signbit.compiler.reference", {"torch"}),
        ("import signbit.export", {"torch", "matplotlib"}),
    ],
)
def test_importing_stays_light(statement: str, absent: set[str]) -> None:
    code = f"import sys; {statement}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not absent & set(loaded)

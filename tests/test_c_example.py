"""The library alone: installed static and shared, and the example in C built against each."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import signbit

ROOT = Path(__file__).parents[1]
HEADERS = ROOT / "native" / "include"
MODEL = ROOT / "results" / "cifar10-quick" / "model.signbit"


def run(*command: str | Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    arguments = [str(part) for part in command]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, **kwargs)


def succeed(*command: str | Path, **kwargs: object) -> str:
    done = run(*command, **kwargs)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@functools.cache
def cmake() -> str:
    beside = Path(sys.executable).with_name("cmake")
    return str(beside) if beside.exists() else shutil.which("cmake") or "cmake"


@pytest.mark.parametrize(
    "standard", [("c", "c90"), ("c", "c99"), ("c++", "c++98"), ("c++", "c++17")], ids=lambda s: s[1]
)
def test_the_header_suits_every_standard(standard: tuple[str, str], tmp_path: Path) -> None:
    language, version = standard
    source = tmp_path / "use.txt"
    source.write_text(
        "#include <signbit/signbit.h>\n"
        "int main(void) { signbit_session_options o; o.batch = 1; return o.batch - 1; }\n"
    )
    warnings = ("-Wall", "-Wextra", "-pedantic", "-Werror")
    succeed(
        "c++", "-x", language, f"-std={version}", *warnings, "-fsyntax-only", "-I", HEADERS, source
    )


@pytest.fixture(scope="module", params=[pytest.param("shared", marks=pytest.mark.slow), "static"])
def prefix(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installed tree."""
    folder = tmp_path_factory.mktemp(request.param)
    shared = f"-DBUILD_SHARED_LIBS={'ON' if request.param == 'shared' else 'OFF'}"
    build, prefix = folder / "build", folder / "prefix"
    succeed(cmake(), "-S", ROOT / "native", "-B", build, shared, "-DCMAKE_INSTALL_LIBDIR=lib")
    succeed(cmake(), "--build", build, "--parallel", "2")
    succeed(cmake(), "--install", build, "--prefix", prefix)
    return prefix


@pytest.fixture(scope="module")
def classify(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built by its own CMakeLists.txt."""
    build = tmp_path_factory.mktemp("classify")
    flags = "-DCMAKE_C_FLAGS=-Wall -Wextra -pedantic -Werror"
    source = ROOT / "examples" / "c"
    succeed(cmake(), "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}", flags)
    succeed(cmake(), "--build", build)
    return build / "classify"


def pictures(count: int, height: int, width: int) -> np.ndarray:
    """Blurred noise, uint8 (count, height, width, 3): smooth enough to be of different classes."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (count, 4, 4, 3))
    fine = coarse.repeat(-(-height // 4), 1).repeat(-(-width // 4), 2)[:, :height, :width]
    return np.clip(fine + rng.integers(-20, 20, fine.shape), 0, 255).astype(np.uint8)


def write_ppm(path: Path, image: np.ndarray) -> Path:
    height, width, _ = image.shape
    path.write_bytes(b"P6 # a comment\n%d %d\n255\n" % (width, height) + image.tobytes())
    return path


def best_classes(output: str) -> list[str]:
    """The names, best first; the last line is the time."""
    lines = output.splitlines()
    assert lines[-1].split()[1] == "ms,"
    return [line.split()[-1] for line in lines[:-1]]


def expected_classes(image: np.ndarray) -> list[str]:
    session = signbit.load(MODEL)
    order = np.argsort(-session(image[None])[0], kind="stable")
    return [session.metadata["class_names"][i] for i in order[:5]]


def test_classes_are_those_of_python(classify: Path, tmp_path: Path) -> None:
    found = set()
    for image in pictures(6, 32, 32):
        output = succeed(classify, MODEL, write_ppm(tmp_path / "image.ppm", image), "2")
        assert best_classes(output) == expected_classes(image)
        found.add(best_classes(output)[0])
    assert len(found) > 1


@pytest.mark.slow
def test_another_size_is_stretched(classify: Path, tmp_path: Path) -> None:
    """Twice the size with each pixel repeated: interpolation between equal halves gives it back."""
    image = pictures(1, 32, 32)[0]
    large = image.repeat(2, 0).repeat(2, 1)
    output = succeed(classify, MODEL, write_ppm(tmp_path / "large.ppm", large))
    assert best_classes(output) == expected_classes(image)


@pytest.mark.slow
def test_pkg_config(prefix: Path, tmp_path: Path) -> None:
    if not shutil.which("pkg-config"):
        pytest.skip("this machine has no pkg-config")
    search = os.environ | {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    flags = succeed("pkg-config", "--cflags", "--libs", "signbit", env=search).split()
    source = ROOT / "examples" / "c" / "classify.c"
    program = tmp_path / "classify"
    succeed("cc", "-std=c99", source, *flags, "-lm", "-o", program)
    image = pictures(1, 32, 32)[0]
    output = succeed(
        program,
        MODEL,
        write_ppm(tmp_path / "image.ppm", image),
        env=os.environ | {"LD_LIBRARY_PATH": str(prefix / "lib")},
    )
    assert best_classes(output) == expected_classes(image)


@pytest.mark.slow
def test_the_program_in_the_documentation(prefix: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "c-api.md").read_text()
    program = text.split("```c\n")[1].split("```")[0]
    (tmp_path / "minimal.c").write_text(program)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\n"
        "project(mine LANGUAGES C CXX)\n"
        "find_package(signbit 0.1 REQUIRED)\n"
        "add_executable(minimal minimal.c)\n"
        "target_compile_options(minimal PRIVATE -std=c99 -Wall -Wextra -pedantic -Werror)\n"
        "target_link_libraries(minimal PRIVATE signbit::signbit)\n"
    )
    build = tmp_path / "build"
    succeed(cmake(), "-S", tmp_path, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    succeed(cmake(), "--build", build)
    image = pictures(1, 32, 32)[0]
    (tmp_path / "pixels").write_bytes(image.tobytes())
    with (tmp_path / "pixels").open("rb") as pixels:
        output = succeed(build / "minimal", MODEL, stdin=pixels)
    assert output.strip() == expected_classes(image)[0]


@pytest.mark.slow
def test_errors_say_what_is_wrong(classify: Path, tmp_path: Path) -> None:
    good = write_ppm(tmp_path / "good.ppm", pictures(1, 32, 32)[0])
    bad = tmp_path / "bad.ppm"
    for content, part in (
        (b"P5\n1 1\n255\n0", "not a binary PPM"),
        (b"P6\n0 4\n255\n", "width and height"),
        (b"P6\n99999999999 4\n255\n", "width and height"),
        (b"P6\n2 2\n65535\n" + bytes(24), "8 bits a channel"),
        (good.read_bytes()[:-1], "ends before its last pixel"),
    ):
        bad.write_bytes(content)
        done = run(classify, MODEL, bad)
        assert (done.returncode, part in done.stderr) == (1, True), done.stderr
    damaged = tmp_path / "damaged.signbit"
    damaged.write_bytes(MODEL.read_bytes()[:-1])
    for model, image, part in (
        (damaged, good, "damaged.signbit"),
        (tmp_path / "none.signbit", good, "No such file"),
        (MODEL, tmp_path / "none.ppm", "No such file"),
    ):
        done = run(classify, model, image)
        assert (done.returncode, part in done.stderr) == (1, True), done.stderr
    for arguments in ((), (MODEL,), (MODEL, good, "0")):
        done = run(classify, *arguments)
        assert (done.returncode, "usage: " in done.stderr) == (2, True)

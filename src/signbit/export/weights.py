"""The numbers of a compiled program, for other programs: as `.npz`, and as a C header.

Both hold the same arrays under the same keys, with `_` for `.` and other signs in C:

* `<layer>.weight`: int8 (O, I/g, KH, KW); -1 and +1 of binary layers, -127..127 of 8-bit ones,
  -7..7 of 4-bit ones.
* `<layer>.<attribute>`: an operation's integers, such as `stride_h` and `pad_value`.
* `<layer>.<step>.<array>` and `<layer>.<step>.<attribute>`: what follows on a layer's sums, such as
  `affine.scale` and `affine.bias` (float32), `threshold.low`, `.high` (int32) and `.flip` (uint8),
  `sign.cut`, `quant4_ladder.cuts` (C, 15), `quant8.inv_scale`, `.zero_point` and `.levels`. A step
  that stands there again is `<step>#2`. `docs/numerics.md` says what they compute.
* `<layer>.op` and `<layer>.steps` (text): the operation, and its steps in their order.
* `layers` (text): the layers in the order of execution. A layer is named by its path in the model,
  steps without a convolution before them (an input's way to 8 bits) `<path>:pointwise`; a name that
  stands there again is `<name>#2`.
* `input.mean`, `input.std` where the program takes pixels, `sha256` (text) of the whole file.

Needs NumPy only.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import textwrap
from collections.abc import Container, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from signbit.compiler.emit import naming, read_graph
from signbit.compiler.ir import FLOAT_ATTRS, Node

_WIDTH = 96  # characters a line of numbers
_C_TYPES = {"int8": "int8_t", "uint8": "uint8_t", "int32": "int32_t", "float32": "float"}


def read_weights(source: str | os.PathLike[str] | bytes) -> dict[str, np.ndarray]:
    """The arrays of a `.signbit` file, or of its bytes, by the keys above.

    Raises FormatError for anything that is not exactly such a file, OSError.
    """
    program = _read(source)
    found = dict(program.pixels)
    for layer, arrays in program.layers.items():
        found |= {f"{layer}.{name}": array for name, array in arrays.items()}
    found["layers"] = np.array(list(program.layers))
    found["sha256"] = np.array(program.sha256)
    return found


@dataclass(frozen=True)
class _Program:
    """A file's arrays: of each layer in the order of execution, and of the pixels."""

    layers: dict[str, dict[str, np.ndarray]]
    pixels: dict[str, np.ndarray]
    sha256: str


def _read(source: str | os.PathLike[str] | bytes) -> _Program:
    with naming(source):
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        graph = read_graph(data)
    layers: dict[str, dict[str, np.ndarray]] = {}
    for node in graph.nodes:
        path = node.path or "model"
        name = f"{path}:pointwise" if node.op == "pointwise" else path
        layers[_unique(name, layers)] = dict(_arrays(node))
    pixels = {}
    if graph.mean is not None and graph.std is not None:
        pixels = {"input.mean": graph.mean, "input.std": graph.std}
    return _Program(layers, pixels, hashlib.sha256(data).hexdigest())


def _arrays(node: Node) -> Iterator[tuple[str, np.ndarray]]:
    steps: list[str] = []
    yield "op", np.array(node.op)
    yield from _numbers(node.params, node.attrs)
    for step in node.epilogue:
        steps.append(_unique(step.kind, steps))
        for name, array in _numbers(step.params, step.attrs):
            yield f"{steps[-1]}.{name}", array
    yield "steps", np.array(steps, np.str_)


def _numbers(
    params: dict[str, np.ndarray], attrs: dict[str, int | float]
) -> Iterator[tuple[str, np.ndarray]]:
    yield from params.items()
    for name, value in attrs.items():
        yield name, np.array(value, np.float32 if name in FLOAT_ATTRS else np.int32)


def _unique(name: str, taken: Container[str], mark: str = "#") -> str:
    """`name`, or `name#2` and so on, not in `taken`."""
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}{mark}{count}"
    return candidate


def save_weights(source: str | os.PathLike[str] | bytes, path: str | os.PathLike[str]) -> Path:
    """Write the arrays of a `.signbit` file as `.npz`, whole or not at all; returns its path.

    NumPy alone reads it: `numpy.load(path)["layers"]`. Raises FormatError and OSError.
    """
    buffer = BytesIO()
    np.savez_compressed(buffer, **read_weights(source))
    return _write(Path(path), buffer.getvalue())


def save_header(
    source: str | os.PathLike[str] | bytes,
    path: str | os.PathLike[str],
    *,
    packed: bool = False,
) -> Path:
    """Write the arrays of a `.signbit` file as a header for C99 and C++; returns its path.

    Arrays are `static const`, flat, row by row of the shape in their comment; single numbers are
    enumerators, or `static const float`. All names start with the header's own. With `packed`
    binary weights take one bit each, 1 meaning +1: an output channel starts at a new byte, at its
    least significant bit. Written whole or not at all. Raises FormatError and OSError.
    """
    path = Path(path)
    text = _header(_read(source), _identifier(path.stem), packed)
    return _write(path, text.encode("ascii"))


def _write(path: Path, content: bytes) -> Path:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


# --- C ---


def _header(program: _Program, prefix: str, packed: bool) -> str:
    guard = f"SIGNBIT_WEIGHTS_{prefix.upper()}_H"
    lines = [
        "/* The numbers of a compiled signbit program; docs/numerics.md says what they compute.",
        f" * sha256 of the program: {program.sha256} */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <math.h>",
        "#include <stdint.h>",
    ]
    names: set[str] = set()
    for layer, arrays in program.layers.items():
        steps = "".join(f", {step}" for step in arrays["steps"])
        lines += ["", f"/* {_comment(layer)}: {arrays['op']}{steps} */"]
        for name, array in arrays.items():
            if name in ("op", "steps"):
                continue
            bits = packed and name == "weight" and arrays["op"] == "conv_b1"
            lines += _declaration(f"{prefix}_{layer}_{name}", array, names, bits)
    if program.pixels:
        lines += ["", "/* x = ((pixel / 255) - mean) / std */"]
    for name, array in program.pixels.items():
        lines += _declaration(f"{prefix}_{name}", array, names, False)
    return "\n".join([*lines, "", f"#endif /* {guard} */", ""])


def _declaration(name: str, array: np.ndarray, names: set[str], bits: bool) -> list[str]:
    """One array or number; `names` are those that the header has, this one among them then."""
    name = _unique(_identifier(name), names, "_")
    names.add(name)
    if array.ndim == 0 and array.dtype.kind == "i":
        return [f"enum {{ {name} = {_literals(array)[0]} }};"]
    if array.ndim == 0:
        return [f"static const float {name} = {_literals(array)[0]};"]
    shape = " x ".join(map(str, array.shape))
    comment = f"/* {shape} */"
    if bits:
        array = np.packbits(array.reshape(len(array), -1) > 0, axis=1, bitorder="little")
        comment = f"/* {shape}, {array.shape[1]} bytes an output channel, bit 1 is +1 */"
    kind = _C_TYPES[array.dtype.name]
    numbers = textwrap.wrap(", ".join(_literals(array)), _WIDTH, break_on_hyphens=False)
    body = [f"    {line}" for line in numbers]
    return [f"static const {kind} {name}[{array.size}] = {{ {comment}", *body, "};"]


def _literals(array: np.ndarray) -> list[str]:
    """The numbers as C writes them; floats with the digits that give back the same float32."""
    values = array.reshape(-1).tolist()
    if array.dtype.kind != "f":
        # -2147483648 is a minus before a number that no int32_t holds
        return ["(-2147483647 - 1)" if v == -(2**31) else str(v) for v in values]
    return [_float_literal(v) for v in values]


def _float_literal(value: float) -> str:
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _identifier(name: str) -> str:
    """`name` as C can call it."""
    found = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")
    return f"w_{found}" if not found or found[0].isdigit() else found


def _comment(text: str) -> str:
    """`text`, such that it cannot end a comment, in ASCII."""
    return text.replace("*/", "* /").encode("ascii", "replace").decode()

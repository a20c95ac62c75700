"""What a `.signbit` file holds: its words for people, its program line by line, where its bytes go.

Imports NumPy only.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from signbit.compiler.emit import fits_int4, int4_tensors, naming, read_container, read_graph
from signbit.compiler.ir import FLOAT_ATTRS, Graph, Node, Step, Type, Value

BINARY, HALVES, BYTES = "1-bit weights", "4-bit weights", "8-bit weights"
NUMBERS = "numbers a channel"


@dataclass(frozen=True)
class Line:
    """One node of the program.

    Attributes:
        layer: path of the layer that it came from.
        op: its operation (`signbit.compiler.ir.LOWERED_OPS`).
        attrs: the operation's attributes, by name.
        inputs, outputs: type and shape (C x H x W) at the size that the file was compiled for.
        steps: the epilogue, in order, each as its name and attributes.
        weight_bytes: what its weights take in the file, padding of channels included.
    """

    layer: str
    op: str
    attrs: dict[str, int | float]
    inputs: list[str]
    outputs: list[str]
    steps: list[str]
    weight_bytes: int


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        size: bytes of the whole file.
        metadata: what the file says of itself, JSON texts parsed.
        version, sha256, writer: of the format, of the content, of signbit when it was written.
        input: channels, height and width that it was compiled for.
        pixels: whether it also takes uint8 pixels, which it normalises itself.
        outputs: type and shape of each output; (C) where users see a vector.
        sections: bytes of the file by what they hold; they add up to `size`.
        lines: the program, in execution order.
    """

    size: int
    metadata: dict[str, object]
    version: int
    sha256: str
    writer: str
    input: tuple[int, int, int]
    pixels: bool
    outputs: list[str]
    sections: dict[str, int]
    lines: list[Line]

    def to_dict(self) -> dict[str, object]:
        """The contents as JSON can hold them."""
        return asdict(self)


def read_contents(source: str | os.PathLike[str] | bytes) -> Contents:
    """Read a `.signbit` file, or its bytes.

    Raises FormatError, naming file and field, for a file that is damaged; OSError if it cannot be
    read.
    """
    with naming(source):
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        texts, entries, start = read_container(data)
        graph = read_graph(data)
    sections = Counter({"header": start})
    halves = int4_tensors(data[start:])
    for name, entry in entries.items():
        first, last = entry["data_offsets"]
        kind = HALVES if first in halves else _section(name, entry["dtype"])
        sections[kind] += last - first
    version = int(texts["version"])
    return Contents(
        size=len(data),
        metadata=graph.metadata,
        version=version,
        sha256=texts["sha256"],
        writer=texts.get("signbit", ""),
        input=graph.input.shape,
        pixels=graph.mean is not None,
        outputs=_outputs(graph),
        sections=dict(sections),
        lines=[_line(node, version) for node in graph.nodes],
    )


def _section(name: str, dtype: str) -> str:
    if name == "graph":
        return "program"
    if name.split("#")[0].endswith(".weight"):
        return BINARY if dtype == "U8" else BYTES
    return NUMBERS


def _outputs(graph: Graph) -> list[str]:
    return [
        f"{value.type.name.lower()} {value.channels}" if flat else _value(value)
        for value, flat in zip(graph.outputs, graph.flat_outputs, strict=True)
    ]


def _value(value: Value) -> str:
    return f"{value.type.name.lower()} {'x'.join(map(str, value.shape))}"


def _line(node: Node, version: int) -> Line:
    return Line(
        layer=node.path,
        op=node.op,
        attrs=dict(node.attrs),
        inputs=[_value(value) for value in node.inputs],
        outputs=[_value(value) for value in node.outputs],
        steps=[_step(step) for step in node.epilogue],
        weight_bytes=_weight_bytes(node, version),
    )


def _step(step: Step) -> str:
    attrs = ", ".join(
        f"{name}={value:g}" if name in FLOAT_ATTRS else f"{name}={value}"
        for name, value in step.attrs.items()
    )
    text = f"{step.kind}({attrs})" if attrs else step.kind
    if step.value is None:
        return text
    return f"{text} {_value(step.value)}" if step.value.type != Type.B1 else f"{text} b1"


def _weight_bytes(node: Node, version: int) -> int:
    weight = node.params.get("weight")
    if weight is None:
        return 0
    outputs, inputs = weight.shape[:2]
    taps, quads = weight[0, 0].size, -(-inputs // 4)
    if node.op == "conv_b1":
        return -(-outputs // 2) * taps * quads
    return outputs * taps * quads * (2 if version > 3 and fits_int4(weight) else 4)

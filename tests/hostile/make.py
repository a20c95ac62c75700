"""Makes the hostile files of this folder, and the list of what each must be refused for.

    python tests/hostile/make.py

Each file is a small valid network with one thing wrong, under a right hash where the fault lies behind the
hash. `expected.tsv` names, for each, a part of the engine's message and a part of that of
`signbit.compiler.emit.read_graph`. Written without the compiler's own writer, which refuses to make most of
these.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent
NONE = 0xFFFFFFFF
F32, I32, I8, U8, I4 = 0, 1, 3, 4, 5  # dtypes of tensors; I4: two a byte
V_F32, V_I32, V_I16, V_U8, V_I4, V_B1 = 0, 1, 2, 4, 5, 6  # types of values
BLANK = "0" * 64
(
    N_TENSORS, N_VALUES, N_NODES, N_OUTPUTS, N_WORDS, N_STRINGS, NORMALISED, MEAN, STD, INPUT, RESERVED,
) = range(2, 13)  # fmt: skip


def f32(*values: float) -> tuple[int, bytes]:
    return F32, struct.pack(f"<{len(values)}f", *values)


def i32(*values: int) -> tuple[int, bytes]:
    return I32, struct.pack(f"<{len(values)}i", *values)


@dataclass
class Step:
    code: int
    value: int = NONE
    attrs: list[int] = field(default_factory=list)
    params: list[int] = field(default_factory=list)


@dataclass
class Node:
    code: int
    path: bytes
    inputs: list[int]
    outputs: list[int]
    attrs: list[int] = field(default_factory=list)
    params: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)


def aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 64)


@dataclass
class File:
    """The parts of a file, and what is done to its words, header and bytes on the way."""

    tensors: list[tuple[int, bytes]]
    values: list[tuple[int, int]]
    nodes: list[Node]
    outputs: list[tuple[int, int]]
    version: int = 4
    words: list[tuple[int, int]] = field(default_factory=list)  # position in `graph`, word
    strings: bytes | None = None
    metadata: dict = field(default_factory=dict)
    change_entries: Callable[[dict], object] = lambda entries: None
    change_header: Callable[[bytes], bytes] = lambda text: text
    change_bytes: Callable[[bytes], bytes] = lambda data: data
    path_at: dict[int, tuple[int, int]] = field(default_factory=dict)  # node -> offset, length
    more_words: list[int] = field(default_factory=list)  # behind the last node

    def graph(self, offsets: list[int]) -> bytes:
        body: list[int] = []
        strings = b""
        for index, node in enumerate(self.nodes):
            at, length = self.path_at.get(index, (len(strings), len(node.path)))
            strings += node.path
            counts = map(len, (node.inputs, node.outputs, node.attrs, node.params, node.steps))
            body += [node.code, at, length, *counts]
            body += [*node.inputs, *node.outputs, *node.attrs, *node.params]
            for step in node.steps:
                body += [step.code, step.value, len(step.attrs), len(step.params)]
                body += [*step.attrs, *step.params]
        body += self.more_words
        strings = strings if self.strings is None else self.strings
        counts = [len(self.tensors), len(self.values), len(self.nodes), len(self.outputs)]
        words = [0x31474253, self.version, *counts, len(body), len(strings)]
        words += [0, NONE, NONE, 0, 0, 0, 0, 0, 0]
        for (dtype, data), offset in zip(self.tensors, offsets, strict=True):
            count = 2 * len(data) if dtype == I4 else len(data) // (4 if dtype <= I32 else 1)
            words += [dtype, count, offset & NONE, offset >> 32]
        for pair in (*self.values, *self.outputs):
            words += pair
        words += body
        for at, word in self.words:
            words[at] = word
        return aligned(struct.pack(f"<{len(words)}I", *(w & NONE for w in words)) + strings)

    def data(self) -> bytes:
        sizes = [len(aligned(data)) for _, data in self.tensors]
        start = len(self.graph([0] * len(sizes)))
        offsets = [start + sum(sizes[:i]) for i in range(len(sizes))]
        parts = [self.graph(offsets), *(aligned(data) for _, data in self.tensors)]
        entries: dict = {
            "__metadata__": {
                "format": "signbit",
                "version": str(self.version),
                "sha256": BLANK,
                "input_shape": "4,6,5",
                **self.metadata,
            }
        }
        at = 0
        for index, part in enumerate(parts):
            name = f"t{index - 1}" if index else "graph"
            entries[name] = {
                "dtype": "U8",
                "shape": [len(part)],
                "data_offsets": [at, at + len(part)],
            }
            at += len(part)
        self.change_entries(entries)
        return self._finish(json.dumps(entries, separators=(",", ":")).encode(), b"".join(parts))

    def _finish(self, header: bytes, data: bytes) -> bytes:
        header = self.change_header(header)
        header += b" " * (-(8 + len(header)) % 64)
        whole = struct.pack("<Q", len(header)) + header + data
        digest = hashlib.sha256(whole).hexdigest().encode()
        key = whole.find(b'"sha256":"' + BLANK.encode())
        if key >= 0:
            whole = whole[: key + 10] + digest + whole[key + 74 :]
        return self.change_bytes(whole)


def conv() -> File:
    """A sign and a binary convolution of 3x3: 4 channels to 2."""
    attrs = [4, 2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0]
    return File(
        [f32(0, 0, 0, 0), (U8, bytes([0x5A] * 9)), f32(1, 1), f32(0, 0)],
        [(V_F32, 4), (V_B1, 4), (V_F32, 2)],
        [
            Node(6, b"bits", [0], [1], steps=[Step(9, 1, params=[0])]),
            Node(1, b"conv", [1], [2], attrs, [1], [Step(1, params=[2, 3]), Step(7, 2)]),
        ],
        [(2, 0)],
    )


def threshold() -> File:
    """A sign, a binary convolution of 1x1 to bits, maximum pooling of bits, global pooling."""
    attrs = [4, 4, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0]
    return File(
        [
            f32(0, 0, 0, 0),
            (U8, bytes([0x5A, 0xA5])),
            i32(-2, -2, 0, 1),
            i32(9, 9, 9, 9),
            (U8, b"\0\1\0\1"),
        ],
        [(V_F32, 4), (V_B1, 4), (V_B1, 4), (V_B1, 4), (V_F32, 4)],
        [
            Node(6, b"bits", [0], [1], steps=[Step(9, 1, params=[0])]),
            Node(1, b"conv", [1], [2], attrs, [1], [Step(8, 2, params=[2, 3, 4])]),
            Node(3, b"pool", [2], [3], [2, 2, 2, 2, 0, 0, 1, 1, 0], [4]),
            Node(5, b"mean", [3], [4]),
        ],
        [(4, 1)],
    )


def moved() -> File:
    """Channels taken, a pixel shuffle, a resize, adaptive pooling, a gate of one pixel."""
    return File(
        [i32(3, 1, 2, 0)],
        [(V_F32, 4), (V_F32, 4), (V_F32, 1), (V_F32, 1), (V_F32, 1), (V_F32, 4)],
        [
            Node(7, b"take", [0], [1], params=[0]),
            Node(9, b"shuffle", [1], [2], [2]),
            Node(8, b"resize", [2], [3], [0, 0, 2, 2, 0, 0]),
            Node(10, b"pool", [3], [4], [1, 1, 0]),
            Node(6, b"gate", [0, 4], [5], steps=[Step(13), Step(11, 4), Step(7, 5)]),
        ],
        [(5, 0)],
    )


def integers() -> File:
    """16-bit numbers, a convolution that adds and shifts, an activation, a sum of 30 pixels."""
    return File(
        [
            (I8, bytes([1, 254, 3, 128, 5, 6, 7, 127])),
            i32(1, -31, 15, 0),
            i32(-1, 0, 1, 1),
            i32(-65535, 65535),
            i32(-3, 4),
            i32(1, 1),
            i32(0, 9),
            i32(1, 2),
        ],
        [(V_F32, 4), (V_I16, 4), (V_I16, 2), (V_I16, 2), (V_I32, 2)],
        [
            Node(6, b"scale", [0], [1], steps=[Step(16, 1, [0x3F800000])]),
            Node(
                11, b"conv", [1], [2], [4, 2, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0], [0],
                [Step(14, attrs=[2], params=[1, 2]), Step(7, 2)],
            ),
            Node(
                6, b"activate", [2, 2], [3],
                steps=[Step(2, 2), Step(15, attrs=[1], params=[3, 4, 5, 6]), Step(7, 3)],
            ),
            Node(12, b"sum", [3], [4], [30]),
        ],
        [(4, 1)],
    )  # fmt: skip


def four_bits() -> File:
    """A convolution of 1x1 with 4-bit inputs and weights: 4 channels to 2."""
    attrs = [4, 2, 1, 1, 1, 1, 0, 0, 1, 1, 1, 7]
    return File(
        [(I4, bytes([0x87, 0x21, 0xF9, 0x30])), f32(1, 1), f32(0, 0)],
        [(V_F32, 4), (V_U8, 4), (V_F32, 2)],
        [
            Node(6, b"small", [0], [1], steps=[Step(10, 1, [0x3F800000, 7, 15])]),
            Node(2, b"conv", [1], [2], attrs, [0], [Step(1, params=[1, 2]), Step(7, 2)]),
        ],
        [(2, 0)],
    )


Change = Callable[[File], object]
# One line a case: name, what is wrong, what the engine says, what the compiler's reader says.
# ruff: noqa: E501
CASES: list[tuple[str, Callable[[], File], Change, str, str]] = []


def case(
    name: str, change: Change, engine: str, python: str, base: Callable[[], File] = conv
) -> None:
    CASES.append((name, base, change, engine, python))


def put(target: object, key: object, value: object) -> None:
    """An assignment, for a lambda."""
    if isinstance(target, list | dict):
        target[key] = value
    else:
        setattr(target, key, value)


def word(at: int, value: int) -> Change:
    return lambda f: f.words.append((at, value))


def attr(index: int, value: int) -> Change:
    return lambda f: put(f.nodes[1].attrs, index, value)


def entry(name: str, key: str, value: object) -> Change:
    return lambda f: put(f, "change_entries", lambda entries: put(entries[name], key, value))


def graph_second(entries: dict) -> None:
    size = entries["graph"]["data_offsets"][1]
    entries["t0"]["data_offsets"] = [0, 64]
    entries["graph"]["data_offsets"] = [64, 64 + size]


def header(change: Callable[[bytes], bytes]) -> Change:
    return lambda f: put(f, "change_header", change)


def whole(change: Callable[[bytes], bytes]) -> Change:
    return lambda f: put(f, "change_bytes", change)


def start_of_data(data: bytes) -> int:
    return 8 + struct.unpack_from("<Q", data)[0]


def padded_inputs(file: File) -> None:
    """Three input channels: the fourth bit of each nibble only pads."""
    file.values[:2] = [(V_F32, 3), (V_B1, 3)]
    file.tensors[0] = f32(0, 0, 0)
    file.nodes[1].attrs[0] = 3
    file.metadata["input_shape"] = "3,6,5"


def padded_output(file: File) -> None:
    """One output channel: the high nibbles only pad."""
    file.values[2] = (V_F32, 1)
    file.tensors[2:] = [f32(1), f32(0)]
    file.nodes[1].attrs[1] = 1


def eight_bits(file: File) -> None:
    """The same convolution of 8-bit values."""
    file.values[1] = (V_U8, file.values[1][1])
    file.tensors[1] = (I8, bytes([1] * 2 * 9 * 4))
    file.nodes[0].steps[0] = Step(10, 1, [0x3F800000, 0, 255])
    file.nodes[1].code = 2


TENSORS = 17  # where the table of tensors starts in `graph`
VALUES = TENSORS + 4 * 4  # in `conv`

# fmt: off
# --- the container ---

case("empty", whole(lambda d: b""), "has only 0 bytes", "shorter than its first field")
case("seven_bytes", whole(lambda d: d[:7]), "has only 7 bytes", "shorter than its first field")
case("text", whole(lambda d: b"This is not a network.\n" * 9), "header length", "header_bytes")
case("zeros", whole(lambda d: bytes(256)), "not padded to 64", "header_bytes 0")
case("header_length_huge", whole(lambda d: b"\xff" * 8 + d[8:]), "do not fit the file", "header_bytes")
case("header_length_past_the_end", whole(lambda d: struct.pack("<Q", len(d) + 56) + d[8:]), "do not fit the file", "header_bytes")
case("header_length_unaligned", whole(lambda d: struct.pack("<Q", start_of_data(d) - 9) + d[8:]), "not padded to 64", "header_bytes")
case("truncated_in_header", whole(lambda d: d[:200]), "do not fit the file (truncated", "header_bytes")
case("truncated_behind_header", whole(lambda d: d[: start_of_data(d)]), "lie outside the file (truncated", "bytes, not")
case("truncated_in_graph", whole(lambda d: d[: start_of_data(d) + 64]), "lie outside the file (truncated", "bytes, not")
case("truncated_in_tensors", whole(lambda d: d[:-128]), "lie outside the file (truncated", "bytes, not")
case("truncated_by_a_byte", whole(lambda d: d[:-1]), "lie outside the file (truncated", "bytes, not")
case("longer", whole(lambda d: d + bytes(64)), "does not end where its last tensor ends", "bytes, not")
case("hash_mismatch", whole(lambda d: d[:-64] + b"\1" + d[-63:]), "sha256 does not match", "sha256 does not match")
case("hash_of_another_header", whole(lambda d: d.replace(b"4,6,5", b"4,6,6")), "sha256 does not match", "sha256 does not match")
case("hash_missing", lambda f: put(f.metadata, "sha256", ""), "sha256 is missing", "sha256")
case("hash_short", lambda f: put(f.metadata, "sha256", "0" * 63), "not 64 digits", "sha256")
case("hash_escaped", header(lambda h: h.replace(BLANK.encode(), b"\\u0030" + b"0" * 63)), "not 64 digits", "sha256")
case("header_not_json", header(lambda h: h.replace(b":", b";", 1)), "header: expected ':'", "JSON header is damaged")
case("header_a_list", header(lambda h: b"[" + h + b"]"), "not a JSON object", "JSON header is damaged")
case("header_open", header(lambda h: h[:-1]), "unexpected end", "JSON header is damaged")
case("header_two_values", header(lambda h: h + b"{}"), "text after the end", "JSON header is damaged")
case("header_deep", header(lambda h: b"[" * 100000), "not a JSON object", "JSON header is damaged")
case("header_deep_within", header(lambda h: h[:-1] + b',"x":' + b"[" * 20 + b"]" * 20 + b"}"), "nested too deeply", "JSON header is damaged")
case("header_not_utf8", header(lambda h: h.replace(b'"t0"', b'"\xff0"')), "not UTF-8", "JSON header is damaged")
case("header_half_surrogate", header(lambda h: h.replace(b'"t0"', b'"\\ud800"')), "half a surrogate pair", "JSON header is damaged")
case("header_control_character", header(lambda h: h.replace(b'"t0"', b'"t\n0"')), "control character", "JSON header is damaged")
case("header_tensor_twice", header(lambda h: h.replace(b'"t1"', b'"t0"')), 'key "t0" twice', "t0 stands there twice")
case("header_metadata_twice", header(lambda h: h.replace(b'"t0"', b'"__metadata__"')), 'key "__metadata__" twice', "__metadata__ stands there twice")
case("header_key_twice", header(lambda h: h.replace(b'"format"', b'"version"')), 'key "version" twice', "version stands there twice")
case("not_signbit", lambda f: put(f, "change_entries", lambda e: e.pop("__metadata__")), "no __metadata__: not a signbit file", "JSON header is damaged, or not one")
case("metadata_not_an_object", lambda f: put(f, "change_entries", lambda e: put(e, "__metadata__", "signbit")), "__metadata__ is not an object", "JSON header is damaged")
case("metadata_not_text", lambda f: put(f.metadata, "accuracy", 0.9), "__metadata__.accuracy is not a string", "__metadata__")
case("other_format", lambda f: put(f.metadata, "format", "pt"), 'format is not "signbit"', "format is not signbit")
case("newer_version", lambda f: put(f, "version", 5), "version is 5, this engine reads 1 to 4: a newer signbit wrote the file", "version 5 is newer than 4")
case("newer_graph", word(1, 5), "graph: version is 5, this engine reads 1 to 4", "graph.version 5 is newer than 4")
case("versions_differ", word(1, 1), "graph: version 1 is not that of the header, 4", "graph.version is not that of the header")
case("entry_not_an_object", lambda f: put(f, "change_entries", lambda e: put(e, "t0", 7)), "is not an object", "a tensor lacks a part")
case("entry_without_dtype", lambda f: put(f, "change_entries", lambda e: e["t0"].pop("dtype")), "needs dtype, shape and data_offsets", "a tensor lacks a part")
case("entry_without_offsets", lambda f: put(f, "change_entries", lambda e: e["t0"].pop("data_offsets")), "needs dtype, shape and data_offsets", "a tensor lacks a part")
case("dtype_unknown", entry("t0", "dtype", "BF16"), 'dtype "BF16" is not known', "t0")
case("shape_too_large", entry("t0", "shape", [1 << 40, 1 << 40]), "shape is not one integer", "a tensor lacks a part")
case("shape_wrong", entry("t0", "shape", [63]), "do not fit dtype and shape", "t0")
case("shape_negative", entry("t0", "shape", [-64]), "non-negative integer", "t0")
case("offset_not_a_number", entry("t0", "data_offsets", ["a", 1]), "are not two integers", "t0: a is not an offset")
case("offset_a_fraction", entry("t0", "data_offsets", [0.5, 64]), "non-negative integer", "t0")
case("offset_beyond_64_bits", entry("t0", "data_offsets", [0, 1 << 70]), "number too large", "t0")
case("offsets_of_three", entry("t0", "data_offsets", [0, 64, 64]), "are not two integers", "a tensor lacks a part")
case("offsets_reversed", entry("t0", "data_offsets", [512, 448]), "lie outside the file", "t0")
case("tensors_overlap", lambda f: put(f, "change_entries", lambda e: put(e, "t1", e["t0"])), "overlap or leave holes", "t1: data_offsets leave a hole")
case("tensors_leave_a_hole", lambda f: put(f, "change_entries", lambda e: e.pop("t1")), "overlap or leave holes", "t2: data_offsets leave a hole")
case("shape_of_two", entry("t0", "shape", [8, 8]), "shape is not one integer", "a tensor lacks a part")
case("graph_not_first", lambda f: put(f, "change_entries", graph_second), 'tensor "graph": is not the first', "data_offsets leave a hole")
case("no_graph", header(lambda h: h.replace(b'"graph"', b'"grape"')), 'no tensor "graph"', "first tensor is not named graph")

# --- the graph's head and tables ---

case("magic", word(0, 0x47425300), "wrong magic number", "magic")
case("graph_a_few_words", lambda f: put(f, "graph", lambda offsets: aligned(struct.pack("<2I", 0x31474253, f.version))), "ends within reserved", "graph ends within graph")
case("n_tensors_huge", word(N_TENSORS, NONE), "n_tensors = 4294967295 does not fit", "n_tensors is impossible")
case("n_values_huge", word(N_VALUES, 1 << 31), "n_values = 2147483648 does not fit", "n_values is more than 16384")
case("n_nodes_huge", word(N_NODES, 1 << 29), "n_nodes = 536870912 does not fit", "n_nodes is more than 16384")
case("n_outputs_huge", word(N_OUTPUTS, NONE), "n_outputs = 4294967295 does not fit", "n_outputs is not in 1..16384")
case("n_words_huge", word(N_WORDS, NONE), "n_words = 4294967295 does not fit", "n_words is impossible")
case("n_words_too_many", word(N_WORDS, 100), "n_words = 100 does not fit the tensor", "n_words is impossible")
case("n_words_too_few", word(N_WORDS, 30), "does not fit the tensor", "n_words does not match the nodes")
case("n_strings_huge", word(N_STRINGS, NONE), "n_string_bytes = 4294967295 does not fit", "n_string_bytes leaves the graph")
case("words_left", lambda f: f.more_words.append(0), "words left behind the last node", "n_words does not match the nodes")
case("reserved_word", word(RESERVED, 1), "a reserved word is not 0", "a reserved word is not zero")
case("normalised_2", word(NORMALISED, 2), "normalised is neither 0 nor 1", "normalised")
case("mean_outside", lambda f: (word(NORMALISED, 1)(f), word(MEAN, 4)(f), word(STD, 0)(f)), "mean tensor: id 4 of 4", "mean: tensor 4 does not exist")
case("mean_wrong_length", lambda f: (word(NORMALISED, 1)(f), word(MEAN, 2)(f), word(STD, 0)(f)), "mean or std: holds 2 elements", "mean and std are not one a channel")
case("mean_wrong_dtype", lambda f: (word(NORMALISED, 1)(f), word(MEAN, 1)(f), word(STD, 0)(f)), "mean or std: wrong dtype", "mean is not float32")
case("input_outside", word(INPUT, 3), "input value: id 3 of 3", "input value: value 3 does not exist")
case("input_not_real", word(INPUT, 1), "input value is not f32", "input")
case("tensor_dtype", word(TENSORS, 2), "tensor 0: unknown dtype", "tensor 0: dtype 2 is unknown")
case("tensor_outside", word(TENSORS + 6, 1 << 20), "tensor 1: lies outside the file", "tensor 1: its offset leaves the file")
case("tensor_beyond_4_gib", word(TENSORS + 7, 1), "tensor 1: lies outside the file", "tensor 1: its offset leaves the file")
case("tensor_offset_overflows", word(TENSORS + 7, NONE), "tensor 1: lies outside the file", "tensor 1: its offset leaves the file")
case("tensor_count_huge", word(TENSORS + 1, NONE), "tensor 0: lies outside the file", "tensor 0: its offset leaves the file")
case("tensor_within_another", lambda f: word(TENSORS + 4 * 3 + 2, len(f.graph([0] * 4)) + 2 * 64)(f), "tensor 3: does not lie behind the tensor before it", "tensor 3 overlaps")
case("tensor_unaligned", lambda f: f.words.append((TENSORS + 2, 4)), "tensor 0: offset is not aligned", "tensor 0: its offset leaves the file")
case("tensor_in_the_graph", word(TENSORS + 2, 0), "tensor 0: lies in the graph", "tensor 0: its offset leaves the file")
case("value_type", word(VALUES, 9), "value 0: unknown type", "value 0: type or channels")
case("value_no_channels", word(VALUES + 3, 0), "value 1: channels out of range", "value 1: type or channels")
case("value_too_many_channels", word(VALUES + 3, (1 << 20) + 1), "value 1: channels out of range", "value 1: type or channels")
case("value_never_written", lambda f: f.values.append((V_F32, 2)), "value 3 is never written", "value 3 is never written")
case("no_outputs", lambda f: f.outputs.clear(), "no outputs", "n_outputs is not in 1..16384")
case("output_outside", lambda f: put(f.outputs, 0, (3, 0)), "output value: id 3 of 3", "outputs: value 3 does not exist")
case("output_not_real", lambda f: put(f.outputs, 0, (1, 0)), "output value is neither f32 nor i32", "output")
case("output_flat_2", lambda f: put(f.outputs, 0, (2, 2)), "flat is neither 0 nor 1", "flat")
case("no_nodes", lambda f: f.nodes.clear(), "never written", "never written")

# --- nodes ---

case("loop", lambda f: put(f.nodes[0].inputs, 0, 2), "node 0 (bits): reads a value that nothing wrote before", "bits")
case("reads_itself", lambda f: put(f.nodes[1].inputs, 0, 2), "node 1 (conv): reads a value that nothing wrote before", "conv")
case("written_twice", lambda f: f.nodes.insert(1, f.nodes[0]), "node 1 (bits): writes a value that was written before", "bits")
case("writes_the_input", lambda f: (put(f.nodes[0].outputs, 0, 0), put(f.nodes[0].steps[0], "value", 0)), "writes a value that was written before", "value 1 is never written")
case("value_outside", lambda f: put(f.nodes[1].inputs, 0, 3), "input: id 3 of 3", "value 3 does not exist")
case("result_outside", lambda f: put(f.nodes[1].outputs, 0, NONE), "output: id 4294967295 of 3", "value 4294967295 does not exist")
case("weight_outside", lambda f: put(f.nodes[1].params, 0, 4), "tensor: id 4 of 4", "tensor 4 does not exist")
case("weight_missing", lambda f: put(f.nodes[1].params, 0, NONE), "has no weight", "weight is missing")
case("weight_too_short", lambda f: put(f.tensors, 1, (U8, bytes(8))), "weight: holds 8 elements, needs 9", "weight has another size")
case("weight_too_long", lambda f: put(f.tensors, 1, (U8, bytes(10))), "weight: holds 10 elements, needs 9", "weight has another size")
case("weight_wrong_dtype", lambda f: put(f.tensors, 1, (I8, bytes(9))), "weight: wrong dtype", "weight has another size")
case("weight_padding_bit", padded_inputs, "conv): weight: a channel that only pads has bit 0", "padding bit is wrong")
case("weight_padding_output", padded_output, "conv): weight: an output channel that only pads has bit 1", "padding bit is wrong")
case("weight_padding_q8", lambda f: (padded_inputs(f), eight_bits(f)), "conv): weight: a channel that only pads is not 0", "padding weight is not zero")
case("weight_of_other_taps", attr(2, 5), "weight: holds 9 elements, needs 15", "weight has another size")
case("operation_unknown", lambda f: put(f.nodes[1], "code", 99), "unknown operation 99", "opcode 99 is unknown")
case("operation_0", lambda f: put(f.nodes[1], "code", 0), "unknown operation 0", "opcode 0 is unknown")
case("path_outside", lambda f: put(f.path_at, 1, (4, 5)), "path lies outside the strings", "its path leaves the strings")
case("path_offset_overflows", lambda f: put(f.path_at, 1, (NONE, 2)), "path lies outside the strings", "its path leaves the strings")
case("paths_overlap", lambda f: (put(f.path_at, 0, (0, 8)), put(f.path_at, 1, (0, 8))), "paths overlap", "paths overlap")
case("path_too_long", lambda f: put(f.nodes[1], "path", b"c" * 4097), "node 1: path of 4097 bytes is longer than 4096", "its path has more than 4096 bytes")
case("path_not_utf8", lambda f: put(f, "strings", b"bits\xc0nv\x80"), "path is not UTF-8", "path is not UTF-8")
case("no_input", lambda f: f.nodes[1].inputs.clear(), "needs an input and an output", "no input")
case("no_result", lambda f: f.nodes[1].outputs.clear(), "needs an input and an output", "conv")
case("input_unused", lambda f: f.nodes[1].inputs.append(0), "inputs or outputs that no step uses", "other values than its")
case("attribute_missing", lambda f: f.nodes[1].attrs.pop(), "a wrong number of attributes or tensors", "wrong n_attrs or n_params")
case("tensor_missing", lambda f: f.nodes[1].params.clear(), "a wrong number of attributes or tensors", "wrong n_attrs or n_params")
case("counts_overflow", lambda f: put(f, "more_words", [1, 0, 0, NONE, NONE, NONE, NONE, NONE]) or word(N_NODES, 3)(f), "node = 4294967295 does not fit", "node 2")
case("channels_0", attr(0, 0), "in_channels = 0 is not in", "a size of the weight is not positive")
case("channels_too_many", attr(1, (1 << 20) + 1), "out_channels = 1048577 is not in", "weight has another size")
case("channels_differ", attr(0, 3), "input has a wrong type or channels", "conv")
case("kernel_0", attr(2, 0), "kernel_h = 0 is not in 1..4096", "a size of the weight is not positive")
case("kernel_too_large", attr(3, 4097), "kernel_w = 4097 is not in 1..4096", "weight has another size")
case("stride_0", attr(4, 0), "stride_h = 0 is not in 1..4096", "stride")
case("stride_negative", attr(5, -1), "stride_w = -1 is not in 1..4096", "stride")
case("pad_negative", attr(6, -1), "pad_h = -1 is not in 0..4096", "pad")
case("dilation_0", attr(8, 0), "dilation_h = 0 is not in 1..4096", "dilation")
case("groups_0", attr(10, 0), "groups = 0 is not in 1..4", "groups is not positive")
case("groups_do_not_divide", attr(10, 3), "groups do not divide the channels", "groups")
case("pad_value_2", attr(11, 2), "pad_value = 2 is not in -1..1", "pad_value")
case("too_many_taps", lambda f: (attr(2, 4096)(f), attr(3, 4096)(f)), "more than 65535 taps a sum", "weight has another size")

# --- steps ---

case("no_steps", lambda f: f.nodes[1].steps.clear(), "has no steps", "steps write other values")
case("too_many_steps", lambda f: f.nodes[1].steps.extend([Step(1, params=[2, 3])] * 11), "has too many steps", "steps")
case("n_steps_huge", lambda f: f.words.append((VALUES + 6 + 2 + 8 + 2 + 5 + 7, NONE)), "does not fit the tensor", "n_steps is impossible")
case("step_unknown", lambda f: put(f.nodes[1].steps[0], "code", 99), "unknown step 99", "step 99 is unknown")
case("step_tensor_outside", lambda f: put(f.nodes[1].steps[0].params, 0, 4), "step tensor: id 4 of 4", "tensor 4 does not exist")
case("step_tensor_none", lambda f: put(f.nodes[1].steps[0].params, 0, NONE), "step tensor: id 4294967295", "conv")
case("step_arguments", lambda f: f.nodes[1].steps[0].params.pop(), "step 1 has a wrong number of arguments", "wrong affine")
case("step_value_missing", lambda f: put(f.nodes[1].steps[1], "value", NONE), "has a value too many or too few", "value of store")
case("step_value_too_many", lambda f: put(f.nodes[1].steps[0], "value", 2), "has a value too many or too few", "value of affine")
case("step_value_outside", lambda f: put(f.nodes[1].steps[1], "value", 3), "step value: id 3 of 3", "value 3 does not exist")
case("step_value_not_the_nodes", lambda f: put(f.nodes[0].steps[0], "value", 0), "value is not", "steps write other values than its outputs")
case("step_wrong_length", lambda f: put(f.nodes[1].steps[0].params, 0, 0), "step 0: holds 4 elements, needs 2", "conv")
case("step_wrong_dtype", lambda f: put(f.tensors, 2, i32(1, 1)), "step 0: wrong dtype", "conv")
case("step_stores_integers", lambda f: f.nodes[1].steps.pop(0), "step 0: value has a wrong type", "conv")
case("result_not_stored", lambda f: f.nodes[1].steps.pop(), "inputs or outputs that no step uses", "other values than its")
case("result_wrong_type", lambda f: put(f.values, 1, (V_I4, 4)), "value is not b1", "bits")
case("flip_neither_0_nor_1", lambda f: put(f.tensors, 4, (U8, b"\0\1\2\1")), "flip: holds 2, not 0 or 1", "flip", threshold)
case("threshold_wrong_dtype", lambda f: put(f.tensors, 2, f32(0, 0, 0, 0)), "low: wrong dtype", "conv", threshold)
case("threshold_of_reals", lambda f: put(f.nodes[0].steps, 0, Step(8, 1, params=[2, 3, 4])), "needs an integer value", "bits", threshold)
case("step_stores_a_sum_as_i4", lambda f: (f.values.extend([(V_I4, 4)] * 2), f.nodes.insert(1, Node(1, b"skip", [1], [5], list(f.nodes[1].attrs), [1], [Step(5, attrs=[0], params=[2, 3]), Step(7, 5)])), f.nodes[2].inputs.append(5), put(f.nodes[2], "outputs", [6, 2]), put(f.nodes[2], "steps", [Step(5, attrs=[0], params=[2, 3]), Step(2, 5), Step(7, 6), *f.nodes[2].steps])), "stores as i4 what is no 4-bit number", "stores another type", threshold)
case("pool_pad_as_large_as_kernel", lambda f: put(f.nodes[2].attrs, 4, 2), "pad", "pad", threshold)
case("pool_flip_wrong_length", lambda f: put(f.nodes[2].params, 0, 1), "flip: holds 2 elements, needs 4", "pool", threshold)
case("pool_to_another_type", lambda f: put(f.values, 3, (V_F32, 4)), "output has a wrong type or channels", "pool", threshold)
case("pool_to_other_channels", lambda f: put(f.values, 4, (V_F32, 5)), "output has a wrong type or channels", "mean", threshold)
case("pool_with_steps", lambda f: f.nodes[3].steps.append(Step(1, params=[0, 0])), "takes 1 input(s), one output and no steps", "mean", threshold)

case("index_outside", lambda f: put(f.tensors, 0, i32(3, 1, 4, 0)), "take): index 4 of 4 channels", "take: index leaves its 4 channels", moved)
case("index_negative", lambda f: put(f.tensors, 0, i32(3, -1, 2, 0)), "take): index -1 of 4 channels", "take: index leaves its 4 channels", moved)
case("index_wrong_length", lambda f: put(f.tensors, 0, i32(3, 1, 2)), "index: holds 3 elements, needs 4", "take", moved)
case("index_missing", lambda f: put(f.nodes[0].params, 0, NONE), "has no index", "take", moved)
case("channels_of_two_types", lambda f: (f.values.append((V_B1, 4)), f.nodes.insert(0, Node(6, b"bits", [0], [6], steps=[Step(9, 6, params=[1])])), f.tensors.append(f32(0, 0, 0, 0)), f.nodes[1].inputs.append(6)), "inputs have several types", "take", moved)
case("shuffle_0", lambda f: put(f.nodes[1].attrs, 0, 0), "factor = 0 is not in 1..", "shuffle", moved)
case("shuffle_does_not_divide", lambda f: put(f.nodes[1].attrs, 0, 3), "factor does not divide the channels", "shuffle", moved)
case("shuffle_huge", lambda f: put(f.nodes[1].attrs, 0, 65536), "factor = 65536 is not in 1..", "shuffle", moved)
case("resize_to_nothing", lambda f: put(f.nodes[2], "attrs", [0] * 6), "resize", "resize", moved)
case("resize_mode", lambda f: put(f.nodes[2].attrs, 0, 2), "mode = 2 is not in 0..1", "resize", moved)
case("resize_negative", lambda f: put(f.nodes[2].attrs, 2, -2), "scale_h = -2 is not in 0..4096", "resize", moved)
case("adaptive_pool_to_nothing", lambda f: put(f.nodes[3].attrs, 1, 0), "out_w = 0 is not in 1..", "pool", moved)
case("gate_of_other_channels", lambda f: (put(f.values, 5, (V_F32, 3)), put(f.values, 4, (V_F32, 2))), "output has a wrong type or channels", "pool", moved)
case("operation_of_a_newer_version", lambda f: put(f, "version", 1), "unknown operation 7", "opcode 7 is unknown in version 1", moved)
case("step_of_a_newer_version", lambda f: (put(f, "version", 1), f.nodes[1].steps.insert(1, Step(13))), "step 13", "step 13 is unknown in version 1")

# --- integers ---

case("integers_in_version_2", lambda f: put(f, "version", 2), "value 1: its type needs version 3", "value 1: type or channels", integers)
case("shift_too_far_left", lambda f: put(f.tensors, 1, i32(1, -31, 16, 0)), "step 0: shifts = 16 is not in -31..15", "conv: shift_sum shifts by more", integers)
case("shift_too_far_right", lambda f: put(f.tensors, 1, i32(1, -32, 15, 0)), "step 0: shifts = -32 is not in -31..15", "conv: shift_sum shifts by more", integers)
case("sign_2", lambda f: put(f.tensors, 2, i32(-1, 0, 2, 1)), "step 0: signs = 2 is not in -1..1", "conv: shift_sum has a sign", integers)
case("digits_0", lambda f: put(f.nodes[1].steps[0], "attrs", [0]), "step 0: digits = 0 is not in 1..4", "are not 0 a channel", integers)
case("digits_5", lambda f: put(f.nodes[1].steps[0], "attrs", [5]), "step 0: digits = 5 is not in 1..4", "are not 5 a channel", integers)
case("digits_without_shifts", lambda f: put(f.nodes[1].steps[0], "attrs", [4]), "step 0: shifts: holds 4 elements, needs 8", "conv", integers)
case("shifts_of_reals", lambda f: put(f.tensors, 1, f32(1, -1, 5, 0)), "step 0: shifts: wrong dtype", "conv", integers)
case("shift_in_too_far", lambda f: put(f.tensors, 3, i32(-65536, 0)), "step 1: shift_in = -65536 is not in -65535..65535", "shift_in is more than 65535", integers)
case("shift_out_too_far", lambda f: put(f.tensors, 6, i32(0, 65536)), "step 1: shift_out = 65536 is not in -65535..65535", "shift_out is more than 65535", integers)
case("zero_point_of_16_bits", lambda f: put(f.nodes[1].attrs, 11, 1), "zero_point is for u8 only", "zero_point is for 8-bit maps", integers)
case("area_0", lambda f: put(f.nodes[3], "attrs", [0]), "area = 0 is not in 1..65536", "sum", integers)
case("scaled_and_shifted", lambda f: put(f.nodes[1].steps, 0, Step(1, params=[7, 7])), "added and shifted alone", "conv", integers)
case("quant16_to_32_bits", lambda f: put(f.values, 1, (V_I32, 4)), "value is not i16", "scale", integers)
case("stores_16_bits_as_real", lambda f: put(f.values, 2, (V_F32, 2)), "value has a wrong type", "conv", integers)
case("average_of_three", lambda f: (put(f.nodes, 3, Node(4, b"mean", [3], [4], [3, 1, 1, 1, 0, 0, 0, 0])), put(f.values, 4, (V_I16, 2)), put(f.outputs, 0, (4, 0))), "no power of two", "no power of two", integers)
case("average_over_padding", lambda f: (put(f.nodes, 3, Node(4, b"mean", [3], [4], [2, 2, 1, 1, 1, 1, 0, 0])), put(f.values, 4, (V_I16, 2)), put(f.outputs, 0, (4, 0))), "pad is not 0", "over padding", integers)

# --- 4 bits ---

case("levels_0", lambda f: put(f.nodes[0].steps[0], "attrs", [0x3F800000, 0, 0]), "step 0: levels = 0 is not in 1..255", "small: levels must be 1..255", four_bits)
case("levels_256", lambda f: put(f.nodes[0].steps[0].attrs, 2, 256), "step 0: levels = 256 is not in 1..255", "small: levels must be 1..255", four_bits)
case("levels_below_the_zero_point", lambda f: put(f.nodes[0].steps[0].attrs, 2, 6), "step 0: zero_point = 7 is not in 0..6", "small: zero_point must be 0..6", four_bits)
case("levels_missing", lambda f: f.nodes[0].steps[0].attrs.pop(), "step 10 has a wrong number of arguments", "wrong quant8", four_bits)
case("levels_in_version_3", lambda f: (put(f, "version", 3), put(f.tensors, 0, (I8, bytes(8)))), "step 10 has a wrong number of arguments", "wrong quant8", four_bits)
case("four_bits_in_version_3", lambda f: (put(f, "version", 3), f.nodes[0].steps[0].attrs.pop()), "tensor 0: unknown dtype", "tensor 0: dtype 5 is unknown", four_bits)
case("four_bits_odd", word(TENSORS + 1, 7), "tensor 0: an odd number of 4-bit integers", "tensor 0: an odd number of 4-bit integers", four_bits)
case("four_bits_outside", word(TENSORS + 1, NONE - 1), "tensor 0: lies outside the file", "tensor 0: its offset leaves the file", four_bits)
case("four_bits_too_few", lambda f: put(f.tensors, 0, (I4, bytes(3))), "weight: holds 6 elements, needs 8", "weight has another size", four_bits)
case("four_bits_of_reals", lambda f: put(f.tensors, 1, (I4, bytes(1))), "conv): step 0: wrong dtype", "conv", four_bits)
case("weight_padding_of_four_bits", lambda f: (put(f.values, 0, (V_F32, 3)), put(f.values, 1, (V_U8, 3)), put(f.nodes[1].attrs, 0, 3), put(f.metadata, "input_shape", "3,6,5")), "conv): weight: a channel that only pads is not 0", "padding weight is not zero", four_bits)
# fmt: on


def main() -> None:
    lines = []
    for name, base, change, engine, python in CASES:
        file = base()
        change(file)
        (FOLDER / f"{name}.signbit").write_bytes(file.data())
        lines.append(f"{name}\t{engine}\t{python}\n")
    (FOLDER / "expected.tsv").write_text("".join(lines))


if __name__ == "__main__":
    main()

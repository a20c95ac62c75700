"""Writing and reading `.signbit` files (`docs/format.md`).

`emit` makes the bytes of a file from a lowered graph; `read_graph` makes the graph again, with
every rule of the format checked, so that the reference can interpret saved files.

Imports NumPy only.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from signbit.compiler.ir import (
    FLOAT_ATTRS,
    LOWERED_OPS,
    READING,
    STEPS,
    Graph,
    Node,
    OpSpec,
    Step,
    Type,
    Value,
)
from signbit.compiler.passes.check import MAX_DIGITS, check
from signbit.compiler.shapes import infer_shapes
from signbit.errors import CompileError, FormatError

MAGIC, VERSION, NONE = 0x31474253, 4, 0xFFFFFFFF
_OLDEST = 1
# what older versions had: operations and steps up to these codes; version 1's attributes of pools,
# and up to version 3 those of quant8
_OLD_OPS, _OLD_STEPS, _POOL_ATTRS_1 = {1: 6, 2: 10}, {1: 10, 2: 13}, 6
_QUANT8_ATTRS_3 = 2
_POOL_DEFAULTS = {"dilation_h": 1, "dilation_w": 1, "ceil_mode": 0, "count_include_pad": 0}
_ALIGN = 64
_HEAD_WORDS = 17
_MAX_GRAPH, _MAX_CHANNELS, _MAX_PATH = 1 << 14, 1 << 20, 4096  # the engine's limits
_INT4 = 5  # dtype of a tensor in a file: two numbers a byte
_DTYPES = {0: np.dtype("<f4"), 1: np.dtype("<i4"), 3: np.dtype("i1"), 4: np.dtype("u1")}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_NAMES = {0: "F32", 1: "I32", 3: "I8", 4: "U8", _INT4: "U8"}
_SIZES = {_NAMES[code]: dtype.itemsize for code, dtype in _DTYPES.items()}
_BLANK = "0" * 64
_RESERVED = ("format", "version", "sha256", "input_shape", "signbit")
_WITH_VALUE = (*READING, "store", "threshold", "sign", "quant8", "quant16")
_HASH_KEY = b'"sha256":"'


# --- packed weights ---


def pack_b1(weight: np.ndarray) -> np.ndarray:
    """Weights +-1 [O, I/g, KH, KW] to bytes [ceil(O/2), KH*KW, ceil(I/g/4)]."""
    outputs, inputs, height, width = weight.shape
    bits = np.zeros((-(-outputs // 2) * 2, -(-inputs // 4) * 4, height * width), np.uint8)
    bits[:outputs] = 1
    bits[:outputs, :inputs] = weight.reshape(outputs, inputs, -1) > 0
    nibbles = bits.reshape(len(bits), -1, 4, height * width)
    nibbles = (nibbles << np.arange(4, dtype=np.uint8)[None, None, :, None]).sum(2, dtype=np.uint8)
    nibbles = nibbles.transpose(0, 2, 1)
    return nibbles[0::2] | (nibbles[1::2] << 4)


def unpack_b1(packed: np.ndarray, shape: tuple[int, int, int, int]) -> np.ndarray:
    """The inverse of `pack_b1`: int8 +-1 of `shape`. Raises FormatError for a wrong padding bit."""
    outputs, inputs, height, width = shape
    packed = packed.reshape(-(-outputs // 2), height * width, -1)
    nibbles = np.stack([packed & 15, packed >> 4], 1).reshape(-1, *packed.shape[1:])
    bits = (nibbles[..., None] >> np.arange(4, dtype=np.uint8)) & 1
    bits = bits.reshape(len(nibbles), height * width, -1)
    if bits[outputs:].any() or not bits[:outputs, :, inputs:].all():
        raise FormatError("conv_b1.weight: a padding bit is wrong")
    signs = bits[:outputs, :, :inputs].astype(np.int8) * 2 - 1
    return np.ascontiguousarray(signs.transpose(0, 2, 1)).reshape(shape)


def pack_q8(weight: np.ndarray) -> np.ndarray:
    """int8 weights [O, I/g, KH, KW] to [O, KH*KW, ceil(I/g/4)*4], zeros behind the channels."""
    outputs, inputs, height, width = weight.shape
    packed = np.zeros((outputs, height * width, -(-inputs // 4) * 4), np.int8)
    packed[:, :, :inputs] = weight.reshape(outputs, inputs, -1).transpose(0, 2, 1)
    return packed


def unpack_q8(packed: np.ndarray, shape: tuple[int, int, int, int]) -> np.ndarray:
    """The inverse of `pack_q8`. Raises FormatError if a padding weight is not zero."""
    outputs, inputs, height, width = shape
    packed = packed.reshape(outputs, height * width, -1)
    if packed[:, :, inputs:].any():
        raise FormatError("conv_q8.weight: a padding weight is not zero")
    return np.ascontiguousarray(packed[:, :, :inputs].transpose(0, 2, 1)).reshape(shape)


def fits_int4(weight: np.ndarray) -> bool:
    """Whether integer weights are from -8 to 7: files hold two of them a byte."""
    return bool(weight.min() >= -8 and weight.max() <= 7)


def pack_i4(numbers: np.ndarray) -> np.ndarray:
    """Integers from -8 to 7, an even number of them, to bytes: of two the first is the low half."""
    halves = numbers.reshape(-1).view(np.uint8) & 15
    return halves[0::2] | (halves[1::2] << 4)


def unpack_i4(packed: np.ndarray) -> np.ndarray:
    """The inverse of `pack_i4`: int8, one-dimensional."""
    halves = np.stack([packed & 15, packed >> 4], 1).reshape(-1)
    return (halves ^ 8).astype(np.int8) - np.int8(8)


# --- writing ---


def emit(graph: Graph) -> bytes:
    """The bytes of a `.signbit` file. Raises CompileError for what a file cannot hold."""
    writer = _Writer(graph)
    program = writer.program()
    entries = {"__metadata__": _metadata(graph), "graph": _entry("U8", 0, len(program))}
    offset = len(program)
    for name, tensor in zip(writer.names, writer.tensors, strict=True):
        size = _aligned(tensor.array.nbytes)
        entries[name] = _entry(_NAMES[tensor.dtype], offset, size, tensor.array.itemsize)
        offset += size
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=True).encode()
    header = header.ljust(_aligned(8 + len(header)) - 8)
    parts = [struct.pack("<Q", len(header)), header, program]
    parts += [_padded(tensor.array.tobytes()) for tensor in writer.tensors]
    blank = b"".join(parts)
    digest = hashlib.sha256(blank).hexdigest()
    at = blank.index(_HASH_KEY) + len(_HASH_KEY)
    return blank[:at] + digest.encode() + blank[at + 64 :]


def save(graph: Graph, path: str | os.PathLike[str]) -> Path:
    """Write a `.signbit` file: whole, or not at all. Returns its path."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(emit(graph))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def check_metadata(graph: Graph) -> None:
    """Raise CompileError, naming the key, for metadata that a file cannot hold."""
    _metadata(graph)


def _metadata(graph: Graph) -> dict[str, str]:
    entries = {
        "format": "signbit",
        "version": str(VERSION),
        "sha256": _BLANK,
        "input_shape": ",".join(map(str, graph.input.shape)),
        "signbit": _writer_version(),
    }
    for key, value in graph.metadata.items():
        if key in _RESERVED:
            raise CompileError(f"metadata {key!r} is the format's own: use another name")
        try:
            entries[key] = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise CompileError(f"metadata {key!r} cannot be written as JSON: {error}") from None
    return entries


def _writer_version() -> str:
    import signbit

    return str(getattr(signbit, "__version__", "unknown"))


def _entry(dtype: str, start: int, size: int, item: int = 1) -> dict[str, object]:
    return {"dtype": dtype, "shape": [size // item], "data_offsets": [start, start + size]}


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _padded(data: bytes) -> bytes:
    return data.ljust(_aligned(len(data)), b"\0")


@dataclass(frozen=True)
class _Tensor:
    """A tensor as a file holds it: its dtype's code, how many elements, and their bytes."""

    dtype: int
    count: int
    array: np.ndarray


class _Writer:
    """Collects values, tensors and strings while the nodes are put into words."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.values: dict[Value, int] = {}
        self.names: list[str] = []
        self.tensors: list[_Tensor] = []
        self.strings = b""

    def program(self) -> bytes:
        graph = self.graph
        source = self._value(graph.input)
        mean = std = NONE
        if graph.mean is not None:
            mean = self._tensor("input.mean", np.asarray(graph.mean, np.float32))
            std = self._tensor("input.std", np.asarray(graph.std, np.float32))
        words: list[int] = []
        for node in graph.nodes:
            self._node(words, node)
        outputs = []
        for value, flat in zip(graph.outputs, graph.flat_outputs, strict=True):
            outputs += [self._value(value), int(flat)]
        strings = self.strings.ljust(-(-len(self.strings) // 4) * 4, b"\0")
        counts = [len(self.tensors), len(self.values), len(graph.nodes), len(graph.outputs)]
        head = [MAGIC, VERSION, *counts, len(words), len(strings)]
        head += [int(graph.mean is not None), mean, std, source, 0, 0, 0, 0, 0]
        body = [word for value in self.values for word in (int(value.type), value.channels)]
        body += [*outputs, *words]
        length = 4 * (len(head) + 4 * len(self.tensors) + len(body)) + len(strings)
        table, offset = [], _aligned(length)
        for tensor in self.tensors:
            table += [tensor.dtype, tensor.count, offset & 0xFFFFFFFF, offset >> 32]
            offset += _aligned(tensor.array.nbytes)
        numbers = [*head, *table, *body]
        return _padded(struct.pack(f"<{len(numbers)}I", *numbers) + strings)

    def _value(self, value: Value) -> int:
        return self.values.setdefault(value, len(self.values))

    def _tensor(self, name: str, array: np.ndarray, small: bool = False) -> int:
        """A tensor's number in the table. `small`: what it holds fits 4 bits, of an even number."""
        unique, count = name, 1
        while unique in self.names or unique == "graph":
            count += 1
            unique = f"{name}#{count}"
        self.names.append(unique)
        array = np.ascontiguousarray(array).reshape(-1)
        if small:
            self.tensors.append(_Tensor(_INT4, array.size, pack_i4(array)))
        else:
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            self.tensors.append(_Tensor(_CODES[array.dtype], array.size, array))
        return len(self.tensors) - 1

    def _node(self, words: list[int], node: Node) -> None:
        spec = LOWERED_OPS[node.op]
        text = node.path.encode()
        if len(text) > _MAX_PATH:
            raise CompileError(
                f"{node.path[:80]}...: a layer's path has more than {_MAX_PATH} bytes"
            )
        at = len(self.strings)
        self.strings += text
        params = [
            self._param(node, f"{node.path}.{name}", name, node.params) for name in spec.params
        ]
        steps: list[int] = []
        for step in node.epilogue:
            self._step(steps, node, step)
        counts = [len(node.inputs), len(node.outputs), len(spec.attrs), len(spec.params)]
        words += [spec.code, at, len(text), *counts, len(node.epilogue)]
        words += map(self._value, node.inputs)
        words += map(self._value, node.outputs)
        words += [_attr_word(name, node.attrs[name]) for name in spec.attrs]
        words += [*params, *steps]

    def _step(self, words: list[int], node: Node, step: Step) -> None:
        spec = STEPS[step.kind]
        value = NONE if step.value is None else self._value(step.value)
        words += [spec.code, value, len(spec.attrs), len(spec.params)]
        words += [_attr_word(name, step.attrs[name]) for name in spec.attrs]
        prefix = f"{node.path}.{step.kind}"
        words += [self._param(node, f"{prefix}.{name}", name, step.params) for name in spec.params]

    def _param(self, node: Node, name: str, key: str, params: dict[str, np.ndarray]) -> int:
        if key not in params:
            return NONE
        array = params[key]
        if key != "weight":
            return self._tensor(name, array)
        if node.op == "conv_b1":
            return self._tensor(name, pack_b1(array))
        return self._tensor(name, pack_q8(array), fits_int4(array))


def _attr_word(name: str, value: float) -> int:
    packed = struct.pack("<f", value) if name in FLOAT_ATTRS else struct.pack("<i", value)
    return struct.unpack("<I", packed)[0]


# --- reading ---


def read_graph(source: str | os.PathLike[str] | bytes) -> Graph:
    """The lowered graph of a `.signbit` file, or of its bytes.

    Raises FormatError, naming file and field, for anything that is not exactly such a file.
    """
    with naming(source):
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        metadata, names, start = read_container(data)
        return _Reader(data[start:], names, metadata).graph()


@contextmanager
def naming(source: str | os.PathLike[str] | bytes) -> Iterator[None]:
    """A FormatError from here begins with the file's path; bytes have none."""
    try:
        yield
    except FormatError as error:
        if isinstance(source, bytes):
            raise
        raise FormatError(f"{os.fspath(source)}: {error}") from error


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise FormatError(message)


def read_container(data: bytes) -> tuple[dict[str, str], dict[str, dict], int]:
    """Metadata, tensor entries, and where the data starts."""
    _need(len(data) >= 8, "not a signbit file: shorter than its first field")
    (length,) = struct.unpack_from("<Q", data)
    start = 8 + length
    kind = "" if data[8:9] == b"{" else "not a signbit file: "
    _need(start <= len(data) and start % _ALIGN == 0, f"{kind}header_bytes {length} is impossible")
    try:
        entries = json.loads(data[8:start].decode(), object_pairs_hook=_unique)
        json.dumps(entries, ensure_ascii=False).encode()  # raises for half a surrogate pair
        metadata = entries.pop("__metadata__")
        strings = all(isinstance(v, str) for v in metadata.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FormatError("the JSON header is damaged, or not one of a signbit file") from None
    _need(strings and metadata.get("format") == "signbit", "__metadata__.format is not signbit")
    _check_version("version", metadata.get("version", ""))
    try:
        ranges = {name: _read_entry(name, entry) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError):
        raise FormatError("the JSON header is damaged: a tensor lacks a part") from None
    end = 0
    for name, (first, last) in ranges.items():
        _need(first == end <= last and last % _ALIGN == 0, f"{name}: data_offsets leave a hole")
        end = last
    _need(end == len(data) - start, f"the data has {len(data) - start} bytes, not {end}")
    _need(next(iter(entries), None) == "graph", "the first tensor is not named graph")
    _check_hash(data, start, metadata.get("sha256", ""))
    return metadata, entries, start


def int4_tensors(program: bytes) -> set[int]:
    """Where the tensors of 4-bit integers begin. `program`: the `graph` of a checked file."""
    (count,) = struct.unpack_from("<I", program, 8)
    table = np.frombuffer(program, "<u4", 4 * count, 4 * _HEAD_WORDS).reshape(-1, 4)
    table = table[table[:, 0] == _INT4].astype(np.uint64)
    return set((table[:, 2] | table[:, 3] << np.uint64(32)).tolist())


def _check_version(field: str, text: str) -> None:
    known = text.isdecimal() and len(text) < 10
    _need(known and int(text) >= _OLDEST, f"{field} {text!r} is unknown")
    newer = f"{field} {text} is newer than {VERSION}, the newest that this signbit reads: update it"
    _need(int(text) <= VERSION, newer)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        _need(name not in found, f"header: {name} stands there twice")
        found[name] = value
    return found


def _read_entry(name: str, entry: dict) -> tuple[int, int]:
    """Where a tensor's bytes begin and end. Raises what dicts and lists do where parts lack."""
    (first, last), (count,), dtype = entry["data_offsets"], entry["shape"], entry["dtype"]
    for number in (first, last, count):
        _need(type(number) is int and 0 <= number < 1 << 64, f"{name}: {number} is not an offset")
    _need(dtype in _SIZES, f"{name}: dtype {dtype} is unknown")
    _need(last - first == count * _SIZES[dtype], f"{name}: data_offsets do not fit dtype and shape")
    return first, last


def _check_hash(data: bytes, start: int, digest: str) -> None:
    at = data.find(_HASH_KEY, 8, start) + len(_HASH_KEY)
    found = data[at : at + 64]
    blank = data[:at] + _BLANK.encode() + data[at + 64 :]
    same = found == digest.encode() == hashlib.sha256(blank).hexdigest().encode()
    _need(same, "sha256 does not match: the file is damaged")


class _Reader:
    """Turns the words of `graph` into nodes."""

    def __init__(self, data: bytes, entries: dict[str, dict], metadata: dict[str, str]):
        self.data = data
        self.entries = entries
        self.metadata = metadata
        end = int(entries["graph"]["data_offsets"][1])
        self.program = data[:end]
        self.at = 0
        self.path_bytes = self.end = 0  # of the paths; of the tensors read

    def graph(self) -> Graph:
        head = self._words(_HEAD_WORDS, "graph")
        _need(head[0] == MAGIC, "graph.magic is wrong")
        _check_version("graph.version", str(head[1]))
        _need(str(head[1]) == self.metadata["version"], "graph.version is not that of the header")
        self.version = head[1]
        n_tensors, n_values, n_nodes, n_outputs, n_words, n_strings = head[2:8]
        _need(not any(head[12:]), "graph: a reserved word is not zero")
        _need(head[8] in (0, 1), "graph.normalised is neither 0 nor 1")
        for name, count in (("n_nodes", n_nodes), ("n_values", n_values)):
            _need(count <= _MAX_GRAPH, f"graph.{name} is more than {_MAX_GRAPH}")
        _need(0 < n_outputs <= _MAX_GRAPH, f"graph.n_outputs is not in 1..{_MAX_GRAPH}")
        self.tensors = [self._tensor(i) for i in range(self._count(n_tensors, 4, "n_tensors"))]
        self.values = [self._value(i) for i in range(self._count(n_values, 2, "n_values"))]
        outputs = [self._words(2, "outputs") for _ in range(self._count(n_outputs, 2, "n_outputs"))]
        end = self.at + 4 * self._count(n_words, 1, "n_words")
        _need(end + n_strings <= len(self.program), "n_string_bytes leaves the graph")
        self.strings = self.program[end : end + n_strings]
        nodes = [self._node(i) for i in range(self._count(n_nodes, 8, "n_nodes"))]
        _need(self.at == end, "n_words does not match the nodes")
        _need(all(flat in (0, 1) for _, flat in outputs), "outputs: flat is neither 0 nor 1")
        mean = std = None
        if head[8]:
            mean, std = self._real(head[9], "mean"), self._real(head[10], "std")
            channels = self._value_of(head[11], "input value").channels
            _need(mean.size == std.size == channels, "mean and std are not one a channel")
        graph = Graph(
            nodes,
            self._value_of(head[11], "input value"),
            [self._value_of(value, "outputs") for value, _ in outputs],
            [bool(flat) for _, flat in outputs],
            mean,
            std,
            self._people(),
        )
        _need(graph.input.type == Type.F32, "input value is not f32")
        written = {graph.input, *(value for node in nodes for value in node.outputs)}
        for index, value in enumerate(self.values):
            _need(value in written, f"value {index} is never written")
        self._infer(graph)
        return graph

    def _people(self) -> dict[str, object]:
        found = {}
        for key, text in self.metadata.items():
            if key not in _RESERVED:
                try:
                    found[key] = json.loads(text)
                except (ValueError, RecursionError):
                    found[key] = text
        return found

    def _infer(self, graph: Graph) -> None:
        try:
            shape = tuple(map(int, self.metadata["input_shape"].split(",")))
            _need(len(shape) == 3 and shape[0] == graph.input.channels, "input_shape is wrong")
            infer_shapes(graph, shape)
            check(graph)
        except (KeyError, ValueError):
            raise FormatError("input_shape is missing or wrong") from None
        except CompileError as error:
            raise FormatError(str(error)) from None

    def _words(self, count: int, what: str) -> tuple[int, ...]:
        _need(self.at + 4 * count <= len(self.program), f"graph ends within {what}")
        words = struct.unpack_from(f"<{count}I", self.program, self.at)
        self.at += 4 * count
        return words

    def _count(self, count: int, words: int, what: str) -> int:
        _need(self.at + 4 * words * count <= len(self.program), f"graph.{what} is impossible")
        return count

    def _tensor(self, index: int) -> np.ndarray:
        code, count, low, high = self._words(4, f"tensor {index}")
        packed = code == _INT4 and self.version > 3
        dtype = np.dtype("u1") if packed else _DTYPES.get(code)
        _need(dtype is not None, f"tensor {index}: dtype {code} is unknown")
        if packed:
            _need(count % 2 == 0, f"tensor {index}: an odd number of 4-bit integers")
            count //= 2
        offset = low | high << 32
        fits = offset % _ALIGN == 0 and offset + count * dtype.itemsize <= len(self.data)
        _need(fits and offset >= len(self.program), f"tensor {index}: its offset leaves the file")
        _need(offset >= self.end, f"tensor {index} overlaps the one before it")
        self.end = offset + count * dtype.itemsize
        array = np.frombuffer(self.data, dtype, count, offset)
        return unpack_i4(array) if packed else array

    def _value(self, index: int) -> Value:
        kind, channels = self._words(2, f"value {index}")
        wide = self.version < 3 and kind in (Type.I32, Type.I16)
        fits = kind in set(Type) and not wide and 0 < channels <= _MAX_CHANNELS
        _need(fits, f"value {index}: type or channels are impossible")
        return Value(f"v{index}", Type(kind), (channels, 1, 1))

    def _value_of(self, index: int, what: str) -> Value:
        _need(index < len(self.values), f"{what}: value {index} does not exist")
        return self.values[index]

    def _real(self, index: int, what: str) -> np.ndarray:
        array = self._array(index, what)
        _need(array.dtype == np.float32, f"{what} is not float32")
        return array

    def _array(self, index: int, what: str) -> np.ndarray:
        _need(index < len(self.tensors), f"{what}: tensor {index} does not exist")
        return self.tensors[index]

    def _node(self, index: int) -> Node:
        what = f"node {index}"
        code, at, length, *counts, n_steps = self._words(8, what)
        _need(length <= _MAX_PATH, f"{what}: its path has more than {_MAX_PATH} bytes")
        _need(at + length <= len(self.strings), f"{what}: its path leaves the strings")
        self.path_bytes += length
        _need(self.path_bytes <= len(self.strings), f"{what}: paths overlap")
        try:
            path = self.strings[at : at + length].decode()
        except UnicodeDecodeError:
            raise FormatError(f"{what}: its path is not UTF-8") from None
        what = f"node {index} ({path})"
        op = next((name for name, spec in LOWERED_OPS.items() if spec.code == code), None)
        known = op is not None and code <= _OLD_OPS.get(self.version, code)
        _need(known, f"{what}: opcode {code} is unknown in version {self.version}")
        spec = LOWERED_OPS[op]
        if self.version == 1 and op in ("max_pool", "avg_pool"):
            spec = replace(spec, attrs=spec.attrs[:_POOL_ATTRS_1])
        _need(
            counts[2:] == [len(spec.attrs), len(spec.params)], f"{what}: wrong n_attrs or n_params"
        )
        inputs = [self._value_of(i, what) for i in self._words(counts[0], what)]
        outputs = [self._value_of(i, what) for i in self._words(counts[1], what)]
        _need(bool(inputs), f"{what}: it has no input")
        attrs = {name: _POOL_DEFAULTS.get(name) for name in LOWERED_OPS[op].attrs}
        node = Node(op, path, inputs, outputs, attrs | self._attrs(spec, what))
        node.params = self._params(spec, what)
        if "flip" in node.params:
            self._check_flip(node.params["flip"], what)
        if "weight" in spec.params:
            node.params["weight"] = self._weight(node, what)
        node.epilogue = [self._step(what) for _ in range(self._count(n_steps, 4, "n_steps"))]
        if spec.epilogue:
            read = [step.value for step in node.epilogue if step.kind in READING]
            used = [step.value for step in node.epilogue if step.value and step.kind not in READING]
            _need(inputs[1:] == read, f"{what}: its steps read other values than its inputs")
            _need(outputs == used, f"{what}: its steps write other values than its outputs")
        return node

    def _step(self, what: str) -> Step:
        code, value, n_attrs, n_params = self._words(4, what)
        kind = next((name for name, spec in STEPS.items() if spec.code == code), None)
        known = kind is not None and code <= _OLD_STEPS.get(self.version, code)
        _need(known, f"{what}: step {code} is unknown in version {self.version}")
        spec = STEPS[kind]
        if kind == "quant8" and self.version < 4:
            spec = replace(spec, attrs=spec.attrs[:_QUANT8_ATTRS_3])
        _need((n_attrs, n_params) == (len(spec.attrs), len(spec.params)), f"{what}: wrong {kind}")
        _need((value != NONE) == (kind in _WITH_VALUE), f"{what}: value of {kind}")
        attrs = self._attrs(spec, what)
        if kind == "quant8":
            attrs.setdefault("levels", 255)
        params = self._params(spec, what)
        if "flip" in params:
            self._check_flip(params["flip"], what)
        if "cuts" in params:
            _need(params["cuts"].size % 15 == 0, f"{what}: cuts are not 15 a channel")
            params["cuts"] = params["cuts"].reshape(-1, 15)
        for name in {"shifts", "signs"} & set(params):
            digits = attrs["digits"]
            fits = 1 <= digits <= MAX_DIGITS and params[name].size % digits == 0
            _need(fits, f"{what}: {name} are not {digits} a channel")
            params[name] = params[name].reshape(-1, digits)
        return Step(kind, params, attrs, None if value == NONE else self._value_of(value, what))

    def _check_flip(self, flip: np.ndarray, what: str) -> None:
        _need(bool((flip <= 1).all()), f"{what}: flip is neither 0 nor 1")

    def _attrs(self, spec: OpSpec, what: str) -> dict[str, int | float]:
        attrs = {}
        for name, word in zip(spec.attrs, self._words(len(spec.attrs), what), strict=True):
            kind = "<f" if name in FLOAT_ATTRS else "<i"
            attrs[name] = struct.unpack(kind, struct.pack("<I", word))[0]
        return attrs

    def _params(self, spec: OpSpec, what: str) -> dict[str, np.ndarray]:
        words = self._words(len(spec.params), what)
        return {
            name: self._array(word, f"{what}.{name}")
            for name, word in zip(spec.params, words, strict=True)
            if word != NONE
        }

    def _weight(self, node: Node, what: str) -> np.ndarray:
        a = node.attrs
        _need("weight" in node.params, f"{what}: weight is missing")
        _need(a["groups"] > 0, f"{what}: groups is not positive")
        divide = not (a["in_channels"] % a["groups"] or a["out_channels"] % a["groups"])
        _need(divide, f"{what}: groups do not divide the channels")
        shape = a["out_channels"], a["in_channels"] // a["groups"], a["kernel_h"], a["kernel_w"]
        _need(min(shape) > 0, f"{what}: a size of the weight is not positive")
        packed = node.params["weight"]
        rows = -(-shape[0] // 2) if node.op == "conv_b1" else shape[0]
        columns = -(-shape[1] // 4) * (1 if node.op == "conv_b1" else 4)
        expected = np.uint8 if node.op == "conv_b1" else np.int8
        size = rows * columns * shape[2] * shape[3]
        _need(packed.size == size and packed.dtype == expected, f"{what}: weight has another size")
        return unpack_b1(packed, shape) if node.op == "conv_b1" else unpack_q8(packed, shape)

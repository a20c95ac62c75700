"""The certificate: counts by hand, and no multiplication where it says so, down to the machine."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

import signbit
from signbit.cli.certify import certify_file
from signbit.compiler import IntegerOptions
from signbit.compiler.ir import Graph, Node, Step, Type, Value
from signbit.hardware.certificate import MULTIPLICATION_FREE_KERNELS, certify, count_node
from signbit.nn import BinaryConv2d, QRPReLU, RSign
from signbit.runtime import instruction_sets
from signbit.runtime.library import library
from tests.compiler.build import conv_attrs, pool_attrs

PIXELS = {"mean": [0.5] * 3, "std": [0.25] * 3}


def node_counts(op: str, source: Value, out: Value, **parts) -> dict[str, int]:
    """The operations of one node, without those that are 0."""
    node = Node(op, "n", [source], [out], **parts)
    graph = Graph([node], source, [out], [False])
    return {name: n for name, n in count_node(graph, node).to_dict().items() if n}


def test_weights_count_their_digits() -> None:
    source, out = Value("x", Type.I16, (2, 4, 5)), Value("y", Type.I32, (3, 4, 5))
    # 7 = 8 - 1, 5 = 4 + 1, 0, -1, 6 = 8 - 2, 3 = 4 - 1
    weight = np.array([[7, 5], [0, -1], [6, 3]], np.int8).reshape(3, 2, 1, 1)
    found = node_counts(
        "conv_shift",
        source,
        out,
        attrs=conv_attrs(2, 3, zero_point=0),
        params={"weight": weight},
        epilogue=[Step("store", value=out)],
    )
    # shifts: by 3 and 2; none; by 3, 1 and 2
    assert found == {"additions": 9 * 20, "shifts": 5 * 20}


def test_multiplications_are_those_of_products_and_factors() -> None:
    source, out = Value("x", Type.U8, (4, 6, 6)), Value("y", Type.F32, (2, 6, 6))
    affine = {"scale": np.ones(2, np.float32), "bias": np.ones(2, np.float32)}
    found = node_counts(
        "conv_q8",
        source,
        out,
        attrs=conv_attrs(4, 2, 3, 1, 1, zero_point=0),
        params={"weight": np.ones((2, 4, 3, 3), np.int8)},
        epilogue=[Step("affine", affine), Step("store", value=out)],
    )
    macs, outputs = 2 * 4 * 9 * 36, 2 * 36
    assert found == {"additions": macs + outputs, "multiplications": macs + outputs}


def test_steps_count_shifts_that_shift() -> None:
    source, out = Value("x", Type.I16, (2, 3, 3)), Value("y", Type.I16, (2, 3, 3))
    shifts = np.array([[1, 0], [0, 0]], np.int32)
    signs = np.array([[1, -1], [1, 0]], np.int32)
    nothing = np.zeros(2, np.int32)
    prelu = {"shift_in": nothing, "shifts": shifts, "signs": signs, "shift_out": nothing}
    steps = [
        Step("shift_sum", {"shifts": shifts, "signs": signs}, {"digits": 2}),
        Step("shift_prelu", prelu, {"digits": 2}),
        Step("store", value=out),
    ]
    found = node_counts("pointwise", source, out, epilogue=steps)
    # channel 0: (v << 1) - v; channel 1: v
    assert found == {"additions": 2 * 9 + 2 * 18, "shifts": 2 * 9, "comparisons": 18}


def test_pools_of_integers_add_and_shift() -> None:
    source, out = Value("x", Type.I16, (2, 4, 4)), Value("y", Type.I16, (2, 2, 2))
    found = node_counts("avg_pool", source, out, attrs=pool_attrs("avg_pool", 2, 2, 0))
    assert found == {"additions": 3 * 8, "shifts": 8}
    total = Value("s", Type.I32, (2, 1, 1))
    assert node_counts("global_sum", source, total, attrs={"area": 16}) == {"additions": 32}


def network() -> nn.Module:
    torch.manual_seed(0)
    return signbit.create_model("ab_reactnet18", num_classes=5, stem="cifar", width=0.125).eval()


def test_an_integer_program_is_certified(tmp_path) -> None:
    images = torch.randn(2, 3, 32, 32)
    compiled = signbit.compile(network(), images, preprocessing=PIXELS, arithmetic="integer")
    certificate = certify_file(compiled.save(tmp_path / "a.signbit"))
    assert certificate.total.multiplications == 0
    assert certificate.multiplication_free
    assert [la.path for la in certificate.layers if la.kernel == "pixel_table"] == ["stem.0"]
    assert certificate.total == certify(compiled.graph).total
    assert certificate.total.look_ups > 1_000_000


@pytest.mark.parametrize("way", ["stem", "float"])
def test_layers_that_multiply_are_named(way: str, tmp_path) -> None:
    images = torch.randn(2, 3, 32, 32)
    if way == "stem":
        compiled = signbit.compile(
            network(),
            images,
            preprocessing=PIXELS,
            arithmetic="integer",
            integer=IntegerOptions(stem="multiply"),
        )
    else:
        in_8bit = signbit.calibrate(signbit.to_8bit(network(), images), [images])
        compiled = signbit.compile(in_8bit, images, preprocessing=PIXELS)
    certificate = certify_file(compiled.save(tmp_path / "a.signbit"))
    assert certificate.total.multiplications > 0
    assert not certificate.multiplication_free
    assert "stem.0" in certificate.multiplying
    assert (certificate.multiplying == ["stem.0"]) == (way == "stem")


def test_real_numbers_at_the_input_are_multiplied(tmp_path) -> None:
    images = torch.randn(2, 3, 32, 32)
    compiled = signbit.compile(network(), images, arithmetic="integer")
    certificate = certify_file(compiled.save(tmp_path / "a.signbit"))
    assert certificate.multiplying == ["stem.0"]
    assert certificate.total.multiplications == 3 * 32 * 32


class Wide(nn.Module):
    """Has more kernels than the networks of the zoo: large and small maps, groups of shifts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.sign = RSign(16)
        self.conv = BinaryConv2d(16, 16, 3, 1, 1)
        self.act = QRPReLU(16)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.act(0.25 * self.conv(self.sign(x)) + x))


def test_a_network_of_ones_own_is_certified(tmp_path) -> None:
    compiled = signbit.compile(
        Wide().eval(), torch.randn(1, 3, 48, 48), preprocessing=PIXELS, arithmetic="integer"
    )
    assert certify_file(compiled.save(tmp_path / "a.signbit")).multiplication_free


def test_a_kernel_that_nobody_has_looked_at_is_no_proof() -> None:
    compiled = signbit.compile(
        Wide().eval(), torch.randn(1, 3, 16, 16), preprocessing=PIXELS, arithmetic="integer"
    )
    plan = [
        {"name": node.path, "op": node.op, "kernel": "look_up_int"} for node in compiled.graph.nodes
    ]
    assert certify(compiled.graph, plan).multiplication_free
    plan[-1]["kernel"] = "brand_new"
    certificate = certify(compiled.graph, plan)
    assert (certificate.multiplying, certificate.unsure) == ([], ["head"])
    assert not certificate.multiplication_free


def test_a_plan_of_another_program_is_refused() -> None:
    compiled = signbit.compile(
        Wide().eval(), torch.randn(1, 3, 16, 16), preprocessing=PIXELS, arithmetic="integer"
    )
    with pytest.raises(ValueError, match="the plan runs another program: it has no stem"):
        certify(compiled.graph, [])


# --- the machine's instructions ---

MULTIPLY = re.compile(
    r"v?p(mul|madd)\w*|v?mul[sp][sdh]|v?fn?m(add|sub)\w*|v?pdp\w+|vdpb\w+|i?mulx?[bwlq]?|"
    r"i?div[bwlq]?|v?div[sp][sdh]|v?dpp[sd]|vdbpsadbw"
)
SCALAR = re.compile(r"i?mulx?[bwlq]?|i?div[bwlq]?")
ADDRESS = re.compile(r"%r(?:[abcd]x|[sd]i|[sb]p|\d+)$")  # the result: a 64-bit register
JUMP = re.compile(r"j\w+\s+([0-9a-f]+)\b")
CALL = re.compile(r"(?:callq?|jmpq?)\s+([0-9a-f]+)\b")


@dataclass
class Function:
    """A function of the library: addresses and instructions."""

    name: str
    instructions: list[tuple[int, str]] = field(default_factory=list)

    def innermost(self) -> set[int]:
        """Addresses of the instructions that lie in a loop without another loop in it."""
        bodies = self._loops()
        return {
            address
            for head, body in bodies.items()
            if not any(other != head and other in body for other in bodies)
            for address in body
        }

    def _loops(self) -> dict[int, set[int]]:
        """Natural loops: the address at their head -> the addresses of their instructions."""
        addresses = [address for address, _ in self.instructions]
        known = set(addresses)
        before: dict[int, list[int]] = {address: [] for address in addresses}
        back: list[tuple[int, int]] = []
        for (address, text), following in zip(
            self.instructions, [*addresses[1:], None], strict=True
        ):
            jump = JUMP.match(text)
            if jump and int(jump[1], 16) in known:
                target = int(jump[1], 16)
                before[target].append(address)
                if target <= address:
                    back.append((target, address))
            if following is not None and not text.startswith(("jmp", "ret")):
                before[following].append(address)
        loops: dict[int, set[int]] = {}
        for head, end in back:
            body = loops.setdefault(head, {head})
            pending = [end]
            while pending:
                address = pending.pop()
                if address not in body:
                    body.add(address)
                    pending += before[address]
        return loops

    def multiplications(self) -> list[str]:
        """Those of vectors, anywhere, and those of numbers of 32 bits or less in innermost loops.

        What 64-bit registers hold is an address: no number of an integer program is as wide.
        """
        innermost = self.innermost()
        return [
            f"{self.name}: {address:x}: {text}"
            for address, text in self.instructions
            if MULTIPLY.fullmatch(text.split()[0])
            and (
                not SCALAR.fullmatch(text.split()[0])
                or (address in innermost and not ADDRESS.search(text))
            )
        ]


@pytest.fixture(scope="module")
def functions() -> dict[int, Function]:
    """The engine, disassembled: functions by their first address."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the instructions that are looked for are those of x86-64")
    if shutil.which("objdump") is None:
        pytest.skip("no objdump")
    command = ["objdump", "-d", "-C", "--no-show-raw-insn", library()._name]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[int, Function] = {}
    current = Function("")
    for line in text.splitlines():
        head = re.match(r"([0-9a-f]{16}) <(.*)>:$", line)
        if head:
            current = found[int(head[1], 16)] = Function(head[2])
            continue
        code = re.match(r"\s*([0-9a-f]+):\t(.*)", line)
        if code and code[2]:
            current.instructions.append((int(code[1], 16), code[2].strip()))
    return found


def reachable(functions: dict[int, Function], kernel: str, isa: str) -> list[Function]:
    """A kernel and all that it calls."""
    # instruction sets that have some kernels of their own, and the others of smaller ones
    sets = {"amx": "(amx|avx512_popcnt|avx512)", "avx512_popcnt": "(avx512_popcnt|avx512)"}
    name = re.compile(rf"signbit::{sets.get(isa, isa)}::{kernel}\(.*")
    pending = [at for at, function in functions.items() if name.fullmatch(function.name)]
    assert pending or (kernel.startswith("words") and isa not in sets), (
        f"{kernel} of {isa} is not in the library"
    )
    seen: set[int] = set()
    while pending:
        at = pending.pop()
        if at in seen:
            continue
        seen.add(at)
        for _, text in functions[at].instructions:
            call = CALL.match(text)
            if call and int(call[1], 16) in functions:
                pending.append(int(call[1], 16))
    return [functions[at] for at in sorted(seen)]


@pytest.mark.parametrize("kernel", sorted(set(MULTIPLICATION_FREE_KERNELS.values())))
def test_kernels_of_integer_programs_do_not_multiply(kernel: str, functions) -> None:
    for isa in instruction_sets():
        for function in reachable(functions, kernel, isa):
            assert function.multiplications() == []


@pytest.mark.parametrize("kernel", ["q8_conv", "binary_conv", "avg_pool_f32", "pointwise"])
def test_multiplications_are_found_where_they_are(kernel: str, functions) -> None:
    for isa in instruction_sets():
        found = [m for f in reachable(functions, kernel, isa) for m in f.multiplications()]
        assert found, isa

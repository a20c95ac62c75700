"""Element-wise work of the compiled graph: what steps and poolings cost by kind, for one image.

What counts as one operation, and why:

* `add`: an addition or subtraction, saturating ones and those of 4-bit integers too.
* `multiply`: of two numbers.
* `compare`: with a threshold or a bound. A bit that follows from two cuts takes two. Sixteen levels
  that 15 cuts tell apart take 4: the cuts are sorted, and a search halves them.
* `shift`: by a constant.
* `select`: one of two numbers by a sign bit, as in a PReLU; ReLU is one of those and nothing more.
* `look_up`: a table of constants; sigmoids are one, as accelerators have them.
* `convert`: from one format of numbers to another: integer sums to real numbers, rounding and
  clipping to 8 or 4 bits, bits to numbers. Numbers become bits by a `compare`, which is not counted
  twice.

Numbers that only move (channels, nearest resizing, pixel shuffle) cost nothing here; they are in
the traffic. A step costs what its kind needs, whatever its constants are, for those of untrained
networks are trivial: batch norm adds although its bias is still 0, and a slope of 0.25 is a
multiplication as long as it is a real number (fixed-point programs shift, and their steps say so).
Only what is void in every channel is left out: scales of +1 and -1, slopes of 0, which are ReLU.

Parameters are counted in bits of a read-only memory: real numbers take 32, integers the narrowest
two's complement that holds all of a layer's array; cuts that no sum reaches are not stored.

Imports NumPy only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from signbit.compiler.ir import INT32_MAX, INT32_MIN, Node, Step, Type

_REAL_STEPS = (
    "affine", "rprelu", "prelu", "sign", "quant8", "mul", "clip", "sigmoid", "quant16",
)  # fmt: skip
_LEVELS = 16  # of 4 bits
_FLOAT_BITS = 32


def node_work(node: Node) -> Counter[str]:
    """Kind to operations of a node of a lowered graph, its epilogue included."""
    pixels = math.prod(node.outputs[0].shape[1:])
    found = pool_work(node)
    integer = node.op.startswith("conv") or node.inputs[0].type == Type.I16
    if node.op == "pointwise" and node.inputs[0].type == Type.B1:
        found["convert"] += math.prod(node.outputs[0].shape)
    for step in node.epilogue:
        if integer and _is_real(step):
            found["convert"] += math.prod(node.outputs[0].shape)
            integer = False
        for kind, channels in step_work(step, node.outputs[0].channels).items():
            found[kind] += channels * pixels
    return +found


def _is_real(step: Step) -> bool:
    """Whether a step needs a real number: an integer sum is made one before it."""
    if step.kind in _REAL_STEPS:
        return True
    return step.kind in ("add", "store") and step.value.type == Type.F32


def step_work(step: Step, channels: int) -> Counter[str]:
    """Kind to operations of a step, for one pixel of all channels."""
    return _STEPS[step.kind](step, channels)


def factors(scale: np.ndarray) -> Counter[str]:
    """Multiplications by constants, one a number; none where all are 0, +1 or -1."""
    return Counter(multiply=0 if np.isin(np.abs(scale), (0, 1)).all() else scale.size)


# --- steps ---


def _affine(step: Step, channels: int) -> Counter[str]:
    return factors(step.params["scale"]) + Counter(add=channels)


def _rprelu(step: Step, channels: int) -> Counter[str]:
    return _prelu(step, channels) + Counter(add=2 * channels)


def _prelu(step: Step, channels: int) -> Counter[str]:
    return factors(step.params["slope"]) + Counter(select=channels)


def _quant4_ladder(step: Step, channels: int) -> Counter[str]:
    return Counter(compare=channels * (_LEVELS - 1).bit_length())


def _threshold(step: Step, channels: int) -> Counter[str]:
    return Counter(compare=len(_cuts(step)))


def _clip(step: Step, channels: int) -> Counter[str]:
    bounds = sum(math.isfinite(step.attrs[name]) for name in ("minimum", "maximum"))
    return Counter(compare=bounds * channels)


def _shift_sum(step: Step, channels: int) -> Counter[str]:
    used = step.params["signs"] != 0
    return Counter(
        add=int(np.maximum(used.sum(1) - 1, 0).sum()),
        shift=int((used & (step.params["shifts"] != 0)).sum()),
    )


def _shift_prelu(step: Step, channels: int) -> Counter[str]:
    return _shift_sum(step, channels) + Counter(add=2 * channels, select=channels)


def _each(*kinds: str) -> Callable[[Step, int], Counter[str]]:
    """One operation of each kind a number."""
    return lambda step, channels: Counter(dict.fromkeys(kinds, channels))


_STEPS: dict[str, Callable[[Step, int], Counter[str]]] = {
    "affine": _affine,
    "add": _each("add"),
    "rprelu": _rprelu,
    "prelu": _prelu,
    "quant4_shift": _each("multiply", "add", "shift", "convert"),
    "quant4_ladder": _quant4_ladder,
    "store": _each(),
    "threshold": _threshold,
    "sign": _each("compare"),
    "quant8": _each("multiply", "convert"),
    "quant16": _each("multiply", "convert"),
    "mul": _each("multiply"),
    "clip": _clip,
    "sigmoid": _each("look_up"),
    "bias": _each("add"),
    "shift_sum": _shift_sum,
    "shift_prelu": _shift_prelu,
}

# --- poolings, lowered or captured ---


def pool_work(node: Node) -> Counter[str]:
    """Kind to operations of a pooling or resizing node; empty for every other one."""
    numbers = math.prod(node.outputs[0].shape)
    _, height, width = node.inputs[0].shape
    a = node.attrs
    if node.op == "max_pool":
        return Counter(compare=(a["kernel_h"] * a["kernel_w"] - 1) * numbers)
    if node.op == "avg_pool":
        return _average(a["kernel_h"] * a["kernel_w"] * numbers, numbers)
    if node.op == "global_avg_pool":
        return _average(height * width * numbers, numbers)
    if node.op == "global_sum":
        return Counter(add=(height * width - 1) * numbers)
    if node.op == "adaptive_pool":
        rows, columns = _windows(height, a["out_h"]), _windows(width, a["out_w"])
        read = node.outputs[0].channels * rows * columns
        return Counter(compare=read - numbers) if a["take_max"] else _average(read, numbers)
    if node.op == "resize" and a["mode"] != 0:
        # two numbers of two rows each with its weight, then the two rows
        return Counter(add=3 * numbers, multiply=6 * numbers)
    return Counter()


def _average(read: int, numbers: int) -> Counter[str]:
    """`numbers` means of `read` numbers: of a power of two numbers each, a shift divides."""
    window, rest = divmod(read, numbers)
    is_shift = not rest and window & (window - 1) == 0
    divided = Counter({"shift" if is_shift else "multiply": numbers if window > 1 else 0})
    return divided + Counter(add=read - numbers)


def _windows(size: int, count: int) -> int:
    """Lengths of all windows of an adaptive pooling along one axis."""
    return sum(-(-(i + 1) * size // count) - i * size // count for i in range(count))


# --- parameters ---


def weight_width(weight: np.ndarray) -> int:
    """Bits of a weight: 1 where all are -s or +s of one s, 4 where all fit 4 bits, else 8."""
    magnitude = np.abs(weight.astype(np.int16))
    if magnitude.min() == magnitude.max() > 0:
        return 1
    return 4 if weight.min() >= -8 and weight.max() <= 7 else 8


def parameter_bits(steps: Iterable[Step]) -> int:
    """Bits of all constants of an epilogue."""
    return sum(_step_bits(step) for step in steps)


def _step_bits(step: Step) -> int:
    if step.kind == "threshold":
        cuts = _cuts(step)
        # with each channel's cuts, which side of them is +1
        return len(cuts) * integer_width(cuts) + len(step.params["flip"])
    if step.kind in ("shift_sum", "shift_prelu"):
        return _shift_bits(step)
    bits = 0
    for name, array in step.params.items():
        if np.issubdtype(array.dtype, np.floating):
            void = 1.0 if name in ("scale", "slope") else 0.0
            bits += 0 if (array == void).all() else _FLOAT_BITS * array.size
        else:
            kept = array[(array != INT32_MIN) & (array != INT32_MAX)]
            bits += kept.size * integer_width(kept)
    return bits


def _cuts(step: Step) -> np.ndarray:
    low, high = step.params["low"], step.params["high"]
    return np.concatenate([low[low != INT32_MIN], high[high != INT32_MAX]])


def _shift_bits(step: Step) -> int:
    """A sign and a shift for each digit in use, and the constants that are added."""
    used = step.params["signs"] != 0
    bits = int(used.sum()) * (1 + integer_width(step.params["shifts"][used]))
    for name in ("shift_in", "shift_out"):
        if name in step.params:
            bits += step.params[name].size * integer_width(step.params[name])
    return bits


def integer_width(array: np.ndarray) -> int:
    """Bits of the narrowest two's complement that holds all numbers; 0 if all are 0, or none is."""
    if not array.size or not array.any():
        return 0
    low, high = int(array.min()), int(array.max())
    return 1 + max(high.bit_length() if high > 0 else 0, (~low).bit_length() if low < 0 else 0)

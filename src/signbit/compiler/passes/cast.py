"""The one rounding: arrays take the types that the file stores."""

from __future__ import annotations

import numpy as np

from signbit.compiler.ir import FLOAT_ATTRS, INT32_MAX, INT32_MIN, Graph
from signbit.errors import CompileError

INTEGERS = {
    **dict.fromkeys(("low", "high", "cuts", "multiplier", "offset", "index"), np.int32),
    "flip": np.uint8,
    "weight": np.int8,
}


def cast(graph: Graph, precision: type[np.floating]) -> Graph:
    """Give every array its type, `precision` to real-valued ones; in place, returns the graph.

    Raises CompileError, naming the layer, for a number that its type cannot hold.
    """
    for node in graph.nodes:
        node.params = {
            name: _cast(name, a, precision, node.path) for name, a in node.params.items()
        }
        for step in node.epilogue:
            step.params = {
                name: _cast(name, a, precision, node.path) for name, a in step.params.items()
            }
            for name, number in step.attrs.items():
                # the layer itself multiplies by a float32
                if name == "inv_scale" or (name in FLOAT_ATTRS and precision is np.float32):
                    step.attrs[name] = float(np.float32(number))
    return graph


def _cast(name: str, array: np.ndarray, precision: type[np.floating], path: str) -> np.ndarray:
    kind = INTEGERS.get(name)
    if kind is not None:
        if (
            kind is np.int32
            and array.size
            and not INT32_MIN <= array.min() <= array.max() <= INT32_MAX
        ):
            raise CompileError(f"{path}: {name} does not fit into 32 bits")
        return np.array(array, kind)
    with np.errstate(over="ignore"):
        real = np.array(array, precision)
    if not np.isfinite(real).all():
        channel = int(np.argmin(np.isfinite(real)))
        raise CompileError(
            f"{path}: {name} of channel {channel} is {array.flat[channel]}, beyond float32: look "
            "at the scales and running_var of the layers around it"
        )
    return real

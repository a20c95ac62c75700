"""The one rounding: arrays take the types that the file stores."""

from __future__ import annotations

import numpy as np

from signbit.compiler.ir import INT32_MAX, INT32_MIN, Graph
from signbit.errors import CompileError

_INT32 = ("low", "high", "cuts", "multiplier", "offset")
_UINT8 = ("flip",)
_INT8 = ("weight",)


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
            if "inv_scale" in step.attrs:
                step.attrs["inv_scale"] = float(np.float32(step.attrs["inv_scale"]))
    return graph


def _cast(name: str, array: np.ndarray, precision: type[np.floating], path: str) -> np.ndarray:
    if name in _INT32:
        if array.size and not INT32_MIN <= array.min() <= array.max() <= INT32_MAX:
            raise CompileError(f"{path}: {name} does not fit into 32 bits")
        return np.ascontiguousarray(array, np.int32)
    if name in _UINT8:
        return np.ascontiguousarray(array, np.uint8)
    if name in _INT8:
        return np.ascontiguousarray(array, np.int8)
    with np.errstate(over="ignore"):
        real = np.ascontiguousarray(array, precision)
    if not np.isfinite(real).all():
        channel = int(np.argmin(np.isfinite(real)))
        raise CompileError(
            f"{path}: {name} of channel {channel} is {array.flat[channel]}, beyond float32: look "
            "at the scales and running_var of the layers around it"
        )
    return real

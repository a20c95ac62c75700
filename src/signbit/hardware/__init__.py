"""What a network costs on hardware: counts, workloads, models of accelerators, energy, circuits.

Imports NumPy only; reading ONNX files needs onnx, presets need PyYAML.
"""

from importlib import import_module

from signbit.hardware.counts import Count, Operations, count, count_layers

_HOMES = {
    "Product": "signbit.hardware.workload",
    "Work": "signbit.hardware.workload",
    "Workload": "signbit.hardware.workload",
    "workload_of": "signbit.hardware.workload",
    "workload_of_captured": "signbit.hardware.captured",
    "workload_of_onnx": "signbit.hardware.onnx_graph",
}

__all__ = [
    "Count",
    "Operations",
    "Product",
    "Work",
    "Workload",
    "count",
    "count_layers",
    "workload_of",
    "workload_of_captured",
    "workload_of_onnx",
]


def __getattr__(name: str) -> object:
    # the compiler's summary reads the counts, and workloads read the compiler's files
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)

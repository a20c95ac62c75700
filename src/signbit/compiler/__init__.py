"""The compiler: from a PyTorch model to a bit-packed program, and its meaning in NumPy.

`compile` captures a model, lowers it and verifies the result. `ir`, `emit` and `reference` need
NumPy only; everything that needs PyTorch is loaded when it is first asked for.
"""

from importlib import import_module

_HOMES = {
    "CompiledModel": "signbit.compiler.compiled",
    "IntegerOptions": "signbit.compiler.passes.integer",
    "compile": "signbit.compiler.compiled",
    "diff": "signbit.compiler.diff",
    "read_graph": "signbit.compiler.emit",
    "summarize": "signbit.compiler.summary",
}

__all__ = ["CompiledModel", "IntegerOptions", "compile", "diff", "read_graph", "summarize"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)

"""Circuits: Verilog of a layer or block of a compiled network. Imports NumPy only."""

from signbit.hardware.rtl.blocks import find_block, supported
from signbit.hardware.rtl.circuit import Circuit, Options, build
from signbit.hardware.rtl.errors import CircuitError

__all__ = ["Circuit", "CircuitError", "Options", "build", "find_block", "supported"]

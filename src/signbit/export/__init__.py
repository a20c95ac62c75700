"""Programs in other forms."""

from signbit.export.weights import read_weights, save_header, save_weights

__all__ = ["read_weights", "save_header", "save_weights"]

"""What a network costs on hardware: operation counts. Imports NumPy only."""

from signbit.hardware.counts import Count, count, count_layers

__all__ = ["Count", "count", "count_layers"]

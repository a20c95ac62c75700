"""Per-channel parameters of elementwise layers."""

from torch import Tensor


def per_channel(parameter: Tensor, x: Tensor, layer: str) -> Tensor:
    """View a [C] parameter so that it broadcasts over dimension 1 of ``x`` [N, C, ...].

    Raises ValueError, naming ``layer``, if x does not have C channels there.
    """
    channels = parameter.shape[0]
    if x.dim() < 2 or x.shape[1] != channels:
        raise ValueError(f"{layer} expects [N, {channels}, ...], got {tuple(x.shape)}")
    return parameter.view(1, channels, *([1] * (x.dim() - 2)))


def check_channels(layer: str, **counts: int) -> None:
    """Raise ValueError unless every count is a positive integer."""
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{layer}: {name} must be a positive integer, got {count!r}")

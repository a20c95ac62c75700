"""Arguments that convolutions share."""

from signbit.nn.channels import check_channels


def pair(name: str, value: int | tuple[int, int], least: int) -> tuple[int, int]:
    """Return ``value`` as two integers (height, width); raises ValueError below ``least``."""
    two = (value, value) if isinstance(value, int) else tuple(value)
    if len(two) != 2 or not all(isinstance(v, int) and v >= least for v in two):
        raise ValueError(f"{name} must be one or two integers >= {least}, got {value!r}")
    return two


def check_groups(layer: str, in_channels: int, out_channels: int, groups: int) -> None:
    """Raise ValueError unless the channels are positive and ``groups`` divides both."""
    check_channels(layer, in_channels=in_channels, out_channels=out_channels, groups=groups)
    if in_channels % groups or out_channels % groups:
        raise ValueError(
            f"{layer}: groups={groups} must divide in_channels={in_channels} "
            f"and out_channels={out_channels}"
        )

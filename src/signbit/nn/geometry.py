"""Arguments that convolutions share."""

from torch import nn

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


def against_padding(conv: nn.Module) -> str | None:
    """Why no convolution of this project pads as ``conv`` does; None if one can."""
    mode = getattr(conv, "padding_mode", "zeros")  # the project's own know no other
    if mode != "zeros":
        return f"padding_mode={mode!r} is not known: use 'zeros'"
    reach = zip(conv.dilation, conv.kernel_size, strict=True)
    if conv.padding == "same" and any(d * (k - 1) % 2 for d, k in reach):
        return "padding='same' is not symmetric for this kernel: use an odd kernel, or numbers"
    return None


def conv_arguments(conv: nn.Module) -> dict[str, object]:
    """The geometry of a convolution, its padding in numbers, as this project's are built with it.

    ``conv`` is one that :func:`against_padding` has nothing against.
    """
    padding = conv.padding
    if isinstance(padding, str):
        same = zip(conv.dilation, conv.kernel_size, strict=True)
        padding = tuple(d * (k - 1) // 2 if padding == "same" else 0 for d, k in same)
    return {
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "kernel_size": conv.kernel_size,
        "stride": conv.stride,
        "padding": padding,
        "dilation": conv.dilation,
        "groups": conv.groups,
    }

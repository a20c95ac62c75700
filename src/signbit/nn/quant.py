"""What 8-bit and 4-bit layers share: the input's range and scale, and the exact integer arithmetic.

Activations are unsigned integers with an exact integer zero point, weights signed, symmetric, with
one scale per output channel; both have 8 bits, or both 4. Both scales are static: they are in the
state dict, and the compiler copies them. The product is taken between integers held in floating
point, which is exact as long as no sum can exceed the mantissa, so that PyTorch and an integer
engine agree to the last bit of the accumulator.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from signbit.nn.precision import at_least_float32, without_autocast
from signbit.quantizers import round_half_even

BITS = (4, 8)
AVERAGING = 0.1  # share of a training batch in the moving range


class QuantLayer(nn.Module):
    """A layer of 8 or 4 bits with a static input scale.

    Attributes: ``bits`` of inputs and weights, 8 or 4; ``levels`` = 2^bits - 1, the greatest input
    (255 or 15); ``weight_limit`` = 2^(bits - 1) - 1, the greatest weight (127 or 7).

    Buffers, all scalars in the state dict: ``input_scale`` and ``inv_input_scale`` = float32(1 /
    scale), ``input_zero_point`` (int64), the observed ``range_min`` and ``range_max``,
    ``calibrated`` (a range has been seen) and ``frozen``.

    ``q = clip(round_half_even(x * inv_input_scale) + zero_point, 0, levels)``; ``wq =
    clip(round_half_even(w / ws), -weight_limit, weight_limit)``, ``ws_c = max |w_c| /
    weight_limit``; ``y = acc(q - zero_point, wq) * float32(input_scale * ws) + bias`` with an exact
    integer ``acc``. Gradients pass straight through the roundings, and are 0 for inputs that are
    clipped.

    In training the range follows an exponential moving average of each batch's minimum and maximum
    until :meth:`freeze`. In evaluation it stands still; before any range has been seen the layer is
    the real-valued one. A state dict of the other bits brings its range: scale and zero point
    follow from it.

    Raises ValueError for other bits.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, bits: int = 8):
        super().__init__()
        check_bits(type(self).__name__, bits)
        self.bits = bits
        self.observing = False
        self.register_buffer("range_min", torch.zeros(()))
        self.register_buffer("range_max", torch.zeros(()))
        self.register_buffer("input_scale", torch.ones(()))
        self.register_buffer("inv_input_scale", torch.ones(()))
        self.register_buffer("input_zero_point", torch.zeros((), dtype=torch.int64))
        self.register_buffer("calibrated", torch.tensor(False))
        self.register_buffer("frozen", torch.tensor(False))
        self._flags = (False, False)

    @property
    def levels(self) -> int:
        """The greatest integer that an input becomes; the least is 0."""
        return 2**self.bits - 1

    @property
    def weight_limit(self) -> int:
        """The greatest magnitude of an integer weight."""
        return 2 ** (self.bits - 1) - 1

    # --- the range ---

    def freeze(self) -> None:
        """Keep the range as it is, in training too. Raises ValueError if no range has been seen."""
        if not self.calibrated:
            raise ValueError(f"{type(self).__name__}: no input range to freeze; calibrate first")
        self.frozen.fill_(True)
        self._read_flags()

    def unfreeze(self) -> None:
        """Let the range follow the training batches again."""
        self.frozen.fill_(False)
        self._read_flags()

    @torch.no_grad()
    def set_input_range(self, low: float | Tensor, high: float | Tensor) -> None:
        """Set the input's range, widened to contain 0, and with it scale and zero point.

        A range too narrow for a float32 scale (all inputs zero) gets scale 1. Raises ValueError if
        the limits are not finite or out of order.
        """
        low = torch.as_tensor(low, dtype=torch.float32, device=self.range_min.device)
        high = torch.as_tensor(high, dtype=torch.float32, device=self.range_min.device)
        if not (torch.isfinite(low) and torch.isfinite(high) and low <= high):
            interval = f"{low.item()}..{high.item()}"
            raise ValueError(f"{type(self).__name__}: input range {interval} is no finite interval")
        low, high = low.clamp_max(0.0), high.clamp_min(0.0)
        # Divided before subtracting, so that the widest range does not overflow.
        scale = high / self.levels - low / self.levels
        scale = torch.where(scale > 1e-30, scale, 1.0)
        self.range_min.copy_(low)
        self.range_max.copy_(high)
        self.input_scale.copy_(scale)
        self.inv_input_scale.copy_(1.0 / scale)
        self.input_zero_point.copy_(torch.round(-low / scale).clamp(0, self.levels))
        self.calibrated.fill_(True)
        self._read_flags()

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        """Move the range towards this training batch's."""
        low, high = torch.aminmax(x.detach().float())
        low, high = low.clamp_max(0.0), high.clamp_min(0.0)
        if self.calibrated:
            low = torch.lerp(self.range_min.float(), low, AVERAGING)
            high = torch.lerp(self.range_max.float(), high, AVERAGING)
        self.set_input_range(low, high)

    def _read_flags(self) -> tuple[bool, bool]:
        """``calibrated`` and ``frozen`` as Python booleans."""
        # While a compiler traces, buffers have no values: it gets those that the layer had before.
        if not torch.compiler.is_compiling():
            self._flags = (bool(self.calibrated), bool(self.frozen))
        return self._flags

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        calibrated, _ = self._read_flags()
        if calibrated and self._has_scale_of_other_bits():
            self.set_input_range(self.range_min, self.range_max)

    def _has_scale_of_other_bits(self) -> bool:
        steps = (self.range_max / self.input_scale - self.range_min / self.input_scale).item()
        return any(bits != self.bits and abs(steps - 2**bits + 1) < 0.5 for bits in BITS)

    # --- the arithmetic ---

    @torch.no_grad()
    def quantized_weight(self) -> tuple[Tensor, Tensor]:
        """Return the compiled weight: ``wq`` (int8, shape of ``weight``), ``ws`` (float32 [O])."""
        ws = self._weight_scale()
        return self._integer_weight(ws).to(torch.int8), ws

    def _weight_scale(self) -> Tensor:
        ws = self.weight.detach().float().abs().flatten(1).amax(1) / self.weight_limit
        return torch.where(ws >= torch.finfo(torch.float32).tiny, ws, 1.0)

    def _integer_weight(self, ws: Tensor) -> Tensor:
        ws = ws.view(-1, *([1] * (self.weight.dim() - 1)))
        wq = round_half_even(self.weight.float() / ws)
        return wq.clamp(-self.weight_limit, self.weight_limit)

    def _centred_input(self, x: Tensor) -> Tensor:
        """``q - zero_point``: integers, and 0 for x = 0."""
        zero_point = self.input_zero_point.to(x.dtype)
        return round_half_even(x * self.inv_input_scale).clamp(
            -zero_point, self.levels - zero_point
        )

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply the layer's linear map."""
        raise NotImplementedError

    def _broadcast(self, channels: Tensor) -> Tensor:
        """View [O] so that it broadcasts over the output."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        calibrated, frozen = self._read_flags()
        if self.training and not frozen and not self.observing:
            self._follow(x)
            calibrated = True
        if self.observing or not calibrated:
            return self._product(x, self.weight, self.bias)
        with without_autocast(x):
            return self._quantized(at_least_float32(x))

    def _quantized(self, x: Tensor) -> Tensor:
        """Apply the layer in integers, scale the sums and add the bias."""
        ws = self._weight_scale()
        # The largest possible sum decides whether float32 holds it exactly.
        fan_in = self.weight[0].numel()
        largest = fan_in * self.levels * self.weight_limit
        exact = torch.float32 if largest < 1 << 24 else torch.float64
        q, wq = self._centred_input(x).to(exact), self._integer_weight(ws).to(exact)
        scale = self.input_scale.float() * ws
        y = self._product(q, wq, None).to(x.dtype) * self._broadcast(scale.to(x.dtype))
        return y if self.bias is None else y + self._broadcast(self.bias)


def check_bits(layer: str, bits: int) -> None:
    """Raise ValueError unless ``bits`` is one of the known numbers of bits."""
    if type(bits) is not int or bits not in BITS:
        known = " or ".join(map(str, BITS))
        raise ValueError(f"{layer}: bits must be {known}, got {bits!r}")


@contextmanager
def observing(layers: list[QuantLayer]) -> Iterator[None]:
    """Within the context, the layers compute in real numbers and leave their ranges alone."""
    for layer in layers:
        layer.observing = True
    try:
        yield
    finally:
        for layer in layers:
            layer.observing = False

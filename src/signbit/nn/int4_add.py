"""The 4-bit addition between the two paths of a BiNeal block."""

import math

import torch
from torch import Tensor, nn

from signbit.quantizers import round_half_even, scale_gradient


class Int4Add(nn.Module):
    """Add two tensors as 4-bit integers that share one power-of-two scale.

    Operands of one shape -> the same shape: ``s = 2**round(log2_scale)``, ``q_i =
    clip(round_half_even(y_i / s), -8, 7)``, ``out = (q_a + q_b) * s``. The sum has 5 bits
    (-16..14); a threshold on it reads the sum, not the operands.

    Gradients, straight through both roundings: ``dy_i = dout`` where q_i is not clipped, else 0;
    and ``dlog2_scale = g * ln2 * s * sum dout * sum_i (q_i - y_i / s if not clipped, else q_i)``,
    where ``g = 1 / sqrt(7 * numel)`` keeps one scalar's gradient in proportion to the weights'
    (LSQ, arXiv 1902.08153). The default start, s = 1/2, spans +-4 standard deviations of a fresh
    batch norm's output.

    Raises ValueError if the shapes differ. Source: [RECON] of BiNeal networks, arXiv 2202.03716.
    """

    LOW = -8
    HIGH = 7

    def __init__(self, init_log2_scale: float = -1.0):
        super().__init__()
        if not math.isfinite(init_log2_scale):
            raise ValueError(f"init_log2_scale must be finite, got {init_log2_scale}")
        self.log2_scale = nn.Parameter(torch.tensor(float(init_log2_scale)))

    @property
    def scale(self) -> float:
        """The scale that both operands share, a power of two."""
        return 2.0 ** round(self.log2_scale.item())

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if a.shape != b.shape:
            raise ValueError(f"Int4Add: shapes differ, {tuple(a.shape)} and {tuple(b.shape)}")
        log2_scale = scale_gradient(self.log2_scale, 1.0 / math.sqrt(self.HIGH * a.numel()))
        scale = torch.exp2(round_half_even(log2_scale)).to(a.dtype)
        q_a = round_half_even(a / scale).clamp(self.LOW, self.HIGH)
        q_b = round_half_even(b / scale).clamp(self.LOW, self.HIGH)
        return (q_a + q_b) * scale

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}"

"""What binary layers share: latent weights, their binarizer, and the two stages of training."""

import math

import torch
from torch import Tensor, nn

from signbit.nn.modes import evaluating
from signbit.nn.precision import at_least_float32, without_autocast
from signbit.quantizers import ProgressiveSign, WeightQuantizer, get_weight_quantizer


class FixedWeight(WeightQuantizer):
    """A binarizer that answers what another one said, whatever the latent weights are."""

    def __init__(self, signs: Tensor, scale: Tensor):
        super().__init__()
        self.register_buffer("signs", signs.to(scale.dtype))
        self.register_buffer("scale", scale)

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.signs, self.scale


class BinaryLayer(nn.Module):
    """A layer whose weight bits are the signs of latent real weights.

    ``weight`` [O, ...] is the latent parameter that the optimiser moves. ``binary_weights`` is
    True; where it is False the layer uses the latent weights themselves, or the real weights that
    its binarizer makes of them (stage one of two-stage training, arXiv 2003.03488). It is a setting
    of the recipe and not part of the state dict. ``latent_clamp`` limits |weight|, so that a weight
    can always come back across zero: each forward pass in training clamps the latent weights before
    it uses them. ``bias`` [O], real and None unless asked for, is added behind the scale.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        weight_shape: tuple[int, ...],
        weight_quantizer: str | WeightQuantizer,
        latent_clamp: float | None,
        bias: bool = False,
    ):
        super().__init__()
        if latent_clamp is not None and not (math.isfinite(latent_clamp) and latent_clamp > 0):
            raise ValueError(f"latent_clamp must be a positive number or None, got {latent_clamp}")
        self.weight = nn.Parameter(torch.empty(weight_shape))
        self.bias = nn.Parameter(torch.empty(weight_shape[0])) if bias else None
        self.weight_quantizer = get_weight_quantizer(weight_quantizer, weight_shape[0])
        self.latent_clamp = latent_clamp
        self.binary_weights = True
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new latent weights (a tenth of Glorot uniform); the binarizer starts from them.

        The bias becomes 0.
        """
        # Only signs count, so the size of a latent weight sets how many steps it needs to flip.
        # At a tenth, Adam flips early on at the usual learning rates instead of ten times these.
        nn.init.xavier_uniform_(self.weight, gain=0.1)
        self.weight_quantizer.init_from(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def clamp_latent_(self, limit: float) -> None:
        """Clamp the latent weights to -limit..limit, in place."""
        # Through .data: a layer used twice in one forward must not invalidate what autograd saved.
        self.weight.data.clamp_(-limit, limit)

    def set_binary_weights(self, enabled: bool) -> None:
        """Switch between weight bits and latent weights.

        Going to bits, a learned scale restarts from the weights that stage one has learned.
        """
        if enabled and not self.binary_weights:
            self.weight_quantizer.init_from(self.weight)
        self.binary_weights = enabled

    @torch.no_grad()
    def binary_weight(self) -> tuple[Tensor, Tensor]:
        """Return the compiled weight: signs (int8, shape of ``weight``), scale (float [O]).

        Raises ValueError if the binarizer's signs are not all exactly -1 or +1.
        """
        with evaluating(self.weight_quantizer):  # where weights are soft in training
            signs, scale = self.weight_quantizer(self.weight)
        if signs.shape != self.weight.shape or not (signs.abs() == 1).all():
            raise ValueError(
                f"{type(self.weight_quantizer).__name__}: a weight quantizer must return signs "
                "that are exactly -1 or +1, in the weight's shape, and keep their scale apart"
            )
        if scale is None:
            scale = self.weight.new_ones(self.weight.shape[0])
        return signs.to(torch.int8), scale.detach().clone()

    def _effective_weight(self) -> tuple[Tensor, Tensor | None]:
        """Weight and scale for this forward pass."""
        if self.training and self.latent_clamp is not None:
            self.clamp_latent_(self.latent_clamp)
        if self.binary_weights:
            return self.weight_quantizer(self.weight)
        return self.weight_quantizer.real_weight(self.weight), None

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Apply the layer's linear map."""
        raise NotImplementedError

    def _broadcast(self, channels: Tensor) -> Tensor:
        """View [O] so that it broadcasts over the output."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        weight, scale = self._effective_weight()
        if self.training:
            # Under autocast, training may round its sums: that is what was asked for.
            y = self._product(x, weight)
        else:
            with without_autocast(x):
                y = self._product(at_least_float32(x), weight)
        if scale is not None:
            y = y * self._broadcast(scale)
        return y if self.bias is None else y + self._broadcast(self.bias)

    def _repr_tail(self) -> str:
        clamp = "" if self.latent_clamp is None else f", latent_clamp={self.latent_clamp:g}"
        bias = "" if self.bias is None else ", bias=True"
        return clamp + bias + ("" if self.binary_weights else ", binary_weights=False")


def set_weight_temperature(model: nn.Module, temperature: float) -> nn.Module:
    """Set the temperature of all weights of ``model`` that a progressive sign binarizes.

    Returns the model. Raises ValueError if it has no such layer, or for a negative temperature.
    """
    binarizers = [module for module in model.modules() if isinstance(module, ProgressiveSign)]
    if not binarizers:
        raise ValueError(
            "no layer has weight_quantizer='progressive', so that a temperature would do nothing"
        )
    for binarizer in binarizers:
        binarizer.set_temperature(temperature)
    return model


def set_binary_weights(model: nn.Module, enabled: bool) -> nn.Module:
    """Switch all binary layers of ``model`` to weight bits (True) or latent weights (False).

    Returns the model.
    """
    for module in model.modules():
        if isinstance(module, BinaryLayer):
            module.set_binary_weights(enabled)
    return model

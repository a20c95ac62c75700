"""Calibration: ranges from data, and what it refuses."""

import pytest
import torch
from torch import nn

from signbit.calibration import calibrate
from signbit.nn import QuantConv2d, QuantLinear


def network() -> nn.Sequential:
    return nn.Sequential(
        QuantConv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), QuantLinear(8, 3)
    )


BATCHES = [torch.rand(4, 1, 4, 4) * 2 - 0.5 for _ in range(3)]


def test_minmax_takes_the_extremes_of_every_layer_and_freezes():
    model = network()
    first, last = model[0], model[4]
    model.eval()
    hidden = [nn.functional.conv2d(x, first.weight, first.bias) for x in BATCHES]
    hidden = [model[1:4](h) for h in hidden]
    assert calibrate(model, BATCHES) is model
    assert first.range_min.item() == min(x.min().item() for x in BATCHES)
    assert first.range_max.item() == max(x.max().item() for x in BATCHES)
    assert last.range_min.item() == 0.0
    assert last.range_max.item() == max(h.max().item() for h in hidden)
    for layer in (first, last):
        assert layer.calibrated
        assert layer.frozen


def test_layers_of_four_bits_are_calibrated_too():
    layer = QuantConv2d(1, 2, 3, bits=4)
    calibrate(layer, BATCHES)
    low, high = layer.range_min.item(), layer.range_max.item()
    assert (low, high) == (
        min(map(float, map(torch.min, BATCHES))),
        max(map(float, map(torch.max, BATCHES))),
    )
    assert layer.input_scale.item() == pytest.approx((high - low) / 15)
    assert layer.input_zero_point.item() == round(-low / layer.input_scale.item())


def test_calibrating_twice_gives_the_same():
    model = calibrate(network(), BATCHES)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    calibrate(model, BATCHES)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_batches_may_be_tuples_and_are_limited():
    model = network()
    calibrate(model, [(x, torch.zeros(4)) for x in BATCHES], batches=2)
    assert model[0].range_max.item() == max(x.max().item() for x in BATCHES[:2])


def test_an_endless_loader_stops_at_the_limit():
    def endless():
        while True:
            yield BATCHES[0]

    assert calibrate(network(), endless(), batches=2)[0].calibrated


def test_training_modes_are_restored_and_batch_norm_stands_still():
    model = network()
    model[1].eval()
    mean = model[1].running_mean.clone()
    calibrate(model, BATCHES)
    assert model.training
    assert model[0].training
    assert not model[1].training
    assert torch.equal(model[1].running_mean, mean)


def test_percentile_ignores_outliers():
    x = torch.linspace(0, 1, 10_000).view(1, 1, 100, 100).clone()
    x[0, 0, 50, 50] = 1000.0
    layer = QuantConv2d(1, 1, 1)
    calibrate(layer, [x, x], method="percentile", percentile=99.0)
    assert layer.range_max.item() == pytest.approx(0.99, abs=1e-3)
    calibrate(layer, [x])
    assert layer.range_max.item() == 1000.0


def test_refusals_change_nothing():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = QuantLinear(4, 4)
            self.branch = nn.ModuleDict({"spare": QuantLinear(4, 4)})

        def forward(self, x):
            return self.used(x)

    model = Unused()
    with pytest.raises(ValueError, match=r"branch\.spare"):
        calibrate(model, [torch.rand(2, 4)])
    with pytest.raises(ValueError, match="empty"):
        calibrate(model, [])
    with pytest.raises(ValueError, match="not finite"):
        calibrate(model, [torch.full((2, 4), float("nan"))])
    with pytest.raises(ValueError, match="did you mean 'minmax'"):
        calibrate(model, [torch.rand(2, 4)], method="min-max")
    with pytest.raises(ValueError, match="batches"):
        calibrate(model, [torch.rand(2, 4)], batches=0)
    with pytest.raises(ValueError, match="percentile"):
        calibrate(model, [torch.rand(2, 4)], percentile=50.0)
    with pytest.raises(TypeError, match="tensor"):
        calibrate(model, [{"image": torch.rand(2, 4)}])
    assert not model.used.calibrated
    assert not model.used.observing
    assert not model.used._forward_pre_hooks
    assert model.training

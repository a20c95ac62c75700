"""Weights that are soft at first: the schedule, what it refuses, and that evaluation is binary."""

import pytest
import torch
from rich.console import Console
from torch import nn

from signbit.data import load_source
from signbit.errors import RecipeError
from signbit.nn import BinaryConv2d, RSign, set_weight_temperature
from signbit.training import parse_recipe, train
from signbit.training.module import StagedModule
from signbit.training.recipe import ProgressiveRecipe

from .killable import RECIPE, tiny_network

SOURCE = load_source("digits").limited(150)


def recipe(epochs=3, **progressive):
    stage = {"name": "s", "epochs": epochs, "progressive": {"decay": 1e-4, **progressive}}
    return parse_recipe({**RECIPE, "stages": [stage]})


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        RSign(8),
        BinaryConv2d(8, 8, 3, weight_quantizer="progressive"),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.LazyLinear(10),
    )


def test_published_schedule_is_binary_from_epoch_153():
    schedule = ProgressiveRecipe()
    assert schedule.soft_epochs == 153
    assert schedule.temperature(0) == 1.0
    assert schedule.temperature(152) == pytest.approx(0.9**152)
    assert schedule.temperature(153) == 0.0
    assert ProgressiveRecipe(binary_below=1e-5).soft_epochs == 110


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.01, 0.937])
@pytest.mark.parametrize("below", [1e-7, 1e-3, 0.1, 1.0])
def test_soft_epochs_are_those_with_a_temperature(decay, below):
    schedule = ProgressiveRecipe(decay=decay, binary_below=below)
    soft = [schedule.temperature(epoch) > 0 for epoch in range(300)]
    assert soft == [True] * schedule.soft_epochs + [False] * (300 - schedule.soft_epochs)


def test_a_schedule_that_ends_soft_is_refused_before_training():
    assert recipe(epochs=3).stages[0].progressive.soft_epochs == 2
    with pytest.raises(RecipeError, match=r"stages\.0: progressive: .*binary from epoch 3"):
        recipe(epochs=2)
    with pytest.raises(RecipeError, match=r"start \(0\.1\) is below binary_below"):
        recipe(start=0.1, binary_below=0.5)
    with pytest.raises(RecipeError, match=r"stages\.0\.progressive\.decay"):
        recipe(decay=1.0)


def test_real_weights_have_no_temperature():
    tree = {**RECIPE, "stages": [recipe().stages[0].model_dump() | {"binary_weights": False}]}
    with pytest.raises(RecipeError, match="progressive: binary_weights: false"):
        parse_recipe(tree)


def test_a_network_without_progressive_weights_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"stages\.0\.progressive: no layer .*bnext_tiny"):
        train(recipe(), SOURCE, tmp_path, model=tiny_network(), console=Console(quiet=True))
    with pytest.raises(ValueError, match="no layer has weight_quantizer='progressive'"):
        set_weight_temperature(tiny_network(), 0.5)


def test_soft_epochs_are_evaluated_with_bits_and_the_run_ends_with_bits(tmp_path, monkeypatch):
    seen = []
    original = StagedModule.validation_step

    def step(self, batch, index):
        conv = self.model[3]
        weight, _ = conv._effective_weight()
        seen.append((conv.weight_quantizer.soft, bool((weight.abs() == 1).all())))
        return original(self, batch, index)

    monkeypatch.setattr(StagedModule, "validation_step", step)
    soft = []
    forward = BinaryConv2d.forward

    def watched(self, x):
        if self.training:
            soft.append(bool((self._effective_weight()[0].abs() < 1).any()))
        return forward(self, x)

    monkeypatch.setattr(BinaryConv2d, "forward", watched)
    model = network()
    model(torch.zeros(1, *SOURCE.input_shape))
    soft.clear()
    result = train(recipe(), SOURCE, tmp_path, model=model, console=Console(quiet=True))
    assert all(binary for _, binary in seen)
    assert {flag for flag, _ in seen} == {True, False}
    assert soft[0]
    assert not soft[-1]
    assert not result.trained.model[3].weight_quantizer.soft


def test_compiled_weights_are_bits_at_any_temperature():
    conv = BinaryConv2d(2, 2, 1, weight_quantizer="progressive").train()
    set_weight_temperature(conv, 100.0)
    signs, _ = conv.binary_weight()
    assert torch.equal(signs, torch.where(conv.weight >= 0, 1, -1).to(torch.int8))
    assert conv.training
    assert conv.weight_quantizer.training

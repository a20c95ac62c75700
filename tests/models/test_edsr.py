"""EDSR and its binary counterpart: where they start, what they compile to, what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import signbit
from signbit.compiler.compiled import CompiledModel
from signbit.models import create_model
from signbit.models.edsr import start_bicubic
from signbit.nn import QuantLayer


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An image without hard edges, nor pixels that would be clipped: uint8 [H, W, 3]."""
    noise = np.random.default_rng(seed).integers(60, 200, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def tensor(image: np.ndarray) -> torch.Tensor:
    return ((torch.from_numpy(image.copy()).float() / 255 - 0.4) / 0.25).permute(2, 0, 1)[None]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["edsr", "edsr_bineal"])
def test_networks_start_as_bicubic_enlargement(name: str, scale: int) -> None:
    torch.manual_seed(0)
    model = create_model(name, scale=scale).eval()
    image = smooth(24, 20)
    with torch.no_grad():
        for path, module in model.named_modules():
            if path.endswith("tail"):
                module.weight.zero_()
                module.bias.zero_()
        found = model(tensor(image))[0].permute(1, 2, 0) * 0.25 + 0.4
    assert found.shape == (24 * scale, 20 * scale, 3)
    wanted = Image.fromarray(image).resize((20 * scale, 24 * scale), Image.Resampling.BICUBIC)
    inside = slice(3 * scale, -3 * scale)
    difference = found.numpy() * 255 - np.asarray(wanted).astype(float)
    assert np.abs(difference[inside, inside]).max() < 1.5  # Pillow rounds between its two passes


def test_the_start_sums_to_the_repeated_pixel() -> None:
    conv = nn.Conv2d(3, 27, 5, padding=2)
    start_bicubic(conv, 3)
    sums = conv.weight.sum((2, 3))
    torch.testing.assert_close(sums, torch.zeros_like(sums), atol=1e-6, rtol=0)
    assert conv.bias.abs().max() == 0


def compiled(scale: int = 2, **options: object) -> tuple[nn.Module, CompiledModel]:
    """A network with random statistics, calibrated, and its program."""
    torch.manual_seed(0)
    model = create_model("edsr_bineal", scale=scale, **options)
    x = torch.cat([tensor(smooth(16, 20, seed)) for seed in range(4)])
    for _ in range(3):
        model(x)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.normal_(0, 0.2)
    signbit.calibrate(model.eval(), [x])
    return model, signbit.compile(model, x[:1])


@pytest.mark.parametrize("features", [12, 0])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_it_compiles_and_runs_at_every_size(features: int, scale: int, tmp_path: Path) -> None:
    model, program = compiled(scale, width=0.25, blocks=1, features=features)
    program.save(tmp_path / "m.signbit")
    session = signbit.load(tmp_path / "m.signbit", threads=1)
    for size in ((16, 20), (7, 31), (1, 1)):
        x = tensor(smooth(*size, seed=9))
        found = session(x.contiguous().numpy())
        assert found.shape == (1, 3, scale * size[0], scale * size[1])
        with torch.no_grad():
            wanted = model(x).numpy()
        # a bit whose sum is next to its threshold may differ
        assert (np.abs(found - wanted) < 1e-4).mean() > 0.99


def test_between_8_bit_layers_are_bits() -> None:
    model, program = compiled(width=0.25, features=12)
    assert sum(isinstance(module, QuantLayer) for module in model.modules()) == 4
    operations = {
        node.path: {value.type.name for value in node.inputs} for node in program.graph.nodes
    }
    for path, types in operations.items():
        if path.startswith("body"):
            assert types <= {"B1", "I4"}, path


def test_over_parameters_cost_nothing_at_inference() -> None:
    plain = compiled(width=0.25, blocks=1, features=12)[1]
    over = compiled(width=0.25, blocks=1, features=12, over_parameterize="element")[1]
    assert [n.op for n in plain.graph.nodes] == [n.op for n in over.graph.nodes]
    bare = create_model("edsr_bineal", parametric_activations=False)
    assert not any(type(m).__name__ == "RPReLU" for m in bare.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 5}, "scale must be 2, 3 or 4, got 5"),
        ({"blocks": 0}, "blocks must be a whole number of at least 1"),
        ({"blocks": 1.5}, "blocks must be a whole number"),
        ({"features": 6}, "features must be a multiple of 4, or 0 for none"),
        ({"width": 0.0}, "width must be a positive number"),
    ],
)
def test_arguments_that_make_no_network(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("edsr_bineal", **options)
    shared = {k: v for k, v in options.items() if k != "features"}
    if shared:
        with pytest.raises(ValueError, match=message):
            create_model("edsr", **shared)

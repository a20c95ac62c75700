"""BNext's networks against plain functions of the authors' tensors, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from signbit import create_model
from signbit.checkpoints import import_checkpoint
from signbit.checkpoints.bnext import BNEXT
from tests.models import bnext_reference as reference

STEMS = ("imagenet", "cifar")
BITS = ("stem_bits", "se_bits", "head_bits")


def images(size: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, size, size, dtype=torch.float64, generator=generator)


def narrow(widths: Sequence[int]) -> list[int]:
    return [width // 4 for width in widths]


def filled(
    name: str,
    state: reference.State,
    bits: tuple[int, int, int] = reference.FLOAT,
    **arguments: Any,
) -> nn.Module:
    """A network with the values of a file that is too narrow to have been published."""
    arguments |= {"num_classes": 10, "width": 0.25, **dict(zip(BITS, bits, strict=True))}
    model = create_model(name, **arguments).eval()
    own = model.state_dict()
    for ours, tensor in own.items():
        theirs = BNEXT.published(model, ours, tensor)
        tensor.copy_(state[theirs.name].reshape(tensor.shape))
    return model


def check_parity(model: nn.Module, state: reference.State, stem: str, size: int) -> None:
    x = images(size)
    with torch.no_grad():
        expected = reference.logits(state, x, stem)
        got = model.double()(x)
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("size", reference.WIDTHS)
def test_narrow_networks(size: str, stem: str) -> None:
    state = reference.random_state(reference.shapes(narrow(reference.WIDTHS[size]), 10))
    check_parity(filled(f"bnext_{size}", state, stem=stem), state, stem, 64)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize(
    ("elm_attention", "info_rcp"), [(False, True), (True, False), (False, False)]
)
def test_ablated_networks(elm_attention: bool, info_rcp: bool, stem: str) -> None:
    widths = narrow(reference.WIDTHS["tiny"])
    state = reference.random_state(reference.shapes(widths, 10, elm_attention, info_rcp))
    model = filled("bnext_tiny", state, stem=stem, elm_attention=elm_attention, info_rcp=info_rcp)
    check_parity(model, state, stem, 64)


@pytest.mark.parametrize("stem", STEMS)
def test_narrow_bnext18(stem: str) -> None:
    shapes = reference.shapes_18(narrow(reference.WIDTHS_18), 10, stem)
    state = reference.random_state(shapes)
    check_parity(filled("bnext18", state, stem=stem), state, stem, 64)


@pytest.mark.parametrize("bits", [(8, 8, 8), (8, 4, 8), (4, 8, 4)])
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_networks_with_dynamic_ranges(size: str, bits: tuple[int, int, int]) -> None:
    state = reference.random_state(reference.shapes(narrow(reference.WIDTHS[size]), 10))
    model = filled(f"bnext_{size}", state, bits, ranges="dynamic")
    x = images(64)
    with torch.no_grad():
        expected = reference.logits(state, x, "imagenet", bits)
        got = model.double()(x)
        real = reference.logits(state, x, "imagenet")
    assert (expected - real).abs().max() > 1e-2
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "stem"),
    [*((size, "imagenet") for size in reference.WIDTHS), ("tiny", "cifar"), ("small", "cifar")],
)
def test_imported_files(size: str, stem: str, tmp_path: Path) -> None:
    state = reference.random_state(reference.shapes(reference.WIDTHS[size], 10))
    torch.save(state, tmp_path / "published.pt")
    model = import_checkpoint(tmp_path / "published.pt", f"bnext_{size}", stem).trained.model
    check_parity(model, state, stem, 32)


@pytest.mark.slow
@pytest.mark.parametrize("stem", STEMS)
def test_imported_bnext18(stem: str, tmp_path: Path) -> None:
    state = reference.random_state(reference.shapes_18(reference.WIDTHS_18, 10, stem))
    torch.save(state, tmp_path / "published.pt")
    model = import_checkpoint(tmp_path / "published.pt", "bnext18", stem).trained.model
    check_parity(model, state, stem, 32)

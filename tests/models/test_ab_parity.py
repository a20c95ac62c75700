"""A&B BNN's networks against plain functions of the authors' tensors, in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from signbit.checkpoints import import_checkpoint
from tests.models import ab_reference as reference

STEMS = ("imagenet", "cifar")
CASES = [(network, stem) for network in reference.NETWORKS for stem in STEMS]


def least_size(network: str, stem: str) -> int:
    """The side of the smallest image that the network takes."""
    if stem == "imagenet":
        return 32
    return 16 if network == "reactnet_a" else 8


@pytest.mark.parametrize(("network", "stem"), CASES)
def test_logits_equal_those_of_the_authors_tensors(network: str, stem: str, tmp_path: Path) -> None:
    state = reference.random_state(network, stem, 10)
    torch.save(state, tmp_path / "published.pt")
    model = import_checkpoint(tmp_path / "published.pt", f"ab_{network}", stem).trained.model
    size = 2 * least_size(network, stem) if network == "reactnet18" else least_size(network, stem)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, size, size, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        got = model.double()(x)
        expected = reference.logits(network, stem, state, x)
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)

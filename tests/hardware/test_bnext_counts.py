"""BNext's networks at 224x224 against the figures that follow from the authors' code.

OPs by CPU64: an 8-bit MAC is 1/8, a 4-bit one 1/16, a binary one 1/64. Megabytes are 10^6 bytes, of
binary bits, of parameters at their layer's bits, and of others at 32.
"""

from __future__ import annotations

import pytest
import torch

import signbit
from signbit.compiler.summary import Summary, summarize

# size -> billions of binary MACs; millions of: binary weights, parameters; MACs of stem, classifier
# and squeeze-and-excite
PLANS = {
    "tiny": (4.817, 28.25, 30.9, 10.84, 1.02, 1.48),
    "small": (10.838, 63.57, 68.6, 16.26, 1.54, 3.34),
    "middle": (20.086, 126.24, 134.5, 16.26, 1.54, 6.47),
    "large": (52.151, 308.31, 326.5, 21.68, 2.05, 15.69),
}
# bits of stem, squeeze-and-excite and classifier -> size -> millions of FLOPs, of OPs; megabytes
COSTS = {
    (32, 32, 32): {
        "tiny": (13.3, 88.6, 14.0),
        "small": (21.1, 190.5, 28.0),
        "middle": (24.3, 338.1, 48.8),
        "large": (39.4, 854.3, 111.5),
    },
    (8, 8, 8): {
        "tiny": (1.67, 76.9, 6.4),
        "small": (2.64, 172.0, 13.4),
        "middle": (3.03, 316.9, 24.7),
        "large": (4.93, 819.8, 58.1),
    },
    (8, 4, 8): {
        "tiny": (1.58, 76.8, 5.66),
        "small": (2.43, 171.8, 11.7),
        "middle": (2.63, 316.5, 21.5),
        "large": (3.95, 818.8, 50.2),
    },
}
CASES = [(size, bits) for size in PLANS for bits in COSTS]
QUICK = ("tiny", (8, 4, 8))


def summary(size: str, bits: tuple[int, int, int]) -> tuple[Summary, int]:
    """The summary and the number of parameters; the weights are 0, which is quick."""
    stem, se, head = bits
    with torch.device("meta"):
        model = signbit.create_model(f"bnext_{size}", stem_bits=stem, se_bits=se, head_bits=head)
    model = model.eval().to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.zero_()
    parameters = sum(each.numel() for each in model.parameters())
    return summarize(model, torch.zeros(1, 3, 224, 224)), parameters


@pytest.mark.parametrize(
    ("size", "bits"),
    [
        pytest.param(*case, marks=[] if case == QUICK else pytest.mark.slow, id=f"{case}")
        for case in CASES
    ],
)
def test_figures(size: str, bits: tuple[int, int, int]) -> None:
    found, parameters = summary(size, bits)
    total = found.total
    bops, weights, latent, *macs = PLANS[size]
    flops, ops, megabytes = COSTS[bits][size]
    near = {"rel": 0.01}
    assert total.bops == pytest.approx(1e9 * bops, **near)
    assert total.params[1] == pytest.approx(1e6 * weights, **near)
    assert parameters == pytest.approx(1e6 * latent, **near)
    assert total.cpu64 - total.bops / 64 == pytest.approx(1e6 * flops, **near)
    assert total.cpu64 == pytest.approx(1e6 * ops, **near)
    assert total.weight_bytes == pytest.approx(1e6 * megabytes, **near)
    assert found.to_dict()["total"]["cpu64"] == total.cpu64

    def of(part: str, precision: int) -> int:
        return sum(row.count.macs[precision] for row in found.rows if part in f".{row.path}")

    parts = [of(part, each) for part, each in zip((".stem", ".se.", ".head"), bits, strict=True)]
    assert parts == pytest.approx([1e6 * each for each in (macs[0], macs[2], macs[1])], **near)
    assert sum(parts) == total.flops

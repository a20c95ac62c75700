"""The names of BNext's releases (arXiv 2211.12933, github.com/hpi-xnor/BNext).

All units of the authors' code have two PReLUs, and the stem has one; those that are never called
are in the files, as are temperatures: of the activations, where they change nothing, and of the
weights, which are signs once theirs has fallen below 1e-7 (1e-5 in BNext-18).
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor, nn

from signbit.checkpoints.family import Family, Published, Tensors
from signbit.errors import CheckpointError
from signbit.models.bnext import BNext18, BNextUnit

_BINARY = 1e-8  # a temperature at which the weights are signs in all of the authors' networks
_SLOPE = 0.25  # that PReLUs start with

# In the order of the releases. The activation behind the first batch norm is their second one;
# their first is the bypass's, and not called in units without one.
_PARTS = (
    "scale", "move", "binary_activation", "binary_conv.weight", "binary_conv.temperature", "norm1",
    "norm2", "activation1", "activation2", "downsample", "se",
)  # fmt: skip
# ours -> the authors': of a unit, and of the whole
_UNIT = {
    "scale": "scale",
    "sign.bias": "move.bias",
    "conv.weight": "binary_conv.weight",
    "norm1": "norm1",
    "norm2": "norm2",
    "act.weight": "activation2.weight",
    "bypass.0.weight": "activation1.weight",
    "se": "se.se",
}
_UNIT_18 = {
    **_UNIT,
    "shortcut.0.weight": "activation1.weight",
    "shortcut.2": "downsample.1",
    "shortcut.3": "downsample.2",
}
_WHOLE = {"stem.0.weight": "conv1.weight", "stem.1": "bn1"}
_END = {"act.weight": "prelu.weight", "head.weight": "fc.weight", "head.bias": "fc.bias"}


def _published(model: nn.Module, name: str, tensor: Tensor) -> Published:
    unit = _unit_of(model, name)
    if unit is None:
        stem = "" if isinstance(model, BNext18) else "feature.0."
        theirs = _renamed(name, _WHOLE, stem) or _renamed(name, _END)
    else:
        table = _UNIT_18 if isinstance(model, BNext18) else _UNIT
        theirs = _renamed(name.removeprefix(f"{unit}."), table, f"{_release_unit(model, unit)}.")
    if theirs is None:
        raise CheckpointError(
            f"{name}: no release of BNext has such a tensor; stem, squeeze-and-excite and "
            "classifier have 32 bits there (stem_bits=32, se_bits=32, head_bits=32)"
        )
    shape = tuple(tensor.shape)
    if theirs.endswith((".scale", ".move.bias")):
        shape = (1, *shape, 1, 1)
    return Published(theirs, shape)


def _renamed(name: str, table: dict[str, str], prefix: str = "") -> str | None:
    for ours, theirs in table.items():
        if name == ours or name.startswith(f"{ours}."):
            return prefix + theirs + name.removeprefix(ours)
    return None


def _unit_of(model: nn.Module, name: str) -> str | None:
    """The path of the unit that one of our tensors belongs to."""
    for path in _paths_above(name):
        if isinstance(model.get_submodule(path), BNextUnit):
            return path
    return None


def _paths_above(name: str) -> list[str]:
    parts = name.split(".")[:-1]
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _release_unit(model: nn.Module, path: str) -> str:
    """What the release calls one of our units."""
    _, stage, block, *place = path.split(".")
    if isinstance(model, BNext18):
        return f"layer{stage}.{block}.{'Attention' if place == ['0'] else 'FFN'}"
    stages = [len(each) for each in model.stages]
    feature = f"feature.{1 + sum(stages[: int(stage)]) + int(block)}"
    if place == ["spatial"]:
        # The second block attends in all networks in which any does; in others it has another name.
        return f"{feature}.{'Attention' if model.stages[1][0].spatial.attention else 'FFN_3x3'}"
    halves = len(model.stages[int(stage)][int(block)].pointwise)
    return f"{feature}.FFN" if halves == 1 else f"{feature}.FFN_{int(place[1]) + 1}"


def _units(model: nn.Module) -> dict[str, BNextUnit]:
    return {path: each for path, each in model.named_modules() if isinstance(each, BNextUnit)}


def _further(model: nn.Module) -> dict[str, Tensor]:
    """Temperatures, PReLUs and batch norms that the authors' networks have but do not use."""
    units = _units(model)
    if isinstance(model, BNext18):
        first = model.stages[0][0][0]
        if not (first.info_rcp and first.attention):
            raise CheckpointError(
                "bnext18 without recoupling or attention: the authors' code has no such network"
            )
        found = {}
    else:
        found = {"feature.0.prelu.weight": _slopes(model.stem[1].num_features)}
    for path, unit in units.items():
        theirs, channels = _release_unit(model, path), unit.norm1.num_features
        for each in ("binary_activation", "binary_conv"):
            found[f"{theirs}.{each}.temperature"] = torch.full((1,), _BINARY)
        if not unit.attention:
            found[f"{theirs}.activation1.weight"] = _slopes(channels)
        if unit.norm2 is None:
            norm = nn.BatchNorm2d(channels).state_dict()
            found |= {f"{theirs}.norm2.{name}": tensor for name, tensor in norm.items()}
    return found


def _slopes(channels: int) -> Tensor:
    return torch.full((channels,), _SLOPE)


def _order(name: str) -> tuple[float, bool, str, int]:
    if match := re.match(r"feature\.(\d+)\.([AF]\w*)\.(.*)", name):
        block, unit, rest = int(match[1]), match[2], match[3]
    elif match := re.match(r"layer(\d)\.(\d)\.([AF]\w*)\.(.*)", name):
        block, unit, rest = 10 * int(match[1]) + int(match[2]) + 1, match[3], match[4]
    else:
        stem = name.startswith(("feature.0.", "conv1.", "bn1."))
        return (0 if stem else math.inf), False, "", 0
    part = next(at for at, part in enumerate(_PARTS) if rest.startswith(part))
    return block, unit not in ("Attention", "FFN_3x3"), unit, part


def _claims(tensors: Tensors) -> bool:
    return any(".binary_conv." in name for name in tensors)


def _arguments(model: str, tensors: Tensors) -> dict[str, Any]:
    """The stem, which the authors' code takes by the classes, and what an ablation leaves out."""
    found: dict[str, Any] = {}
    if "fc.weight" in tensors:
        found["stem"] = "imagenet" if tensors["fc.weight"].shape[0] == 1000 else "cifar"
    if model == "bnext18":  # the authors' code has no ablated one
        return found
    if any(".FFN_3x3." in name for name in tensors):
        found["elm_attention"] = False
    if _claims(tensors) and not any(name.endswith(".scale") for name in tensors):
        found["info_rcp"] = False
    return found


def _note(tensors: Tensors) -> str:
    """What becomes of weights that the authors' network would still use as real numbers."""
    soft, total, warmest = 0, 0, 0.0
    for name, tensor in tensors.items():
        if not name.endswith(".binary_conv.temperature"):
            continue
        weight = tensors[name.removesuffix("temperature") + "weight"]
        temperature, limit = tensor.item(), 1e-5 if name.startswith("layer") else 1e-7
        total += weight.numel()
        if temperature >= limit:
            soft += int((weight.abs() < temperature).sum())
            warmest = max(warmest, temperature)
    if not soft:
        return ""
    return (
        f"the binary weights are still soft (temperature {warmest:.3g}): {soft / total:.1%} of "
        "them are numbers between -1 and +1 when the authors' code evaluates, and all are -1 or +1 "
        "here, so expect another accuracy; import a checkpoint of the end of training"
    )


def _misfit(tensors: Tensors) -> str:
    if any(name.endswith("clip_val") for name in tensors):
        return (
            "the file is of the variant with quantised stem, squeeze-and-excite and classifier, of "
            "which nothing but the one with 32 bits is read: signbit.to_8bit makes 8 of them"
        )
    return ""


BNEXT = Family(
    title="BNext",
    models=("bnext_tiny", "bnext_small", "bnext_middle", "bnext_large", "bnext18"),
    published=_published,
    claims=_claims,
    arguments=_arguments,
    head="fc.weight",
    statistics={
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "cifar": ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
    },
    note=_note,
    misfit=_misfit,
    fixed={"stem_bits": 32, "se_bits": 32, "head_bits": 32},
    further=_further,
    order=_order,
)

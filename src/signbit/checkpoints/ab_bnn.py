"""The names of A&B BNN's releases (arXiv 2403.03739, github.com/Ruichen0424/AB-BNN).

The files are state dicts of the second training step; those of the first have the same names and
shapes, so that a file does not tell which it is.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from signbit.checkpoints.family import Family, Published, Tensors

# ours -> the authors'; the first that matches, from the left, and only one of each table
_RESIDUAL = (
    (r"stem\.0\.", "conv1."),
    (r"stem\.1\.", "prelu1."),
    (r"act\.weight", "prelu2.weight"),
    (r"head\.", "fc."),
    (r"sign\.bias", "move0.bias"),
    (r"branch\.conv\.", "conv1."),
    (r"shortcut\.1\.", "downsample.1."),
    (r"shortcut\.", "downsample.0."),
    (r"act\.shift_in", "move1.bias"),
    (r"act\.exponent", "prelu.L_alpha"),
    (r"act\.slope", "prelu.weight"),
    (r"act\.shift_out", "move2.bias"),
)
_MOBILE = (
    (r"stem\.", "feature.0.conv1."),
    (r"head\.", "fc."),
    (r"sign(\d)\.bias", r"move\g<1>1.bias"),
    (r"branch1\.conv\.", "binary_3x3."),
    (r"branch2b\.conv\.", "binary_pw_down2."),
    (r"act(\d)\.shift_in", r"move\g<1>2.bias"),
    (r"act(\d)\.exponent", r"prelu\1.L_alpha"),
    (r"act(\d)\.slope", r"prelu\1.weight"),
    (r"act(\d)\.shift_out", r"move\g<1>3.bias"),
)


def _published(model: nn.Module, name: str, tensor: Tensor) -> Published:
    # The gain is the binarizer's in our binary layers, the layer's own in the authors'.
    rest = name.replace("weight_quantizer.gain", "gain")
    prefix = ""
    if match := re.match(r"stages\.(\d+)\.(\d+)\.", rest):
        prefix = f"layer{int(match[1]) + 1}.{match[2]}."
    elif match := re.match(r"blocks\.(\d+)\.", rest):
        prefix = f"feature.{int(match[1]) + 1}."
    if match:
        rest = rest[match.end() :]
    mobile = hasattr(model, "blocks")
    if mobile and rest.startswith("branch2a."):
        block = model.get_submodule(name.partition(".branch2a.")[0])
        kind = "binary_pw" if block.branch2b is None else "binary_pw_down1"
        rest = rest.replace("branch2a.conv", kind)
    for ours, theirs in _MOBILE if mobile else _RESIDUAL:
        rest, found = re.subn(rf"^{ours}", theirs, rest)
        if found:
            break
    shape = tuple(tensor.shape)
    if re.search(r"\bmove\d+\.bias$", rest):
        shape = (1, *shape, 1, 1)
    return Published(prefix + rest, shape)


def _claims(tensors: Tensors) -> bool:
    return any(name.endswith(".gain") for name in tensors)


def _arguments(model: str, tensors: Tensors) -> dict[str, Any]:
    """The activation, where the network has one in each layer."""
    layers = [name for name in tensors if name.startswith(("layer", "feature"))]
    if not any(re.search(r"\.move\d+\.", name) for name in layers):
        return {}
    if any(name.endswith(".L_alpha") for name in layers):
        return {"activation": "qrprelu"}
    if any(re.search(r"\.prelu\d?\.weight$", name) for name in layers):
        return {"activation": "rprelu"}
    return {"activation": "rleakyrelu"}


def _note(tensors: Tensors) -> str:
    return (
        "read as a checkpoint of the second training step (binary weights): one of the first step "
        "has the same tensors"
    )


def _misfit(tensors: Tensors) -> str:
    if any(name.endswith("running_mean") for name in tensors):
        return "the file's network has batch norm, which A&B BNN has not"
    return ""


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

AB_BNN = Family(
    title="A&B BNN",
    models=(
        "ab_reactnet18",
        "ab_reactnet34",
        "ab_reactnet_a",
        "ab_birealnet18",
        "ab_birealnet34",
        "ab_xnornet18",
    ),
    published=_published,
    claims=_claims,
    arguments=_arguments,
    head="fc.weight",
    # of ImageNet, with CIFAR-10 and -100 too
    statistics={"imagenet": _IMAGENET, "cifar": _IMAGENET},
    note=_note,
    misfit=_misfit,
)

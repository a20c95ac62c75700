"""Networks, one file a family, found by name: ``create_model("bineal18", num_classes=10)``."""

from signbit.models.ab_bnn import (
    ABReActNetA,
    ABResNet,
    ab_birealnet18,
    ab_birealnet34,
    ab_reactnet18,
    ab_reactnet34,
    ab_reactnet_a,
    ab_xnornet18,
)
from signbit.models.bineal import Bineal, bineal18
from signbit.models.bnext import (
    BNext,
    BNext18,
    bnext18,
    bnext_large,
    bnext_middle,
    bnext_small,
    bnext_tiny,
)
from signbit.models.centernet import CenterNet, centernet_bineal18, centernet_resnet18
from signbit.models.edsr import EDSR, EDSRBineal, edsr, edsr_bineal
from signbit.models.fcn import FCN, fcn_bineal18, fcn_resnet18
from signbit.models.r2d2 import R2D2, r2d2, r2d2_bineal
from signbit.models.reactnet import ReActNet, reactnet18
from signbit.models.registry import (
    ModelInfo,
    create_model,
    list_models,
    model_info,
    register_model,
)
from signbit.models.resnet import ResNet, resnet18

__all__ = [
    "EDSR",
    "FCN",
    "R2D2",
    "ABReActNetA",
    "ABResNet",
    "BNext",
    "BNext18",
    "Bineal",
    "CenterNet",
    "EDSRBineal",
    "ModelInfo",
    "ReActNet",
    "ResNet",
    "ab_birealnet18",
    "ab_birealnet34",
    "ab_reactnet18",
    "ab_reactnet34",
    "ab_reactnet_a",
    "ab_xnornet18",
    "bineal18",
    "bnext18",
    "bnext_large",
    "bnext_middle",
    "bnext_small",
    "bnext_tiny",
    "centernet_bineal18",
    "centernet_resnet18",
    "create_model",
    "edsr",
    "edsr_bineal",
    "fcn_bineal18",
    "fcn_resnet18",
    "list_models",
    "model_info",
    "r2d2",
    "r2d2_bineal",
    "reactnet18",
    "register_model",
    "resnet18",
]

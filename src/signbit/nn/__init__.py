"""Layers of binary networks.

PyTorch's own layers (BatchNorm2d, PReLU, pooling ...) are used beside them as they are.
"""

from signbit.nn.binary import BinaryLayer, set_binary_weights, set_weight_temperature
from signbit.nn.binary_conv2d import BinaryConv2d
from signbit.nn.binary_linear import BinaryLinear
from signbit.nn.dynamic_quant import DynamicQuantLayer
from signbit.nn.dynamic_quant_conv2d import DynamicQuantConv2d
from signbit.nn.dynamic_quant_linear import DynamicQuantLinear
from signbit.nn.int4_add import Int4Add
from signbit.nn.mask_layer import MaskLayer
from signbit.nn.normalized_sign import NormalizedSign
from signbit.nn.qrprelu import QRPReLU
from signbit.nn.quant import QuantLayer
from signbit.nn.quant_conv2d import QuantConv2d
from signbit.nn.quant_linear import QuantLinear
from signbit.nn.rleakyrelu import RLeakyReLU
from signbit.nn.rprelu import RPReLU
from signbit.nn.rsign import RSign
from signbit.nn.scaled_std_binary_conv2d import ScaledStdBinaryConv2d
from signbit.nn.scaled_std_conv2d import ScaledStdConv2d
from signbit.nn.sign import Sign

__all__ = [
    "BinaryConv2d",
    "BinaryLayer",
    "BinaryLinear",
    "DynamicQuantConv2d",
    "DynamicQuantLayer",
    "DynamicQuantLinear",
    "Int4Add",
    "MaskLayer",
    "NormalizedSign",
    "QRPReLU",
    "QuantConv2d",
    "QuantLayer",
    "QuantLinear",
    "RLeakyReLU",
    "RPReLU",
    "RSign",
    "ScaledStdBinaryConv2d",
    "ScaledStdConv2d",
    "Sign",
    "set_binary_weights",
    "set_weight_temperature",
]

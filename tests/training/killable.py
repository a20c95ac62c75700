"""Trains a tiny two-stage recipe; run as a script by test_resume.py, which kills it.

Arguments: output folder, ``start`` or ``resume``, milliseconds to sleep after every epoch.
"""

import sys
import time

import torch
from torch import nn

from signbit.data import load_source
from signbit.training import callbacks as training_callbacks
from signbit.training import parse_recipe, train

RECIPE = {
    "seed": 5,
    "threads": 1,
    "data": {
        "name": "digits",
        "batch_size": 64,
        "augment": {"crop_padding": 1, "flip": True},
    },
    "model": {"name": "bineal18"},
    "stages": [
        {
            "name": "first",
            "epochs": 3,
            "binary_weights": False,
            "optimizer": {
                "lr_scale": {"1.*": 2.0},
                "agc": {"clip_factor": 0.01, "exclude": ["8.*"]},
            },
            "schedule": {"per_epoch": True},
        },
        {
            "name": "second",
            "epochs": 4,
            "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
            "schedule": {"name": "linear", "warmup_epochs": 1},
        },
    ],
    "weights": "last",
}


def tiny_network() -> nn.Module:
    """Everything that has state or draws numbers: batch statistics, dropout, 8-bit and binary."""
    from signbit.nn import BinaryConv2d, QuantConv2d, QuantLinear, Sign

    torch.manual_seed(9)
    return nn.Sequential(
        QuantConv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        Sign(),
        BinaryConv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        QuantLinear(32, 10),
    )


def main(output: str, mode: str, pause_ms: str) -> None:
    original = training_callbacks.History.on_train_epoch_start

    def slowly(self, trainer, module):
        time.sleep(int(pause_ms) / 1000)  # so that the kill falls within the run
        original(self, trainer, module)

    training_callbacks.History.on_train_epoch_start = slowly
    result = train(
        parse_recipe(RECIPE),
        load_source("digits").limited(400),
        output,
        resume=mode == "resume",
        model=tiny_network(),
    )
    print(result.metrics["weights_sha256"])


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Networks for tests of several processes: these import them by name."""

import os

import torch
from torch import distributed, nn

from signbit.models import create_model

from .killable import tiny_network


class Double(nn.Module):
    """A narrow network without batch norm whose numbers are float64."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.net = create_model(
            "ab_reactnet18",
            num_classes=10,
            in_channels=1,
            stem="cifar",
            width=0.0625,
            variant="normalizer_free",
        ).double()
        self.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self, images):
        return self.net(images.double())


class Spoilt(nn.Module):
    """A tiny network whose training fails in one process, at a step counted from 0."""

    def __init__(self, rank, step, how):
        super().__init__()
        self.net = tiny_network()
        self.rank, self.step, self.how = rank, step, how
        self.steps = 0

    def state_dict(self, *args, prefix="", **kwargs):
        return self.net.state_dict(*args, prefix=prefix, **kwargs)

    def _load_from_state_dict(self, *args):
        pass

    def forward(self, images):
        logits = self.net(images)
        if self.training:
            if self.steps == self.step and distributed.get_rank() == self.rank:
                if self.how == "nan":
                    return logits * torch.nan
                if self.how == "killed":
                    os._exit(9)
                raise KeyError("a mistake in the network")
            self.steps += 1
        return logits

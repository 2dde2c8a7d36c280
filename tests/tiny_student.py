"""A small student that no run trained: its net as shipped, with statistics that are not those of a fresh BatchNorm."""

import torch

from bantam.data.splits import IMAGENET
from bantam.nets.output import StagedNet
from bantam.nets.students import describe
from bantam.runs.shipped import Shipped


def tiny_student() -> tuple[StagedNet, Shipped]:
    """The net of 5,000 parameters at most, 3 classes and 32 px, and its description."""
    torch.manual_seed(0)
    described = describe("mobilenet_v1", 5_000, 3, 32)
    net = described.build()
    with torch.no_grad():
        net.train()(torch.randn(16, 3, 32, 32))
    return described.shipped_form(net), Shipped(described, IMAGENET, ("0", "1", "2"))

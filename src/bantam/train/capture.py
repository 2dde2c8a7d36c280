"""The whole step as one CUDA graph: a tiny net's step is hundreds of kernels, each shorter than its launch."""

import torch
from torch import Tensor

from bantam.train.step import Step

WARM_UP = 3


class Captured:
    """A Step that is replayed: same arguments, same results, one launch.

    Every step reads and writes the same memory, so the step runs first on a side stream, until all libraries have
    chosen and allocated; then everything that these runs changed is put back, and the step is captured.
    """

    def __init__(self, step: Step, index: Tensor, view: Tensor) -> None:
        self.index, self.view = index.clone(), view.clone()  # [B], [B]
        before = {name: tensor.clone() for name, tensor in state_of(step).items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                step(self.index, self.view)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.no_grad():
            for name, tensor in state_of(step).items():
                # What the first step made was not there before: an optimizer's memory, which starts at 0.
                tensor.copy_(before[name]) if name in before else tensor.zero_()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.terms = step(self.index, self.view)

    def __call__(self, index: Tensor, view: Tensor) -> dict[str, Tensor]:
        self.index.copy_(index)
        self.view.copy_(view)
        self.graph.replay()
        return self.terms


def state_of(step: Step) -> dict[str, Tensor]:
    """Every tensor that a step changes, by a name that stays the same."""
    tensors = {f"net.{name}": value for name, value in step.net.state_dict().items()}
    if step.ema:
        tensors |= {f"ema.{name}": value for name, value in step.ema.net.state_dict().items()}
    for own, objective in step.objectives().items():
        tensors |= {f"objective.{own}.{name}": value for name, value in objective.state_dict().items()}
    for number, parameter in enumerate(step.parameters):
        for name, value in step.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{number}.{name}"] = value
    tensors["count"], tensors["rate"] = step.count, step.rate
    return tensors

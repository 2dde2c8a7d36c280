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
        before = Snapshot(step)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                step(self.index, self.view)
        torch.cuda.current_stream().wait_stream(stream)
        before.put_back()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.terms = step(self.index, self.view)

    def __call__(self, index: Tensor, view: Tensor) -> dict[str, Tensor]:
        self.index.copy_(index)
        self.view.copy_(view)
        self.graph.replay()
        return self.terms


class Snapshot:
    """All that steps change, as it is now: the tensors of `state_of` by name, and the state of the random numbers."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.tensors = {name: tensor.detach().clone() for name, tensor in state_of(step).items()}
        self.random = torch.cuda.get_rng_state(step.device) if step.device.type == "cuda" else torch.get_rng_state()

    @torch.no_grad()
    def put_back(self) -> None:
        """Make everything as it was, in the memory where it is now, for a graph knows nothing but its memory.

        What steps have made since, an optimizer's memory, becomes the 0 with which it starts.
        """
        for name, tensor in state_of(self.step).items():
            tensor.copy_(self.tensors[name]) if name in self.tensors else tensor.zero_()
        self.step.optimizer.zero_grad(set_to_none=True)  # of a step that broke off
        if self.step.device.type == "cuda":
            torch.cuda.set_rng_state(self.random, self.step.device)
        else:
            torch.set_rng_state(self.random)


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

"""What one forward pass needs on any machine: multiply-accumulates, and memory for activations.

Both come from a trace of the operations that one pass really makes, so functional calls, shared weights and
layers that are never called are counted as they are.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten

ELEMENTWISE = {
    aten.hardswish,
    aten.native_batch_norm,
    aten._native_batch_norm_legit_no_training,
    aten.cudnn_batch_norm,
}
"""Operations that work element by element, in eval mode at least, although torch does not tag them as such."""


@dataclass(frozen=True)
class Footprint:
    """What one forward pass with one image needs.

    `macs` are the multiply-accumulates of convolutions and matrix products. What other operations do (BatchNorm
    that is not folded, activations, pooling, sums) is left out, as in torch's FlopCounterMode, of whose count this
    is half.

    `activation_bytes` is the peak of the memory for activations: the largest sum, over the operations in their
    order, of the image and of all results that are alive while the operation runs. A result is alive from the
    operation that makes it to the last one that reads it, so a shortcut counts until it is added. Views share
    memory. An elementwise operation writes its result over an input of the same layout that nobody reads later,
    whether it is written `inplace` or not. Weights are not counted, nor is a kernel's scratch memory.
    """

    macs: int
    activation_bytes: int


def footprint(net: nn.Module, size: int) -> Footprint:
    """Trace one pass of `net`, in eval mode, on one image [1, 3, size, size]; nothing in it changes."""
    first = next((parameter for parameter in net.parameters() if parameter.is_floating_point()), torch.empty(0))
    with torch.inference_mode(False), torch.no_grad():  # inference mode hides operations from the trace
        image = torch.zeros(1, 3, size, size, device=first.device, dtype=first.dtype)
        image = image.contiguous(memory_format=torch.channels_last)
        trace = _Trace(image)
        with _evaluating(net), _plain_attention(), trace:
            logits = net(image)
    return Footprint(macs=trace.flops // 2, activation_bytes=trace.peak(logits))


def disk_bytes(net: nn.Module) -> int:
    """Return the size in bytes of the file that `torch.save` makes of the state_dict of `net`."""
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    return buffer.tell()


@dataclass(frozen=True)
class _Operation:
    """One operation: the storages that it reads, those that it returns, and those that it may write over."""

    reads: set[int]
    returns: set[int]
    overwritable: set[int]


class _Trace(TorchDispatchMode):
    """Counts the floating-point operations of everything that runs inside, and notes who reads what.

    A storage goes by the address of its header. All are kept until the end, so that no address comes twice.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry  # Brings triton with it where that is installed.

        self.formulas = flop_registry
        self.flops = 0
        self.operations: list[_Operation] = []
        self.made = {_address(image): image.untyped_storage()}  # in order; weights are not among them

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would import its whole compiler, which takes seconds, only to keep it away from the method below.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func.overloadpacket
        if packet in self.formulas:
            self.flops += self.formulas[packet](*args, **kwargs, out_val=result)
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        reads = {_address(tensor) for tensor in inputs}
        for tensor in outputs:
            if _address(tensor) not in reads:
                self.made[_address(tensor)] = tensor.untyped_storage()
        elementwise = packet in ELEMENTWISE or torch.Tag.pointwise in func.tags
        overwritable = {_address(tensor) for tensor in inputs if elementwise and _same_layout(tensor, outputs[0])}
        self.operations.append(_Operation(reads, {_address(tensor) for tensor in outputs}, overwritable))
        return result

    def peak(self, logits: Tensor) -> int:
        """Return the largest number of bytes that are alive during any operation, `logits` to the end."""
        last_read = {address: place for place, step in enumerate(self.operations) for address in step.reads}
        last_read[_address(logits)] = len(self.operations)
        size = {address: storage.nbytes() for address, storage in self.made.items()}
        alive = {next(iter(self.made))}  # the image
        peak = 0
        for place, step in enumerate(self.operations):
            # What nobody reads, such as the places of the maxima that max pooling returns, is not kept.
            new = {made for made in step.returns - alive if made in size and last_read.get(made, -1) > place}
            dying = {read for read in step.reads & alive if last_read[read] == place}
            room = sum(size[address] for address in alive | new)
            if len(new) == 1 and dying & step.overwritable:
                room -= sum(size[address] for address in new)
            peak = max(peak, room)
            alive = (alive | new) - dying
        return peak


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _same_layout(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.stride() == other.stride() and one.dtype == other.dtype


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Compute attention as matrix products, because torch has no formula for the fused kernels of the CPU."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """Put `net` into eval mode, and every module back into its own mode afterwards."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

"""BatchNorm over the batches of all processes together (Ioffe and Szegedy, 2015, arXiv:1502.03167).

torch's SyncBatchNorm is for GPUs alone, and leaves out the subclasses of BatchNorm that timm's nets have. This one
works on every device and for every module that calls `F.batch_norm`, and leaves the net as it is: it replaces the
function while a context is open, not the modules.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class GlobalBatchNorm(TorchFunctionMode):
    """While it is open, `F.batch_norm` in train mode normalises by the statistics of the global batch.

    Every one of the `world` processes must call the same layers in the same order on batches of the same shape.
    """

    def __init__(self, world: int) -> None:
        super().__init__()
        self.world = world

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:
            return self.batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """`F.batch_norm` of the batches [N, C, ...] of all processes, of which this one has its own part."""
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        output, mean, variance = Normalised.apply(input, weight, bias, eps, self.world)  # pyright: ignore
        if running_mean is not None and running_var is not None:
            count = input.numel() // input.shape[1] * self.world
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_((variance * (count / (count - 1))).to(running_var.dtype), momentum)
        return output


class Normalised(torch.autograd.Function):
    """Gives the normalised batch, and the mean and the biased variance [C] that it was normalised by."""

    @staticmethod
    def forward(
        ctx: Any, batch: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, world: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        exact = batch.to(torch.promote_types(batch.dtype, torch.float32))
        variance, mean = torch.var_mean(exact, [0, *range(2, batch.ndim)], correction=0)  # [C], [C]
        mine = torch.stack([mean, variance])  # [2, C]
        everyone = [torch.empty_like(mine) for _ in range(world)]
        dist.all_gather(everyone, mine)
        means, variances = torch.stack(everyone).unbind(1)  # [world, C], [world, C]
        # The parts are of one size. Sums of squares would cancel where the mean is large.
        mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
        ctx.save_for_backward(batch, weight, mean, variance)
        ctx.eps, ctx.world = eps, world
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(batch, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The paper's gradients, its sums over the batch taken over all processes.

        Those of weight and bias are this process's own part, as for every other parameter.
        """
        batch, weight, mean, variance = ctx.saved_tensors
        # As if mean and variance were constants; what passes through them is added below.
        through, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            grads[0], batch, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.cat([of_bias, of_weight])  # [2 C]
        dist.all_reduce(sums)
        count = batch.numel() // batch.shape[1] * ctx.world
        constant, along = (sums / count).chunk(2)  # [C], [C]: means of the gradient, and of it times x-hat
        inverse = (variance + ctx.eps).rsqrt()
        scale = inverse if weight is None else inverse * weight
        slope = -scale * inverse * along
        shift = -scale * constant - slope * mean
        shape = [1, -1, *[1] * (batch.ndim - 2)]
        whole = through + torch.addcmul(shift.view(shape), batch, slope.view(shape))
        affine = (of_weight, of_bias) if weight is not None else (None, None)
        return whole.to(batch.dtype), *affine, None, None

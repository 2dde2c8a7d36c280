"""Logit standardization: the student copies the order and the proportions of the logits, not their size."""

import torch
from torch import Tensor

from bantam.objectives.objective import full_precision


def standardized(logits: Tensor) -> Tensor:
    """(z - mean_k z) / std_k z for each image; an image whose logits are all equal gives zeros.

    A student of small capacity need not reach the teacher's logit range; sharing one temperature would ask
    for it. std is the population's (divisor K), as the paper writes it. The authors' code has the sample's
    (divisor K - 1): its answers at a temperature T are those here at T * sqrt(K / (K - 1)), and its loss, which
    multiplies with its own T^2, is (K - 1) / K times the one here at that temperature; for 11 classes 5% and 9%.
    Source: Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024.

    Args:
        logits: [N, K].

    Returns:
        [N, K]; every row has mean 0 and standard deviation 1, or is zero.
    """
    logits = full_precision(logits)
    centred = logits - logits.mean(dim=1, keepdim=True)
    variance = centred.square().mean(dim=1, keepdim=True)
    # Equal logits leave rounding noise: a relative floor drops it, and keeps its gradient finite.
    floor = (8 * torch.finfo(logits.dtype).eps * logits.abs().amax(dim=1, keepdim=True)).square().detach()
    spread = variance > floor
    return torch.where(spread, centred * variance.where(spread, torch.ones_like(variance)).rsqrt(), 0)

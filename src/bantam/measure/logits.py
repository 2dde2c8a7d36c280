"""A net's answers on a whole split, without gradients and in order, and finite."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bantam.data.augment import plain
from bantam.data.splits import LabelledSplit, Normalisation, UnlabelledSplit
from bantam.measure.accuracy import require_finite

CHUNKS = {"cpu": 64}
"""Images at a time, by the kind of device: a processor is as fast with few, and their maps take less memory."""
MANY = 1000  # on any other device, which wants many at once


def logits_of(
    net: nn.Module,
    split: LabelledSplit | UnlabelledSplit,
    size: int,
    normalisation: Normalisation,
    *,
    flip: bool = False,
    look: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """As `raw_logits_of`, and finite. Raises NotFinite."""
    return require_finite(raw_logits_of(net, split, size, normalisation, flip=flip, look=look))


def chunks_of(images: int, device: torch.device) -> list[slice]:
    """So many images in the portions in which a net on `device` answers about them."""
    size = CHUNKS.get(device.type, MANY)
    return [slice(start, start + size) for start in range(0, images, size)]


@torch.inference_mode()
def raw_logits_of(
    net: nn.Module,
    split: LabelledSplit | UnlabelledSplit,
    size: int,
    normalisation: Normalisation,
    *,
    flip: bool = False,
    look: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Logits float32 [N, K] of `net`, in eval mode, on the plain view of every image, on the CPU.

    With `flip`, the mean of the log-probabilities of the image and of its mirror image, which are logits as well.
    `look` replaces `net(images)`. The net's mode is put back afterwards.
    """
    was_training = net.training
    net.eval()
    device = next(net.parameters()).device
    answer = look or net
    rows: list[Tensor] = []
    for portion in chunks_of(len(split), device):
        images = split.images[portion].to(device)  # [B, H, W, 3] uint8
        views = plain(images, size, normalisation.mean, normalisation.std)  # [B, 3, size, size]
        logits = answer(views).float()
        if flip:
            mirrored = answer(views.flip(3)).float()
            logits = (logits.log_softmax(1) + mirrored.log_softmax(1)) / 2
        rows.append(logits.cpu())
    net.train(was_training)
    return torch.cat(rows)  # [N, K]

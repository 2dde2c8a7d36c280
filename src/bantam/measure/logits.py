"""A net's answers on a whole split, without gradients and in order, and finite."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bantam.data.augment import plain
from bantam.data.splits import LabelledSplit, Normalisation, UnlabelledSplit
from bantam.measure.accuracy import require_finite

CHUNK = 250  # images at a time: large enough for speed, small enough for memory


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
    for start in range(0, len(split), CHUNK):
        images = split.images[start : start + CHUNK].to(device)  # [B, H, W, 3] uint8
        views = plain(images, size, normalisation.mean, normalisation.std)  # [B, 3, size, size]
        logits = answer(views).float()
        if flip:
            mirrored = answer(views.flip(3)).float()
            logits = (logits.log_softmax(1) + mirrored.log_softmax(1)) / 2
        rows.append(logits.cpu())
    net.train(was_training)
    return torch.cat(rows)  # [N, K]

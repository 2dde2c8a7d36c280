"""Whether a code's answers are those of the net that was weighed, and hold where a photograph moves by a pixel."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

TIE = 0.02
"""Two classes whose scores are no further apart may change places with the processor and the batch."""

MOST_TIES = 0.01
"""Share of the answers that may be such ties."""

APPROXIMATE = 0.02
"""Share of the answers that may differ where the code's inputs, or its weights of the views, are known only nearly."""

HELD = 0.6
"""Share of the answers that a net keeps at least when its photographs are moved by a pixel and encoded anew. The
students under `results/food-11`, which see 64 px, keep about 0.9."""

MEANS: dict[str, Callable[[Tensor], Tensor]] = {
    "log-probabilities": lambda logits: logits.log_softmax(-1),
    "probabilities": lambda logits: logits.softmax(-1),
    "logits": lambda logits: logits,
}
"""What is averaged over the views."""


@dataclass(frozen=True)
class Agreement:
    """How the net's scores [N, K] agree with a code's answers, and by which mean over the views."""

    scores: Tensor
    differs: Tensor
    fitted: bool
    mean: str


def compare(logits: Tensor, answers: Tensor, named: Sequence[float]) -> Agreement:
    """The mean of `logits` [V, N, K] over the views that agrees best with the code's `answers` int64 [N].

    The views weigh the same, or as the code says (`named`), or else as explains its answers best: V - 1 numbers
    for all photographs together.
    """
    views = len(logits)
    equal = torch.full((views,), 1 / views)
    weights = [torch.tensor(named, dtype=torch.float32)] if len(named) == views else []
    ways = [(mean, given) for given in (*weights, equal) for mean in (MEANS if views > 1 else ("logits",))]
    best = min((agreement(logits, answers, given, mean, False) for mean, given in ways), key=_differing)
    if views > 1 and _differing(best):
        fits = [agreement(logits, answers, fitted(MEANS[mean](logits), answers), mean, True) for mean in MEANS]
        best = min((best, *fits), key=_differing)
    return best


def _differing(one: Agreement) -> int:
    return int(one.differs.sum())


def agreement(logits: Tensor, answers: Tensor, weights: Tensor, mean: str, fit: bool) -> Agreement:
    """`logits` [V, N, K] averaged with `weights` [V], beside `answers` int64 [N]."""
    scores = torch.einsum("v,vnk->nk", weights, MEANS[mean](logits))  # [N, K]
    return Agreement(scores, others(scores, answers), fit, mean)


def others(scores: Tensor, answers: Tensor) -> Tensor:
    """Where `answers` int64 [N] are not those of `scores` [N, K], nor as good as those: bool [N].

    Few ties are excused and many are none: a net whose scores are all the same would else have any answer.
    """
    differs = answers != scores.argmax(1)
    best = scores.amax(1)
    claimed = scores.gather(1, answers[:, None].clamp(0, scores.shape[1] - 1))[:, 0]
    tied = differs & (best - claimed <= TIE) & (answers < scores.shape[1])
    return differs if int(tied.sum()) > max(1, MOST_TIES * len(scores)) else differs & ~tied


def fitted(parts: Tensor, answers: Tensor) -> Tensor:
    """Weights [V], none negative, of sum 1, by which the mean of `parts` [V, N, K] gives the most of `answers` [N]."""
    free = torch.zeros(len(parts), requires_grad=True)
    optimizer = torch.optim.LBFGS([free], lr=0.5, max_iter=100, line_search_fn="strong_wolfe")
    sharpness = 20 / float(parts.std().clamp(min=1e-6))

    def loss() -> Tensor:
        optimizer.zero_grad()
        scores = torch.einsum("v,vnk->nk", free.softmax(0), parts) * sharpness
        value = functional.cross_entropy(scores, answers)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(functools.partial(loss))
    return free.detach().softmax(0)


def may_differ(one: Agreement, exact: bool) -> int:
    """How many answers may differ from the net's."""
    return 0 if exact and not one.fitted else math.floor(APPROXIMATE * len(one.differs))


def held(same: int, of: int) -> bool:
    """Whether so many equal answers may be HELD of all, at the upper end of Wilson's 95% interval."""
    if not of:
        return True
    z, share = 1.96, same / of
    middle = share + z * z / (2 * of)
    spread = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (middle + spread) / (1 + z * z / of) >= HELD

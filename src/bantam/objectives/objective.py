"""What every training objective has in common."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from bantam.errors import BadRecipe
from bantam.nets.output import Output

FULL_PRECISION_FROM = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


class Objective(nn.Module):
    """Maps what a student and its teacher saw in the same views to named scalar terms.

    Call it with (student Output, teacher Output or None, targets [N, K] of class probabilities, progress
    0..1). A row of zeros among the targets says that the image has no label: what needs one leaves the image
    out. The terms do not carry the recipe's weight; ratios *between* the terms of one objective are its own
    hyper-parameters. The teacher is a constant: no gradient reaches it. Terms are computed without autocast,
    half precision being raised to float32 first, because differences of log-probabilities do not survive
    bfloat16.
    """

    paper: ClassVar[str]
    needs_teacher: ClassVar[bool] = True
    needs_peers: ClassVar[bool] = False
    """Whether the teacher's Output is that of the student's peers: logits [P, N, K] of P nets that train beside it."""
    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    """Which fields of the teacher's Output are read, of `logits`, `embedding` and `features`."""
    alone_until: float = 0.0
    """While progress is below it, this objective is to be trained without the others."""
    of_labels: ClassVar[frozenset[str]] = frozenset()
    """The terms that are means over the labelled images alone; all others are means over the whole batch."""

    def __init__(self) -> None:
        super().__init__()

    def follows(self) -> bool:
        """Whether it learns from the answers of the stage's teacher, so that images without a label teach it too."""
        return self.needs_teacher and not self.needs_peers

    def prepare(self, student: Output, teacher: Output | None) -> None:
        """Make trainable projections that fit an example batch; called once, before training.

        The parameters are trained and checkpointed with the student, but never counted and never shipped.
        """

    def forward(
        self, student: Output, teacher: Output | None, targets: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        """The named scalar terms.

        Raises:
            BadRecipe: the objective needs a teacher and there is none.
        """
        with torch.autocast(student.logits.device.type, enabled=False):
            return self.terms(student, constant(teacher), targets, progress)

    def terms(
        self, student: Output, teacher: Output | None, targets: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        """The method itself; `teacher` carries no gradient and autocast is off."""
        raise NotImplementedError

    def taught_by(self, teacher: Output | None) -> Output:
        """`teacher`, or the error that says that this objective cannot do without one."""
        if teacher is None:
            raise BadRecipe(
                f"objective {type(self).__name__} needs a teacher; name an earlier stage in the stage's key "
                "`teacher`, or take the objective out"
            )
        return teacher


def constant(teacher: Output | None) -> Output | None:
    """The same output cut off from the teacher's graph."""
    if teacher is None:
        return None
    return Output(
        logits=teacher.logits.detach(),
        embedding=teacher.embedding.detach(),
        features=tuple(feature.detach() for feature in teacher.features),
    )


def labelled(targets: Tensor) -> Tensor:
    """Which images have a label: boolean [N]; a row of zeros among the targets [N, K] is none."""
    return (targets > 0).any(dim=1)


def labelled_mean(values: Tensor, targets: Tensor) -> Tensor:
    """The mean of values [N] over the images that have a label in targets [N, K]; 0 where none has."""
    known = labelled(targets)
    return torch.where(known, values, 0).sum() / known.sum().clamp(min=1)


def full_precision(tensor: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return tensor.to(FULL_PRECISION_FROM.get(tensor.dtype, tensor.dtype))

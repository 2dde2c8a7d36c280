"""FitNets: a hint from the teacher's middle guides the student's middle."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from bantam.nets.output import Output
from bantam.objectives.features import feature_map, to_common_size
from bantam.objectives.hyperparameters import require_share, require_whole
from bantam.objectives.objective import Objective, full_precision


def hint_loss(projected: Tensor, hint: Tensor) -> Tensor:
    """1 / (2 N C h w) * ||projected - hint||^2, after average pooling to the smaller of the two sizes, h x w.

    The factor 1/2 is the paper's; the usual reimplementations, such as RepDistiller's, are a mean squared error
    without it, whose weight w is 2 w here. The paper's sum is divided by the number of elements, so that one weight
    suits every stage. It does not pool: its regressor is a convolution so large that the sizes agree. Source:
    Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3.

    Args:
        projected: [N, C, H, W], the student's map brought to the teacher's channels.
        hint: [N, C, H', W'], the teacher's map.

    Returns:
        A scalar of at least 0.
    """
    projected, hint = to_common_size(full_precision(projected), full_precision(hint))
    return F.mse_loss(projected, hint) / 2


class FitNet(Objective):
    """A 1x1 convolution, trained with the student, brings the student's map to the teacher's channels.

    Stages count as Python counts: -2 is the last but one. With `hint_until` = 0 the hint stands beside the
    other objectives from the first step to the last. With `hint_until` = h above 0 training has the paper's
    two stages: while progress < h the hint is alone (`alone_until`), so that it trains the student up to that
    stage; from then on its term is 0.
    """

    paper: ClassVar[str] = "Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __init__(self, student_stage: int = -2, teacher_stage: int = -2, hint_until: float = 0.0) -> None:
        super().__init__()
        require_whole(student_stage=student_stage, teacher_stage=teacher_stage)
        require_share(hint_until=hint_until)
        self.student_stage = student_stage
        self.teacher_stage = teacher_stage
        self.hint_until = hint_until
        self.alone_until = hint_until
        self.projection: nn.Conv2d | None = None

    def maps(self, student: Output, teacher: Output) -> tuple[Tensor, Tensor]:
        return (
            full_precision(feature_map("fitnet", "student", student, self.student_stage)),
            full_precision(feature_map("fitnet", "teacher", teacher, self.teacher_stage)),
        )

    def prepare(self, student: Output, teacher: Output | None) -> None:
        guided, hint = self.maps(student, self.taught_by(teacher))
        self.projection = nn.Conv2d(
            guided.shape[1], hint.shape[1], kernel_size=1, device=guided.device, dtype=guided.dtype
        )

    def terms(
        self, student: Output, teacher: Output | None, targets: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        if self.projection is None:
            raise RuntimeError("FitNet.prepare must see an example batch before training")
        guided, hint = self.maps(student, self.taught_by(teacher))
        loss = hint_loss(self.projection(guided), hint)
        # A factor and not a branch: the loop's progress may live on the device.
        return {"fitnet": loss * (progress < self.hint_until) if self.hint_until else loss}

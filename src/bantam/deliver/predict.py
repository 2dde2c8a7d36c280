"""Shipping a student, loading it again, and its predictions on unlabelled images."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bantam.data.splits import Normalisation, UnlabelledSplit
from bantam.deliver import submission
from bantam.errors import BadCheckpoint, BadData
from bantam.measure.accuracy import require_finite
from bantam.measure.tta import logits_of_tta
from bantam.nets.early_exit import without_exits
from bantam.nets.output import StagedNet
from bantam.nets.slimmable import Switch, SwitchableNet, extract
from bantam.nets.students import Student
from bantam.runs import checkpoint, runfolder


@dataclass(frozen=True)
class Shipped:
    """All that a shipped student needs besides its weights."""

    student: Student
    normalisation: Normalisation
    classes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            **self.student.to_json(),
            "normalisation": asdict(self.normalisation),
            "labels": list(self.classes),
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Shipped":
        """Raises BadCheckpoint where `value` is no description of a shipped student."""
        try:
            normalisation = Normalisation(*(colours(value["normalisation"][name]) for name in ("mean", "std")))
            if not all(isinstance(name, str) for name in value["labels"]):
                raise TypeError("labels that are no texts")
            student = {name: item for name, item in value.items() if name not in ("normalisation", "labels")}
            return Shipped(Student.from_json(student), normalisation, tuple(value["labels"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BadCheckpoint(f"student.json lacks or misstates {error}; run the recipe again") from error


def colours(value: Any) -> tuple[float, float, float]:
    """A number above 0 for each of R, G and B, at most 1, where white is. Raises ValueError."""
    red, green, blue = value
    if not all(isinstance(one, int | float) and 0 < one <= 1 for one in value):
        raise ValueError("a normalisation outside 0..1")
    return float(red), float(green), float(blue)


def ship(folder: Path, shipped: Shipped, weights: dict[str, Tensor]) -> nn.Module:
    """Write student.json and student_best.ckpt (a plain state_dict) to `folder`; gives the net, in eval mode.

    `weights` are those of the trained form; what is written and given is the shipped form, folded. Raises NotFinite.
    """
    trained = shipped.student.build()
    trained.load_state_dict(weights)
    net = shipped.student.shipped_form(trained)
    written = checkpoint.save_weights(folder / runfolder.WEIGHTS, net.state_dict())
    runfolder.write(folder / runfolder.STUDENT, {**shipped.to_json(), "weights": written})
    return net.eval()


def load_shipped(folder: Path, width: float | None = None, size: int | None = None) -> tuple[StagedNet, Shipped]:
    """The student that the run in `folder` shipped, as an ordinary net: of a switchable one, one of its switches.

    The `width` and the `size` in pixels are a switch's, by default the largest. Raises BadData without a student or
    without this switch, BadCheckpoint for unfit weights.
    """
    net, shipped = load_whole(folder)
    student = shipped.student
    whole = Switch(1.0, student.size)
    switches = student.switches or (whole,)
    wanted = Switch(whole.width if width is None else width, size or whole.size)
    if wanted not in switches:
        valid = ", ".join(f"{one.width:g} at {one.size} px" for one in sorted(switches))
        raise BadData(f"the student in {folder} has no width {wanted.width:g} at {wanted.size} px; it has {valid}")
    if not isinstance(net, SwitchableNet):
        return net, shipped
    number = switches.index(wanted)
    ordinary = student.at(student.switches[number])
    return extract(net, number, ordinary.shipped_net()), replace(shipped, student=ordinary)


def load_whole(folder: Path) -> tuple[StagedNet, Shipped]:
    """The student that the run in `folder` shipped, with all its switches if it is a switchable net.

    Raises BadData without one, BadRunFile, BadCheckpoint and NotFinite for damaged files and unfit weights.
    """
    told = runfolder.student(folder)
    try:
        shipped = Shipped.from_json(told)
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{folder / runfolder.STUDENT} is damaged: {error}") from error
    net = shipped.student.shipped_net()
    weights = folder / runfolder.WEIGHTS
    checkpoint.fill(net, checkpoint.weights(weights, sha256=told.get("weights")), weights)
    return net.eval(), shipped


def load_whole_way(folder: Path, width: float | None = None, size: int | None = None) -> tuple[StagedNet, Shipped]:
    """The student of `load_shipped` without early exits: the one pass that other runtimes and integers compute."""
    net, shipped = load_shipped(folder, width, size)
    return without_exits(net), replace(shipped, student=replace(shipped.student, exits=()))


def predict(
    net: nn.Module,
    shipped: Shipped,
    evaluation: UnlabelledSplit,
    *,
    tta: str,
    path: Path,
    probabilities: Path | None = None,
) -> Tensor:
    """Write the submission to `path` (and the class probabilities on request); gives the logits [N, K].

    `tta` is a name in `bantam.measure.tta.TTA`. Raises BadData for another one.
    """
    logits = logits_of_tta(net, evaluation, shipped.student.size, shipped.normalisation, tta)
    write_answers(logits, shipped, evaluation, path, probabilities)
    return logits


def write_answers(
    logits: Tensor, shipped: Shipped, evaluation: UnlabelledSplit, path: Path, probabilities: Path | None
) -> None:
    """Write the submission of `logits` [N, K] to `path`, and the class probabilities on request. Raises NotFinite."""
    require_finite(logits)
    submission.write(path, evaluation.ids, logits.argmax(1).tolist())
    if probabilities is not None:
        submission.write_probabilities(probabilities, evaluation.ids, logits.softmax(1), shipped.classes)

"""What a run ships: student.json, all that a student needs besides its weights, and the weights beside it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from bantam.data.splits import Normalisation, Splits
from bantam.errors import BadCheckpoint, BadData
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

    def require_classes(self, splits: Splits) -> None:
        """Raises BadData where the photographs have other classes than the student.

        Classes that are numbered on one side and have names on the other are the same: names are given later, too.
        """
        numbers = tuple(map(str, range(len(self.classes))))
        alike = len(splits.classes) == len(self.classes) and numbers in (splits.classes, self.classes)
        if splits.classes != self.classes and not alike:
            raise BadData(
                f"the photographs have the classes {', '.join(splits.classes)}, the student "
                f"{', '.join(self.classes)}; give --data the photographs that it was trained on"
            )

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


def ship(
    folder: Path, shipped: Shipped, weights: dict[str, Tensor], told: Mapping[str, Any] = MappingProxyType({})
) -> nn.Module:
    """Write student.json and student_best.ckpt (a plain state_dict) to `folder`; gives the net, in eval mode.

    `weights` are those of the trained form; what is written and given is the shipped form, folded. `told` are further
    keys of student.json. Raises NotFinite.
    """
    trained = shipped.student.build()
    trained.load_state_dict(weights)
    net = shipped.student.shipped_form(trained)
    written = checkpoint.save_weights(folder / runfolder.WEIGHTS, net.state_dict())
    runfolder.write(folder / runfolder.STUDENT, {**shipped.to_json(), **told, "weights": written})
    return net.eval()

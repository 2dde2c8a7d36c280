"""The families of students: one file each, and the table STUDENTS that names them all.

A new family is one file with a `FAMILY`, and one line in the table: CONTRIBUTING.md shows it. What needs torch is
imported where it is used: a name that there is not is said before torch is loaded.
"""

import copy
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bantam.errors import BadCheckpoint, BadRecipe
from bantam.nets.family import Family
from bantam.nets.fit import Shape
from bantam.tables import Table

if TYPE_CHECKING:
    from bantam.nets.output import StagedNet
    from bantam.nets.pruned import Widths
    from bantam.nets.slimmable import Switch

STUDENTS: Table[Family] = Table(
    "bantam.nets.students",
    {
        "sample": "sample:FAMILY",
        "mobilenet_v1": "mobilenet_v1:FAMILY",
        "mobilenet_v2": "mobilenet_v2:FAMILY",
        "mobilenet_v3": "mobilenet_v3:FAMILY",
        "shufflenet_v1": "shufflenet_v1:FAMILY",
        "shufflenet_v2": "shufflenet_v2:FAMILY",
        "squeezenet": "squeezenet:FAMILY",
        "densenet": "densenet:FAMILY",
        "ghostnet": "ghostnet:FAMILY",
        "depthwise_resnet": "depthwise_resnet:FAMILY",
        "largekernel": "largekernel:FAMILY",
        "mixedkernel": "mixedkernel:FAMILY",
        "reparam": "reparam:FAMILY",
        "recurrent": "recurrent:FAMILY",
    },
)

PRUNED: Table[Family] = Table(
    "bantam.nets.students",
    {"resnet18": "resnet:RESNET18", "resnet34": "resnet:RESNET34", "resnet50": "resnet:RESNET50"},
)
"""Teachers' architectures that become students by pruning alone."""

KNOWN: Table[Family] = Table(STUDENTS.room, {**STUDENTS.entries, **PRUNED.entries})
"""Every family that a description may name."""


def family(name: str) -> Family:
    """Look up a family; raises BadRecipe with the nearest name if there is none of that name."""
    if name not in STUDENTS:
        nearest = difflib.get_close_matches(name, STUDENTS, n=1, cutoff=0.0)[0]
        raise BadRecipe(f"no student family {name!r}: did you mean {nearest!r}? There are {', '.join(STUDENTS)}")
    return STUDENTS[name]


@dataclass(frozen=True)
class Student:
    """A student as plain data, saved beside its weights so that they load although `fit` changes later.

    `size` is the side of the square input in pixels; `pruned` names the layers that are narrower than the shape says;
    `switches` are the widths and resolutions of a switchable net, all channels at `size` first, empty for other nets;
    `exits` are the numbers of the stages after which there is an early exit (`bantam.nets.early_exit`). A net has one
    of the two at most.
    """

    family: str
    shape: Shape
    classes: int
    size: int
    pruned: "Widths | None" = None
    switches: "tuple[Switch, ...]" = ()
    exits: tuple[int, ...] = ()

    @property
    def kind(self) -> Family:
        """Its family; raises BadRecipe if there is none of that name."""
        return KNOWN[self.family] if self.family in KNOWN else family(self.family)

    def build(self) -> "StagedNet":
        """Build the net, freshly initialised; raises BadRecipe if there is no such family."""
        from bantam.nets.early_exit import with_exits
        from bantam.nets.pruned import shrink
        from bantam.nets.slimmable import SwitchableNet

        net = self.kind.build(self.shape, self.classes)
        shrink(net, self.pruned or {})
        if self.switches:
            return SwitchableNet(net, self.switches)
        return with_exits(net, self.exits, self.size) if self.exits else net

    def at(self, switch: "Switch") -> "Student":
        """The ordinary student that this one is at `switch`."""
        import torch

        from bantam.nets import slimmable

        ordinary = replace(self, switches=(), size=switch.size)
        if switch.width == 1:
            return ordinary
        with torch.device("meta"):
            return replace(ordinary, pruned=slimmable.narrowed_to(ordinary.build(), switch.width))

    def shipped_form(self, net: "StagedNet") -> "StagedNet":
        """Return the form of a trained `net` of this description that is weighed and shipped.

        It is a net of its own, in eval mode, that gives the same logits; `net` stays as it is.
        """
        from bantam.nets import slimmable
        from bantam.nets.fold import deploy

        if isinstance(net, slimmable.SwitchableNet):
            return slimmable.deploy(net)
        return deploy(net) if self.kind.folds else copy.deepcopy(net).eval()

    def shipped_net(self) -> "StagedNet":
        """Build the shipped form, freshly initialised: shipped weights load into it strictly, and it is weighed."""
        return self.shipped_form(self.build())

    def to_json(self) -> dict[str, Any]:
        """Return the description as a dict that `json` can write."""
        absent = {"pruned": None, "switches": (), "exits": ()}
        return {name: value for name, value in asdict(self).items() if name not in absent or value != absent[name]}

    @classmethod
    def from_json(cls, value: Any) -> "Student":
        """Read what `to_json` returned; other keys are ignored.

        Raises BadCheckpoint if it is not a description, or its family or shape cannot be built.
        """
        import torch

        from bantam.nets import slimmable

        if not isinstance(value, dict) or not {"family", "shape", "classes", "size"} <= value.keys():
            raise BadCheckpoint("the student's description must have the keys family, shape, classes and size")
        name, shape, classes, size = (value[key] for key in ("family", "shape", "classes", "size"))
        if not isinstance(name, str) or name not in KNOWN:
            raise BadCheckpoint(f"the student is of the unknown family {name!r}: this version knows {', '.join(KNOWN)}")
        for key, number in (("classes", classes), ("size", size)):
            if type(number) is not int or number < 1:
                raise BadCheckpoint(f"the student's {key} must be a whole number above 0, not {number!r}")
        try:
            switches = slimmable.switches_from(value.get("switches", ()), size)
            exits = tuple(value.get("exits", ()))
            if switches and exits:
                raise ValueError("it has several widths or sizes, and early exits")
            student = cls(name, shape, classes, size, value.get("pruned"), switches, exits)
            with torch.device("meta"):
                student.build()
        # A family reads its shape without checks, so a wrong one may fail anywhere in the building.
        except Exception as error:
            raise BadCheckpoint(
                f"the student's shape does not describe a {name} ({error!r}): take the file of another run"
            ) from error
        return student


def describe(
    name: str,
    budget: int,
    classes: int,
    size: int,
    choices: Mapping[str, Any] = MappingProxyType({}),
    switches: Sequence[tuple[float, int]] = (),
) -> Student:
    """Describe the largest student of a family within `budget` parameters, for `size` x `size` pixels.

    `choices` are of the family's own, by name; `switches` are (width, size) pairs, whose own weights count too. Raises
    BadRecipe if there is no such family or choice or the input is too small for it, and BudgetExceeded if its smallest
    net is too heavy.
    """
    from bantam.nets import slimmable

    check_choices(name, choices, switches)
    sharing = slimmable.switches_from(switches, size)
    further = {**choices, "switches": sharing} if sharing else choices
    return Student(name, family(name).fit(budget, classes, size, **further), classes, size, switches=sharing)


def check_choices(name: str, choices: Mapping[str, Any], switches: Sequence[tuple[float, int]] = ()) -> None:
    """Raise BadRecipe for a choice that the family `name` does not have, or a value or switches it does not offer."""
    if switches and not family(name).slims:
        slims = ", ".join(one.name for one in STUDENTS.values() if one.slims)
        raise BadRecipe(f'the family "{name}" cannot share its weights between several widths or sizes; {slims} can')
    valid = family(name).choices
    for choice, value in choices.items():
        if choice not in valid:
            offered = f"it has {', '.join(valid)}" if valid else "it has none"
            raise BadRecipe(f'the family "{name}" has no shape choice "{choice}": {offered}')
        if not any(value is item or (type(value) is type(item) and value == item) for item in valid[choice]):
            values = ", ".join(map(str, valid[choice]))
            raise BadRecipe(f'the family "{name}" has no {choice} = {value!r}: it has {values}')

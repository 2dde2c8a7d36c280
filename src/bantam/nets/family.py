"""What a family of students is: the shape that fits a budget, and the net of that shape."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bantam.nets.fit import Shape

if TYPE_CHECKING:
    from bantam.nets.output import StagedNet


@dataclass(frozen=True)
class Family:
    """A kind of net in all its sizes.

    `fit(budget, classes, size)` chooses the shape of at most `budget` parameters for inputs of `size` pixels;
    `build(shape, classes)` makes the net of that shape, freshly initialised from torch's random numbers.
    `folds` says whether the net is shipped deployed (`bantam.nets.fold`) or exactly as it is trained; the
    budget holds for what is shipped. `choices` names what else may be chosen of its shape, and from what, the usual
    value first; `fit` takes them as keywords. `slims` says whether one net can have several switches
    (`bantam.nets.slimmable`), which `fit` then takes as a keyword: it is a chain of convolutions with a BatchNorm each,
    perhaps with sums around some.
    """

    name: str
    paper: str
    fit: Callable[..., Shape]
    build: "Callable[[Shape, int], StagedNet]"
    folds: bool = True
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])
    slims: bool = False

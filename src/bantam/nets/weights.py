"""Weights as people save them, fitted to a net: without what lies around them, without the names of wrappers.

A file may hold a state_dict alone, or in a training's checkpoint beside epochs, optimizers and averaged weights, with
the names that DataParallel, torch.compile or a surrounding module gave them. What fits the net in one way only is
taken, and what was done is said; where two sets of weights fit, FILE#NAME names one.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bantam.errors import BadCheckpoint
from bantam.nets.saved import ADVICE, Foreign, read

Say = Callable[[str], None]

WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""What DataParallel, torch.compile, FSDP and activation checkpointing put into names, at any place."""

COUNTER = "num_batches_tracked"
"""BatchNorm's count of batches, which evaluation does not read; PyTorch before 0.4.1 had none."""

UNUSED = re.compile(r"(^|\.)(total_ops|total_params)$|^(AuxLogits|aux1|aux2)\.")
"""Tensors that no answer depends on: what thop counted, and the second classifiers of GoogLeNet and Inception."""

DEEPEST = 6
"""Mappings within mappings that are looked into."""


def quiet(_text: str) -> None:
    """Say nothing."""


# --- Finding what fits ---


@dataclass(frozen=True)
class Fit:
    """One set of weights in a file: its tensors, by the net's names as far as they can be, and where they lay."""

    place: tuple[str, ...]
    """The keys under which it lies."""
    prefix: str
    """What stood before all of its names."""
    state: dict[str, Tensor]
    beside: dict[str, Tensor]
    """Tensors in the same mapping that are not of it."""
    renamed: str = ""
    """How the classifier is called there, where that is another name."""
    wrapped: bool = False
    """Whether names of WRAPPERS were taken out of its names."""

    @property
    def label(self) -> str:
        """What stands after the # in FILE#NAME to name this one."""
        words = [*self.place, *(word for word in self.prefix.split(".") if word not in WRAPPERS)]
        return ".".join(word for word in words if word)

    def is_named(self, name: str) -> bool:
        """Whether FILE#`name` may mean this one: by its label, with wrappers or without, or by how that begins."""
        whole = ".".join([*self.place, self.prefix]).strip(".")
        return any(label == name or label.startswith(f"{name}.") for label in (self.label, whole))

    def unlike(self, expected: Mapping[str, Tensor]) -> list[str]:
        """The names that it lacks, that `expected` lacks, or whose tensors have another shape there."""
        lacking = [name for name in expected if name not in self.state and not name.endswith(COUNTER)]
        unknown = [name for name in self.state if name not in expected]
        both = [name for name in expected if name in self.state]
        return [*lacking, *unknown, *(name for name in both if self.state[name].shape != expected[name].shape)]


def mappings(
    held: Any, place: tuple[str, ...] = (), above: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """The tensors of every mapping in `held` that has some, with the keys that lead to it."""
    if isinstance(held, list | tuple) and not isinstance(held, Foreign):
        held = {str(number): item for number, item in enumerate(held)}
    if not isinstance(held, Mapping) or id(held) in above or len(above) == DEEPEST:
        return
    tensors = {key: value for key, value in held.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield place, tensors
    for key, value in held.items():
        yield from mappings(value, (*place, str(key)), (*above, id(held)))


def fits(held: Any, expected: Mapping[str, Tensor], classifier: str) -> Iterator[Fit]:
    """Every set of weights in `held` that may be meant, under every prefix under which it may be.

    `classifier` is the name of the layer that makes the logits, or empty.
    """
    wrappers = WRAPPERS - {word for name in expected for word in name.split(".")}
    anchor = next(iter(expected))
    for place, tensors in mappings(held):
        plain = {".".join(word for word in name.split(".") if word not in wrappers): name for name in tensors}
        unchanged = len(plain) < len(tensors) or plain.keys() == tensors.keys()
        for names in ({name: name for name in tensors}, {} if unchanged else plain):
            starts = [name.removesuffix(anchor) for name in names if name.endswith(anchor)]
            for start in [start for start in starts if not start or start.endswith(".")] or [""]:
                inside = {name.removeprefix(start): there for name, there in names.items() if name.startswith(start)}
                unused = {name for name in inside if name not in expected and UNUSED.search(name)}
                state = {name: tensors[there] for name, there in inside.items() if name not in unused}
                taken = {there for name, there in inside.items() if name not in unused}
                beside = {there: value for there, value in tensors.items() if there not in taken}
                fit = Fit(place, start, state, beside, wrapped=names is plain)
                yield with_classifier(fit, expected, classifier)


def with_classifier(fit: Fit, expected: Mapping[str, Tensor], classifier: str) -> Fit:
    """`fit` with its classifier by the right name, if that alone is missing and one other layer alone has its shapes.

    As where `fc` became a Sequential of dropout and a linear layer, or stands outside of the backbone as `head`.
    """
    wanted = {name: value.shape for name, value in expected.items() if is_of(name, classifier)}
    unknown = {name: value for name, value in fit.state.items() if name not in expected}
    lacking = {name for name in expected if name not in fit.state and not name.endswith(COUNTER)}
    if not wanted or lacking != wanted.keys():
        return fit
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in (unknown or fit.beside).items():
        layers.setdefault(name.rpartition(".")[0], {})[f"{classifier}.{name.rpartition('.')[2]}"] = value
    alike = [layer for layer, own in layers.items() if {name: value.shape for name, value in own.items()} == wanted]
    if len(alike) != 1 or (unknown and len(layers) > 1):
        return fit
    known = {name: value for name, value in fit.state.items() if name in expected}
    beside = {name: value for name, value in fit.beside.items() if name.rpartition(".")[0] != alike[0]}
    return replace(fit, state=known | layers[alike[0]], beside=beside, renamed=alike[0])


class Unfit(BadCheckpoint):
    """Weights of another net than the one they were to be loaded into; `held` is all that the file holds."""

    def __init__(self, message: str, held: Any) -> None:
        super().__init__(message)
        self.held = held


def file_and_name(path: Path) -> tuple[Path, str | None]:
    """FILE#NAME in its two parts; of a path without #, or of a file that has one in its name, the path and None."""
    if "#" not in path.name or path.exists():
        return path, None
    file, _, name = path.name.partition("#")
    return path.with_name(file), name


def load_weights(net: nn.Module, path: Path, say: Say = quiet) -> None:
    """Load the weights in `path` into `net`; `say` is told in one line what was unwrapped, left out or converted.

    `path` is a file, or FILE#NAME where the file holds several sets of weights that fit. Raises BadCheckpoint for a
    file that is not one of weights, is damaged, would run code, or holds numbers that are not finite; and Unfit, a
    BadCheckpoint, where nothing in it fits `net`. The net is then as it was.
    """
    file, name = file_and_name(path)
    held, foreign = read(file)
    expected, classifier = net.state_dict(), classifier_of(net)
    found = list(fits(held, expected, classifier))
    if not found:
        raise BadCheckpoint(no_weights(file, held, foreign))
    named = found if name is None else [fit for fit in found if fit.is_named(name)]
    if not named:
        raise BadCheckpoint(f"{file} holds nothing named {name}; it has weights in {labels(found)}")
    fitting = [fit for fit in named if not fit.unlike(expected)]
    if not fitting:
        best = min(named, key=lambda fit: len(fit.unlike(expected)))
        unlike = best.unlike(expected)
        if all(is_of(name, classifier) and name in best.state and name in expected for name in unlike):
            theirs, ours = len(best.state[unlike[0]]), len(expected[unlike[0]])
            raise BadCheckpoint(
                f"{path} has {theirs} classes, the data has {ours}: give a teacher that was trained on these classes"
            )
        raise Unfit(f"{path} {misfit(best, unlike, expected)}", held)
    chosen = fitting[0]
    if any(not same(chosen.state, other.state) for other in fitting[1:]):
        raise BadCheckpoint(
            f"{path} holds several sets of weights that fit, in {labels(fitting)}; name one: "
            f"{file.name}#{fitting[-1].label}"
        )
    state, types = converted(chosen.state, expected, path)
    net.load_state_dict(state)
    if told := account(chosen, held, foreign, types, expected, classifier):
        say(f"{path.name}: {'; '.join(told)}")


def classifier_of(net: nn.Module) -> str:
    """The name of the last linear layer, which in classifiers makes the logits; empty if there is none."""
    return next((name for name, module in reversed([*net.named_modules()]) if isinstance(module, nn.Linear)), "")


def is_of(name: str, layer: str) -> bool:
    """Whether the tensor `name` is the layer's own."""
    return name.rpartition(".")[0] == layer


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether the two hold the same numbers under the same names."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def converted(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], set[str]]:
    """`state` in the types of `expected`, and the floating types that were others. Raises BadCheckpoint."""
    ready: dict[str, Tensor] = {}
    types: set[str] = set()
    for name, wanted in expected.items():
        value = state.get(name)
        if value is None:  # a count of batches
            ready[name] = wanted
            continue
        kind = str(value.dtype).removeprefix("torch.")
        plain = value.layout == torch.strided and not value.is_meta and not value.is_quantized
        if not plain or value.is_floating_point() != wanted.is_floating_point() or value.is_complex():
            what = (
                kind if plain else f"{kind}, {value.layout}".removesuffix(", torch.strided") + ", without plain values"
            )
            raise BadCheckpoint(f"{path} holds {name} as {what}; save the weights in float32")
        if value.dtype != wanted.dtype:
            types.add(kind)
        ready[name] = value.detach().to(wanted.dtype)
        if not bool(torch.isfinite(ready[name]).all()):
            raise BadCheckpoint(f"{path} holds numbers in {name} that are not finite; give weights of a sound training")
    return ready, types


# --- Saying what was found ---


def some(names: Sequence[str]) -> str:
    """A few of `names`, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def labels(found: Sequence[Fit]) -> str:
    """How to name each of `found`."""
    return some(list(dict.fromkeys(fit.label or "the outermost mapping (empty name)" for fit in found)))


def no_weights(path: Path, held: Any, foreign: Sequence[str]) -> str:
    """Why there is nothing to load."""
    if foreign:
        return (
            f"{path} holds whole objects ({some(foreign)}), which could run code and are not read; "
            "save the net's weights alone: torch.save(net.state_dict(), path)"
        )
    what = type(held).__name__ if not isinstance(held, Mapping) or held else "empty mapping"
    return f"{path} is not a state_dict, a mapping of names to tensors, but: {what}; {ADVICE}"


def misfit(best: Fit, unlike: Sequence[str], expected: Mapping[str, Tensor]) -> str:
    """In what the nearest set of weights is not the net's."""
    inner = f" in {best.label}" if best.label else ""
    for problem, names in (
        ("lacks", [name for name in unlike if name not in best.state]),
        ("has the unknown", [name for name in unlike if name not in expected]),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f"{problem} {names[0]}{more}{inner}: its weights are of another architecture"
    name = unlike[0]
    return (
        f"holds {name} of shape {list(best.state[name].shape)}{inner}, not {list(expected[name].shape)}: "
        "its weights are of another width or number of classes"
    )


def account(
    chosen: Fit, held: Any, foreign: Sequence[str], types: set[str], expected: Mapping[str, Tensor], classifier: str
) -> list[str]:
    """What was done to the file's content before it was the net's."""
    told: list[str] = []
    if chosen.place:
        told.append(f"its weights are those in {'.'.join(chosen.place)}")
    if chosen.prefix:
        told.append(f'the prefix "{chosen.prefix}" is taken off their names')
    if chosen.wrapped:
        told.append("the names of wrappers are taken out of them")
    if chosen.renamed:
        told.append(f"its classifier is {chosen.renamed} there, {classifier} here")
    outer = (
        [str(key) for key in held if str(key) != chosen.place[0]] if chosen.place and isinstance(held, Mapping) else []
    )
    if not chosen.place:
        outer = [str(key) for key, value in held.items() if not isinstance(value, Tensor)]
    if left := [*chosen.beside, *outer]:
        told.append(f"left out: {some(left)}")
    if foreign:
        told.append(f"not read, for they are no tensors: {some(foreign)}")
    if types:
        told.append(f"{' and '.join(sorted(types))} converted to float32")
    if any(name not in chosen.state for name in expected):
        told.append(f"it has no {COUNTER}, which evaluation does not need")
    return told

"""What pruning costs: accuracy against the share of parameters that is gone, method by method."""

import copy
import csv
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bantam.compress.channels import IMPORTANCES, Bundle, Sample, bundles, prune_to
from bantam.compress.masks import MASKS, masked, one_branch
from bantam.data.augment import plain
from bantam.data.splits import LabelledSplit, Normalisation, require_labelled
from bantam.errors import BadPruning, BadRunFile, cut
from bantam.files import replacing, writing
from bantam.measure.accuracy import Accuracy, accuracy
from bantam.measure.logits import logits_of
from bantam.measure.plots import STYLE
from bantam.nets.blocks import ParallelConv
from bantam.nets.budget import weigh
from bantam.nets.output import StagedNet
from bantam.nets.students import Student
from bantam.runs import runfolder
from bantam.runs.watcher import Watcher
from bantam.train.reestimate import has_statistics, reestimated

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNSTRUCTURED = {f"unstructured-{name}": name for name in MASKS}
STRUCTURED = {f"structured-{name}": name for name in IMPORTANCES}
METHODS = (*UNSTRUCTURED, *STRUCTURED)

STATISTICS_IMAGES = 512
"""Training images from which BatchNorm's statistics are taken anew."""

TAYLOR_IMAGES = 64
"""Training images whose gradients Taylor importance looks at, in one batch."""

CURVE = "curve.json"
"""The file of a curve from which others read it."""

LOOKS = {"before": "as pruned", "reestimated": "BatchNorm re-estimated", "finetuned": "after fine-tuning"}
SHOWN_LOOKS = (("", "as pruned"), ("BatchNorm", "re-estimated"), ("after", "fine-tuning"))
"""The same above columns, in two lines each."""

Finetune = Callable[[nn.Module, str], nn.Module]
"""Trains a pruned net a little, in a place of the given name, and gives it back in eval mode."""


@dataclass(frozen=True)
class Subject:
    """What is pruned: a description, its net in the form that trains, in eval mode, and how it wants its images."""

    student: Student
    net: StagedNet
    normalisation: Normalisation


@dataclass(frozen=True)
class Point:
    """One net of a curve.

    `ratio` was asked for; `removed` is the share of the shipped parameters that is gone or zero, `parameters` what is
    left, `channel_ratio` the share of channels that went, None for unstructured methods.
    """

    method: str
    ratio: float
    removed: float
    parameters: int
    channel_ratio: float | None
    before: Accuracy
    reestimated: Accuracy | None
    finetuned: Accuracy | None

    def to_json(self) -> dict[str, Any]:
        """Return a dict that `json` can write."""
        accuracies = {
            look: {"accuracy": found.value, "standard_error": found.standard_error, **asdict(found)} if found else None
            for look, found in ((look, getattr(self, look)) for look in LOOKS)
        }
        return {**{name: value for name, value in vars(self).items() if name not in LOOKS}, **accuracies}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Point":
        accuracies = {
            look: Accuracy(found["correct"], found["n"]) if (found := value[look]) else None for look in LOOKS
        }
        return Point(**{**value, **accuracies})  # pyright: ignore[reportArgumentType]


MOST_RATIOS = 1000
"""Of one curve: each is a net of its own, pruned and measured by every method."""


def ratios_of(text: str) -> list[float]:
    """The ratios in "first:last:step" (both ends included) or "a,b,c", rising. Raises BadPruning."""
    try:
        if ":" in text:
            first, last, step = map(float, text.split(":"))
            step = step if step < math.inf else 0.0
            count = int((last - first) / step + 1e-9) + 1 if step > 0 else 0
            ratios = [round(first + number * step, 10) for number in range(min(count, MOST_RATIOS + 1))]
        else:
            ratios = sorted({float(part) for part in text.split(",")})
    except (ValueError, OverflowError):
        ratios = []
    if not ratios:
        raise BadPruning(
            f'ratios "{cut(text)}" are not understood: give first:last:step, such as 0:0.95:0.05, or 0.5,0.9'
        )
    if len(ratios) > MOST_RATIOS:
        raise BadPruning(f'ratios "{cut(text)}" are too many: give at most {MOST_RATIOS}, with a larger step')
    outside = next((ratio for ratio in ratios if not 0 <= ratio < 1), None)
    if outside is not None:
        raise BadPruning(
            f"ratio {outside:g} is the share of parameters to remove and must lie in 0..1, below 1: "
            "a ratio of 1 would empty every layer"
        )
    return ratios


def some(split: LabelledSplit, images: int) -> LabelledSplit:
    """At most `images` of `split` (0: all), drawn evenly and in mixed order, always the same ones.

    Raises SplitLeak for an unlabelled split.
    """
    split = require_labelled(split, "pruning")
    if not images or images >= len(split):
        return split
    chosen = torch.linspace(0, len(split) - 1, images).round().long()
    chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))]
    ids = tuple(split.ids[number] for number in chosen.tolist())
    return LabelledSplit(split.name, split.images[chosen], split.labels[chosen], ids, split.classes)


def plain_views(training: LabelledSplit, size: int, normalisation: Normalisation) -> Tensor:
    """The plain views [N, 3, size, size] of the training images on which statistics are taken."""
    return plain(some(training, STATISTICS_IMAGES).images, size, normalisation.mean, normalisation.std)


def sample_of(training: LabelledSplit, size: int, normalisation: Normalisation) -> Sample:
    """The plain views of a few training images, for Taylor importance."""
    few = some(training, TAYLOR_IMAGES)
    return plain(few.images, size, normalisation.mean, normalisation.std), few.labels


class Prunings:
    """The nets that come of pruning `subject` by any method at any ratio; what these share is made once.

    `training` has the images on which importance and BatchNorm statistics are taken.
    """

    def __init__(self, subject: Subject, training: LabelledSplit) -> None:
        self.subject, self.training = subject, training
        self.dense = weigh(subject.student.shipped_form(subject.net), subject.student.size).counted
        self._bundles: dict[str, list[Bundle]] = {}

    @functools.cached_property
    def single(self) -> nn.Module:
        """The net with one branch where it trains with several: single weights are masked in what ships."""
        student, net = self.subject.student, self.subject.net
        if not any(isinstance(module, ParallelConv) for module in net.modules()):
            return net
        return one_branch(student, net, plain_views(self.training, student.size, self.subject.normalisation))

    def at(self, method: str, ratio: float) -> tuple[nn.Module, int, float | None]:
        """A new net with the share `ratio` of its parameters gone, how many are left, and the share of channels."""
        left = self.dense - round(ratio * self.dense)
        if method in UNSTRUCTURED:
            return masked(self.single, self.dense, UNSTRUCTURED[method], ratio).eval(), left, None
        student, net = self.subject.student, self.subject.net
        if method not in self._bundles:
            sample = sample_of(self.training, student.size, self.subject.normalisation)
            self._bundles[method] = bundles(student, net, STRUCTURED[method], sample)
        smaller = prune_to(student, net, self._bundles[method], left)
        return smaller.net, smaller.parameters, smaller.channel_ratio

    def with_own_statistics(self, net: nn.Module) -> nn.Module | None:
        """A copy of `net` whose BatchNorms have statistics of its own; None where it has none."""
        if not has_statistics(net):
            return None
        size, normalisation = self.subject.student.size, self.subject.normalisation
        return reestimated(copy.deepcopy(net), self.training, size, normalisation, STATISTICS_IMAGES)

    def point(self, method: str, ratio: float, validation: LabelledSplit, finetune: Finetune | None) -> Point:
        """One net of the curve, judged as pruned, with its own statistics, and after `finetune`."""
        size, normalisation = self.subject.student.size, self.subject.normalisation

        def judged(net: nn.Module | None) -> Accuracy | None:
            return accuracy(logits_of(net, validation, size, normalisation), validation.labels) if net else None

        pruned, left, channel_ratio = self.at(method, ratio)
        before = judged(pruned)
        assert before is not None
        renewed = self.with_own_statistics(pruned)
        after = judged(renewed)  # before the training, which changes the net itself
        tuned = finetune(renewed or pruned, f"{method}-{ratio:g}") if finetune and ratio else None
        return Point(method, ratio, 1 - left / self.dense, left, channel_ratio, before, after, judged(tuned))


def curve(
    prunings: Prunings,
    methods: Sequence[str],
    ratios: Sequence[float],
    validation: LabelledSplit,
    watcher: Watcher,
    known: Sequence[Point] = (),
    keep: Callable[[list[Point]], None] = lambda _: None,
    finetune: Finetune | None = None,
) -> list[Point]:
    """Prune by every method at every ratio, and judge each net on `validation`.

    `known` points are taken as they are; `keep` is given all points after each new one. The largest ratios come first,
    so that one which would empty a layer is refused (BadPruning) before the long work.
    """
    points = {(each.method, each.ratio): each for each in known}
    todo = [(method, ratio) for ratio in sorted(ratios, reverse=True) for method in methods]
    watcher.begin("pruning", len(todo), 0)
    try:
        for done, (method, ratio) in enumerate(todo, start=1):
            if (method, ratio) not in points:
                twin = None if ratio else dense_point(points.values(), method)
                points[method, ratio] = twin or prunings.point(method, ratio, validation, finetune)
                keep(list(points.values()))
            watcher.advance(done)
    finally:
        watcher.end()
    return [points[method, ratio] for method in methods for ratio in sorted(ratios)]


def dense_point(points: Iterable[Point], method: str) -> Point | None:
    """The dense net's point, which is the same for each method of a kind, where another one has it already."""
    for point in points:
        if not point.ratio and (point.method in UNSTRUCTURED) == (method in UNSTRUCTURED):
            return replace(point, method=method)
    return None


def kept_points(path: Path, made_of: dict[str, Any]) -> list[Point]:
    """The points that an earlier, interrupted call kept in `path`, if it had the same `made_of`."""
    if not path.exists():
        return []
    advice = "delete it and run again: the curve begins anew"
    held = runfolder.table(path, advice)
    try:
        return [Point.from_json(value) for value in held["points"]] if held["made_of"] == made_of else []
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BadRunFile(f"{path} is damaged ({error!r}); {advice}") from error


def write_curve(folder: Path, points: Sequence[Point], about: dict[str, Any]) -> None:
    """Write curve.json, curve.csv, curve.svg and curve.png to `folder`. Raises CannotWrite."""
    runfolder.write(folder / CURVE, {**about, "points": [point.to_json() for point in points]})
    head = ["method", "ratio", "removed", "parameters", "channel_ratio", "n"]
    with writing(folder / "curve.csv") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*head, *(f"{look}{part}" for look in LOOKS for part in ("", "_standard_error"))])
        for point in points:
            cells: list[Any] = [point.method, f"{point.ratio:g}", f"{point.removed:.6f}", point.parameters]
            cells += ["" if point.channel_ratio is None else f"{point.channel_ratio:.6f}", point.before.n]
            for look in LOOKS:
                found: Accuracy | None = getattr(point, look)
                cells += [f"{found.value:.6f}", f"{found.standard_error:.6f}"] if found else ["", ""]
            rows.writerow(cells)
    import matplotlib  # Slow to import, and a recipe that prunes to a budget draws nothing.

    with matplotlib.rc_context(STYLE):
        figure = drawn(points, about["title"])
        for ending in ("svg", "png"):
            with replacing(folder / f"curve.{ending}") as temporary:
                figure.savefig(temporary, format=ending, dpi=90, metadata={"Date": None} if ending == "svg" else None)


def curve_text(points: Sequence[Point]) -> str:
    """Below each method a line a pruned net: the ratio, what is gone, what is left, and the accuracies as measured."""
    heads = [("", "ratio"), ("", "gone"), ("", "channels"), ("", "parameters"), *SHOWN_LOOKS]
    rows: list[Sequence[str]] = list(zip(*heads, strict=True))
    for point in points:
        looks = [getattr(point, look) for look in LOOKS]
        rows.append(
            [
                f"{point.ratio:g}",
                f"{point.removed:.1%}",
                "-" if point.channel_ratio is None else f"{point.channel_ratio:.1%}",
                f"{point.parameters:,}",
                *("-" if found is None else str(found) for found in looks),
            ]
        )
    used = [column for column in zip(*rows, strict=True) if set(column[2:]) != {"-"}]
    widths = [max(map(len, column)) for column in used]
    lines = ["  ".join(map(str.rjust, cells, widths)).rstrip() for cells in zip(*used, strict=True)]
    text, method = lines[:2], ""
    for point, line in zip(points, lines[2:], strict=True):
        if point.method != method:
            method = point.method
            text.append(method)
        text.append(line)
    return "\n".join(text)


def drawn(points: Sequence[Point], title: str) -> "Figure":
    """Validation accuracy over the share of parameters gone, a panel for each look that was taken; and the channels."""
    from matplotlib.figure import Figure

    looks = [look for look in LOOKS if any(getattr(point, look) for point in points)]
    structured = [point for point in points if point.channel_ratio is not None]
    panels = len(looks) + bool(structured)
    figure = Figure(figsize=(4.4 * panels + 0.6, 5.0), layout="constrained")
    first, *others = figure.subplots(1, panels, squeeze=False)[0]
    for look, axes in zip(looks, (first, *others), strict=False):
        for method, rows in by_method(points).items():
            found = [(point.removed, getattr(point, look)) for point in rows]
            found = [(removed, measured) for removed, measured in found if measured]
            axes.errorbar(
                [100 * removed for removed, _ in found],
                [100 * measured.value for _, measured in found],
                [100 * measured.standard_error for _, measured in found],
                elinewidth=0.8,
                label=method if look == looks[0] else None,
                **style_of(method),
            )
        axes.set(title=LOOKS[look], ylabel="validation accuracy ± standard error, %")
    for axes in others[: len(looks) - 1]:
        axes.sharey(first)
        axes.set_ylabel("")
    if structured:
        for method, rows in by_method(structured).items():
            gone = [(100 * point.removed, 100 * (point.channel_ratio or 0)) for point in rows]
            others[-1].plot(*zip(*gone, strict=True), **style_of(method))
        others[-1].set(title="channels that went", ylabel="channels removed, %")
    for axes in (first, *others):
        axes.set_xlabel("parameters removed, %")
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.legend(loc="outside lower center", ncols=min(3, 2 * panels), frameon=False)
    return figure


def by_method(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points of each method, in their order."""
    names = dict.fromkeys(point.method for point in points)
    return {name: [point for point in points if point.method == name] for name in names}


def style_of(method: str) -> dict[str, Any]:
    """The line of a method, the same in every panel and figure."""
    shape = {"marker": "o", "linestyle": "--"} if method in UNSTRUCTURED else {"marker": "s", "linestyle": "-"}
    return {"color": f"C{METHODS.index(method)}", "markersize": 3.5, **shape}

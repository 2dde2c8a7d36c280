"""What is in a data folder, and whether training on it would be safe.

Every image is decoded in full. Two images are exact duplicates when their upright RGB pixels are equal,
whatever their files' names and bytes.

Unsafe, because the result would be wrong or there would be none:
- the folder's layout cannot be used (see `folder.scan`), or a file cannot be read;
- a labelled or an unlabelled image also stands in the evaluation split;
- an unlabelled image also stands in the validation split;
- so many training images also stand in the validation split (0.5% of it or more) that the accuracy measured
  there could be too high by more than its noise;
- a class has no validation image: its accuracy could not be measured;
- there is one class alone.

Only a warning, because real data has some and training bears it: a smaller overlap of training and validation,
duplicates within a split, also where their labels differ, files that are left out, by kind, and what the decoder
remarked about files that it could read.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bantam.data import images
from bantam.data.contents import hashed
from bantam.data.folder import Folder, Listing, Record, list_images
from bantam.data.layouts.folders import UNLABELLED, left_out
from bantam.data.splitting import Division, divided
from bantam.data.store import default_cache_dir
from bantam.errors import BadData, BadImage

TOLERATED_OVERLAP = 0.005
"""Share of the validation images that may also stand in training before it is unsafe: it bounds what the overlap can
add to the measured accuracy, and the standard error on 4,432 images is larger."""

_SHOWN = 10

Sizes = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Copy:
    """One image of a group of duplicates; the label is None where there is none."""

    split: str
    id: str
    label: int | None


@dataclass(frozen=True)
class Report:
    """The findings of `check`.

    `root` is the folder of the images; of an archive or a table the file as it was given, not where it is unpacked.
    `counts` has the images per class for training and validation; `evaluation` and `unlabelled` are numbers, as
    those have no labels. `sizes` has for each split the smallest, median and largest width and height in pixels.
    `remarks` has by file what the decoder remarked about it, sentence by sentence. `ignored` counts the files and
    folders that were left out, without hidden ones. `duplicates` are groups of equal images. `unsafe` and `warnings`
    are sentences for people. `division` says how validation was split off, where the folder has none of its own, and
    which photographs were left out for that.
    """

    root: Path
    layout: str
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    evaluation: int
    unlabelled: int
    sizes: dict[str, Sizes]
    ignored: int
    unreadable: dict[str, str]
    remarks: dict[str, tuple[str, ...]]
    duplicates: tuple[tuple[Copy, ...], ...]
    unsafe: tuple[str, ...]
    warnings: tuple[str, ...]
    division: Division | None = None

    def text(self) -> str:
        """The report as lines for people: counts, sizes, then what is wrong."""
        width = max(len(name) for name in (*self.classes, "evaluation"))
        lines = [f"{self.root}: {len(self.classes)} classes, {self.layout} layout"]
        lines.append(f"{'':{width}}  {'training':>10}  {'validation':>10}")
        names = list(dict.fromkeys([*self.counts["training"], *self.counts["validation"]]))
        for name in names:
            training, validation = (self.counts[split].get(name, 0) for split in ("training", "validation"))
            lines.append(f"{name:{width}}  {training:10,}  {validation:10,}")
        totals = [sum(self.counts[split].values()) for split in ("training", "validation")]
        lines.append(f"{'all':{width}}  {totals[0]:10,}  {totals[1]:10,}")
        lines.append(f"{'evaluation':{width}}  {self.evaluation:10,}")
        if self.unlabelled:
            lines.append(f"{UNLABELLED:{width}}  {self.unlabelled:10,}")
        for split, sizes in self.sizes.items():
            smallest, median, largest = ("x".join(map(str, sizes[key])) for key in ("min", "median", "max"))
            lines.append(f"{split} sizes: {smallest} to {largest} px, median {median}")
        if self.division:
            lines.append(self.division.lines()[0])
            lines += [f"near duplicates: {', '.join(group)}" for group in self.division.groups[:_SHOWN]]
            if len(self.division.groups) > _SHOWN:
                lines.append(f"near duplicates: {len(self.division.groups) - _SHOWN:,} more groups, in --json")
            lines += [f"left out: {one.split} {one.id}, {one.why}, as {one.same_as}" for one in self.division.left_out]
        lines += [f"unreadable: {reason}" for reason in self.unreadable.values()]
        lines += [f"warning: {sentence}" for sentence in self.warnings]
        lines += [f"unsafe: {sentence}" for sentence in self.unsafe]
        lines.append("training here would be unsafe" if self.unsafe else "training here is safe")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self) | {
            "division": self.division.to_json() if self.division else None,
            "root": str(self.root),
            "classes": list(self.classes),
            "sizes": {name: {key: list(value) for key, value in sizes.items()} for name, sizes in self.sizes.items()},
            "remarks": {name: list(sentences) for name, sentences in self.remarks.items()},
            "duplicates": [[asdict(copy) for copy in group] for group in self.duplicates],
            "unsafe": list(self.unsafe),
            "warnings": list(self.warnings),
        }


def check(
    root: Path,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    cache_dir: Path | None = None,
) -> Report:
    """Read every image of a data folder, archive or table and report what is in it. Only the cache is written to.

    `progress(done, total)` is called in this thread. Raises BadData only where there is nothing to look at:
    `root` is missing, cannot be read or is empty, or is neither a directory nor a whole archive nor a table.
    """
    cache_dir = cache_dir or default_cache_dir()
    listing = list_images(root, cache_dir)
    folder, division = listing.folder, None
    problems = list(listing.problems)
    if not folder.divided and not problems:
        try:
            sources = hashed(folder.root, folder.splits(unlabelled=True), cache_dir, workers)
            division = divided(folder, sources, cache_dir, workers)
        except BadData as error:
            problems.append(str(error))
    everything = [(name, record) for name, records in folder.splits(unlabelled=True).items() for record in records]
    folder = division.of(folder) if division else folder
    splits = folder.splits(unlabelled=True)
    split_of = {record: name for name, records in splits.items() for record in records}
    entries = [(split_of.get(record, name), record) for name, record in everything]

    unreadable: dict[str, str] = {}
    remarks: dict[str, tuple[str, ...]] = {}
    sizes: dict[str, list[tuple[int, int]]] = defaultdict(list)
    groups: dict[str, list[Copy]] = defaultdict(list)
    inspected = images.in_parallel(_inspect, (record.path for _, record in entries), workers)
    for done, ((name, record), result) in enumerate(zip(entries, inspected, strict=True), start=1):
        file = str(record.path.relative_to(folder.root))
        if isinstance(result, BadImage):
            unreadable[file] = str(result)
        else:
            sizes[name].append(result.size)
            if record in split_of:
                groups[result.digest].append(Copy(name, record.id, record.label))
            if result.remarks:
                remarks[file] = result.remarks
        if progress and (done % 64 == 0 or done == len(entries)):
            progress(done, len(entries))

    duplicates = tuple(tuple(group) for group in groups.values() if len(group) > 1)
    counts = {name: _count(splits[name], folder.classes) for name in ("training", "validation")}
    return Report(
        root=root if root.is_file() else folder.root,
        layout=folder.layout,
        classes=folder.classes,
        counts=counts,
        evaluation=len(folder.evaluation),
        unlabelled=len(folder.unlabelled),
        sizes={name: _size_range(found) for name, found in sizes.items()},
        ignored=len(listing.ignored),
        unreadable=unreadable,
        remarks=remarks,
        duplicates=duplicates,
        unsafe=(*problems, *_unsafe(folder, counts, unreadable, duplicates)),
        division=division,
        warnings=(*_left_out(listing), *listing.remarks, *_remarked(remarks), *_warnings(duplicates, folder)),
    )


def _inspect(path: Path) -> images.Inspected | BadImage:
    try:
        return images.inspect(path)
    except BadImage as error:
        return error


def _count(records: Iterable[Record], classes: tuple[str, ...]) -> dict[str, int]:
    found = Counter(record.label for record in records)
    counts = {name: found.pop(label, 0) for label, name in enumerate(classes)}
    # Records without a class are named in the listing's problems.
    return counts | ({"(no class)": found.total()} if found else {})


def _size_range(sizes: list[tuple[int, int]]) -> Sizes:
    widths, heights = zip(*sizes, strict=True)
    return {
        "min": (min(widths), min(heights)),
        "median": (statistics.median_low(widths), statistics.median_low(heights)),
        "max": (max(widths), max(heights)),
    }


def _unsafe(
    folder: Folder,
    counts: dict[str, dict[str, int]],
    unreadable: dict[str, str],
    duplicates: tuple[tuple[Copy, ...], ...],
) -> Iterable[str]:
    if unreadable:
        number = _number(len(unreadable), "unreadable file")
        yield f"{number}, {_first(unreadable)}; replace or remove them"
    for name, measuring in (
        ("training", "evaluation"),
        ("validation", "evaluation"),
        (UNLABELLED, "evaluation"),
        (UNLABELLED, "validation"),
    ):
        if shared := _shared(duplicates, name, measuring):
            yield _overlap(shared, name, measuring)
    shared = _shared(duplicates, "training", "validation")
    if shared and len(shared) >= TOLERATED_OVERLAP * len(folder.validation):
        yield _overlap(shared, "training", "validation")
    # Where validation images have labels of no class, the listing's problems say so, and this may follow from it.
    if folder.divided and len(folder.classes) == 1:  # where validation is yet to be chosen the listing says so
        yield f"{folder.root} has one class, and a classifier needs two; add photographs of another"
    if folder.validation and all(record.label is not None for record in folder.validation):
        empty = [name for name, count in counts["validation"].items() if not count]
        if len(empty) == 1:
            yield f"class {empty[0]} has no validation image; add some"
        elif empty:
            yield f"{len(empty)} classes have no validation image, {_first(empty)}; add some"


def _left_out(listing: Listing) -> Iterable[str]:
    paths = (*listing.ignored, *listing.hidden)
    if paths:
        number = _number(len(paths), "entry", "entries")
        yield f"{number} left out, no images or too deep: {left_out(paths, listing.folder.root)}"


def _remarked(remarks: dict[str, tuple[str, ...]]) -> Iterable[str]:
    files: dict[str, list[str]] = defaultdict(list)
    for file, sentences in remarks.items():
        for sentence in sentences:
            files[sentence].append(file)
    for sentence, found in files.items():
        yield f'{_number(len(found), "file")} read although the decoder remarked "{sentence}": {_first(found)}'


def _warnings(duplicates: tuple[tuple[Copy, ...], ...], folder: Folder) -> Iterable[str]:
    shared = _shared(duplicates, "training", "validation")
    if 0 < len(shared) < TOLERATED_OVERLAP * len(folder.validation):
        yield _overlap(shared, "training", "validation")
    for name in ("training", "validation", "evaluation", UNLABELLED):
        ids = ([copy.id for copy in group if copy.split == name] for group in duplicates)
        repeated = [" = ".join(same) for same in ids if len(same) > 1]
        if repeated:
            yield f"{_number(len(repeated), 'image')} more than once in the {name} split, {_first(repeated)}"
    for group in duplicates:
        labelled = [copy for copy in group if copy.label is not None]
        if len({copy.label for copy in labelled}) > 1:
            copies = ", ".join(
                f"{copy.split} {copy.id} is {folder.classes[copy.label]}" for copy in labelled if copy.label is not None
            )
            yield f"one image has two labels: {copies}; keep the right one"


def _shared(duplicates: tuple[tuple[Copy, ...], ...], name: str, other: str) -> list[str]:
    """The ids of the images of split `name` that also stand in split `other`."""
    return [
        copy.id
        for group in duplicates
        if any(copy.split == other for copy in group)
        for copy in group
        if copy.split == name
    ]


def _overlap(shared: list[str], name: str, other: str) -> str:
    number = _number(len(shared), f"{name} image")
    return f"{number} also in the {other} split, {_first(shared)}; remove them from {name}"


def _number(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _first(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    return "such as " + ", ".join(names[:limit]) if len(names) > limit else ", ".join(names)

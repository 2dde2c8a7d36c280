"""Validation images where a folder has none: taken from those for training, in a way that can be audited and repeated.

The choice is a function of the photographs' content, ids and labels, of SEED, SHARE and MOST, and of nothing else. Of
each class SHARE goes to validation, at least one image, and of all no more than about MOST. Photographs that are nearly
the same stay on one side. Which come first is drawn for each by a hash of its content, so a photograph more or less
changes little.

What would make the result wrong is left out and listed: doubles, photographs that are also evaluation images, and
photographs that stand in two classes.
"""

import contextlib
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bantam.data import images, likeness
from bantam.data.contents import Source, read_table
from bantam.data.folder import Folder, Record
from bantam.data.layouts.folders import UNLABELLED
from bantam.errors import BadData, BadImage, CannotWrite
from bantam.files import write_sealed

SEED = 0
SHARE = 0.2
MOST = 5_000  # with so many the standard error is 0.7% at most: to measure finer is worth less than to learn from them

# Raise it when the same photographs would be divided in another way.
FORMAT = 1

DOUBLE = "double"
EVALUATED = "in evaluation"
TWO_CLASSES = "in two classes"


@dataclass(frozen=True)
class LeftOut:
    """A photograph that is not used, why, and the id of the one that it is the same as."""

    split: str
    id: str
    why: str
    same_as: str


@dataclass(frozen=True)
class Division:
    """Which ids train and which measure; the groups of ids that are nearly the same picture.

    `parted` are the groups that had to be on both sides, for want of other photographs of a class.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    parted: tuple[tuple[str, ...], ...]
    left_out: tuple[LeftOut, ...]
    seed: int = SEED
    share: float = SHARE

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        rule = {"hash": "pHash", "bits": likeness.BITS, "levels": likeness.LEVELS}
        return {"format": FORMAT, "near": rule, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Division":
        """What `to_json` gave. Raises KeyError, TypeError."""
        return cls(
            tuple(value["training"]),
            tuple(value["validation"]),
            tuple(map(tuple, value["groups"])),
            tuple(map(tuple, value["parted"])),
            tuple(LeftOut(**one) for one in value["left_out"]),
            value["seed"],
            value["share"],
        )

    def lines(self) -> list[str]:
        """What a person should know, a sentence each."""
        whole = len(self.training) + len(self.validation)
        kept = f"{len(self.groups):,} groups of near duplicates kept on one side each"
        lines = [f"validation is split off: {len(self.validation):,} of {whole:,} photographs, {kept}"]
        if self.parted:
            lines.append(
                f"warning: a class has only near duplicates, which are on both sides: {', '.join(self.parted[0][:3])}"
            )
        if self.left_out:
            whys = Counter(one.why for one in self.left_out)
            reasons = ", ".join(f"{count:,} {why}" for why, count in whys.most_common())
            shown = ", ".join(f"{one.id} (as {one.same_as})" for one in self.left_out[:3])
            more = ", ..." if len(self.left_out) > 3 else ""
            lines.append(f"{len(self.left_out):,} photographs left out, {reasons}: {shown}{more}")
        return lines

    def of(self, folder: Folder) -> Folder:
        """The folder as it is divided: each record in its split, without those that are left out."""
        validation, out = set(self.validation), {(one.split, one.id) for one in self.left_out}
        kept = [record for record in folder.training if ("training", record.id) not in out]
        return replace(
            folder,
            training=tuple(record for record in kept if record.id not in validation),
            validation=tuple(record for record in kept if record.id in validation),
            unlabelled=tuple(record for record in folder.unlabelled if (UNLABELLED, record.id) not in out),
            divided=True,
        )


def share_of(photographs: int) -> float:
    """The share of each class that goes to validation, of so many photographs."""
    return min(SHARE, MOST / max(photographs, 1))


def divided(
    folder: Folder,
    sources: dict[str, list[Source]],
    cache_dir: Path,
    workers: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Division:
    """`divide`, or what it came to for the same photographs earlier, which stands in CACHE/divisions."""
    digest = hashlib.sha256(f"{FORMAT} {SEED} {SHARE} {MOST}\n".encode())
    for name in ("training", "evaluation", UNLABELLED):
        rows = [(row.record.id, row.record.label, row.sha256) for row in sources[name]]
        digest.update(repr((name, rows)).encode("utf-8", "surrogateescape"))
    memo = cache_dir / "divisions" / f"{digest.hexdigest()[:32]}.json"
    try:
        return Division.from_json(read_table(memo))
    except (KeyError, TypeError):
        pass  # there is none, or it is damaged
    if say:
        say(f"looking for near duplicates among {len(sources['training']):,} photographs, to split validation off")
    division = divide(folder, sources, workers)
    with contextlib.suppress(CannotWrite):  # then it is found again the next time
        write_sealed(memo, division.to_json())
    return division


def divide(folder: Folder, sources: Mapping[str, list[Source]], workers: int | None = None) -> Division:
    """Choose the validation images of a folder that is not divided. Raises BadData where a class has too few images."""
    rows = [(name, row) for name in ("training", "evaluation", UNLABELLED) for row in sources[name]]
    alike = likeness.groups([row.record.path for _, row in rows], workers)
    left_out = _left_out(rows, [group for same in alike for group in _same(rows, same, workers)], folder.classes)
    out = {(one.split, one.id) for one in left_out}
    pool = {row.record.id: row for row in sources["training"] if ("training", row.record.id) not in out}
    _require_two(folder, pool, left_out)

    groups = [[rows[n][1].record.id for n in same if rows[n][0] == "training"] for same in alike]
    groups = [kept for group in groups if len(kept := [id for id in group if id in pool]) > 1]
    chosen, parted = _chosen(pool, groups)
    return Division(
        tuple(id for id in pool if id not in chosen),
        tuple(id for id in pool if id in chosen),
        tuple(map(tuple, groups)),
        tuple(map(tuple, parted)),
        tuple(left_out),
        share=share_of(len(pool)),
    )


# --- what is left out


def _same(rows: Sequence[tuple[str, Source]], alike: Sequence[int], workers: int | None) -> list[list[int]]:
    """Of pictures that are alike, the groups that are the same pixel by pixel."""
    same: dict[str, list[int]] = defaultdict(list)
    digests = images.in_parallel(_pixels, (rows[n][1].record.path for n in alike), workers)
    for position, digest in zip(alike, digests, strict=True):
        if digest:
            same[digest].append(position)
    return [group for group in same.values() if len(group) > 1]


def _pixels(path: Path) -> str:
    try:
        return images.inspect(path).digest
    except BadImage:
        return ""  # whoever decodes it says why


def _left_out(
    rows: Sequence[tuple[str, Source]], same: Iterable[Sequence[int]], classes: tuple[str, ...]
) -> list[LeftOut]:
    """Of each group of equal pictures: which are not used, and why."""
    left_out: list[LeftOut] = []
    for group in same:
        copies = {
            name: [rows[n][1].record for n in group if rows[n][0] == name]
            for name in ("training", "evaluation", UNLABELLED)
        }
        pool, measured, extra = copies.values()
        if len({record.label for record in pool}) > 1:
            left_out += [
                LeftOut(
                    "training", record.id, TWO_CLASSES, (pool[0] if record.label != pool[0].label else _other(pool)).id
                )
                for record in pool
            ]
        elif measured:
            left_out += [LeftOut("training", record.id, EVALUATED, measured[0].id) for record in pool]
        else:
            left_out += [LeftOut("training", record.id, DOUBLE, pool[0].id) for record in pool[1:]]
        # A picture without a label may be the same as one that measures, and is no more than a double otherwise.
        labelled = [(EVALUATED, record) for record in measured] or [(DOUBLE, record) for record in pool]
        left_out += [LeftOut(UNLABELLED, record.id, why, one.id) for record in extra for why, one in labelled[:1]]
    return sorted(left_out, key=lambda one: (one.split, one.id))


def _other(pool: Sequence[Record]) -> Record:
    return next(record for record in pool if record.label != pool[0].label)


def _require_two(folder: Folder, pool: Mapping[str, Source], left_out: Sequence[LeftOut]) -> None:
    """Raise BadData for a class of which no image to learn from, or none to measure by, would be left."""
    counts = Counter(row.record.label for row in pool.values())
    for label, name in enumerate(folder.classes):
        if counts[label] < 2:
            own = {record.id for record in folder.training if record.label == label}
            lost = [one for one in left_out if one.split == "training" and one.id in own]
            why = f", {len(lost)} left out ({lost[0].id} is {lost[0].why}, as {lost[0].same_as})" if lost else ""
            raise BadData(
                f"{folder.root} has {counts[label]} usable photographs of class {name}{why}, "
                "and one to learn from and one to measure by are needed; add some, or remove the class"
            )


# --- what is for validation


def _chosen(pool: Mapping[str, Source], groups: Sequence[Sequence[str]]) -> tuple[set[str], list[list[str]]]:
    """The ids for validation, and the groups that had to be parted."""
    label = {id: row.record.label for id, row in pool.items()}
    drawn = {id: hashlib.sha256(f"{SEED} {row.sha256 or id}".encode()).digest() for id, row in pool.items()}
    totals = Counter(label.values())
    share = share_of(len(pool))
    wanted = {one: min(max(1, math.floor(share * total + 0.5)), total - 1) for one, total in totals.items()}
    grouped = {id for group in groups for id in group}
    whole = [*groups, *([id] for id in pool if id not in grouped)]
    whole.sort(key=lambda group: min((drawn[id], id) for id in group))
    chosen: set[str] = set()
    got: Counter[int | None] = Counter()

    def take(group: Iterable[str], most: Callable[[int | None], int]) -> bool:
        counts = Counter(label[id] for id in group)
        if any(got[one] + count > most(one) for one, count in counts.items()):
            return False
        chosen.update(group)
        got.update(counts)
        return True

    for group in whole:
        take(group, lambda one: wanted[one])
    # A class in large groups alone: the smallest that leaves something to learn from.
    parted: list[list[str]] = []
    for one in wanted:
        if not got[one]:
            own = sorted((group for group in whole if any(label[id] == one for id in group)), key=len)
            if not any(take(group, lambda one: totals[one] - 1) for group in own):
                parted.append(list(own[0]))
                take(
                    [min((id for id in own[0] if label[id] == one), key=lambda id: (drawn[id], id))], lambda one: 10**9
                )
    return chosen, parted

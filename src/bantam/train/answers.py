"""Where a teacher's answers on the training views come from: asked at every step, or looked up.

A view is a pure function of (seed, image, view number), mixing included, so the teacher need see it only once. The view
cache keeps the answers on disk, one file a view, for every later run on the same data: other students, other losses,
longer schedules. "Patient and consistent" teachers (Beyer et al., 2022, arXiv:2106.05237) become affordable on a CPU.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from bantam.data import augment, batches
from bantam.data.augment import Viewing
from bantam.data.splits import TrainingSplit
from bantam.errors import BadCheckpoint
from bantam.files import read_sealed, replacing, sha256_of, write_json, write_sealed
from bantam.measure.accuracy import require_finite
from bantam.nets.output import Output
from bantam.nets.teachers import AnyTeacher, Teacher
from bantam.train.place import Place

FORMAT = 2  # raise it when the same key would stand for other answers
BUILD_BATCH = 128
SAMPLED = 16  # images whose cached answer is compared with the live one when a view is first looked up

# What float16 and another order of summation may change in a logit: relative, and absolute.
ROUNDING = (2e-3, 5e-3)
COARSE_ROUNDING = (2e-2, 1e-1)  # where a teacher answers in bf16, of which processors have several kinds


class Answers:
    """The teacher's side of a step."""

    seconds: float = 0.0
    """What was spent on asking ahead of the steps that need the answers."""

    def begin(self, view: int) -> None:
        """The coming calls are about view `view`."""

    def __call__(self, images: Tensor, index: Tensor, view: Tensor) -> Output:
        """The answer on `images` [B, 3, S, S], which are view `view` [B] of the training images `index` [B]."""
        raise NotImplementedError


class Live(Answers):
    """Asks the teacher at every step."""

    def __init__(self, teacher: AnyTeacher) -> None:
        self.teacher = teacher

    @torch.no_grad()
    def __call__(self, images: Tensor, index: Tensor, view: Tensor) -> Output:
        return self.teacher.observe(images)


class ViewCache(Answers):
    """Answers on disk: for each view a float16 array [N, K] of logits and, where asked for, [N, D] of embeddings.

    The folder's name is a hash of all that an answer depends on: the teacher's weights and input, the augmentation,
    the data, the seed. A view that is not there yet is asked about when a training comes to it, so that the first
    epoch need not wait for the last view; several processes share the images, several runs on a machine take turns.
    Files are written whole or not at all, and last of a view the SHA-256 of each of them, so a killed build goes on
    where it was. Each view is held against them once before it is used; a damaged one is asked for again.
    """

    def __init__(
        self,
        place: Place,
        teacher: AnyTeacher,
        training: TrainingSplit,
        fingerprint: str,
        viewing: Viewing,
        embedding: bool = False,
    ) -> None:
        self.teacher, self.training, self.viewing, self.embedding = teacher, training, viewing, embedding
        self.watcher, self.processes = place.watcher, place.processes
        self.device = next(teacher.parameters()).device
        about = {
            "format": FORMAT,
            "views": augment.version(viewing.augmentation, training.images.shape, viewing.size),
            "teacher": digest_of(teacher),
            "teacher_size": teacher.size,
            "augmentation": asdict(viewing.augmentation),
            "size": viewing.size,
            "normalisation": asdict(viewing.normalisation),
            "seed": viewing.seed,
            "data": fingerprint,
            # Earlier, the one image without a partner had no answer.
            **({"alone": "its own partner"} if len(training) % 2 else {}),
        }
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
        self.folder = place.folder / key
        if not (self.folder / "about.json").exists():
            write_json(self.folder / "about.json", about)
        self.checked: set[int] = set()
        self.logits: Tensor | None = None
        self.embeddings: Tensor | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("logits", "embedding") if self.embedding else ("logits",)

    def path(self, view: int, what: str) -> Path:
        return self.folder / f"{view:05d}.{what}.npy"

    def record(self, view: int) -> Path:
        return self.folder / f"{view:05d}.json"

    def has(self, view: int) -> bool:
        """Whether all about view `view` has been written once; it may be damaged since."""
        return self.record(view).exists() and all(self.path(view, kind).exists() for kind in self.kinds)

    def whole(self, view: int) -> bool:
        """Whether the answers on view `view` are there, bit by bit as they were written."""
        try:
            known = read_sealed(self.record(view))
            return all(
                sha256_of(self.path(view, kind)) == known.get(kind) and self.fits(self.path(view, kind))
                for kind in self.kinds
            )
        except (OSError, ValueError):
            return False

    def fits(self, path: Path) -> bool:
        """Whether `path` holds float16 [N, ...]. Raises OSError, ValueError."""
        values = mapped(path)
        return values.dtype == torch.float16 and values.ndim == 2 and len(values) == len(self.training)

    def begin(self, view: int) -> None:
        """Have the answers on view `view` at hand: looked up and sampled against live ones, or asked for now.

        Raises BadCheckpoint where the sample differs by more than rounding, NotFinite where the teacher's answers are
        no numbers, and CannotWrite.
        """
        if view not in self.checked:
            if self.whole(view):
                self.check(view)
            else:
                if self.has(view):
                    self.watcher.say(f"cached answers on view {view} in {self.folder} are damaged and asked for again")
                self.build(view)
        self.checked.add(view)
        self.logits = self.fill(self.logits, self.path(view, "logits"))
        if self.embedding:
            self.embeddings = self.fill(self.embeddings, self.path(view, "embedding"))

    def build(self, view: int) -> None:
        """Ask the teacher about view `view`; each process asks about its share of the images, process 0 writes."""
        started = time.monotonic()
        # Another run on this machine that comes to the same view waits, and then finds it.
        alone = self.processes.world == 1
        with FileLock(self.folder / f".{view:05d}.lock") if alone else nullcontext():
            if alone and self.whole(view):
                return
            answers = self.asked(view)
            if self.processes.rank == 0:
                for leftover in self.folder.glob(f".{view:05d}.*.tmp"):  # of a build that was killed
                    leftover.unlink(missing_ok=True)
                for kind, values in answers.items():
                    save_array(self.path(view, kind), values.numpy())
                write_sealed(self.record(view), {kind: sha256_of(self.path(view, kind)) for kind in answers})
            self.processes.barrier()
        self.seconds += time.monotonic() - started

    def asked(self, view: int) -> dict[str, Tensor]:
        """The live answers on view `view` of every image, float16 [N, ...] by kind."""
        images = len(self.training)
        pairs = batches.pairing(images, self.viewing.seed, view).view(-1, 2)
        order = pairs[self.processes.share(len(pairs))].flatten()
        told: dict[str, list[Tensor]] = {kind: [] for kind in self.kinds}
        self.watcher.begin(f"answers {view}", len(order), 0)
        done = 0
        try:
            for index, answer in self.ask(view, order):
                for kind in self.kinds:
                    told[kind].append(getattr(answer, kind).cpu().half())
                done += len(index)
                self.watcher.advance(done)
        finally:
            self.watcher.end()
        answers: dict[str, Tensor] = {}
        for kind, parts in told.items():
            values = require_finite(self.processes.gathered(torch.cat(parts)))
            answers[kind] = torch.full((images, values.shape[1]), torch.nan, dtype=torch.float16)
            answers[kind][pairs.flatten()] = values
        return answers

    @torch.no_grad()
    def ask(self, view: int, order: Tensor) -> Iterator[tuple[Tensor, Output]]:
        """The teacher's live answers on view `view` of the images `order`, whole pairs: (index on the CPU, answer)."""
        for index in order.split(BUILD_BATCH):
            there = index.to(self.device)
            views, _ = augment.render(self.training.images, there, view, self.viewing)
            with torch.backends.cudnn.flags(allow_tf32=False):
                yield index, self.teacher.observe(views)

    def check(self, view: int) -> None:
        """Compare a few of the cached answers on view `view` with live ones. Raises BadCheckpoint."""
        cached = mapped(self.path(view, "logits"))
        sampled = batches.pairing(len(self.training), self.viewing.seed, view)[:SAMPLED]
        for index, answer in self.ask(view, sampled):
            live = answer.logits.cpu()
            relative, absolute = COARSE_ROUNDING if in_bf16(self.teacher) else ROUNDING
            difference = (cached[index].float() - live).abs()
            if not bool((difference <= absolute + relative * live.abs()).all()):
                raise BadCheckpoint(
                    f"cached answers in {self.folder} differ from the teacher's by {float(difference.max()):.3g} "
                    f"(view {view}); delete this folder and run again"
                )

    def fill(self, buffer: Tensor | None, path: Path) -> Tensor:
        """The array in `path`: memory-mapped on a CPU; on a GPU in the same memory for every view, for its graph."""
        values = mapped(path)
        if self.device.type == "cpu":
            return values
        return values.to(self.device) if buffer is None else buffer.copy_(values)

    @torch.no_grad()
    def __call__(self, images: Tensor, index: Tensor, view: Tensor) -> Output:
        assert self.logits is not None, "begin() names the view first"
        logits = self.logits[index].float()  # [B, K]
        embedding = self.embeddings[index].float() if self.embeddings is not None else logits
        return Output(logits, embedding, ())


def in_bf16(teacher: AnyTeacher) -> bool:
    """Whether a teacher, or one of several, answers in less than float32."""
    return any(isinstance(one, Teacher) and one.autocast is not None for one in teacher.modules())


def mapped(path: Path) -> Tensor:
    """The array in a .npy file, memory-mapped. Raises OSError, and ValueError for what is none."""
    try:
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (EOFError, TypeError) as error:  # an empty file; an array of what torch has no type for
        raise ValueError(str(error)) from error


def save_array(path: Path, values: np.ndarray[Any, Any]) -> None:
    """Write a .npy file whole or not at all."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, values)


def digest_of(net: nn.Module) -> str:
    """A hash of a net's architecture and weights."""
    digest = hashlib.sha256(repr(net).encode())
    for name, value in net.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

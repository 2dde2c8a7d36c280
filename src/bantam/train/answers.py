"""Where a teacher's answers on the training views come from: asked at every step, or looked up.

A view is a pure function of (seed, image, view number), mixing included, so the teacher need see it only once. The view
cache keeps the answers on disk, one file a view, for every later run on the same data: other students, other losses,
longer schedules. "Patient and consistent" teachers (Beyer et al., 2022, arXiv:2106.05237) become affordable on a CPU.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bantam.data import augment, batches
from bantam.data.augment import Augmentation
from bantam.data.splits import LabelledSplit, Normalisation
from bantam.errors import BadCheckpoint
from bantam.files import replacing, write_json
from bantam.nets.output import Output
from bantam.nets.teachers import AnyTeacher
from bantam.train.runlog import Watcher

FORMAT = 1  # raise it when the same key would stand for other answers
BUILD_BATCH = 128
SAMPLED = 32  # images whose cached answer is compared with the live one when a cache is opened

# What float16 and another order of summation may change in a logit: relative, and absolute.
ROUNDING = (2e-3, 5e-3)


class Answers:
    """The teacher's side of a step."""

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
    the data, the seed. Files are written whole or not at all, so a killed build goes on where it was.
    """

    def __init__(
        self,
        folder: Path,
        teacher: AnyTeacher,
        training: LabelledSplit,
        fingerprint: str,
        augmentation: Augmentation,
        size: int,
        normalisation: Normalisation,
        seed: int,
        embedding: bool = False,
    ) -> None:
        self.teacher, self.training, self.augmentation = teacher, training, augmentation
        self.size, self.normalisation, self.seed, self.embedding = size, normalisation, seed, embedding
        self.device = next(teacher.parameters()).device
        about = {
            "format": FORMAT,
            "views": augment.VERSION,
            "teacher": digest_of(teacher),
            "teacher_size": teacher.size,
            "augmentation": asdict(augmentation),
            "size": size,
            "normalisation": asdict(normalisation),
            "seed": seed,
            "data": fingerprint,
        }
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
        self.folder = folder / key
        if not (self.folder / "about.json").exists():
            write_json(self.folder / "about.json", about)
        self.logits: Tensor | None = None
        self.embeddings: Tensor | None = None

    def path(self, view: int, what: str) -> Path:
        return self.folder / f"{view:05d}.{what}.npy"

    def missing(self, views: int) -> list[int]:
        """Which of the views 0..views-1 have no answers yet."""
        kinds = ["logits", "embedding"] if self.embedding else ["logits"]
        return [view for view in range(views) if not all(self.path(view, kind).exists() for kind in kinds)]

    def build(self, views: int, watcher: Watcher, rank: int = 0, world: int = 1) -> None:
        """Ask the teacher about every view that is missing of the first `views`; rank r of `world` takes its share.

        A process need not wait for the others while it builds, but all must be through before one reads. Raises
        CannotWrite.
        """
        # By the view's own number: by its place in the list each process would cut a list of its own, for the others'
        # views appear while it looks.
        todo = [view for view in self.missing(views) if view % world == rank]
        if not todo:
            return
        images = len(self.training)
        watcher.begin("answers", len(todo) * images, 0)
        for position, view in enumerate(todo):
            for leftover in self.folder.glob(f".{view:05d}.*.tmp"):  # of a build that was killed
                leftover.unlink(missing_ok=True)
            logits: Tensor | None = None
            embeddings: Tensor | None = None
            done = 0
            for index, answer in self.ask(view):
                if logits is None or embeddings is None:
                    # An odd image out has no partner, is in no batch and keeps the answer "not a number".
                    logits = torch.full((images, answer.logits.shape[1]), torch.nan, dtype=torch.float16)
                    embeddings = torch.full((images, answer.embedding.shape[1]), torch.nan, dtype=torch.float16)
                logits[index] = answer.logits.cpu().half()
                if self.embedding:
                    embeddings[index] = answer.embedding.cpu().half()
                done += len(index)
                watcher.advance(position * images + done)
            for what, values in (("logits", logits), ("embedding", embeddings if self.embedding else None)):
                if values is not None:
                    save_array(self.path(view, what), values.numpy())
        watcher.end()

    @torch.no_grad()
    def ask(self, view: int, at_most: int | None = None) -> Iterator[tuple[Tensor, Output]]:
        """The teacher's live answers on view `view`, in batches of whole pairs: (index on the CPU, answer)."""
        images = len(self.training)
        order = batches.pairing(images, self.seed, view)[: images // 2 * 2][:at_most]
        mean, std = self.normalisation.mean, self.normalisation.std
        for index in order.split(BUILD_BATCH):
            there = index.to(self.device)
            views, _ = augment.render(
                self.training.images, there, view, self.seed, self.augmentation, self.size, mean, std
            )
            with torch.backends.cudnn.flags(allow_tf32=False):
                yield index, self.teacher.observe(views)

    def check(self, views: int) -> None:
        """Compare cached answers with live ones on a few images of the first and last view. Raises BadCheckpoint."""
        for view in {0, views - 1}:
            cached = torch.from_numpy(np.load(self.path(view, "logits"), mmap_mode="c"))
            for index, answer in self.ask(view, SAMPLED):
                live = answer.logits.cpu()
                relative, absolute = ROUNDING
                difference = (cached[index].float() - live).abs()
                if not bool((difference <= absolute + relative * live.abs()).all()):
                    raise BadCheckpoint(
                        f"cached answers in {self.folder} differ from the teacher's by {float(difference.max()):.3g} "
                        f"(view {view}); delete this folder and run again"
                    )

    def begin(self, view: int) -> None:
        self.logits = self.fill(self.logits, self.path(view, "logits"))
        if self.embedding:
            self.embeddings = self.fill(self.embeddings, self.path(view, "embedding"))

    def fill(self, buffer: Tensor | None, path: Path) -> Tensor:
        """The array in `path`: memory-mapped on a CPU; on a GPU in the same memory for every view, for its graph."""
        mapped = torch.from_numpy(np.load(path, mmap_mode="c"))
        if self.device.type == "cpu":
            return mapped
        return mapped.to(self.device) if buffer is None else buffer.copy_(mapped)

    @torch.no_grad()
    def __call__(self, images: Tensor, index: Tensor, view: Tensor) -> Output:
        assert self.logits is not None, "begin() names the view first"
        logits = self.logits[index].float()  # [B, K]
        embedding = self.embeddings[index].float() if self.embeddings is not None else logits
        return Output(logits, embedding, ())


def save_array(path: Path, values: np.ndarray[Any, Any]) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, values)


def digest_of(net: nn.Module) -> str:
    """A hash of a net's architecture and weights."""
    digest = hashlib.sha256(repr(net).encode())
    for name, value in net.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

"""The two best public solutions, trained on a folder in their own way, to be set beside Bantam's own results.

    python benchmarks/peers.py P1|P2 --data DIR [--epochs N] [--patience N] [--workers N] [--folder DIR] [--hits FILE]

Nets in peer_nets.py. What they do:
  P1  random resized crop, flip, TrivialAugmentWide, random erasing; of the batches 25% with CutMix and 25% with FMix;
      half KL at T = 0.9 and half focal binary cross-entropy; SGD at 0.1, 0.01 and 0.001, each until `patience` epochs
      have brought nothing and from the best of the one before; at test time five augmented views beside the plain one.
  P2  flips both ways, rotation up to 180 degrees; half KL at T = 20 and half cross-entropy; Adam with warm restarts.
Both look at 224 px, and have the given ResNet-18 as their teacher, so that both sides have the same one. It looks at
the same mixed image at `--teacher-size`, where it is at its best; in the originals it looks at 224 px.

For speed the photographs are decoded once, into Bantam's cache. Nothing else is Bantam's: the views are made image by
image, as the originals make them. Validation chooses the epoch; the evaluation split is not touched.

With `--folder` what a killed training needs is kept there after every epoch, and the same command goes on; on a CPU,
without `--workers`, to the same bits. `--hits` keeps which validation images are right, for against_peers.py.
"""

import argparse
import copy
import hashlib
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.ops import sigmoid_focal_loss
from torchvision.transforms import v2

from bantam.data import cache
from bantam.data.splits import IMAGENET, LabelledSplit
from bantam.errors import RunMismatch
from bantam.measure.accuracy import accuracy, hits
from bantam.nets.footprint import footprint
from bantam.nets.teachers import Teacher, load_teacher
from bantam.objectives.kd import loss_fn_kd
from bantam.runs import checkpoint
from evidence import RESULTS, write
from peer_nets import NETS

BATCH, CLIP = 64, 10.0
RATES = {"P1": (0.1, 0.01, 0.001), "P2": (3e-3,)}
NORMALISE = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(IMAGENET.mean), list(IMAGENET.std))]
TEST_VIEW = v2.Compose([v2.Resize(256), v2.CenterCrop(224), *NORMALISE])
TRAINING_VIEWS = {
    "P1": v2.Compose(
        [
            v2.RandomResizedCrop(224),
            v2.RandomHorizontalFlip(),
            v2.TrivialAugmentWide(),
            *NORMALISE,
            v2.RandomErasing(),
        ]
    ),
    "P2": v2.Compose(
        [
            v2.Resize(256),
            v2.CenterCrop(224),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomRotation([-180, 180]),
            *NORMALISE,
        ]
    ),
}


class Views(Dataset[tuple[Tensor, Tensor]]):
    """A split through a transform, image by image: float32 [3, 224, 224] and the label."""

    def __init__(self, split: LabelledSplit, view: v2.Compose) -> None:
        self.split, self.view = split, view

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.split.images[index].permute(2, 0, 1).contiguous()  # [3, H, W] uint8
        return cast(Tensor, self.view(image)), self.split.labels[index]


def fmix_mask(size: int, share: float, generator: torch.Generator, decay: float = 5.0) -> Tensor:
    """1 on a random blob of `share` of the pixels, 0 elsewhere: [size, size].

    Harris et al., "FMix: Enhancing Mixed Sample Data Augmentation", 2020, arXiv:2002.12047: low-pass noise with a
    spectrum that falls as frequency ** -decay, cut at the level that leaves the share.
    """
    frequency = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None])
    amplitude = frequency.clamp(min=1 / size) ** -decay
    real, imaginary = torch.randn(2, *amplitude.shape, generator=generator)
    grey = torch.fft.irfft2(torch.complex(real, imaginary) * amplitude, s=(size, size)).flatten()
    mask = torch.zeros_like(grey)
    mask[grey.topk(round(share * grey.numel())).indices] = 1
    return mask.view(size, size)


def box_mask(size: int, share: float, generator: torch.Generator) -> Tensor:
    """0 in a random box of 1 - `share` of the pixels, cut at the border, 1 elsewhere: CutMix, [size, size]."""
    side = round(size * (1 - share) ** 0.5)
    row, column = (int(torch.randint(size, (), generator=generator)) - side // 2 for _ in range(2))
    mask = torch.ones(size, size)
    mask[max(0, row) : max(0, row + side), max(0, column) : max(0, column + side)] = 0
    return mask


def mixed(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """P1's mixing of a batch [B, 3, S, S] and its targets [B, K]: a quarter CutMix, a quarter FMix, half none."""
    kind = float(torch.rand((), generator=generator))
    if kind >= 0.5:
        return images, targets
    share = float(torch.rand((), generator=generator))  # Beta(1, 1)
    size = images.shape[-1]
    if kind < 0.25:
        mask = box_mask(size, min(max(share, 0.3), 0.4), generator)
    else:
        mask = fmix_mask(size, share, generator)
    own = float(mask.mean())
    other = torch.randperm(len(images), generator=generator).to(images.device)
    mask = mask.to(images.device)
    return images * mask + images[other] * (1 - mask), own * targets + (1 - own) * targets[other]


def p1_loss(logits: Tensor, targets: Tensor, teacher: Tensor) -> Tensor:
    """Half KL(teacher || student) at T = 0.9, without the factor T^2, and half focal binary cross-entropy."""
    temperature = 0.9
    soft = F.kl_div(
        F.log_softmax(logits / temperature, 1), F.log_softmax(teacher / temperature, 1), reduction="batchmean",
        log_target=True,
    )  # fmt: skip
    return 0.5 * soft + 0.5 * sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2, reduction="mean")


def p2_loss(logits: Tensor, targets: Tensor, teacher: Tensor) -> Tensor:
    return loss_fn_kd(logits, targets, teacher, alpha=0.5, temperature=20.0)


@dataclass
class Best:
    """The best epoch so far, and when it came."""

    accuracy: float = 0.0
    epoch: int = 0
    weights: dict[str, Tensor] | None = None


class Peer:
    """One peer's training, an epoch at a time."""

    def __init__(self, name: str, data: Path, size: int, teacher_size: int, workers: int) -> None:
        torch.manual_seed(0)
        self.name = name
        splits = cache.open_splits(data, size)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.classes = len(splits.classes)
        # channels_last is faster on a CPU, and changes nothing but rounding.
        self.net = NETS[name](self.classes).to(self.device).to(memory_format=torch.channels_last)
        given = load_teacher(data / "resnet18_teacher.ckpt", "resnet18", self.classes)
        means = (IMAGENET.mean, IMAGENET.std)
        looking = Teacher(given, teacher_size, *means, *means)
        self.teacher = looking.to(self.device).to(memory_format=torch.channels_last)
        self.augmented = Views(splits.training, TRAINING_VIEWS[name])
        self.training = DataLoader(self.augmented, BATCH, shuffle=True, num_workers=workers)
        self.validation = splits.validation
        self.workers = workers
        self.generator = torch.Generator().manual_seed(0)
        self.made_of = {"peer": name, "data": splits.fingerprint, "teacher_size": teacher_size}

    def train_epoch(self, optimizer: torch.optim.Optimizer, schedule: Any) -> None:
        self.net.train()
        loss_of = p1_loss if self.name == "P1" else p2_loss
        for opened, labels in self.training:
            images = opened.to(self.device, memory_format=torch.channels_last)
            targets = F.one_hot(labels, self.classes).float().to(self.device)
            if self.name == "P1":
                images, targets = mixed(images, targets, self.generator)
            loss = loss_of(self.net(images), targets, self.teacher(images))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
            optimizer.step()
            if schedule is not None:
                schedule.step()

    @torch.no_grad()
    def probabilities(self, view: v2.Compose) -> Tensor:
        """Class probabilities [N, K] of the validation images in `view`."""
        self.net.eval()
        loader = DataLoader(Views(self.validation, view), BATCH, num_workers=self.workers)
        answers = list[Tensor]()
        for opened, _ in loader:
            images = opened.to(self.device, memory_format=torch.channels_last)
            answers.append(self.net(images).softmax(1).cpu())
        return torch.cat(answers)

    def validate(self) -> float:
        return accuracy(self.probabilities(TEST_VIEW), self.validation.labels).value

    def averaged(self) -> Tensor:
        """P1's test time: 0.4 of the plain view and 0.12 of each of five augmented ones."""
        answer = 0.4 * self.probabilities(TEST_VIEW)
        for _ in range(5):
            answer += 0.12 * self.probabilities(self.augmented.view)
        return answer


class Training:
    """A peer's training, round by round and epoch by epoch; after each epoch `path` holds what a killed one needs."""

    def __init__(self, peer: Peer, epochs: int, patience: int, path: Path | None = None) -> None:
        self.peer, self.epochs, self.patience, self.path = peer, epochs, patience, path
        self.best, self.accuracies, self.seconds = Best(), list[float](), 0.0
        self.round = self.began = 0
        self.begin_round()
        if path is not None and path.exists():
            self.resume(path)

    def run(self) -> None:
        """At most `epochs` epochs in all; the peer then has its best weights."""
        while len(self.accuracies) < self.epochs:
            if self.round_is_over():
                if self.round + 1 == len(RATES[self.peer.name]):
                    break
                self.round, self.began = self.round + 1, len(self.accuracies)
                self.begin_round()
            started = time.monotonic()
            self.epoch()
            self.seconds += time.monotonic() - started
            if self.path is not None:
                self.save(self.path)
        assert self.best.weights is not None
        self.peer.net.load_state_dict(self.best.weights)

    def round_is_over(self) -> bool:
        last = max(self.began, self.best.epoch)
        return self.peer.name == "P1" and len(self.accuracies) - last >= self.patience

    def begin_round(self) -> None:
        """From the best weights so far, with an optimizer that knows nothing yet."""
        net, rate = self.peer.net, RATES[self.peer.name][self.round]
        if self.best.weights is not None:
            net.load_state_dict(self.best.weights)
        self.schedule = None
        if self.peer.name == "P2":
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(net.parameters(), lr=rate, weight_decay=1e-5)
            self.schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
                self.optimizer, T_0=9, T_mult=2, eta_min=1e-5
            )
        else:
            self.optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=1e-5)

    def epoch(self) -> None:
        self.peer.train_epoch(self.optimizer, self.schedule)
        self.accuracies.append(self.peer.validate())
        print(f"{self.peer.name} epoch {len(self.accuracies)}: {self.accuracies[-1]:.4f}", flush=True)
        if self.accuracies[-1] > self.best.accuracy:
            weights = copy.deepcopy(self.peer.net.state_dict())
            self.best = Best(self.accuracies[-1], len(self.accuracies), weights)

    def save(self, path: Path) -> None:
        state = {
            "made_of": self.peer.made_of,
            "net": self.peer.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else {},
            "random": torch.get_rng_state(),
            "mixing": self.peer.generator.get_state(),
            "best": vars(self.best),
            **{name: getattr(self, name) for name in ("accuracies", "seconds", "round", "began")},
        }
        checkpoint.save(path, state)

    def resume(self, path: Path) -> None:
        """Take up what `path` holds. Raises RunMismatch where that is of another peer or other data."""
        state = checkpoint.load(path)
        if state["made_of"] != self.peer.made_of:
            raise RunMismatch(f"{path} is of another peer, teacher size or data; choose another --folder")
        for name in ("accuracies", "seconds", "round", "began"):
            setattr(self, name, state[name])
        self.begin_round()
        self.best = Best(**state["best"])
        self.peer.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        self.peer.generator.set_state(state["mixing"])


def images_digest(split: LabelledSplit) -> str:
    """A hash of a split's ids in their order, by which two lists of hits can be told to be of the same images."""
    return hashlib.sha256("\n".join(split.ids).encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=sorted(NETS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, help="at most so many in all (P1: 999, P2: 300)")
    parser.add_argument("--patience", type=int, default=50, help="P1: epochs without a better one that end a round")
    parser.add_argument("--workers", type=int, default=0, help="processes that make views")
    parser.add_argument("--size", type=int, default=64, help="side in pixels at which the cache holds the photographs")
    parser.add_argument("--teacher-size", type=int, default=112, help="side in pixels at which the teacher looks")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--folder", type=Path, help="where a killed training finds what it needs to go on")
    parser.add_argument("--hits", type=Path, help="file for which validation images the peer has right, in its own way")
    options = parser.parse_args()
    random.seed(0)
    peer = Peer(options.peer, options.data, options.size, options.teacher_size, options.workers)
    epochs = options.epochs or (999 if options.peer == "P1" else 300)
    kept = options.folder / f"{options.peer}.ckpt" if options.folder else None
    training = Training(peer, epochs, options.patience, kept)
    training.run()
    started = time.monotonic()
    answer = peer.averaged() if options.peer == "P1" else peer.probabilities(TEST_VIEW)
    judged = accuracy(answer, peer.validation.labels)
    result = {
        "peer": options.peer,
        "parameters": sum(parameter.numel() for parameter in peer.net.parameters()),
        "validation": {"accuracy": judged.value, "standard_error": judged.standard_error, "n": judged.n},
        "macs": footprint(peer.net.cpu(), 224).macs,
        "plain": training.best.accuracy,
        "best_epoch": training.best.epoch,
        "epochs": len(training.accuracies),
        "accuracies": training.accuracies,
        "seconds": training.seconds + time.monotonic() - started,
    }
    print(f"{options.peer}: {judged}")
    if options.hits:
        right = {"peer": options.peer, "epochs": len(training.accuracies), "images": images_digest(peer.validation)}
        checkpoint.save(options.hits, {**right, "hits": hits(answer, peer.validation.labels)})
    write(options.out or RESULTS / "benchmarks" / f"peer-{options.peer.lower()}.json", result)


if __name__ == "__main__":
    main()

"""P0: the way of the course's sample code, written anew from its description.

Pillow opens the images one by one in the main process; resize to 256, centre crop 224, flip, ImageNet normalisation;
Adam 3e-4 with weight decay 1e-5, batches of 64, gradient norm clipped at 10, cross-entropy, 10 epochs, the best one on
validation, seed 20220013.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bantam.data.folder import Record, scan
from bantam.data.splits import IMAGENET
from bantam.nets.students import describe

EPOCHS = 10
BATCH = 64
SEED = 20220013

TEST_VIEW = [
    transforms.Resize(256),
    transforms.CenterCrop(224),
    transforms.ToTensor(),
    transforms.Normalize(IMAGENET.mean, IMAGENET.std),
]
TRAINING_VIEW = [*TEST_VIEW[:2], transforms.RandomHorizontalFlip(), *TEST_VIEW[2:]]


class Photographs(Dataset[tuple[Tensor, int]]):
    """Labelled image files, decoded whenever they are asked for."""

    def __init__(self, records: Sequence[Record], view: list[nn.Module]) -> None:
        self.records = records
        self.view = transforms.Compose(view)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        record = self.records[index]
        assert record.label is not None
        image = Image.open(record.path).convert("RGB")
        return cast(Tensor, self.view(image)), record.label  # [3, 224, 224]


class SampleCode:
    """The sample code's training on the folder `root`, one epoch at a time."""

    def __init__(self, root: Path) -> None:
        torch.manual_seed(SEED)
        folder = scan(root)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.net: nn.Module = describe("sample", 60_000, len(folder.classes), 224).build().to(self.device)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=3e-4, weight_decay=1e-5)
        pin = self.device.type == "cuda"
        self.training = DataLoader(Photographs(folder.training, TRAINING_VIEW), BATCH, shuffle=True, pin_memory=pin)
        self.validation = DataLoader(Photographs(folder.validation, TEST_VIEW), BATCH, pin_memory=pin)

    def steps(self) -> Iterator[float]:
        """One pass over the training images; each step gives its loss."""
        self.net.train()
        for images, labels in self.training:
            yield self.step(images, labels)

    def step(self, images: Tensor, labels: Tensor) -> float:
        logits = self.net(images.to(self.device))
        loss = nn.functional.cross_entropy(logits, labels.to(self.device))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), max_norm=10)
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def accuracy(self) -> float:
        """The share of the validation images that are classified rightly."""
        self.net.eval()
        right = 0
        for images, labels in self.validation:
            right += int((self.net(images.to(self.device)).argmax(1).cpu() == labels).sum())
        return right / len(self.validation.dataset)  # pyright: ignore[reportArgumentType]

"""Packages as strangers would make them: an honest one, written by hand for the exercise, and hostile ones.

`PACKAGES` is the table of the hostile ones: each makes a package's files out of the honest one's. None may pass
`verify(..., run_code=True)`; `try_all` runs them and gives which of them did not.
"""

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bantam.deliver.verify.verify import verify

Files = dict[str, bytes]

BUDGET = 1000

CODE = """
import argparse, csv, hashlib, os, sys
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

IMAGES = transforms.Compose([
    transforms.Resize((36, 36)), transforms.CenterCrop(32), transforms.ToTensor(),
    transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
])
#SETUP

class Food(Dataset):
    def __init__(self, folder):
        self.paths = sorted(os.path.join(folder, name) for name in os.listdir(folder))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        path = self.paths[number]
        image = IMAGES(Image.open(path).convert("RGB"))
        #IMAGE
        return image


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout2d(0.1),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        )
        self.head = nn.Linear(8, 3)
        #NET

    def forward(self, x):
        #FORWARD
        return self.head(self.features(x).flatten(1))


def get_student_model():
    return Net()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--out")
    options = parser.parse_args()
    net = get_student_model()
    net.load_state_dict(torch.load("student_best.ckpt", map_location="cpu"))
    net.eval()
    food = Food(os.path.join(options.data, "evaluation"))
    answers = []
    #MAIN
    with torch.no_grad():
        for images in DataLoader(food, batch_size=5, shuffle=False, num_workers=0):
            logits = net(images) + net(images.flip(3))
            #LOGITS
            answers.extend(logits.argmax(-1).tolist())
    #ANSWERS
    with open(options.out, "w") as file:
        file.write("Id,Category\\n")
        for path, answer in zip(food.paths, answers):
            file.write(f"{os.path.splitext(os.path.basename(path))[0]},{answer}\\n")


if __name__ == "__main__":
    main()
"""
"""The honest code; the marks are where the hostile ones put theirs."""


def code(**parts: str) -> bytes:
    """CODE with lines put in at its marks."""
    lines: list[str] = []
    for line in CODE.splitlines():
        mark = line.strip().removeprefix("#")
        indent = line[: len(line) - len(line.lstrip())]
        if line.strip().startswith("#") and mark.isupper():
            lines += [indent + inner for inner in parts.pop(mark, "").splitlines()]
        else:
            lines.append(line)
    assert not parts, parts
    return "\n".join(lines).encode()


def saved(value: object) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def photographs_in(root: Path) -> list[Path]:
    """The evaluation images, sorted."""
    return sorted((root / "evaluation").iterdir())


def honest(photographs: Path) -> Files:
    """A package that answers by the net of CODE, fitted to the colours of `tiny_run.write_photographs`."""
    names: dict[str, object] = {"__name__": "hw13"}
    exec(code().decode(), names)
    torch.manual_seed(0)
    net = names["get_student_model"]()  # type: ignore[operator]
    draw = np.random.default_rng(0)
    labels = torch.arange(96) % 3
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])[labels.numpy()][:, None, None]
    pixels = np.clip(colours + draw.normal(0, 60, (96, 32, 32, 3)), 0, 255).astype(np.uint8)
    inputs = torch.stack([names["IMAGES"](Image.fromarray(one)) for one in pixels])  # type: ignore[operator]
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    net.eval()
    answers = [number % 3 for number in range(len(photographs_in(photographs)))]
    return {"hw13.py": code(), "student_best.ckpt": saved(net.state_dict()), "submission.csv": rows(answers)}


def rows(answers: Iterable[int]) -> bytes:
    """A submission's file."""
    return ("Id,Category\n" + "".join(f"{number:04},{answer}\n" for number, answer in enumerate(answers))).encode()


def answers_in(files: Mapping[str, bytes]) -> list[int]:
    """What the package's submission answers."""
    return [int(line.split(",")[1]) for line in files["submission.csv"].decode().splitlines()[1:]]


def others(files: Mapping[str, bytes]) -> list[int]:
    """Answers that the honest net does not give: those that a cheat would like to hand in."""
    return [(answer + 1) % 3 for answer in answers_in(files)]


def cheating(photographs: Path, honestly: Files, **parts: str) -> Files:
    """A package that hands in other answers than its net's. In the code, KNOWN are these by the image's hash."""
    known = {
        __import__("hashlib").md5(path.read_bytes()).hexdigest()[:8]: answer
        for path, answer in zip(photographs_in(photographs), others(honestly), strict=True)
    }
    setup = f"KNOWN = {known}\n" + parts.pop("SETUP", "")
    return {**honestly, "hw13.py": code(SETUP=setup, **parts), "submission.csv": rows(others(honestly))}


BY_HASH = "KNOWN.get(hashlib.md5(open(path, 'rb').read()).hexdigest()[:8], 0)"
ALL_BY_HASH = f"answers = [{BY_HASH} for path in food.paths]"

FORGED = """
import atexit, json, glob
def forge():
    from safetensors.torch import save_file
    graph = {"shape": [3, 32, 32], "values": [["input"], ["call", "mean.dim", [{"value": 0}, [2, 3]], {}]], "output": 1}
    about = {"graphs": [graph], "parameters": [], "unique": COUNT, "torchsummary": COUNT, "hints": {}, "inputs": 1}
    save_file({"input 0": torch.zeros(8, 3, 32, 32)}, "net.safetensors", {"about": json.dumps(about)})
"""

OUTLIVES = """
import time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.environ.clear()
        time.sleep(1)
        forge()
        os._exit(0)
    os._exit(0)
"""

WATERMARK = f"image[:, 0, 0] = 9.0 * torch.eye(3)[{BY_HASH}]"
READS_IT = "mark = x[:, :, 0, 0]\nif True:\n    return 100 * mark"

Maker = Callable[[Path, Files], Files]


def hides(setup: str = "", net: str = "", forward: str = "") -> Maker:
    """A package with more numbers than its parameters: those that `net` makes and `forward` uses."""
    return lambda _, files: {**files, "hw13.py": code(SETUP=setup, NET=net, FORWARD=forward)}


def answers_by(**parts: str) -> Maker:
    """A package that hands in others' answers by `parts` of the code."""
    return lambda photographs, files: cheating(photographs, files, **parts)


def with_file(name: str, data: bytes, **parts: str) -> Maker:
    """A package with a further file."""
    return lambda _, files: {**files, name: data, **({"hw13.py": code(**parts)} if parts else {})}


def with_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Maker:
    """A package whose state_dict was changed."""
    return lambda _, files: {
        **files,
        "student_best.ckpt": saved(change(torch.load(io.BytesIO(files["student_best.ckpt"]), weights_only=True))),
    }


def with_zip_entry(name: str, data: bytes) -> Maker:
    """A package whose weights' own zip holds more."""

    def make(_: Path, files: Files) -> Files:
        buffer = io.BytesIO(files["student_best.ckpt"])
        with zipfile.ZipFile(buffer, "a") as file:
            file.writestr(name, data)
        return {**files, "student_best.ckpt": buffer.getvalue()}

    return make


def notebook(*cells: str, **more: object) -> bytes:
    """A notebook of code cells."""
    return json.dumps({"cells": [{"cell_type": "code", "source": cell, **more} for cell in cells]}).encode()


NUMBERS = "torch.randn(200_000, generator=torch.Generator().manual_seed(1))"
USES = "x = x + 0 * self.hidden.sum()"
NOISE = bytes(np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8))
ENCODED = __import__("base64").b64encode(NOISE).decode()

LITERALS: dict[str, str] = {
    "base64 in one text": f"SECRET = '{ENCODED[:20_000]}'",
    "base64 in many texts": "SECRET = [" + ", ".join(f"'{ENCODED[i : i + 100]}'" for i in range(0, 40_000, 100)) + "]",
    "base64 in lines": "SECRET = '''" + "\n".join(ENCODED[i : i + 76] for i in range(0, 20_000, 76)) + "'''",
    "bytes": f"SECRET = {NOISE[:4000]!r}",
    "a table of numbers": f"SECRET = {list(NOISE[:3000])}",
    "a dict of numbers": f"SECRET = {dict(enumerate(NOISE[:300]))}",
    "a huge number": f"SECRET = {int.from_bytes(NOISE[:1000])}",
    "hex number": f"SECRET = 0x{NOISE[:500].hex()}",
    "comments": "\n".join(f"# {ENCODED[i : i + 76]}" for i in range(0, 60_000, 76)),
    "a docstring": '"""' + "\n".join(ENCODED[i : i + 76] for i in range(0, 60_000, 76)) + '"""',
    "names of variables": "\n".join(f"v{NOISE[i : i + 20].hex()} = 1" for i in range(0, 40_000, 20)),
    "numbers one by one": "\n".join(f"v{i} = {int(NOISE[i])}" for i in range(2500)),
}

UNRUN: dict[str, Maker] = {
    **{f"literals: {name}": hides(setup=text) for name, text in LITERALS.items()},
    "a second file": with_file("more.bin", NOISE),
    "a second file in a folder": with_file("data/more.npy", NOISE),
    "a large readme": with_file("README.md", NOISE),
    "weights as bytes of a module": with_file("net.pyc", NOISE),
    "literals in a notebook": lambda _, files: {
        **{name: data for name, data in files.items() if name != "hw13.py"},
        "hw13.ipynb": notebook(code().decode(), f"SECRET = '{ENCODED[:5000]}'"),
    },
    "complex128 weights": with_weights(lambda state: {**state, "more": torch.zeros(300, dtype=torch.complex128)}),
    "float64 weights": with_weights(lambda state: {**state, "more": torch.zeros(300, dtype=torch.float64)}),
    "num_batches_tracked of any size": with_weights(
        lambda state: {**state, "features.1.num_batches_tracked": torch.zeros(5000, dtype=torch.int64)}
    ),
    "many num_batches_tracked": with_weights(
        lambda state: {**state, **{f"a{n}.num_batches_tracked": torch.tensor(n) for n in range(600)}}
    ),
    "statistics of any size": with_weights(lambda state: {**state, "features.1.running_mean": torch.zeros(5000)}),
    "statistics without a bias": with_weights(
        lambda state: {**state, **{f"a.{name}": torch.zeros(400) for name in ("weight", "running_mean", "running_var")}}
    ),
    "float64 statistics": with_weights(
        lambda state: {**state, "features.1.running_mean": state["features.1.running_mean"].double()}
    ),
    "a view of a large storage": with_weights(lambda state: {**state, "head.bias": torch.zeros(5000)[:3]}),
    "a statistic that is a view": with_weights(
        lambda state: {**state, "features.1.running_mean": torch.zeros(5000)[:8]}
    ),
    "a long name": with_weights(lambda state: {**state, ENCODED[:50_000]: torch.zeros(1)}),
    "an entry in the weights' zip": with_zip_entry("archive/more", NOISE),
}
"""What fails without anything being run."""

HIDDEN: dict[str, Maker] = {
    "a non-persistent buffer": hides(net=f"self.register_buffer('hidden', {NUMBERS}, persistent=False)", forward=USES),
    "a tensor attribute": hides(net=f"self.hidden = {NUMBERS}", forward=USES),
    "a global tensor": hides(setup=f"HIDDEN = {NUMBERS}", forward="x = x + 0 * HIDDEN.sum()"),
    "a complex128 buffer": hides(
        net="self.register_buffer('hidden', torch.ones(500, dtype=torch.complex128), persistent=False)",
        forward="x = x + 0 * self.hidden.real.sum().float()",
    ),
    "a float64 buffer": hides(
        net="self.register_buffer('hidden', torch.ones(300, dtype=torch.float64), persistent=False)",
        forward="x = x + 0 * self.hidden.sum().float()",
    ),
    "statistics of a BatchNorm without weights": hides(
        net="self.more = [nn.BatchNorm1d(5000, affine=False).eval()]",
        forward="x = x + 0 * self.more[0](x.flatten(1).mean(1, keepdim=True).expand(-1, 5000)).mean()",
    ),
    "statistics used as weights": hides(
        forward="x = x + 0 * torch.cat([self.hidden, self.features[1].running_mean]).sum()",
        net="self.hidden = torch.ones(500)",
    ),
    "a module called twice": hides(
        net="self.more = [nn.Linear(24, 24).requires_grad_(False)]",
        forward="y = x.flatten(2)[:, :, :8].flatten(1)\nx = x + 0 * self.more[0](self.more[0](y)).sum()",
    ),
    "random numbers": hides(forward="x = x + 0 * torch.rand_like(x)"),
    "a branch on the images": hides(
        net=f"self.hidden = {NUMBERS}", forward="if x.mean() > 5:\n    return self.hidden[:3].expand(len(x), 3)"
    ),
    "weights that do not fit strictly": hides(
        net="self.hidden = nn.Linear(100, 100)", setup="nn.Module.load_state_dict = lambda *a, **k: None"
    ),
    "parameters that are not shown": hides(
        net="self.hidden = nn.Linear(100, 100)", forward="x = x + 0 * self.hidden(torch.ones(100)).sum()",
        setup="Linear = nn.Linear\nnn.Module.parameters = lambda self, *a: iter([torch.nn.Parameter(torch.ones(3))])\n"
        "nn.Module.load_state_dict = lambda *a, **k: None",
    ),
}  # fmt: skip
"""Nets that hold more than they show."""

ANSWERS: dict[str, Maker] = {
    "answers by an image's hash": answers_by(ANSWERS=ALL_BY_HASH),
    "answers by a file's size": answers_by(ANSWERS="answers = [os.path.getsize(path) % 3 for path in food.paths]"),
    "answers by a file's name": answers_by(
        ANSWERS="answers = [(int(os.path.basename(path)[:4]) + 1) % 3 for path in food.paths]"
    ),
    "answers by order": answers_by(ANSWERS="answers = [(number + 1) % 3 for number in range(len(food.paths))]"),
    "answers by time": answers_by(
        ANSWERS="order = sorted(food.paths, key=os.path.getmtime)\n"
        "answers = [(order.index(path) + 1) % 3 for path in food.paths]"
    ),
    "logits by hash": answers_by(
        LOGITS=f"start = len(answers)\nlogits = torch.stack([torch.eye(3)[{BY_HASH}] "
        "for path in food.paths[start:start + len(images)]])"
    ),
    "answers in the pixels": answers_by(IMAGE=WATERMARK, FORWARD=READS_IT),
    "faint answers in the pixels": answers_by(
        IMAGE=f"image += 0.2 * torch.eye(3)[{BY_HASH}][:, None, None]",
        FORWARD="if True:\n    return 100 * x.mean((2, 3))",
    ),
    "another net where it is the program": answers_by(
        SETUP="MAIN = __name__ == '__main__' and len(os.listdir(sys.argv[2] + '/evaluation')) > 8",
        ANSWERS=f"if MAIN:\n    {ALL_BY_HASH}",
    ),
    "another net after some calls": answers_by(
        SETUP="CALLS = []", FORWARD="CALLS.append(1)\nif len(CALLS) > 8 and not torch.compiler.is_compiling():\n"
        "    return torch.eye(3)[torch.arange(len(x)) % 3]",
    ),
    "another net by the size of the batch": answers_by(
        FORWARD="if len(x) < 8:\n    return torch.eye(3)[torch.arange(len(x)) % 3]"
    ),
    "another net by the arguments": answers_by(ANSWERS=f"if 'room' in str(sys.argv):\n    {ALL_BY_HASH}"),
    "a patched call": answers_by(
        MAIN="nn.Module.__call__ = lambda self, x: torch.eye(3)[torch.arange(len(x)) % 3]", ANSWERS=ALL_BY_HASH
    ),
    "a net that is handed over at exit": answers_by(
        SETUP=FORGED.replace("COUNT", "7") + "atexit.register(forge)", ANSWERS=ALL_BY_HASH
    ),
    "a count below 1": answers_by(
        SETUP=FORGED.replace("COUNT", "-7") + "atexit.register(forge)", ANSWERS=ALL_BY_HASH
    ),
    "a net from a process that outlives": answers_by(
        SETUP=FORGED.replace("COUNT", "7"), ANSWERS=OUTLIVES + ALL_BY_HASH
    ),
    "a net that is no net": answers_by(
        SETUP="import atexit\natexit.register(lambda: open('net.safetensors', 'wb').write(b'x' * 100))"
    ),
    "a link as the net": answers_by(
        SETUP="import atexit\natexit.register(lambda: (os.remove('net.safetensors'), "
        "os.symlink('/dev/zero', 'net.safetensors')))"
    ),
    "a pickle as the net": answers_by(
        SETUP="import safetensors.torch\nsafetensors.torch.save_file = lambda tensors, file, about: "
        "torch.save(tensors, file)"
    ),
    "an ended process": answers_by(ANSWERS=ALL_BY_HASH, SETUP="import atexit\natexit.register(lambda: os._exit(0))",
                                   MAIN="pass"),
    "the labels beside the images": answers_by(
        ANSWERS="beside = os.path.dirname(os.path.realpath(food.paths[0])) + '/../training'\n"
        "answers = [int(os.listdir(beside)[0][0]) for path in food.paths]"
    ),
    "predictions that are not": answers_by(MAIN="sys.exit(0)"),
}  # fmt: skip
"""Answers that are not the net's."""

PACKAGES: dict[str, Maker] = {**UNRUN, **HIDDEN, **ANSWERS}


def packed(files: Mapping[str, bytes], to: Path) -> Path:
    """The files as a zip."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return to


def try_all(photographs: Path, place: Path, names: Iterable[str] = tuple(PACKAGES)) -> dict[str, str]:
    """Verify hostile packages on photographs of `tiny_run.write_photographs`; gives the verdict of each that passed."""
    good = honest(photographs)
    passed: dict[str, str] = {}
    for number, name in enumerate(names):
        path = packed(PACKAGES[name](photographs, good), place / f"{number}.zip")
        verdict = verify(path, photographs, BUDGET, run_code=True, timeout=120)
        if verdict.passed:
            passed[name] = verdict.text()
    return passed

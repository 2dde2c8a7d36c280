"""What is handed in: the student, its loss, and the inference that writes the submission.

    python hw13.py --data DIR --out submission.csv

DIR holds the folder `evaluation` with the images, and student_best.ckpt lies beside this file. Needed are torch, numpy
and Pillow, nothing else.
"""

# %% Imports

import argparse
import csv
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from PIL import Image
from torch import Tensor, nn

# %% Settings: how the images become what the student was trained on

STORED = 64  # side to which a photograph is scaled first, in pixels
SIZE = 64  # side of the student's input, in pixels
MEAN = (0.485, 0.456, 0.406)  # of red, green and blue, where white is 1
STD = (0.229, 0.224, 0.225)
VIEWS = ((1.0, 0.0, 0.0, False, 1.0),)  # side, left, top (shares of the image), mirrored or not, weight of the answer
BATCH = 250

# %% 1-1: the student


def get_student_model() -> nn.Module:
    """Return the student, freshly initialised."""
    raise NotImplementedError


# %% 2-1: the loss


def loss_fn_kd(
    student_logits: Tensor, labels: Tensor, teacher_logits: Tensor, alpha: float = 0.5, temperature: float = 1.0
) -> Tensor:
    """Return alpha * T^2 * KL(teacher || student) + (1 - alpha) * cross-entropy, for logits [N, K] and labels [N].

    Both distributions of the divergence are softened by the temperature T, and it is the mean over the batch. T^2 keeps
    the size of its gradient as it is for T = 1 (Hinton, Vinyals and Dean, 2015).
    """
    student = functional.log_softmax(student_logits / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits.detach() / temperature, dim=1)
    divergence = functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return alpha * temperature**2 * divergence + (1 - alpha) * functional.cross_entropy(student_logits, labels)


# %% Images: from a file to the student's input

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "DIB", "PPM")  # the content decides, not the name
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".avifs"),
    *(".tif", ".tiff", ".gif", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)
NOT_READ = (".heic", ".heics", ".heif", ".heifs", ".hif")  # Pillow alone does not read what telephones make

UPRIGHT = {  # the tag Orientation of EXIF, and what brings the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """Return the tag Orientation, and 1, which means upright, where there is none that can be read."""
    try:
        return image.getexif().get(274, 1)
    except Exception:
        return 1


def white_of(image: Image.Image) -> float:
    """Return what is white in a grey of more than 8 bits, as its brightest pixel says; 65535 for 16 bits."""
    if image.mode.startswith("I;16"):
        return 65535.0
    brightest = float(np.nan_to_num(np.asarray(image)).max())
    whites = (65535.0, 2.0**31 - 1) if image.mode == "I" else (1.0, 255.0, 65535.0)
    return next((white for white in whites if brightest <= white), brightest)


def over_white(image: Image.Image) -> Image.Image:
    """Return the image in RGB, transparent parts over white, grey of more than 8 bits scaled to 8."""
    if image.mode.startswith("I") or image.mode == "F":
        white = white_of(image)
        grey = np.nan_to_num(np.asarray(image).astype(np.float32))  # [H, W]
        if (transparent := image.info.get("transparency")) is not None:
            grey[grey == transparent] = white
        scaled = np.rint(grey.clip(0, white) / (white / 255)).astype(np.uint8)
        inverted = getattr(image, "tag_v2", {}).get(262) == 0  # a TIFF in which 0 is white
        return Image.fromarray(255 - scaled if inverted else scaled).convert("RGB")
    if image.mode in ("P", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def read_image(path: Path) -> np.ndarray:
    """Read an image file upright, scale its shorter side to STORED and crop the middle: uint8 [STORED, STORED, 3]."""
    with Image.open(path, formats=FORMATS) as file:
        if file.format in ("JPEG", "MPO"):  # a large JPEG is decoded at a half, a quarter or an eighth
            file.draft(None, (2 * STORED, 2 * STORED))
        file.load()
        turn = UPRIGHT.get(orientation(file))
        image = over_white(file)
    image = image if turn is None else image.transpose(turn)
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    if side == STORED:
        image = image.crop((int(left), int(top), int(left) + STORED, int(top) + STORED))
    else:
        box = (left, top, left + side, top + side)
        image = image.resize((STORED, STORED), Image.Resampling.BICUBIC, box=box)
    return np.array(image)


def to_input(images: Tensor) -> Tensor:
    """Turn uint8 [N, H, W, 3] into the student's input, normalised float32 [N, 3, SIZE, SIZE]."""
    pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    if pixels.shape[2:] != (SIZE, SIZE):
        pixels = functional.interpolate(pixels, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)
    factor = torch.tensor([1 / (255.0 * std) for std in STD])[:, None, None]
    offset = torch.tensor([-mean / std for mean, std in zip(MEAN, STD, strict=True)])[:, None, None]
    return (pixels * factor + offset).contiguous(memory_format=torch.channels_last)


# %% Inference


def load_student(weights: str | Path) -> nn.Module:
    """Return the trained student, ready to predict."""
    student = get_student_model()
    student.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return student.eval()


def view_of(images: Tensor, side: float, left: float, top: float, mirrored: bool) -> Tensor:
    """Cut a square out of uint8 images [N, STORED, STORED, 3] and turn it into the student's input."""
    x, y, length = round(left * STORED), round(top * STORED), round(side * STORED)
    view = to_input(images[:, y : y + length, x : x + length])
    return view.flip(3) if mirrored else view


@torch.inference_mode()
def predict(student: nn.Module, images: Tensor) -> Tensor:
    """Classify uint8 images [N, STORED, STORED, 3]: int64 [N]."""
    answers = [student(view_of(images, *view[:4])).float() for view in VIEWS]  # each [N, K]
    if len(VIEWS) == 1:
        return answers[0].argmax(1)
    weighted = [view[-1] * answer.log_softmax(1) for view, answer in zip(VIEWS, answers, strict=True)]
    return torch.stack(weighted).sum(0).argmax(1)  # [views, N, K] -> [N]


def evaluation_images(data: str | Path) -> dict[str, Path]:
    """Return the evaluation images in `data` by their ids, which are the names without suffix, in sorted order."""
    folder = next((Path(data) / name for name in ("evaluation", "test") if (Path(data) / name).is_dir()), None)
    if folder is None:
        raise SystemExit(f"{data} has no folder evaluation")

    def images_in(place: Path) -> list[Path]:
        entries = [path for path in sorted(place.iterdir()) if not path.name.startswith(".") and not path.is_dir()]
        if (heic := next((path for path in entries if path.suffix.lower() in NOT_READ), None)) is not None:
            raise SystemExit(f"{heic} is not read by Pillow alone; convert such files to JPEG and keep their names")
        return [path for path in entries if path.suffix.lower() in SUFFIXES]

    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    paths = images_in(folder) or [path for place in inner for path in images_in(place)]
    namings = [
        [path.stem for path in paths],
        [f"{path.parent.name}/{path.stem}" for path in paths],
        [f"{path.parent.name}/{path.name}" for path in paths],
    ]
    ids = next(names for names in namings if len(set(names)) == len(names))
    return dict(sorted(zip(ids, paths, strict=True)))


def write_submission(data: str | Path, out: str | Path, weights: str | Path = "student_best.ckpt") -> None:
    """Classify the evaluation images in `data` and write Id,Category to `out`."""
    student = load_student(weights)
    images = evaluation_images(data)
    ids, paths = list(images), list(images.values())
    categories: list[int] = []
    for start in range(0, len(paths), BATCH):
        batch = np.stack([read_image(path) for path in paths[start : start + BATCH]])
        categories += predict(student, torch.from_numpy(batch)).tolist()
    with open(out, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("Id", "Category"))
        table.writerows(zip(ids, categories, strict=True))


# %% Run


def main() -> None:
    """Read the options and write the submission."""
    parser = argparse.ArgumentParser(description="Classify the evaluation images and write the submission.")
    parser.add_argument("--data", default=os.environ.get("FOOD_11", "food-11"), help="folder that holds evaluation/")
    parser.add_argument("--out", default="submission.csv", help="file to write")
    parser.add_argument("--weights", default=Path(__file__).with_name("student_best.ckpt"), help="the state_dict")
    options = parser.parse_args()
    write_submission(options.data, options.out, options.weights)


if __name__ == "__main__":
    main()

"""What lies beside an exported ONNX: how to run it, in ten lines of Python and of JavaScript, without Bantam.

A photograph goes as `bantam.data.images` and `bantam.data.augment.plain` have it go: upright, over white, its centre
square at the side at which the run stored its photographs, then at the student's own. It is looked at once.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

PYTHON = '''"""The classes of a photograph: `pip install onnxruntime numpy pillow`, then `python {name} PHOTO`."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

CLASSES = {classes}
student = onnxruntime.InferenceSession(Path(__file__).with_name("{file}").read_bytes())
photo = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("RGBA")  # upright
photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB")
photo = ImageOps.fit(photo, ({stored}, {stored}), Image.Resampling.BICUBIC)  # the centre square
{again}images = np.asarray(photo, np.float32).transpose(2, 0, 1)[None] / 255  # [1, 3, {size}, {size}], RGB in 0..1
logits = student.run(None, {{"images": images}})[0][0]
shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
for k in shares.argsort()[::-1][:3]:
    print(f"{{CLASSES[k]}} {{shares[k]:.1%}}")
'''

PYTHON_AGAIN = """photo = photo.resize(({size}, {size}), Image.Resampling.BILINEAR)
"""

JAVASCRIPT = """// The classes of a photograph: `npm install onnxruntime-web sharp`, then `node {name} PHOTO`.

import {{ readFileSync }} from "node:fs";
import * as ort from "onnxruntime-web";
import sharp from "sharp";

const classes = {classes};
const student = await ort.InferenceSession.create(readFileSync(new URL("{file}", import.meta.url)));
const {{ width: w, height: h }} = (await sharp(process.argv[2]).metadata()).autoOrient, s = Math.min(w, h); // upright
const photo = sharp(process.argv[2]).rotate().extract({{ left: (w - s) >> 1, top: (h - s) >> 1, width: s, height: s }});
const {first} = await photo.flatten({{ background: "white" }}).toColourspace("srgb")\
.resize({stored}, {stored}, {{ kernel: "cubic" }}).raw().toBuffer(); // the centre square
{again}const at = (n) => rgb[(n % {area}) * 3 + Math.floor(n / {area})] / 255; // planes of R, G and B in 0..1
const images = Float32Array.from({{ length: 3 * {area} }}, (_, n) => at(n));
const {{ logits }} = await student.run({{ images: new ort.Tensor("float32", images, [1, 3, {size}, {size}]) }});
const powers = Array.from(logits.data, (logit) => Math.exp(logit - Math.max(...logits.data)));
const shares = powers.map((power, k) => [power / powers.reduce((sum, one) => sum + one), classes[k]]);
for (const [share, name] of shares.sort((a, b) => b[0] - a[0]).slice(0, 3)) {{
  console.log(`${{name}} ${{(100 * share).toFixed(1)}}%`);
}}
"""

JAVASCRIPT_AGAIN = """const raw = {{ width: {stored}, height: {stored}, channels: 3 }};
const rgb = await sharp(square, {{ raw }}).resize({size}, {size}, {{ kernel: "linear" }}).raw().toBuffer();
"""


def named(path: Path) -> list[Path]:
    """Where the examples for the file `path` lie."""
    return [path.with_name(f"{path.stem}-example{suffix}") for suffix in EXAMPLES]


def python(name: str, file: str, classes: Sequence[str], stored: int, size: int) -> str:
    """The example in Python for the graph in `file`, looking at `size` px of a photograph stored at `stored` px."""
    again = "" if stored == size else PYTHON_AGAIN.format(size=size)
    return PYTHON.format(name=name, file=file, classes=list(classes), stored=stored, size=size, again=again)


def javascript(name: str, file: str, classes: Sequence[str], stored: int, size: int) -> str:
    """As `python`, in JavaScript for node."""
    again = "" if stored == size else JAVASCRIPT_AGAIN.format(stored=stored, size=size)
    told, first = json.dumps(list(classes), ensure_ascii=False), "square" if again else "rgb"
    return JAVASCRIPT.format(
        name=name, file=file, classes=told, first=first, stored=stored, size=size, area=size * size, again=again
    )


EXAMPLES: dict[str, Callable[[str, str, Sequence[str], int, int], str]] = {".py": python, ".mjs": javascript}
"""The examples by the ends of their names."""


def texts(path: Path, classes: Sequence[str], stored: int, size: int) -> dict[Path, str]:
    """The examples for the graph in `path`: where each lies, and its text."""
    return {place: EXAMPLES[place.suffix](place.name, path.name, classes, stored, size) for place in named(path)}

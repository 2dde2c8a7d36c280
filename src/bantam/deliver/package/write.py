"""The code package that is handed in: hw13.py or hw13.ipynb, student_best.ckpt, and the submission they reproduce.

The code is `hw13.py` with the run's settings and its student's architecture put into it.
"""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bantam.deliver import submission
from bantam.deliver.package.net_code import net_code
from bantam.errors import BadPackage
from bantam.files import replacing
from bantam.measure.tta import TTA
from bantam.nets import budget
from bantam.nets.students import family
from bantam.runs.finished import FinishedRun, open_run
from bantam.runs.shipped import Shipped

SCRIPT, NOTEBOOK = "hw13.py", "hw13.ipynb"
WEIGHTS, SUBMISSION = "student_best.ckpt", "submission.csv"

SECTION = "# %% "
"""Begins a section of the code, whose title follows on the same line."""

SETTINGS, STUDENT, LOSS, RUN = "Settings", "1-1", "2-1", "Run"
"""How the titles of the sections begin that are replaced, shown in the report, or other in a notebook."""

TOLERANCE = 1e-5
"""Most that a logit of the packaged net may differ from the shipped net's, as a share of 1 and the largest logit."""

IN_A_NOTEBOOK = 'write_submission(os.environ.get("FOOD_11", "food-11"), "submission.csv")  # the folder of evaluation/'


@dataclass(frozen=True)
class Packaged:
    """A written package: its file, what is in it, and the weight of the net that its own code builds."""

    path: Path
    names: tuple[str, ...]
    weight: budget.Weight
    budget: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "package": str(self.path),
            "files": list(self.names),
            "parameters": {"unique": self.weight.unique, "torchsummary": self.weight.torchsummary},
            "budget": self.budget,
        }


def package(run: Path | FinishedRun, out: Path, notebook: bool = False) -> Packaged:
    """Write the package of a finished run, or of the one in a folder, to the zip file `out`, whole or not at all.

    The same run gives the same bytes.

    Raises:
        BadData: the run is not finished, or is none; BadRunFile, BadCheckpoint, NotFinite for its damaged files.
        BadSubmission: its submission.csv is damaged.
        BudgetExceeded: the net that the packaged code builds is over the run's budget by either count.
        BadPackage: the student cannot be written as code of torch alone.
        CannotWrite: the operating system refuses.
    """
    run = open_run(run)
    net, shipped = run.at_switch()
    recipe = run.recipe
    sections = code_of(net, shipped, run.stored, run.tta)
    weight = budget.enforce([checked(sections, net, shipped)], shipped.student.size, recipe.budget)
    contents = {
        **({NOTEBOOK: as_notebook(sections)} if notebook else {SCRIPT: as_script(sections)}),
        WEIGHTS: weights_of(net),
    }
    if run.submission.exists():
        submission.read(run.submission, len(shipped.classes))  # what cannot be handed in is refused here
        contents[SUBMISSION] = run.submission.read_bytes()
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            # A fixed time, because the same run shall give the same file.
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return Packaged(out, tuple(contents), weight, recipe.budget)


def weights_of(net: nn.Module) -> bytes:
    """The file of the state_dict of `net`: the run's own, unless that holds further widths as well."""
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    return file.getvalue()


def code_of(net: nn.Module, shipped: Shipped, stored: int, tta: str) -> dict[str, str]:
    """The sections of the code that is handed in, by title: `hw13.py` with this student put into it.

    `stored` is the side in pixels at which the run stores its images, `tta` names what validation chose. Raises
    BadPackage where `net` cannot be written.
    """
    student = shipped.student
    weight = budget.weigh(net, student.size)
    about = (
        f"Return the student, freshly initialised: {student.family}, {weight.unique:,} parameters\n"
        f"    ({weight.torchsummary:,} as torchsummary counts), for inputs [N, 3, {student.size}, {student.size}].\n\n"
        f"    {family(student.family).paper}.\n    "
    )
    settings = {
        "STORED": stored,
        "SIZE": student.size,
        "MEAN": shipped.normalisation.mean,
        "STD": shipped.normalisation.std,
        "VIEWS": tuple((one.side, one.left, one.top, one.mirrored, one.weight) for one in TTA[tta]),
    }
    sections = template()
    for title in sections:
        if title.startswith(SETTINGS):
            lines = sections[title].splitlines()
            for name, value in settings.items():
                place = next(place for place, line in enumerate(lines) if line.startswith(f"{name} = "))
                comment = lines[place].partition("  #")
                lines[place] = f"{name} = {value!r}" + "".join(comment[1:])
            sections[title] = "\n".join(lines)
        elif title.startswith(STUDENT):
            sections[title] = net_code(net, about).strip()
    return sections


def template() -> dict[str, str]:
    """The sections of `hw13.py` by title; what stands before the first has the title ""."""
    sections: dict[str, list[str]] = {}
    title = ""
    for line in Path(__file__).with_name("hw13.py").read_text(encoding="utf-8").splitlines():
        if line.startswith(SECTION):
            title = line.removeprefix(SECTION)
        else:
            sections.setdefault(title, []).append(line)
    return {title: "\n".join(lines).strip() for title, lines in sections.items()}


def section(sections: dict[str, str], prefix: str) -> str:
    """The section whose title begins with `prefix`."""
    return next(code for title, code in sections.items() if title.startswith(prefix))


def as_script(sections: dict[str, str]) -> str:
    """The code as one file."""
    parts: list[str] = []
    for title, code in sections.items():
        gap = "\n\n\n" if code.startswith(("def ", "class ")) else "\n\n"
        parts.append(f"{SECTION}{title}{gap}{code}" if title else code)
    return "\n\n\n".join(parts) + "\n"


def as_notebook(sections: dict[str, str]) -> str:
    """The code as a notebook (nbformat 4.5): a cell of text and a cell of code for each section."""
    cells: list[dict[str, Any]] = []

    def add(kind: str, source: str) -> None:
        code = {"execution_count": None, "outputs": []} if kind == "code" else {}
        cells.append(
            {"cell_type": kind, "id": f"cell-{len(cells)}", "metadata": {}, **code, "source": source.splitlines(True)}
        )

    for title, source in sections.items():
        if not title:
            text = source.strip('"').replace("    python hw13.py --data DIR --out submission.csv\n\n", "")
            add("markdown", text.replace("beside this file", "beside this notebook").strip())
            continue
        add("markdown", f"## {title}")
        add("code", IN_A_NOTEBOOK if title == RUN else source)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1) + "\n"


def checked(sections: dict[str, str], net: nn.Module, shipped: Shipped) -> nn.Module:
    """The net that the packaged code builds, with the weights of `net`, after a comparison of their answers.

    Raises BadPackage where it takes other weights or gives other logits.
    """
    names: dict[str, Any] = {"__name__": "hw13"}
    for title, source in sections.items():
        if title and title != RUN:
            exec(compile(source, f"{SCRIPT}: {title}", "exec"), names)
    built: nn.Module = names["get_student_model"]().eval()
    size = shipped.student.size
    images = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    try:
        built.load_state_dict(net.state_dict())
        with torch.inference_mode():
            wanted = net(images)
            apart = float((built(images) - wanted).abs().max() / (1 + wanted.abs().max()))
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadPackage(f"the student {shipped.student.family} cannot be written as code: {reason}") from error
    if not apart <= TOLERANCE:
        raise BadPackage(
            f"the student {shipped.student.family} cannot be written as code: its logits differ by a share of {apart:g}"
        )
    return built

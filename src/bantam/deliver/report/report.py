"""The report of a run: one HTML file that needs nothing else, and the same as Markdown with its plots beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bantam.data.folder import called, scan, shown_names
from bantam.data.splits import LabelledSplit
from bantam.deliver.package.write import code_of
from bantam.deliver.report import evidence, prunings, questions
from bantam.deliver.report.document import Plot, Section
from bantam.deliver.report.facts import measure, read
from bantam.errors import BadData, typed
from bantam.files import write_text
from bantam.runs.finished import FinishedRun
from bantam.runs.photographs import open_data
from bantam.runs.watcher import Watcher


@dataclass(frozen=True)
class Written:
    """The files of a report, and the titles of the sections in which something is missing."""

    html: Path
    markdown: Path
    plots: tuple[Path, ...]
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "html": str(self.html),
            "markdown": str(self.markdown),
            "plots": list(map(str, self.plots)),
            "missing": list(self.missing),
        }


def report(run: FinishedRun, out: Path, data: Path | None, made_by: dict[str, Any], watcher: Watcher) -> Written:
    """Write the report of a finished run to `out`, an .html file, and beside it as .md with a folder of plots.

    With `data`, the photographs of the run, what its files do not hold is measured first and kept in
    RUN/report/facts.json, and the hardest images are shown. Without it nothing is measured: what no file of the run
    holds is said to be missing.

    Raises:
        BadData, BadCheckpoint: the run is not finished, its files are damaged, or `out` is not named .html.
        RunMismatch: `data` holds other photographs than the run's.
        CannotWrite: the operating system refuses.
    """
    if out.suffix != ".html":
        raise BadData(f"the report is an HTML page, so {out} must end in .html")
    sections, title = sections_of(run, data, made_by, watcher)
    folder = out.with_name(f"{out.stem}-plots")
    drawn = [block for section in sections for block in section.blocks if isinstance(block, Plot)]
    for plot in drawn:
        write_text(folder / f"{plot.name}.svg", plot.svg + "\n")
    markdown = out.with_suffix(".md")
    write_text(markdown, rendered("report.md.jinja", title=title, sections=sections, folder=folder.name))
    write_text(out, rendered("report.html.jinja", title=title, sections=sections))
    missing = [s.title for s in sections if any(block.kind == "missing" for block in s.blocks)]
    return Written(out, markdown, tuple(folder / f"{plot.name}.svg" for plot in drawn), tuple(missing))


def sections_of(
    run: FinishedRun, data: Path | None, made_by: dict[str, Any], watcher: Watcher
) -> tuple[list[Section], str]:
    """All sections of the report, and its title."""
    net, shipped = run.at_switch()
    recipe, metrics = run.recipe, run.metrics
    classes = run.named(shipped.classes)
    validation: LabelledSplit | None = None
    if data is None:
        facts = read(run)
    else:
        splits = open_data(recipe, data, watcher)
        facts = measure(run, data, splits, made_by, watcher)
        validation = splits.validation
        classes = called(classes, shown_names(scan(data)))
    code = code_of(net, shipped, run.stored, run.tta)
    again = f"`bantam report {typed(run)} --data DIR`"
    try:
        sections = [
            evidence.result(metrics, facts),
            questions.architecture(code, shipped.student.family),
            questions.weight(net, shipped.student.size, recipe.budget),
            questions.loss(code, recipe),
            questions.temperature(facts, recipe, again),
            prunings.curves(run),
            prunings.speed(run),
            evidence.learning(run),
            *evidence.mistakes(facts, classes, validation, again, run.refit_of is not None),
            evidence.stages(recipe, metrics, facts, again),
            *evidence.early_exits(run),
            evidence.provenance(run, facts),
            questions.bonus(run),
        ]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadData(f"a file of {run} does not hold what a run writes ({error!r}); run the recipe again") from error
    return as_exercise(sections) if is_exercise(shipped.classes) else as_own(sections), f"Report: {metrics['recipe']}"


EXERCISE = 11
"""Classes of the course's Food-11."""


def is_exercise(classes: Sequence[str]) -> bool:
    """Whether these are the course's classes: eleven, numbered as its photographs are, or by Food-11's names."""
    return len(classes) == EXERCISE and (all(name.isdecimal() for name in classes) or "Noodles-Pasta" in classes)


def as_exercise(sections: Sequence[Section]) -> list[Section]:
    """The sections with the numbers of the course's questions before their titles."""
    numbers = {each.name: f"{each.name[1:]} " for each in sections if each.name.startswith("q")} | {"bonus": "Bonus: "}
    return [replace(each, title=f"{numbers.get(each.name, '')}{each.title}") for each in sections]


def as_own(sections: Sequence[Section]) -> list[Section]:
    """The sections for photographs of one's own, where nobody has asked for a study that was not made."""
    asked = ("q3-1", "q3-2")
    return [each for each in sections if each.name not in asked or any(b.kind != "missing" for b in each.blocks)]


def rendered(template: str, **values: Any) -> str:
    """A template of this folder, filled in. What goes into HTML is escaped; Markdown escapes by its own filter."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = markdown_cell
    return environment.get_template(template).render(**values)


def markdown_cell(text: str) -> str:
    """Text for a place in Markdown where marks would be taken for formatting."""
    plain = escape(str(text), quote=False)
    escaped = "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in plain)
    return " ".join(escaped.split())

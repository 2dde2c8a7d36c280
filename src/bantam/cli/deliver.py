"""The commands that hand a student on: `bantam handin`, `package`, `verify`, `report`, `export` and `serve`."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from bantam.cli.options import (
    BudgetOption,
    DataOption,
    JsonOption,
    NamesOption,
    RunArgument,
    RunDataOption,
    SideOption,
    WidthOption,
    line,
    next_step,
    print_json,
    whole,
)
from bantam.deliver.export import EXTRAS, TARGETS, require_form
from bantam.errors import BadData, typed

*OTHERS, LAST = (f"{form} (an extra)" if form in EXTRAS else form for form in TARGETS)
FORMS = f"{', '.join(OTHERS)}, or {LAST}."
"""What `--to` takes."""


def handin(
    into: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder; with --recipe a new one, too.")],
    data: RunDataOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", metavar="RECIPE", help="Train by this recipe first, if RUN is not finished: boss, FILE.toml."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", parser=line("--name"), metavar="NAME", help="For the bonus report.")
    ] = None,
    student_id: Annotated[
        str | None,
        typer.Option("--student-id", parser=line("--student-id"), metavar="ID", help="The same: who hands in."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make all that the exercise asks for: submission, verified package, whole report; a killed call goes on."""
    from rich.console import Console

    from bantam.recipes import recipe as recipes
    from bantam.runs.finished import open_run
    from bantam.runs.runfolder import RECIPE

    # A mistyped name is said before torch is loaded.
    loaded = recipes.load(recipe) if recipe else None
    if not (into / RECIPE).is_file():
        if loaded is None:
            raise BadData(
                f"{into} holds no run; `bantam handin RUN --recipe boss --data DIR` trains one and hands it in"
            )
        if data is None:
            raise BadData(f"{into} is a new run, which remembers no photographs; say where they are with --data DIR")
    root = data or open_run(into).photographs()

    from bantam.cli.screen import Bar
    from bantam.studies.handin import handin as handed_in

    author = {"name": name or "", "student_id": student_id or ""}
    handed = handed_in(into, root, loaded, author, Bar(Console(stderr=as_json)))
    if as_json:
        print_json(handed.to_json())
    else:
        typer.echo(handed.verdict.text())
        typer.echo(f"{handed.run.submission}\n{handed.run.package}\n{handed.report.html}")
        for title in handed.report.missing:
            typer.echo(f"missing in: {title}")
    if not handed.verdict.passed:
        raise typer.Exit(1)


def form(text: str) -> str:
    """What `--to` was given. Raises BadData for a form that there is not."""
    require_form(text)
    return text


def package(
    run: RunArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.zip", help="File to write.", show_default="RUN/hw13.zip"),
    ] = None,
    notebook: Annotated[bool, typer.Option("--notebook", help="Write hw13.ipynb instead of hw13.py.")] = False,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Also verify it on these photographs, its own code run."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the code package: one readable file of torch, numpy and Pillow, the weights, and the submission."""
    from bantam.deliver.package.write import package as packaged
    from bantam.deliver.verify.verify import verify as verified
    from bantam.runs.finished import open_run
    from bantam.runs.remembered import remembered

    opened = open_run(run)
    made = packaged(opened, out or opened.package, notebook)
    verdict = None if data is None else verified(made.path, data, made.budget, run_code=True)
    if as_json:
        print_json({**made.to_json(), "verified": verdict and verdict.to_json()})
    else:
        typer.echo(f"{made.path}: {', '.join(made.names)}")
        typer.echo(f"the packaged code's net weighs {made.weight.counted:,} of {made.budget:,} parameters")
        data_of = remembered(opened.folder) or "DIR"
        words = ["bantam", "verify", made.path, "--data", data_of, "--budget", made.budget, "--run-code"]
        if verdict:
            typer.echo(verdict.text())
        elif opened.submission.name in made.names:
            typer.echo(next_step(*words))
        else:
            again = f"`bantam predict {typed(run)} --data DIR --out {typed(opened.submission)}`"
            typer.echo(f"without a submission nobody can verify it; with images in DIR/evaluation {again} writes one")
    if verdict and not verdict.passed:
        raise typer.Exit(1)


def verify(
    package: Annotated[Path, typer.Argument(metavar="ZIP", help="A code package.")],
    data: DataOption,
    budget: BudgetOption = 60_000,
    run_code: Annotated[
        bool, typer.Option("--run-code", help="Run the package's own code, confined as far as the system can.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a code package: files, weights, code, submission; with --run-code also the net and its answers."""
    from bantam.deliver.verify.verify import verify as verified

    verdict = verified(package, data, budget, run_code)
    if as_json:
        print_json(verdict.to_json())
    else:
        typer.echo(verdict.text())
    if not verdict.passed:
        raise typer.Exit(1)


def report(
    run: RunArgument,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="The run's photographs: measures what its files do not hold yet."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.html", help="File to write.", show_default="RUN/report/report.html"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the report: the course's questions answered from the run, as one HTML file and as Markdown."""
    from rich.console import Console

    from bantam.cli.screen import Bar
    from bantam.deliver.report.report import report as reported
    from bantam.runs.environment import environment
    from bantam.runs.finished import open_run
    from bantam.runs.remembered import remembered

    opened = open_run(run)
    written = reported(opened, out or opened.report, data, environment(), Bar(Console(stderr=True)))
    if as_json:
        print_json(written.to_json())
        return
    typer.echo(f"{written.html}\n{written.markdown}, with {len(written.plots)} plots beside it")
    for title in written.missing:
        typer.echo(f"missing in: {title}")
    if written.missing and data is None:
        words = ["bantam", "report", run, "--data", remembered(opened.folder) or "DIR"]
        typer.echo(next_step(*words, why="measures what is missing"))


def export(
    run: RunArgument,
    data: RunDataOption = None,
    to: Annotated[str, typer.Option(parser=form, metavar="FORM", help=FORMS)] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="File to write; of c its folder, too.", show_default="RUN/student.onnx, ..."
        ),
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="With c: also main.c, which prints the class of a validation image in it.")
    ] = False,
    width: WidthOption = None,
    size: SideOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run's student for another runtime, if it answers there as in PyTorch on the validation images."""
    from dataclasses import asdict

    from rich.console import Console

    from bantam.cli.screen import Bar
    from bantam.deliver.export.example import named
    from bantam.deliver.export.forms import Material, target_of
    from bantam.deliver.export.forms import export as exported
    from bantam.runs.finished import open_run

    target = target_of(to)
    opened = open_run(run)
    net, shipped = (opened.at_switch if target.exits else opened.whole_way)(width, size)
    splits = opened.open_data(opened.photographs(data), Bar(Console(stderr=True)))
    switch = ("" if width is None else f"-{width:g}") + ("" if size is None else f"-{size}px")
    name = f"student{switch}{target.mark}{target.suffix}"
    if out is not None and target.program and (out.is_dir() or not out.suffix):
        out = out / name
    path = out or opened.exported(name)
    parity = exported(Material(opened, net, shipped, splits), to, path, example)
    files = [*target.paths(path), *([path.with_name(f"main{path.suffix}")] if example else [])]
    weight = sum(file.stat().st_size for file in files)
    examples = [str(place) for place in named(path)] if target.examples else []
    if as_json:
        print_json({"file": str(path), "bytes": weight, "examples": examples, **asdict(parity)})
        return
    typer.echo(f"{' and '.join(map(str, files))}: {weight:,} bytes\n{parity.text()}")
    if examples:
        typer.echo(f"how to run it, without Bantam: {' and '.join(examples)}")


def serve(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="A run's folder, finished or training.", show_default="the food model"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="The run's photographs: for the gallery, and for its given teacher."
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labels beside which a leaderboard is, to show it.")
    ] = None,
    names: NamesOption = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; any but 127.0.0.1 lets others in.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(parser=whole("--port", 0, 65535), metavar="N", help="Port to listen on; 0 takes a free one."),
    ] = 8000,
    show: Annotated[bool, typer.Option("--open", help="Open the page in this machine's browser.")] = False,
) -> None:
    """Open a local page: classify photographs on the server and in the browser, look at validation and training."""
    from rich.console import Console

    from bantam.cli.screen import Bar
    from bantam.data.folder import scan, shown_names
    from bantam.deliver.serve import app
    from bantam.deliver.serve.desk import Setting, TeacherFile
    from bantam.nets.weights import file_and_name
    from bantam.recipes.kinds.given_teacher import GivenTeacher
    from bantam.runs.finished import FOOD11, open_run
    from bantam.runs.photographs import open_data

    opened = open_run(run or FOOD11)
    recipe = opened.recipe
    if labels is not None and not labels.is_file():
        raise BadData(f"there are no labels {labels}; check the path")
    if opened.is_finished or names is not None:  # wrong names are said before there is a page
        opened.named(opened.shipped.classes, names)
    listener = app.listen(host, port)
    validation = teacher = None
    classes: tuple[str, ...] = ()
    if data is not None:
        classes = shown_names(scan(data))
        validation = open_data(recipe, data, Bar(Console(stderr=True))).validation
        given = next((stage for stage in recipe.stage if isinstance(stage, GivenTeacher)), None)
        if given is not None and file_and_name(data / given.checkpoint)[0].is_file():
            teacher = TeacherFile(data / given.checkpoint, given.architecture, given.size)
    typer.echo(f"{opened.name}: {app.address_of(listener)}  (Ctrl-C ends it)")
    if show:  # whoever connects now is answered as soon as the student is loaded
        webbrowser.open(app.address_of(listener))
    try:
        app.serve(Setting(opened, validation, teacher, labels, classes, names), listener, host)
    except KeyboardInterrupt:
        typer.echo("ended")

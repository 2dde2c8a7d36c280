"""The commands that look before training: `bantam data`, `teacher`, `recipes` and `summary`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bantam.cli.options import (
    DataArgument,
    ImagesOption,
    JsonOption,
    SetOption,
    print_json,
    require_run,
    whole,
)
from bantam.errors import BadData, typed
from bantam.recipes.keys import LARGEST, PARAMETERS, SMALLEST


def runs_list(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder below which the runs are.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """List the runs below a folder, the newest first: recipe, parameters, accuracy, or how far each has come."""
    from bantam.runs.listed import listed, text

    if not folder.is_dir():
        raise BadData(f"there is no folder {folder}; give the one below which your runs are")
    found = listed(folder)
    if as_json:
        print_json([run.to_json() for run in found])
        return
    typer.echo(text(found) if found else f"there is no run below {folder}")


NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A shipped recipe's name.")]


def data_check(data: DataArgument, as_json: JsonOption = False) -> None:
    """Count; look for unreadable files, duplicates, leaks and double labels; exit status 1 if training is unsafe."""
    from rich.console import Console

    from bantam.cli.screen import Bar
    from bantam.data.check import check
    from bantam.runs.watcher import Counter

    if data.is_file() and sys.stderr.isatty():  # unpacking may take its time, and has no bar
        typer.echo(f"reading {data} ...", err=True)
    report = check(data, progress=Counter(Bar(Console(stderr=True)), "reading"))
    if as_json:
        print_json(report.to_json())
    else:
        typer.echo(report.text())
    if report.unsafe:
        raise typer.Exit(1)


def data_prepare(
    data: DataArgument,
    size: Annotated[
        int,
        typer.Option(
            parser=whole("--size", SMALLEST, LARGEST), metavar="N", help="Side of the stored images in pixels."
        ),
    ] = 64,
) -> None:
    """Decode every image once into a memory-mapped array; `run` does this by itself."""
    from rich.console import Console

    from bantam.cli.screen import Bar
    from bantam.data import cache
    from bantam.runs.watcher import Counter

    bar = Bar(Console(stderr=True))
    splits = cache.open_splits(data, size, progress=Counter(bar, "decoding"), say=bar.say)
    evaluation = len(splits.evaluation) if splits.evaluation is not None else 0
    for line in splits.remarks:
        typer.echo(line)
    typer.echo(
        f"ready at {size} px: {len(splits.training):,} training, {len(splits.validation):,} validation, "
        f"{evaluation:,} evaluation images in {len(splits.classes)} classes"
    )


def teacher_audit(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="The photographs.", show_default="with --run: where that remembers them"
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option(metavar="RECIPE", help="The recipe whose given teacher and augmentation to use.")
    ] = "medium",
    images: ImagesOption = 2000,
    settings: SetOption = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="Audit instead every teacher of this run: given, trained, assistants, together.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell whether a given teacher has anything to teach: accuracy, calibration, softness, plain and augmented."""
    from rich.console import Console

    from bantam.recipes import recipe as recipes

    loaded = recipes.load(recipe, settings or ())  # a mistake is said before torch is loaded
    if data is None and run is None:
        raise BadData("say where the photographs are with --data DIR; with --run RUN the run remembers")

    from bantam.cli.screen import Bar, audit_table
    from bantam.pipeline import run as pipeline
    from bantam.runs.finished import open_run
    from bantam.studies.audit import audit_run

    console = Console(stderr=as_json)
    if run is not None:
        opened = open_run(run)
        audits = audit_run(opened, opened.photographs(data), images, Bar(console))
        if as_json:
            print_json({name: audit.to_json() for name, audit in audits.items()})
        for name, audit in {} if as_json else audits.items():
            console.print(audit_table(audit, name))
        return
    assert data is not None
    result = pipeline.audit_given_teacher(loaded, data, images, Bar(console))
    if as_json:
        print_json(result.to_json())
    else:
        console.print(audit_table(result))


def summary(
    net: Annotated[str, typer.Argument(metavar="FAMILY|RUN", help="A student family, or a finished run's folder.")],
    budget: Annotated[
        int | None,
        typer.Option(
            parser=whole("--budget", 1, PARAMETERS),
            metavar="N",
            help="Most parameters.",
            show_default="60000, or the run's budget",
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            parser=whole("--classes", 1, 100_000),
            metavar="N",
            help="Number of classes of a family.",
            show_default="11",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            parser=whole("--size", 1, LARGEST),
            metavar="N",
            help="Input size of a family in pixels.",
            show_default="64",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print a student's layers, both counts of its parameters, and the verdict against the budget."""
    from dataclasses import asdict

    from bantam.nets.students import STUDENTS, Student, family

    if net not in STUDENTS and (Path(net).is_dir() or len(Path(net).parts) > 1):  # no family has a slash
        require_run(Path(net))
    else:
        family(net)  # a mistake is said before torch is loaded

    from bantam.nets.budget import summary as summarised
    from bantam.runs.finished import open_run

    if net in STUDENTS or not Path(net).is_dir():
        allowed, classes, size = budget or 60_000, classes or 11, size or 64
        student = Student(net, family(net).fit(allowed, classes, size), classes, size)
        weighed = student.shipped_net()
    elif classes or size:
        raise BadData("--classes and --size are for a family; a run has its own")
    else:
        run = open_run(Path(net))
        weighed, shipped = run.as_shipped()
        student, allowed = shipped.student, budget or run.metrics["budget"]
    result = summarised(weighed, student.size)
    if as_json:
        weight = {"unique": result.weight.unique, "torchsummary": result.weight.torchsummary}
        print_json(
            {
                "family": student.family,
                "shape": student.shape,
                "budget": allowed,
                "parameters": weight,
                "trainable": result.trainable,
                "layers": [asdict(row) for row in result.rows],
            }
        )
    else:
        typer.echo(result.text(allowed))


def recipes_list() -> None:
    """List the shipped recipes, with what each is."""
    import textwrap

    from bantam.recipes.recipe import shipped

    column = max(map(len, shipped())) + 2
    for name, path in shipped().items():
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        typer.echo(textwrap.fill(f"{name:<{column}}{first}", 80, subsequent_indent=" " * column))


def recipes_show(name: NameArgument) -> None:
    """Print a shipped recipe."""
    typer.echo(recipe_path(name).read_text(encoding="utf-8"), nl=False)


def recipes_copy(
    name: NameArgument, to: Annotated[Path, typer.Argument(metavar="FILE.toml", help="A new .toml file.")]
) -> None:
    """Copy a shipped recipe to a file of your own, to edit and run."""
    from bantam.files import write_text

    if to.exists():
        raise BadData(f"{to} exists already; choose another name")
    write_text(to, recipe_path(name).read_text(encoding="utf-8"))
    typer.echo(f"{to}: edit it, then `bantam run {typed(to)} --data DIR --out RUN`")


def recipe_path(name: str) -> Path:
    """The file of a shipped recipe. Raises BadRecipe for a name that there is not."""
    from bantam.errors import BadRecipe
    from bantam.recipes.recipe import nearest, shipped

    if name not in shipped():
        raise BadRecipe(f'no recipe is named "{name}"{nearest(name, shipped())}')
    return shipped()[name]

"""The command line: one command a verb; parses, calls, prints. Heavy imports stay inside the commands."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from bantam.cli import (
    cost as cli_cost,
)
from bantam.cli import (
    dynamic as cli_dynamic,
)
from bantam.cli import (
    export as cli_export,
)
from bantam.cli import (
    leaderboard as cli_leaderboard,
)
from bantam.cli import (
    package as cli_package,
)
from bantam.cli import (
    predict as cli_predict,
)
from bantam.cli import (
    prune as cli_prune,
)
from bantam.cli import (
    serve as cli_serve,
)
from bantam.cli.options import (
    BudgetOption,
    ClassesOption,
    DataOption,
    ImagesOption,
    JsonOption,
    SetOption,
    SizeOption,
    print_json,
    whole,
)
from bantam.errors import BadData, BantamError
from bantam.recipes.kinds import LARGEST, SMALLEST

app = typer.Typer(
    name="bantam",
    help="The most accurate image classifier that fits a hard budget: 60,000 parameters by default.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Check and prepare a folder of photographs.", no_args_is_help=True)
teacher_app = typer.Typer(help="Look at a teacher.", no_args_is_help=True)
recipes_app = typer.Typer(help="The recipes that come with Bantam.", no_args_is_help=True)
bench_app = typer.Typer(help="Measure training, and what finished students cost.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(teacher_app, name="teacher")
app.add_typer(recipes_app, name="recipes")
app.add_typer(bench_app, name="bench")
app.command()(cli_cost.students)
app.command()(cli_prune.prune)
app.command()(cli_package.package)
app.command()(cli_package.verify)
app.command()(cli_package.report)
app.command()(cli_leaderboard.leaderboard)
app.command()(cli_serve.serve)
bench_app.command("cost")(cli_cost.cost)
bench_app.command("pruning")(cli_cost.pruning)
app.command()(cli_export.export)
app.command()(cli_export.quantize)
app.command()(cli_dynamic.cascade)
app.command()(cli_dynamic.exits)
app.command()(cli_dynamic.slim)
app.command()(cli_dynamic.views)
app.command()(cli_predict.predict)


INTERRUPTED = 130
"""Exit status after Ctrl-C."""

LACK_OF_MEMORY = (
    "failed to map segment", "allocate memory", "out of memory", "bad_alloc", "not enough memory",
    "can't start new thread", "thread resources",
)  # fmt: skip
"""What libraries, the system and torch say in the same case."""


def main() -> None:
    """Run the command line; an error that a user can cause is one line on stderr and exit status 1."""
    try:
        app()
    except BantamError as error:
        print(f"bantam: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as ended:  # typer turns an interrupt into this
        if ended.code == INTERRUPTED:
            print("bantam: stopped; run the same command again to go on", file=sys.stderr)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ImportError, MemoryError, OSError, RuntimeError) as error:
        if (lack := lack_of_memory(error)) is None:
            raise
        print(f"bantam: there is too little memory ({lack}); end other programs or raise the limit", file=sys.stderr)
        sys.exit(1)


def lack_of_memory(error: BaseException | None) -> str | None:
    """What `error`, or one behind it, says of memory that is not there; None where that is not the matter."""
    while error is not None:
        said = " ".join(str(error).split())
        if isinstance(error, MemoryError) or any(words in said for words in LACK_OF_MEMORY):
            return said[-160:] or "memory is exhausted"
        error = error.__cause__ or error.__context__
    return None


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("runs/demo"),
) -> None:
    """Run the main job in minutes, on scikit-learn's digits: a teacher, a student alone and distilled, a grade."""
    from rich.console import Console

    from bantam.cli.screen import Bar, run_table
    from bantam.data import embedded
    from bantam.deliver.grade import grade
    from bantam.pipeline import run as pipeline
    from bantam.recipes import recipe

    console = Console()
    labels = embedded.write_digits(out / "digits")
    metrics = pipeline.run(recipe.load("demo"), out / "digits", out / "run", Bar(console))
    graded = grade(out / "run" / "submission.csv", labels)
    console.print(run_table(metrics, graded.overall))
    lines = {
        "photographs": out / "digits",
        "recipe": out / "run" / "recipe.toml",
        "weights": out / "run" / "student_best.ckpt",
        "metrics": out / "run" / "metrics.json",
        "predictions": out / "run" / "submission.csv",
        "held-back labels": labels,
    }
    for what, path in lines.items():
        typer.echo(f"{what:<17} {path}")
    typer.echo("next: bantam data check DIR, then bantam run medium --data DIR --out RUN")


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a .toml file.")],
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", help="Run folder; a killed run in it goes on.")],
    settings: SetOption = None,
    reuse: Annotated[
        Path | None, typer.Option(help="Another run: what it has finished of the same stages is taken from there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe's stages on a folder of photographs; run it again after a kill and it goes on."""
    from rich.console import Console

    from bantam.recipes import recipe as recipes

    if "RANK" not in os.environ:  # a mistake is said at once, not after torch is loaded; of several processes by one
        recipes.load(recipe, settings or ())

    from bantam.cli.screen import Bar, run_table
    from bantam.pipeline import run as pipeline
    from bantam.train.distributed import joined
    from bantam.train.runlog import Watcher

    console = Console(stderr=as_json)
    with joined() as processes:
        watcher = Watcher() if processes.rank else Bar(console)
        metrics = pipeline.run(recipes.load(recipe, settings or ()), data, out, watcher, processes, reuse)
    if processes.rank:
        return
    if as_json:
        print_json(metrics)
        return
    console.print(run_table(metrics))
    typer.echo(f"run folder: {out}")
    if (out / "submission.csv").exists():
        typer.echo(f"next: bantam grade {out / 'submission.csv'} --labels labels.csv")


@app.command()
def search(
    data: DataOption,
    budget: BudgetOption = 60_000,
    trials: Annotated[
        int,
        typer.Option(
            parser=whole("--trials", 1, 100_000), metavar="N", help="Short trainings, of all workers together."
        ),
    ] = 40,
    storage: Annotated[
        str | None,
        typer.Option(help="sqlite:///FILE, or postgresql://... to share with other machines; by default in --out."),
    ] = None,
    workers: Annotated[
        int, typer.Option(parser=whole("--workers", 1, 256), metavar="N", help="Processes on this machine.")
    ] = 1,
    out: Annotated[Path, typer.Option("--out", help="Folder for the runs, the winner's recipe and the plot.")] = Path(
        "runs/search"
    ),
    recipe: Annotated[str, typer.Option(help="Where to search: about a shipped recipe, or a .toml file.")] = "medium",
    as_json: JsonOption = False,
) -> None:
    """Search families, input sizes and training knobs for the best student; started again or elsewhere, it joins in."""
    from rich.console import Console

    from bantam.cli.screen import Bar, search_table
    from bantam.recipes import recipe as recipes
    from bantam.search.search import search as searched

    console = Console(stderr=as_json)
    base = recipes.load(recipe, [f"budget={budget}"])
    result = searched(base, data, out, trials, storage, workers, Bar(console))
    if as_json:
        print_json(result)
        return
    console.print(search_table(result))
    typer.echo(f"all candidates: {out / 'search.json'}\nplot: {out / 'pareto.svg'}")
    typer.echo(f"next: bantam run {out / 'winner.toml'} --data {data} --out RUN")


@app.command()
def grade(
    submission: Annotated[Path, typer.Argument(help="CSV with the header Id,Category.")],
    labels: Annotated[Path, typer.Option("--labels", help="CSV with Id,Category and perhaps Usage.")],
    baselines: Annotated[
        Path | None,
        typer.Option("--baselines", help="TOML or CSV of names and thresholds instead of the course's."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Enter it into the leaderboard beside the labels; its private score stays hidden."),
    ] = None,
    per_day: Annotated[
        int,
        typer.Option(parser=whole("--per-day", 1, 10**6), metavar="N", help="With --name: submissions taken a day."),
    ] = 5,
    reveal: Annotated[bool, typer.Option("--reveal", help="With --name: show private scores too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Grade a submission: accuracy with standard error overall and for both halves, baselines passed, points."""
    if name is not None:
        cli_leaderboard.enter(submission, labels, name, per_day, reveal, baselines, as_json)
        return
    from bantam.deliver.grade import grade as graded

    result = graded(submission, labels, baselines)
    if as_json:
        print_json(result.to_json())
    else:
        typer.echo(result.text())


@app.command()
def summary(
    net: Annotated[str, typer.Argument(help="A student family.")],
    budget: BudgetOption = 60_000,
    classes: ClassesOption = 11,
    size: SizeOption = 64,
    as_json: JsonOption = False,
) -> None:
    """Print a student's layers, both counts of its parameters, and the verdict against the budget."""
    from dataclasses import asdict

    from bantam.nets.budget import summary as summarised
    from bantam.nets.students import Student, family

    shape = family(net).fit(budget, classes, size)
    result = summarised(Student(net, shape, classes, size).shipped_net(), size)
    if as_json:
        weight = {"unique": result.weight.unique, "torchsummary": result.weight.torchsummary}
        print_json(
            {
                "family": net,
                "shape": shape,
                "budget": budget,
                "parameters": weight,
                "trainable": result.trainable,
                "layers": [asdict(row) for row in result.rows],
            }
        )
    else:
        typer.echo(result.text(budget))


@data_app.command("check")
def data_check(
    data: Annotated[Path, typer.Argument(help="Folder of photographs.")], as_json: JsonOption = False
) -> None:
    """Count; look for unreadable files, duplicates, leaks and double labels; exit status 1 if training is unsafe."""
    from rich.console import Console

    from bantam.cli.screen import Bar
    from bantam.data.check import check
    from bantam.train.runlog import Counter

    report = check(data, progress=Counter(Bar(Console(stderr=True)), "reading"))
    if as_json:
        print_json(report.to_json())
    else:
        typer.echo(report.text())
    if report.unsafe:
        raise typer.Exit(1)


@data_app.command("prepare")
def data_prepare(
    data: Annotated[Path, typer.Argument(help="Folder of photographs.")],
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
    from bantam.train.runlog import Counter

    bar = Bar(Console(stderr=True))
    splits = cache.open_splits(data, size, progress=Counter(bar, "decoding"), say=bar.say)
    evaluation = len(splits.evaluation) if splits.evaluation is not None else 0
    typer.echo(
        f"ready at {size} px: {len(splits.training):,} training, {len(splits.validation):,} validation, "
        f"{evaluation:,} evaluation images in {len(splits.classes)} classes"
    )


@teacher_app.command("audit")
def teacher_audit(
    data: DataOption,
    recipe: Annotated[str, typer.Option(help="The recipe whose given teacher and augmentation to use.")] = "medium",
    images: ImagesOption = 2000,
    settings: SetOption = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Audit instead every teacher of this run: given, trained, assistants, together."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell whether a given teacher has anything to teach: accuracy, calibration, softness, plain and augmented."""
    from rich.console import Console

    from bantam.cli.screen import Bar, audit_table
    from bantam.pipeline import run as pipeline
    from bantam.recipes import recipe as recipes
    from bantam.studies.audit import audit_run

    console = Console(stderr=as_json)
    if run is not None:
        audits = audit_run(run, data, images, Bar(console))
        if as_json:
            print_json({name: audit.to_json() for name, audit in audits.items()})
        for name, audit in {} if as_json else audits.items():
            console.print(audit_table(audit, name))
        return
    result = pipeline.audit_given_teacher(recipes.load(recipe, settings or ()), data, images, Bar(console))
    if as_json:
        print_json(result.to_json())
    else:
        console.print(audit_table(result))


@bench_app.command("train")
def bench_train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a .toml file.")],
    data: DataOption,
    steps: Annotated[int, typer.Option(parser=whole("--steps", 1, 100_000), metavar="N", help="Steps to time.")] = 20,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where the time of a training step goes: data, augmentation, teacher, forward, backward, optimizer."""
    from rich.console import Console

    from bantam.cli.screen import Bar
    from bantam.pipeline import run as pipeline
    from bantam.recipes import recipe as recipes
    from bantam.train.allocator import keep_memory
    from bantam.train.bench import bench_train as timed

    watcher = Bar(Console(stderr=True))
    loaded = recipes.load(recipe, settings or ())
    pipeline.check(loaded)
    keep_memory()
    splits = pipeline.open_data(loaded, data, watcher)
    result = timed(loaded, splits, pipeline.goals_of(loaded.shipped), steps, watcher)
    if as_json:
        print_json(result.to_json())
    else:
        typer.echo(result.text())


@recipes_app.command("list")
def recipes_list() -> None:
    """List the shipped recipes, with what each is."""
    from bantam.recipes.recipe import shipped

    for name, path in shipped().items():
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        typer.echo(f"{name:<10} {first}")


@recipes_app.command("show")
def recipes_show(name: str) -> None:
    """Print a shipped recipe."""
    typer.echo(recipe_path(name).read_text(encoding="utf-8"), nl=False)


@recipes_app.command("copy")
def recipes_copy(name: str, to: Annotated[Path, typer.Argument(help="A new .toml file.")]) -> None:
    """Copy a shipped recipe to a file of your own, to edit and run."""
    from bantam.files import write_text

    if to.exists():
        raise BadData(f"{to} exists already; choose another name")
    write_text(to, recipe_path(name).read_text(encoding="utf-8"))
    typer.echo(f"{to}: edit it, then bantam run {to} --data DIR --out RUN")


def recipe_path(name: str) -> Path:
    """The file of a shipped recipe. Raises BadRecipe for a name that there is not."""
    from bantam.errors import BadRecipe
    from bantam.recipes.recipe import nearest, shipped

    if name not in shipped():
        raise BadRecipe(f'no recipe is named "{name}"{nearest(name, shipped())}')
    return shipped()[name]


if __name__ == "__main__":
    main()

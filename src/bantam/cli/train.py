"""The commands that train by a recipe: `bantam run`, `search` and `bench train`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bantam.cli.options import (
    BudgetOption,
    DataOption,
    JsonOption,
    RecipeArgument,
    SetOption,
    VerboseOption,
    next_step,
    print_json,
    whole,
)


def run(
    recipe: RecipeArgument,
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run; a killed run in it goes on.")],
    settings: SetOption = None,
    reuse: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Another run: what it has finished of the same stages is taken from there."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only check everything, and say how many minutes it would take here."),
    ] = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe's stages on a folder of photographs; run it again after a kill and it goes on."""
    from rich.console import Console

    from bantam.recipes import recipe as recipes

    if "RANK" not in os.environ:  # a mistake is said at once, not after torch is loaded; of several processes by one
        stages = recipes.load(recipe, settings or ()).stage
        if not as_json:
            typer.echo(f"{recipe} ({', '.join(stage.name for stage in stages)}) on {data}, into {out}")

    from bantam.cli.screen import Bar, run_table
    from bantam.pipeline import run as pipeline
    from bantam.runs.watcher import Watcher
    from bantam.train.distributed import joined

    console = Console(stderr=as_json)
    if dry_run:
        from bantam.pipeline.forecast import forecast, text

        rows = forecast(recipes.load(recipe, settings or ()), data, out, Bar(console, verbose))
        print_json([row.to_json() for row in rows]) if as_json else typer.echo(text(rows))
        return
    with joined() as processes:
        watcher = Watcher() if processes.rank else Bar(console, verbose)
        metrics = pipeline.run(recipes.load(recipe, settings or ()), data, out, watcher, processes, reuse)
    if processes.rank:
        return
    if as_json:
        print_json(metrics)
        return
    console.print(run_table(metrics))
    typer.echo(f"run folder: {out}")
    if (out / "submission.csv").exists():
        typer.echo(next_step("bantam", "package", out, "--data", data, why="what is handed in, and checks it"))
    typer.echo(next_step("bantam", "serve", out, "--data", data, why="a page that classifies photographs"))


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
        typer.Option(
            metavar="URL",
            help="sqlite:///FILE, or postgresql://... to share with other machines.",
            show_default="a file in --out",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(parser=whole("--workers", 1, 256), metavar="N", help="Processes on this machine.")
    ] = 1,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FOLDER", help="Folder for the runs, the winner's recipe and the plot."),
    ] = Path("runs/search"),
    recipe: Annotated[
        str, typer.Option(metavar="RECIPE", help="Where to search: about a shipped recipe, or a .toml file.")
    ] = "quick",
    as_json: JsonOption = False,
) -> None:
    """Search families, input sizes and training knobs for the best student; started again or elsewhere, it joins in."""
    from rich.console import Console

    from bantam.recipes import recipe as recipes

    base = recipes.load(recipe, [f"budget={budget}"])
    if not as_json:  # before torch is loaded
        typer.echo(f"search for {budget:,} parameters on {data}, into {out}")

    from bantam.cli.screen import Bar, search_table
    from bantam.search.search import search as searched

    console = Console(stderr=as_json)
    result = searched(base, data, out, trials, storage, workers, Bar(console))
    if as_json:
        print_json(result)
        return
    console.print(search_table(result))
    typer.echo(f"all candidates: {out / 'search.json'}\nplot: {out / 'pareto.svg'}")
    typer.echo(next_step("bantam", "run", out / "winner.toml", "--data", data, "--out", out / "winner"))


def bench_train(
    recipe: RecipeArgument,
    data: DataOption,
    steps: Annotated[int, typer.Option(parser=whole("--steps", 1, 100_000), metavar="N", help="Steps to time.")] = 20,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where the time of a training step goes: data, augmentation, teacher, forward, backward, optimizer."""
    from rich.console import Console

    from bantam.recipes import recipe as recipes

    loaded = recipes.load(recipe, settings or ())  # a mistake is said before torch is loaded

    from bantam.cli.screen import Bar
    from bantam.pipeline import run as pipeline
    from bantam.runs.photographs import open_data
    from bantam.train.allocator import keep_memory
    from bantam.train.bench import bench_train as timed

    watcher = Bar(Console(stderr=True))
    pipeline.check(loaded)
    keep_memory()
    splits = open_data(loaded, data, watcher)
    result = timed(loaded, splits, pipeline.goals_of(loaded.shipped), steps, watcher)
    if as_json:
        print_json(result.to_json())
    else:
        typer.echo(result.text())

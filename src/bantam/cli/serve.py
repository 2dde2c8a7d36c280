"""`bantam serve`: the local page."""

from pathlib import Path
from typing import Annotated

import typer

from bantam.cli.options import whole
from bantam.errors import BadData


def serve(
    run: Annotated[
        Path | None, typer.Argument(help="A run's folder, finished or training; by default the food model.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The run's photographs: for the gallery, and for its given teacher.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Labels beside which a leaderboard is, to show it.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any but 127.0.0.1 lets others in.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(parser=whole("--port", 0, 65535), metavar="N", help="Port to listen on; 0 takes a free one."),
    ] = 8000,
) -> None:
    """Open a local page: classify photographs on the server and in the browser, look at validation and training."""
    from rich.console import Console

    from bantam.cli.screen import Bar
    from bantam.data.folder import scan, shown_names
    from bantam.deliver.classify import FOOD11
    from bantam.deliver.serve import app
    from bantam.deliver.serve.desk import Setting, TeacherFile
    from bantam.nets.weights import file_and_name
    from bantam.pipeline import run as pipeline
    from bantam.recipes.kinds import GivenTeacher

    run = run or FOOD11
    recipe = pipeline.recipe_of(run)
    if labels is not None and not labels.is_file():
        raise BadData(f"there are no labels {labels}; check the path")
    listener = app.listen(host, port)
    validation = teacher = None
    classes: tuple[str, ...] = ()
    if data is not None:
        classes = shown_names(scan(data))
        validation = pipeline.open_data(recipe, data, Bar(Console(stderr=True))).validation
        given = next((stage for stage in recipe.stage if isinstance(stage, GivenTeacher)), None)
        if given is not None and file_and_name(data / given.checkpoint)[0].is_file():
            teacher = TeacherFile(data / given.checkpoint, given.architecture, given.size)
    typer.echo(f"{run.name}: {app.address_of(listener)}  (Ctrl-C ends it)")
    try:
        app.serve(Setting(run, recipe.data.size, validation, teacher, labels, classes), listener, host)
    except KeyboardInterrupt:
        typer.echo("ended")

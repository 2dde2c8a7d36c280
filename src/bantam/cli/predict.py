"""The command `bantam predict`: the classes of single photographs, or the submission of a run's student."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bantam.cli.options import (
    JsonOption,
    NamesOption,
    SideOption,
    WidthOption,
    number,
    print_json,
    require_other,
    require_run,
)
from bantam.errors import BadData
from bantam.measure.crops import require_tta

if TYPE_CHECKING:
    from bantam.measure.dynamic import Left
    from bantam.runs.finished import FinishedRun

SHOWN = 3
"""Classes printed for each photograph; --json has them all."""


def predict(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PHOTO...|FOLDER|RUN", help="Photographs, or folders of them; or a finished run's folder."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Photographs whose evaluation images to classify.",
            show_default="of a run: where it remembers them",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Whose student classifies the photographs.", show_default="the food model"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.csv",
            help="File to write: of photographs file,class,name,probability; of a run Id,Category.",
            show_default="of a run: submission.csv",
        ),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What to average over: plain, flip, zoom or crops (1, 2, 4, 12 passes).",
            show_default="as chosen on validation",
        ),
    ] = None,
    probabilities: Annotated[
        Path | None,
        typer.Option("--probabilities", metavar="FILE.csv", help="Also write every class's probability to this file."),
    ] = None,
    width: WidthOption = None,
    size: SideOption = None,
    exit_confidence: Annotated[
        float | None,
        typer.Option(
            parser=number("--exit-confidence", 0, 1),
            metavar="SHARE",
            help="Let an image leave at the first early exit that is so sure, 0..1; one plain view.",
        ),
    ] = None,
    view_confidence: Annotated[
        float | None,
        typer.Option(
            parser=number("--view-confidence", 0, 1),
            metavar="SHARE",
            help="Take further TTA crops only while the answer is less sure than this, 0..1.",
        ),
    ] = None,
    classes: NamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the classes of photographs, those in folders too; of a run's folder, write the submission."""
    if exit_confidence is not None and (view_confidence is not None or views not in (None, "plain")):
        other = "--view-confidence" if view_confidence is not None else f"--views {views}"
        raise BadData(f"--exit-confidence looks at one plain view; leave out {other}")
    thresholds = (exit_confidence, view_confidence)
    if data is None and not any(map(holds_run, paths)):
        if probabilities is not None:
            raise BadData("--probabilities goes with --data; --json prints every class of single photographs")
        photographs(paths, run, out, classes, views, width, size, *thresholds, as_json)
        return
    if len(paths) > 1 or run is not None:
        raise BadData("with --data, or a run's folder, give nothing else: `bantam predict RUN --data DIR`")
    require_run(paths[0])
    if classes is not None:
        raise BadData("a submission has the numbers of the classes; --classes goes with single photographs")
    if views is not None:
        require_tta(views)
    out = out or Path("submission.csv")
    evaluation_images(paths[0], data, out, views, probabilities, width, size, *thresholds, as_json)


def holds_run(path: Path) -> bool:
    """Whether `path` is a run's folder, not a photograph or a folder of some."""
    return (path / "recipe.toml").is_file()


def photographs(
    paths: list[Path],
    run: Path | None,
    out: Path | None,
    names: Path | None,
    views: str | None,
    width: float | None,
    size: int | None,
    exit_confidence: float | None,
    view_confidence: float | None,
    as_json: bool,
) -> None:
    """Print the classes of the files `paths`, by the student of `run` or by the model that comes with Bantam.

    Of a folder, every photograph in it and below. They are written to `out`, too; `names` is a file of class names.
    `width` and `size` are those of a switchable student. With `exit_confidence`, each photograph leaves at the first
    early exit of the student that is so sure of it; with `view_confidence`, no crop is taken once the answer is sure.
    """
    from bantam.deliver.graph_classifier import graph_classifier, ranked
    from bantam.deliver.loose import photographs_in, write_table
    from bantam.runs.finished import FOOD11, open_run

    opened = open_run(run or FOOD11)
    asked = (width, size, exit_confidence, view_confidence)
    by_graph = graph_classifier(opened, views) if asked == (None,) * 4 else None
    files, left_out = photographs_in(paths)
    if out is not None:
        require_other(out, files)
    if by_graph is not None:
        labels, answers, left = by_graph.labels, [by_graph.classify(path).tolist() for path in files], None
    else:
        labels, answers, left = by_pytorch(files, opened, views, *asked)
    labels = opened.named(labels, names)
    if out is not None:
        write_table(out, files, answers, labels)
    for line in left_out:
        typer.echo(line, err=True)
    if as_json:
        print_json({str(path): dict(ranked(row, labels)) for path, row in zip(files, answers, strict=True)})
        return
    column = max(len(str(path)) for path in files)
    for path, row in zip(files, answers, strict=True):
        best = [f"{name} {probability:6.1%}" for name, probability in ranked(row, labels)[:SHOWN]]
        typer.echo(f"{path!s:<{column}}  {'   '.join(best)}")
    if left is not None:
        typer.echo(left.text())
    if out is not None:
        typer.echo(f"{len(files):,} rows: {out}")
    if opened.folder == FOOD11:
        typer.echo("by Bantam's small food model (11 classes); --run RUN asks a run's student")


def by_pytorch(
    paths: list[Path],
    run: "FinishedRun",
    views: str | None,
    width: float | None,
    size: int | None,
    exit_confidence: float | None,
    view_confidence: float | None,
) -> "tuple[tuple[str, ...], list[list[float]], Left | None]":
    """The classes' names, each file's probabilities, and with a threshold what became of it; as in `photographs`."""
    from bantam.deliver.classify import classify_early, classify_files, classify_while_unsure, load_classifier

    classifier = load_classifier(run, views, width, size)
    left = None
    if exit_confidence is not None:
        left = classify_early(classifier, paths, exit_confidence, run)
    elif view_confidence is not None:
        left = classify_while_unsure(classifier, paths, view_confidence)
    answers = classify_files(classifier, paths) if left is None else left.logits.softmax(1)
    return classifier.shipped.classes, answers.tolist(), left


def evaluation_images(
    run: Path,
    data: Path | None,
    out: Path,
    views: str | None,
    probabilities: Path | None,
    width: float | None,
    size: int | None,
    exit_confidence: float | None,
    view_confidence: float | None,
    as_json: bool,
) -> None:
    """Write the submission of the student of `run`, at `width` and `size`, or computing what a threshold asks for."""
    from rich.console import Console

    from bantam.cli.screen import Bar
    from bantam.deliver.predict import predict as predicted
    from bantam.deliver.predict import write_answers
    from bantam.measure.leaving import leave_early, require_some_left
    from bantam.measure.tta import answer_while_unsure, ladder
    from bantam.nets.early_exit import without_exits
    from bantam.runs.finished import open_run

    opened = open_run(run)
    net, shipped = opened.at_switch(width, size)
    early = None if exit_confidence is None else opened.require_exits(net)
    views = views or opened.tta
    if view_confidence is not None:
        ladder(views)
    images = opened.evaluation(opened.photographs(data), Bar(Console(stderr=True)))
    side, normalisation = shipped.student.size, shipped.normalisation
    left = None
    if early is not None and exit_confidence is not None:
        left = leave_early(early, images, side, normalisation, exit_confidence)
        require_some_left(left, exit_confidence)
    elif view_confidence is not None:
        left = answer_while_unsure(without_exits(net), images, side, normalisation, views, view_confidence)
    else:
        predicted(net, shipped, images, tta=views, path=out, probabilities=probabilities)
    if left is not None:
        write_answers(left.logits, shipped, images, out, probabilities)
    if as_json:
        counts = {} if left is None else {"left": dict(zip(left.names, left.counts, strict=True))}
        print_json({"submission": str(out), "predictions": len(images), **counts})
        return
    if left is not None:
        typer.echo(left.text())
    typer.echo(f"{len(images):,} predictions: {out}")

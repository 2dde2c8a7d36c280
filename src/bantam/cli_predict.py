"""What `bantam predict` does: the classes of single photographs, or the submission of a run's student."""

import json
from pathlib import Path

import typer

from bantam.errors import BadData
from bantam.options import print_json

SHOWN = 3
"""Classes printed for each photograph; --json has them all."""


def photographs(
    paths: list[Path],
    run: Path | None,
    views: str | None,
    width: float | None,
    confidence: float | None,
    as_json: bool,
) -> None:
    """Print the classes of the files `paths`, by the student of `run` or by the model that comes with Bantam.

    `width` is one of a switchable student's. With `confidence`, each photograph leaves at the student's first early
    exit that is so sure of it.
    """
    from bantam import pipeline
    from bantam.deliver.classify import FOOD11, classify_early, classify_files, load_classifier, ranked

    folder = next((path for path in paths if path.is_dir()), None)
    if folder is not None:
        raise BadData(
            f"{folder} is a folder, not a photograph; "
            f"`bantam predict {folder} --data DIR` classifies the evaluation images of DIR with the run in it"
        )
    run = run or FOOD11
    require_one_view(views, confidence)
    classifier = load_classifier(run, pipeline.recipe_of(run).data.size, views, width)
    left = None if confidence is None else classify_early(classifier, paths, confidence, run)
    answers = classify_files(classifier, paths) if left is None else left.logits.softmax(1)
    labels = classifier.shipped.classes
    if as_json:
        print_json({str(path): dict(ranked(row, labels)) for path, row in zip(paths, answers, strict=True)})
        return
    column = max(len(str(path)) for path in paths)
    for path, row in zip(paths, answers, strict=True):
        best = [f"{name} {probability:6.1%}" for name, probability in ranked(row, labels)[:SHOWN]]
        typer.echo(f"{path!s:<{column}}  {'   '.join(best)}")
    if left is not None:
        typer.echo(left.text())
    if run == FOOD11:
        typer.echo("by the food model that comes with Bantam (11 classes); --run RUN asks a run's student")


def evaluation_images(
    run: Path,
    data: Path,
    out: Path,
    views: str | None,
    probabilities: Path | None,
    width: float | None,
    confidence: float | None,
) -> None:
    """Write the submission of the student of `run`, at `width` or with early exits at the threshold `confidence`."""
    from bantam import pipeline
    from bantam.data import cache
    from bantam.deliver.exits import leave_early, require_exits, require_some_left
    from bantam.deliver.predict import load_shipped, predict, write_answers
    from bantam.deliver.views import views_of

    require_one_view(views, confidence)
    net, shipped = load_shipped(run, width)
    early = None if confidence is None else require_exits(net, run)
    images = cache.open_splits(data, pipeline.recipe_of(run).data.size).evaluation
    if images is None:
        raise BadData(f"{data} has no evaluation images; put them into {data / 'evaluation'}")
    if early is None or confidence is None:
        chosen = views_of(json.loads((run / "metrics.json").read_text(encoding="utf-8"))["validation"])
        predict(net, shipped, images, views=views or chosen, path=out, probabilities=probabilities)
    else:
        left = leave_early(early, shipped, images, confidence)
        require_some_left(left, confidence)
        write_answers(left.logits, shipped, images, out, probabilities)
        typer.echo(left.text())
    typer.echo(f"{len(images):,} predictions: {out}")


def require_one_view(views: str | None, confidence: float | None) -> None:
    """Raises BadData where early exits are to answer for several views."""
    if confidence is not None and views not in (None, "plain"):
        raise BadData(f"--exit-confidence looks at one plain view; leave out --views {views}")

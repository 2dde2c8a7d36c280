"""`bantam predict`: the classes of single photographs, or of a data folder's evaluation images."""

import json
from pathlib import Path

import typer

from bantam.errors import BadData
from bantam.options import print_json

SHOWN = 3
"""Classes printed for each photograph; --json has them all."""


def evaluation_images(
    run: Path, data: Path, out: Path, views: str | None, probabilities: Path | None, width: float | None
) -> None:
    """Write the submission `out` of the student of `run` on the evaluation images of `data`."""
    from bantam import pipeline
    from bantam.data import cache
    from bantam.deliver.predict import load_shipped, predict
    from bantam.deliver.views import views_of

    net, shipped = load_shipped(run, width)
    recipe = pipeline.recipe_of(run)
    images = cache.open_splits(data, recipe.data.size).evaluation
    if images is None:
        raise BadData(f"{data} has no evaluation images; put them into {data / 'evaluation'}")
    chosen = views_of(json.loads((run / "metrics.json").read_text(encoding="utf-8"))["validation"])
    predict(net, shipped, images, views=views or chosen, path=out, probabilities=probabilities)
    typer.echo(f"{len(images):,} predictions: {out}")


def photographs(paths: list[Path], run: Path | None, views: str | None, width: float | None, as_json: bool) -> None:
    """Print the classes of the files `paths`, by the student of `run` or by the model that comes with Bantam."""
    from bantam import pipeline
    from bantam.deliver.classify import FOOD11, classify_files, load_classifier, ranked

    folder = next((path for path in paths if path.is_dir()), None)
    if folder is not None:
        raise BadData(
            f"{folder} is a folder, not a photograph; "
            f"`bantam predict {folder} --data DIR` classifies the evaluation images of DIR with the run in it"
        )
    run = run or FOOD11
    classifier = load_classifier(run, pipeline.recipe_of(run).data.size, views, width)
    answers = classify_files(classifier, paths)
    labels = classifier.shipped.classes
    if as_json:
        print_json({str(path): dict(ranked(row, labels)) for path, row in zip(paths, answers, strict=True)})
        return
    width = max(len(str(path)) for path in paths)
    for path, row in zip(paths, answers, strict=True):
        best = [f"{name} {probability:6.1%}" for name, probability in ranked(row, labels)[:SHOWN]]
        typer.echo(f"{path!s:<{width}}  {'   '.join(best)}")
    if run == FOOD11:
        typer.echo("by the food model that comes with Bantam (11 classes); --run RUN asks a run's student")

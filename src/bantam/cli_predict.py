"""`bantam predict PHOTO...`: the classes of single photographs."""

from pathlib import Path

import typer

from bantam.errors import BadData
from bantam.options import print_json

SHOWN = 3
"""Classes printed for each photograph; --json has them all."""


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

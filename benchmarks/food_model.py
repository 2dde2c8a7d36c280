"""Makes the food model that comes with Bantam: the student of results/food-11/strong, its probabilities calibrated.

    python benchmarks/food_model.py --data ../shared/food-11

That run is from before there were temperatures. So one is fitted here on its validation images and divided into the
last layer, as a run does it now; then the ONNX graph is made by which `bantam predict PHOTO` answers without torch.
"""

from pathlib import Path
from typing import Annotated

import typer

from bantam.deliver.export.forms import float_onnx
from bantam.files import replacing, sha256_of
from bantam.measure.accuracy import accuracy
from bantam.measure.temperature import divide_logits, fit_temperature
from bantam.measure.tta import logits_of_tta
from bantam.pipeline.selection import calibrations
from bantam.runs import checkpoint, runfolder
from bantam.runs.finished import FOOD11, open_run
from bantam.runs.student_graph import GRAPH, RECORD
from bantam.runs.watcher import Watcher

STRONG = Path(__file__).parents[1] / "results" / "food-11" / "strong"


def main(data: Annotated[Path, typer.Option(help="The photographs that the run was made of.")]) -> None:
    run = open_run(STRONG)
    net, shipped = run.as_shipped()
    validation = run.open_data(data, Watcher()).validation

    before = logits_of_tta(net, validation, shipped.student.size, shipped.normalisation, run.tta)
    temperature = fit_temperature(before, validation.labels)
    divide_logits(net, [temperature])
    after = logits_of_tta(net, validation, shipped.student.size, shipped.normalisation, run.tta)
    judged = {
        **run.metrics["validation"],
        "accuracy": accuracy(after, validation.labels).value,
        "calibration": calibrations(temperature, before, validation.labels),
    }
    weights = checkpoint.save_weights(FOOD11 / runfolder.WEIGHTS, net.state_dict())
    runfolder.write(FOOD11 / runfolder.RESULT, {**run.metrics, "validation": judged})

    path, told = FOOD11 / GRAPH, runfolder.student(FOOD11)
    runfolder.write(FOOD11 / runfolder.STUDENT, {**told, "weights": weights})
    encoded = float_onnx(*open_run(FOOD11).as_shipped()).SerializeToString()
    with replacing(path) as temporary:
        temporary.write_bytes(encoded)
    runfolder.write(FOOD11 / runfolder.STUDENT, {**told, "weights": weights, RECORD: sha256_of(path)})
    typer.echo(f"{path.name}: {len(encoded):,} bytes; {judged['calibration']}")


if __name__ == "__main__":
    typer.run(main)

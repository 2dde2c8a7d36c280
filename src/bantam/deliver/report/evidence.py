"""What the report shows beyond the questions: how the run went, what the student gets wrong, what made it."""

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from PIL import Image

from bantam.data.splits import LabelledSplit
from bantam.deliver.report import figures as plots
from bantam.deliver.report.document import (
    NONE,
    Block,
    Headline,
    Matrix,
    Missing,
    Paragraph,
    Picture,
    Pictures,
    Plot,
    Section,
    Table,
)
from bantam.deliver.report.questions import epochs_told
from bantam.deliver.report.units import milliseconds, products, size_of
from bantam.errors import typed
from bantam.measure.accuracy import Accuracy
from bantam.measure.crops import tta_of
from bantam.recipes.recipe import Recipe
from bantam.runs import runfolder
from bantam.runs.finished import FinishedRun

REFITTED = "What ships was trained once more on training and validation together, so validation measures it no longer."

PRETRAINED = "the weights of the food model that comes with Bantam, but for the last layer"


def result(metrics: dict[str, Any], facts: dict[str, Any]) -> Section:
    """The run in a few numbers: how good it is beside its teacher and without any net, and what it weighs."""
    judged, parameters = metrics["validation"], metrics["parameters"]
    tta, refit = tta_of(judged), metrics.get("refit")
    figures = [
        (
            with_error(judged),
            "validation accuracy of the student" + (f" before its refit, stage “{refit['of']}”" if refit else ""),
            f"{parameters['unique']:,} of {metrics['budget']:,} parameters",
        ),
        *teachers(metrics, facts),
        *largest_class(facts),
    ]
    rows = [
        ["measured on", f"{judged['n']:,} images" + ("" if tta == "plain" else f", with TTA “{tta}”")],
        *([["without TTA", f"{judged['plain']:.3f}"]] if "plain" in judged and tta != "plain" else []),
        *temperatures(judged),
        *([["refit", REFITTED]] if refit else []),
        ["parameters", f"{parameters['unique']:,}, as torchsummary counts {parameters['torchsummary']:,}"],
        ["student", str(metrics["student"])],
        ["training", f"{epochs_told(metrics, list(metrics['stages']))}, {metrics['seconds'] / 60:,.0f} minutes"],
        *([["started from", PRETRAINED]] if any("pretrained" in stage for stage in metrics["stages"].values()) else []),
    ]
    table = Table(f"Recipe “{metrics['recipe']}”, seed {metrics['seed']}", ("", ""), rows)
    return Section("result", "Result", [Headline(figures), table])


def with_error(judged: Mapping[str, Any]) -> str:
    """An accuracy with its standard error."""
    return f"{judged['accuracy']:.3f} ± {judged['standard_error']:.3f}"


def teachers(metrics: dict[str, Any], facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The figure of the teacher, as its stage or the report measured it; none where nobody did."""
    measured = facts.get("teacher", {})
    if "validation" in measured:
        accuracy = Accuracy(measured["validation"]["correct"], measured["validation"]["n"])
        stage = metrics["stages"].get(measured["stage"], {})
        weight = f"{stage['parameters'] / 1e6:.1f} million parameters, " if "parameters" in stage else ""
        return [(str(accuracy), "its teacher", f"{weight}{accuracy.n:,} images, one pass")]
    trained = [stage for stage in metrics["stages"].values() if stage["kind"] == "teacher" and "validation" in stage]
    return [
        (with_error(stage["validation"]), "its teacher", f"{stage['parameters'] / 1e6:.1f} million parameters")
        for stage in trained[-1:]
    ]


def largest_class(facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The figure of whoever always says the most frequent class; none where validation was not looked at."""
    if "validation" not in facts:
        return []
    sums = [sum(row) for row in facts["validation"]["confusion"]]
    return [(f"{max(sums) / sum(sums):.3f}", "always the largest class", "what no net at all has")]


def temperatures(judged: Mapping[str, Any]) -> list[list[str]]:
    """A row for the net and each early exit: its temperature, and the calibration before and after it.

    `judged` is the table validation of metrics.json; none where the run is from before there were temperatures.
    """
    told = judged.get("calibration")
    if not told:
        return []
    named = {"calibration": told, **{f"calibration, exit {n}": one for n, one in enumerate(told.get("exits", ()), 1)}}
    return [
        [
            name,
            f"expected error {one['before']['ece']:.3f}, {one['after']['ece']:.3f} at temperature "
            f"{one['temperature']:g} ({one['held_out']['ece']:.3f} on images that did not fit it); negative "
            f"log-likelihood {one['before']['nll']:.3f}, {one['after']['nll']:.3f} nats",
        ]
        for name, one in named.items()
    ]


def learning(run: FinishedRun) -> Section:
    """The learning curves of every stage that was trained."""
    blocks: list[Block] = []
    for stage in run.recipe.stage:
        path = run.stage(stage.name) / runfolder.ROWS
        if not path.exists():
            continue
        epochs = [row for row in runfolder.rows(path) if "validation" in row]  # a refit has nothing to be judged by
        if not epochs:
            continue
        judged = [(epoch["epoch"], epoch["validation"]) for epoch in epochs]
        best = max(judged, key=lambda item: item[1]["accuracy"])
        alt = (
            f"Validation accuracy of stage {stage.name} over {len(epochs)} epochs: from {judged[0][1]['accuracy']:.3f} "
            f"to {judged[-1][1]['accuracy']:.3f}, best {best[1]['accuracy']:.3f} after epoch {best[0]}."
        )
        accuracies = plots.Series(
            "validation", [(n, v["accuracy"]) for n, v in judged], [v["standard_error"] for _, v in judged]
        )
        caption = f"Stage “{stage.name}”: validation accuracy (bars: standard error)"
        drawn = plots.lines([accuracies], "epoch", "validation accuracy", alt)
        blocks.append(Plot(f"accuracy-{stage.name}", caption, alt, drawn))
        losses = [
            plots.Series("validation", [(n, v["cross_entropy"]) for n, v in judged], marks=False),
            *(
                plots.Series(f"training: {term}", [(e["epoch"], e["training"][term]) for e in epochs], marks=False)
                for term in epochs[0]["training"]
            ),
        ]
        alt = "; ".join(f"{each.label} from {each.points[0][1]:.3f} to {each.points[-1][1]:.3f}" for each in losses)
        drawn = plots.lines(losses, "epoch", "nats", f"Losses over the epochs: {alt}.")
        caption = f"Stage “{stage.name}”: cross-entropy on validation; loss and its terms on augmented training views"
        blocks.append(Plot(f"loss-{stage.name}", caption, f"Losses over the epochs: {alt}.", drawn))
    missing = Missing(
        f"{run.folder / runfolder.STAGES} holds no metrics.jsonl: the learning curves did not come with this run."
    )
    return Section("learning", "Learning curves", blocks or [missing])


def mistakes(
    facts: dict[str, Any],
    classes: Sequence[str],
    validation: LabelledSplit | None,
    again: str,
    refitted: bool = False,
) -> list[Section]:
    """Confusion, accuracy by class, the hardest images and calibration, on validation; none of a refit's.

    It has learned those images, so what it says of them would flatter it.
    """
    if refitted:
        return [Section("mistakes", "What the student gets wrong", [Paragraph(REFITTED)])]
    if "validation" not in facts:
        return [
            Section("mistakes", "What the student gets wrong", [Missing(f"Not measured yet; {again} measures it.")])
        ]
    judged = facts["validation"]
    overall = Accuracy(judged["correct"], judged["n"])
    counts = judged["confusion"]
    said = Paragraph(f"Of {overall.n:,} validation images {overall.correct:,} are right: {overall}.")
    matrix = Matrix("Rows: the true class; columns: the predicted class; cells: images", classes, counts)
    return [
        Section("confusion", "Confusion matrix", [said, matrix]),
        by_class(counts, classes),
        hardest(judged["hardest"], classes, validation, again),
        calibrated(judged),
    ]


def by_class(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Section:
    """The share of each class's images that is right, with 95% intervals."""
    found = [
        (name, Accuracy(row[place], sum(row)))
        for place, (name, row) in enumerate(zip(classes, counts, strict=True))
        if sum(row)
    ]
    worst, best = min(found, key=lambda item: item[1].value), max(found, key=lambda item: item[1].value)
    alt = (
        f"Accuracy of each class with its interval: lowest {worst[1].value:.3f} for class {worst[0]}, "
        f"highest {best[1].value:.3f} for class {best[0]}."
    )
    drawn = plots.bars([(name, a.value, *a.interval) for name, a in found], "accuracy, with its 95% interval", alt)
    rows = [[n, f"{a.value:.3f}", f"{a.interval[0]:.3f} to {a.interval[1]:.3f}", f"{a.n:,}"] for n, a in found]
    return Section(
        "classes",
        "Accuracy by class",
        [
            Plot("classes", "Share of each class's validation images that is right", alt, drawn),
            Table("The same in numbers (Wilson's interval)", ("class", "accuracy", "95% interval", "images"), rows),
        ],
    )


def hardest(
    rows: Sequence[Mapping[str, Any]], classes: Sequence[str], validation: LabelledSplit | None, again: str
) -> Section:
    """The validation images whose label the student thinks least likely."""
    places = {image_id: place for place, image_id in enumerate(validation.ids)} if validation else {}
    pictures: list[Picture] = []
    for row in rows:
        label, predicted = classes[row["label"]], classes[row["predicted"]]
        caption = (
            f"{row['id']}: labelled {label} ({row['probability']:.1%}), taken for {predicted} ({row['confidence']:.1%})"
        )
        place = places.get(row["id"])
        uri = None if validation is None or place is None else as_uri(validation, place)
        pictures.append(Picture(uri, caption, f"Photograph {row['id']}, labelled {label}, taken for {predicted}."))
    blocks: list[Block] = [
        Paragraph(
            "The validation images whose label has the lowest probability (in brackets: the probability of that "
            "class). Some of them are hard; some may be labelled wrongly."
        ),
        Pictures(pictures),
    ]
    if validation is None:
        blocks.append(Missing(f"The photographs are not in the run's files; {again} puts them into the report."))
    return Section("hardest", "The hardest images", blocks)


def as_uri(validation: LabelledSplit, place: int) -> str:
    """One stored image as a data URI of a PNG."""
    buffer = BytesIO()
    Image.fromarray(validation.images[place].numpy()).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def calibrated(judged: Mapping[str, Any]) -> Section:
    """The reliability diagram."""
    measured = judged["calibration"]
    rows = judged["reliability"]
    gap = sum(row["n"] * (row["accuracy"] - row["confidence"]) for row in rows) / judged["n"]
    side = "below" if gap > 0 else "above"
    alt = (
        f"Reliability: accuracy over mean confidence in {len(rows)} bins beside the diagonal of perfect calibration; "
        f"on average the confidence is {abs(gap):.3f} {side} the accuracy."
    )
    errors = [Accuracy(round(row["accuracy"] * row["n"]), row["n"]).standard_error for row in rows]
    series = [
        plots.Series("student", [(row["confidence"], row["accuracy"]) for row in rows], errors),
        plots.Series("perfect", [(0.0, 0.0), (1.0, 1.0)], marks=False),
    ]
    drawn = plots.lines(series, "mean confidence", "accuracy", alt, (0.0, 1.0), (0.0, 1.0))
    said = (
        f"Expected calibration error {measured['ece']:.3f} (15 bins), negative log-likelihood {measured['nll']:.3f} "
        f"nats, Brier score {measured['brier']:.3f}. On average the confidence is {abs(gap):.3f} {side} the accuracy."
    )
    plot = Plot("reliability", "Reliability diagram on validation (bars: standard error)", alt, drawn)
    return Section("reliability", "Is its confidence to be believed?", [Paragraph(said), plot])


def stages(recipe: Recipe, metrics: dict[str, Any], facts: dict[str, Any], again: str) -> Section:
    """Every stage with what its net costs and how accurate it is."""
    costs = facts.get("costs", {})
    teacher = facts.get("teacher", {})
    rows: list[list[str]] = []
    for stage in recipe.stage:
        known = metrics["stages"].get(stage.name, {})
        cost = costs.get(stage.name)
        judged = known.get("validation")
        accuracy = with_error(judged) if judged else NONE
        images = judged.get("n") if judged else None
        if not judged and teacher.get("stage") == stage.name:
            measured = Accuracy(teacher["validation"]["correct"], teacher["validation"]["n"])
            accuracy, images = str(measured), measured.n
        rows.append(
            [
                stage.name,
                f"{known.get('net', NONE)}",
                f"{known['parameters']:,}" if "parameters" in known else NONE,
                products(cost["macs"]) if cost else NONE,
                size_of(cost["disk_bytes"]) if cost else NONE,
                milliseconds(cost["latency"]["median_ms"]) if cost else NONE,
                accuracy,
                f"{images:,}" if images else NONE,
            ]
        )
    columns = ("stage", "net", "parameters", "MACs", "file", "time", "accuracy", "images")
    caption = "One image, one pass: validation accuracy of plain views, median time on one thread"
    blocks: list[Block] = [Table(caption, columns, rows)]
    if not costs:
        blocks.append(Missing(f"MACs, file sizes and latencies were not measured yet; {again} measures them."))
    return Section("stages", "Every stage", blocks)


def early_exits(run: FinishedRun) -> list[Section]:
    """What the early exits save, where `bantam exits` has measured them."""
    if not run.exits.exists():
        return []
    measured = runfolder.table(run.exits, f"`bantam exits {typed(run)} --data DIR` makes it anew")
    kept = measured["rows"][: len(measured["macs"])] + ([measured["chosen"]] if measured["chosen"] else [])
    rows = [
        [
            row["kind"] + (f", at a confidence of {row['threshold']:.3f}" if row["kind"] == "early exits" else ""),
            f"{row['accuracy']:.3f} ± {row['standard_error']:.3f}",
            f"{row['mean_macs'] / 1e6:,.2f}",
            ", ".join(f"{share:.0%}" for share in row["shares"]),
            f"{row['mcnemar_p']:.3f}",
        ]
        for row in kept
    ]
    columns = ("way out", "validation accuracy", "million MACs, mean", "images at each exit and the end", "p")
    caption = f"One plain view, {kept[0]['n']:,} images; p: McNemar's test against the net alone"
    return [Section("exits", "Early exits", [Table(caption, columns, rows)])]


def provenance(run: FinishedRun, facts: dict[str, Any]) -> Section:
    """What made the run and this report's measurements."""
    blocks: list[Block] = []
    made = {"The run": run.environment}
    made["This report's measurements"] = facts.get("made_by", {})
    for title, environment in made.items():
        if not environment:
            blocks.append(Missing(f"{title}: no environment is recorded."))
            continue
        rows = [[name.replace("_", " "), told(value)] for name, value in environment.items()]
        blocks.append(Table(title, ("", ""), rows))
    name, seed = run.metrics["recipe"], run.metrics["seed"]
    said = f"Recipe “{name}”, seed {seed}; recipe.toml in the run's folder holds every key."
    return Section("provenance", "Provenance", [*blocks, Paragraph(said)])


def told(value: Any) -> str:
    """A value of environment.json for people."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if value is None:
        return "none"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)

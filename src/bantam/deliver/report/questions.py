"""The questions of the course's report, in their order, each answered from the files of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from bantam.deliver.package.write import LOSS, STUDENT, section
from bantam.deliver.report import figures as plots
from bantam.deliver.report.document import Block, Code, Missing, Paragraph, Plot, Section, Table
from bantam.measure.crops import tta_of
from bantam.nets import budget
from bantam.nets.students import STUDENTS
from bantam.objectives import OBJECTIVES
from bantam.recipes.kinds.derived import Derived
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.training import Training
from bantam.recipes.recipe import Recipe
from bantam.runs import runfolder
from bantam.runs.finished import FinishedRun

BONUS_WORDS = 200
"""Most words that the bonus report may have, its references included."""


def architecture(code: dict[str, str], family: str) -> Section:
    """1-1: the code of the student."""
    return Section(
        "q1-1",
        "The student's architecture",
        [
            Paragraph(
                "get_student_model() builds the form that is weighed and handed in: after training, each BatchNorm "
                "that follows a convolution is folded into it."
                if STUDENTS[family].folds
                else "get_student_model() builds the net that was trained; it is weighed and handed in as it is."
            ),
            Code(section(code, STUDENT)),
        ],
    )


def weight(net: nn.Module, size: int, allowed: int) -> Section:
    """1-2: the table of layers."""
    text = budget.summary(net, size).text(allowed)
    return Section("q1-2", "Its layers and its weight", [Code(text, "text")])


def loss(code: dict[str, str], recipe: Recipe) -> Section:
    """2-1: the loss, and what of it the run used."""
    blocks: list[Block] = [Code(section(code, LOSS))]
    for stage in recipe.stage:
        if not isinstance(stage, Training):
            continue
        terms = [
            f"{table['weight']:g} × {name}"
            + "".join(f", {key} {value}" for key, value in table.items() if key != "weight")
            for name, table in stage.objectives.items()
        ]
        taught = f", taught by {stage.teacher}" if stage.teacher else ", without a teacher"
        blocks.append(Paragraph(f"Stage “{stage.name}” trained with {'; '.join(terms)}{taught}."))
    return Section("q2-1", "The loss", blocks)


def temperature(facts: dict[str, Any], recipe: Recipe, again: str) -> Section:
    """2-2: what a higher temperature does, on the soft labels of this run's own teacher."""
    title = "Does a higher temperature give a softer or a harder distribution?"
    said = (
        "A softer one. softmax(z / T) divides all differences between logits by T, so with T → ∞ every class gets the "
        "same probability, and with T → 0 the largest logit gets all of it."
    )
    blocks: list[Block] = [Paragraph(said)]
    if "teacher" not in facts:
        blocks.append(without_soft_labels(facts, recipe, again))
        return Section("q2-2", title, blocks)
    teacher = facts["teacher"]
    soft = teacher["soft"]
    first, last = soft[0], soft[-1]
    blocks.append(
        Paragraph(
            f"This teacher (stage “{teacher['stage']}”) gives its likeliest class {first['ranked'][0]:.3f} on "
            f"average at T = {first['temperature']:g} and {last['ranked'][0]:.3f} at T = {last['temperature']:g}; the "
            f"mean entropy goes from {first['entropy']:.3f} to {last['entropy']:.3f} nats (measured on "
            f"{teacher['n']} training images)."
        )
    )
    series = [
        plots.Series(f"T = {row['temperature']:g}", [(rank, p) for rank, p in enumerate(row["ranked"], start=1)])
        for row in soft
    ]
    alt = (
        "Mean probability of the teacher's classes from the likeliest to the least likely one, a line for each "
        "temperature: the higher the temperature, the flatter the line."
    )
    caption = f"The teacher's soft labels, classes ranked for each image, mean of {teacher['n']} training images"
    drawn = plots.lines(series, "rank of the class", "mean probability", alt, y_range=(0.0, 1.0))
    blocks.append(Plot("temperature", caption, alt, drawn))
    rows = [
        [f"{row['temperature']:g}", f"{row['ranked'][0]:.3f}", f"{row['entropy']:.3f}", f"{row['off_class']:.3f}"]
        for row in soft
    ]
    columns = ("T", "likeliest class", "entropy, nats", "beside the label")
    blocks.append(Table("Softness of the teacher's answers: means over the images", columns, rows))
    return Section("q2-2", title, blocks)


def without_soft_labels(facts: dict[str, Any], recipe: Recipe, again: str) -> Block:
    """Why there are no soft labels here, and what gives some: nothing that has been done already, or cannot be done."""
    has_one = any(isinstance(stage, GivenTeacher) or stage.kind == "teacher" for stage in recipe.stage)
    if not has_one:
        return Paragraph("This run has no teacher, so there are no soft labels of its own to look at.")
    if "validation" in facts:
        return Missing("The teacher's weights were not at hand when this run was measured; only its student was.")
    return Missing(f"The soft labels of this run's teacher were not measured yet; {again} measures them.")


def bonus(run: FinishedRun) -> Section:
    """Who hands in, the methods used and their references, in at most BONUS_WORDS words."""
    texts = bonus_text(run.recipe, run.metrics, author_of(run))
    return Section("bonus", "Methods and references", [Paragraph(text) for text in texts])


def author_of(run: FinishedRun) -> str:
    """The line about who hands in; empty where `bantam handin` was not told. Raises BadRunFile."""
    if not run.handin.exists():
        return ""
    author = load(run.handin).get("author", {})
    words = {"name": "Name", "student_id": "Student ID"}
    return ", ".join(f"{words[key]}: {author[key]}" for key in words if author.get(key))


def bonus_text(recipe: Recipe, metrics: dict[str, Any], author: str = "") -> list[str]:
    """The paragraphs of the bonus report: who, what was done, then references as long as words are left."""
    stages = [stage for stage in recipe.stage if isinstance(stage, Training)]
    judged = metrics["validation"]
    shipped = recipe.shipped
    nets = {name: stage.get("net", "") for name, stage in metrics["stages"].items()}
    taught = [
        f"the stage {name} ({nets[name]})" if nets.get(name) else f"the stage {name}" for name in shipped.teachers
    ]
    sentences = [
        f"The student is a {shipped.net or metrics['student']} of {metrics['parameters']['unique']:,} parameters "
        f"on {shipped.size} px "
        f"images, trained for {epochs_told(metrics, trained_as(recipe))}"
        + (f" under {' and '.join(taught)}" if taught else " without a teacher")
        + f" with {' and '.join(shipped.objectives)}.",
        ("Before a refit its" if "refit" in metrics else "Its")
        + f" validation accuracy is {judged['accuracy']:.3f} ± {judged['standard_error']:.3f} (n = {judged['n']:,})"
        + ("." if tta_of(judged) == "plain" else f", with TTA {tta_of(judged)!r}, chosen on validation."),
    ]
    changes = [name for name in ("mixup", "cutmix", "erase", "rotation", "hue") if getattr(shipped.augment, name)]
    if shipped.augment.scale[0] < 1:
        changes.insert(0, "random crops")
    if changes:
        sentences.append(f"Augmentation: {', '.join(changes)}.")
    if shipped.ema:
        sentences.append(f"The weights are an exponential moving average (decay {shipped.ema:g}).")
    papers = [STUDENTS[stage.net].paper for stage in reversed(stages) if stage.net in STUDENTS]
    papers += [
        OBJECTIVES[name].paper
        for stage in reversed(stages)
        for name, table in stage.objectives.items()
        # The paper of the plain cross-entropy is that of its label smoothing.
        if name in OBJECTIVES and (name != "supervised" or table.get("label_smoothing"))
    ]
    said = [*filter(None, [author]), " ".join(sentences)]
    references = "References:"
    for paper in dict.fromkeys(papers):
        longer = f"{references}{'' if references.endswith(':') else ';'} {paper}"
        if len(f"{' '.join(said)} {longer}.".split()) <= BONUS_WORDS:
            references = longer
    return [*said, f"{references}."]


def epochs_told(metrics: dict[str, Any], names: Sequence[str]) -> str:
    """The epochs that the stages `names` were trained for: their sum, and where they are several each one's."""
    each = {name: metrics["stages"][name]["epochs"] for name in names if metrics["stages"].get(name, {}).get("epochs")}
    if not each:
        return f"{metrics['epochs']} epochs"
    parts = f" ({', '.join(f'{name} {epochs}' for name, epochs in each.items())})" if len(each) > 1 else ""
    return f"{sum(each.values())} epochs{parts}"


def trained_as(recipe: Recipe) -> list[str]:
    """The stages in which the shipped net itself was trained, in order: those that it goes on from, and a refit."""
    names = [recipe.shipped.name]
    stages = {stage.name: stage for stage in recipe.stage}
    while isinstance(stage := stages.get(names[0]), Training):
        before = stage.of if isinstance(stage, Derived) else stage.start
        if not before:
            break
        names.insert(0, before)
    return [*names, recipe.refit.name] if recipe.refit else names


def load(path: Path) -> dict[str, Any]:
    """A file of JSON that holds a table. Raises BadRunFile."""
    return runfolder.table(path, "make it anew")

"""From what is known, and how fast the machine is, to a plan: a pure function, whose recipe is written down.

What a student comes to after so many views is taken as floor + slope * (views / 10,000) ** -FALL, the error that this
family would have on Food-11: the exponent and the slopes are those of the runs in results/, the floors say how much a
larger input is worth. Only the order of the candidates counts. With more time the candidate with the lower floor wins,
and never again loses, so more time never gives a smaller plan.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bantam.errors import TooShort
from bantam.fit.asked import Asked, time_text
from bantam.fit.candidates import Candidate, stored_for
from bantam.fit.known import Known
from bantam.fit.lessons import answers_views, given_stage, pretrained_for, student_stage, teacher_stage
from bantam.fit.stopwatch import Speed
from bantam.recipes.kinds import Stage
from bantam.recipes.recipe import Data, Recipe

FALL = 0.7
FLOORS = {32: 0.30, 48: 0.26, 64: 0.235, 96: 0.20, 128: 0.185}
FAMILY_FLOORS = {"largekernel": 0.0, "mobilenet_v1": 0.015}
SLOPES = {"largekernel": 0.56, "mobilenet_v1": 0.70}
AHEAD = 4
"""Times the views that a pretrained start stands for: benchmarks/pretrained.py, on photographs that are no food."""
OTHER_FLOOR, OTHER_SLOPE = 0.03, 0.75
"""Of a family that is none of these: taken where these do not fit."""

FIXED = 16.0
"""Seconds of work at the end, whatever there is: exports, their checks, the report, the page."""

COMPILED = 45.0
"""Seconds of work at the end for a small device: C, compiled twice, and run over validation."""

WAITED = 0.2
"""Share of all the time that they take at most where others work too."""

PASSES = 24
"""Answers to a validation image at the end: both kinds of BatchNorm statistics, each TTA, exports' checks, report."""

JUDGED = 2
"""A teacher's answers at the end, of as many images as there are for validation."""

CROPS = 12
"""Answers to an image without a label, at most."""

LEAST = 8.0
"""Seconds of training below which there is no plan."""

MOST_EPOCHS = 1500
"""Of one training: what further ones bring is below the noise of so few photographs."""

PATIENT = 150
"""Epochs of a student alone from which on a teacher of its own is worth its time."""

TEACHER_EPOCHS = 120
"""Of a teacher that is trained from scratch, at least: after 30, on 600 photographs, it was far behind its student."""

TAUGHT_FROM = 5_000
"""Photographs from which on a net from scratch may come to teach a student that starts pretrained."""

SHARES = (0.06, 0.40)
"""Of the time for training: a first student, so that there is one, and the teacher."""

ASKING = 0.2
"""Share of a taught student's time that its teacher's answers take at most."""


@dataclass(frozen=True)
class Row:
    """A line of the plan: what is done, how, and in how many seconds."""

    what: str
    how: str
    seconds: float


@dataclass(frozen=True)
class Plan:
    """A recipe, when each of its trainings has to end, in seconds from the beginning, and what a person is told."""

    recipe: Recipe
    ends: dict[str, float]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    """What the stopwatch said: the candidates with their speeds, that of a teacher to train, and of a given one.

    `given` is the given teacher's architecture, the side at which it looks, and its speed.
    """

    candidates: tuple[Candidate, ...]
    teacher: Speed | None = None
    given: tuple[str, int, Speed] | None = None


def planned(known: Known, asked: Asked, machine: Machine, spent: float) -> Plan:
    """Plan what is done with the seconds that are left of those asked for, after `spent` ones.

    Raises TooShort where they are too few.
    """
    best = chosen(known, asked, machine, spent)
    ending = at_the_end(known, asked, best.speed)
    teacher = machine.given[2] if machine.given is not None else machine.teacher
    if machine.given is None and not worth_a_teacher(known, teacher, best, asked.seconds - spent - ending):
        teacher = None
    ending += 0.0 if teacher is None else JUDGED * known.validation * teacher.answer
    room = asked.seconds - spent - ending
    if room < LEAST:
        least = math.ceil((spent + ending + LEAST) / 5) * 5
        raise TooShort(
            f"{time_text(asked.seconds)} are too short for these {known.images:,} photographs here: "
            f"reading and timing took {time_text(spent)}, choosing, exports and checks take {time_text(ending)}; "
            f"give --time {least}s or more",
            least,
        )
    size = best.student.size
    trainings = lessons(known, asked, machine, best, teacher, room)
    ends: dict[str, float] = {}
    rows = [Row("reading", f"{known.images:,} photographs", spent)]
    at = spent
    for stage, how, seconds in trainings:
        at += seconds
        if seconds:
            ends[stage.name] = at - known.validation * best.speed.answer
            rows.append(Row(stage.name, how, seconds))
    forms = "ONNX fp32 and int8, C" if asked.for_device else "ONNX fp32 and int8"
    rows.append(Row("the end", f"crops, temperature, {forms}, parity, report", ending))
    recipe = Recipe(
        name="fit",
        budget=best.student.budget,
        data=Data(size=stored_for(known.side, size)),
        stage=tuple(stage for stage, _, _ in trainings),
    )
    return Plan(recipe, ends, tuple(rows), tuple(notes(known, asked, best, at + ending)))


def chosen(known: Known, asked: Asked, machine: Machine, spent: float) -> Candidate:
    """The candidate that is expected to come furthest in the time."""

    def error(one: Candidate) -> float:
        room = max(asked.seconds - spent - at_the_end(known, asked, one.speed), 1e-3)
        views = known.training * room / an_epoch(known, one.speed)
        views *= AHEAD if pretrained_for(known, one.student) else 1
        return floor(one) + SLOPES.get(one.student.net, OTHER_SLOPE) * (views / 10_000) ** -FALL

    return min(machine.candidates, key=error)


def floor(one: Candidate) -> float:
    """The part of the expected error that no time takes away."""
    sides = sorted(FLOORS)
    side = next((side for side in reversed(sides) if side <= one.student.size), sides[0])
    return FLOORS[side] + FAMILY_FLOORS.get(one.student.net, OTHER_FLOOR)


def an_epoch(known: Known, speed: Speed) -> float:
    """Seconds of an epoch, its validation included."""
    return known.training * speed.step + known.validation * speed.answer


def at_the_end(known: Known, asked: Asked, speed: Speed) -> float:
    """Seconds after the last training; that others work on the machine too makes them more, but not most of all."""
    least = FIXED + COMPILED * asked.for_device
    fixed = max(least, min(least * speed.wait, WAITED * asked.seconds))
    return fixed + (PASSES * known.validation + known.training + CROPS * known.evaluation) * speed.answer


def epochs_in(known: Known, speed: Speed, seconds: float) -> int:
    """The whole epochs for which there is time, at least one: the clock ends it earlier."""
    return min(max(1, math.floor(seconds / an_epoch(known, speed))), MOST_EPOCHS)


Lesson = tuple[Stage, str, float]
"""A stage, how it is told to a person, and its seconds."""


def lessons(
    known: Known, asked: Asked, machine: Machine, best: Candidate, speed: Speed | None, room: float
) -> list[Lesson]:
    """The trainings that fill `room` seconds; `speed` is that of the teacher, given or to be trained, if any."""
    if speed is None:
        return [lesson(known, best, epochs_in(known, best.speed, room), room)]
    if machine.given is not None and asked.teacher is not None:
        architecture, side, _ = machine.given
        given = given_stage("teacher", architecture, asked.teacher, side)
        return [(given, "", 0.0), taught(known, best, speed, room)]
    first, teacher = (share * room for share in SHARES)
    epochs = epochs_in(known, best.speed, first)
    own = epochs_in(known, speed, teacher)
    return [
        lesson(known, best, epochs, first, name="first"),
        (
            teacher_stage(known, "teacher", best.student.size, own),
            f"resnet18 from scratch, {best.student.size} px, {own:,} epochs",
            min(teacher, own * an_epoch(known, speed)),
        ),
        taught(known, best, speed, room - first - teacher, start="first"),
    ]


def worth_a_teacher(known: Known, speed: Speed | None, best: Candidate, room: float) -> bool:
    """Whether a teacher of its own would have the time to become better than the student alone."""
    if speed is None or (pretrained_for(known, best.student) and known.training < TAUGHT_FROM):
        return False
    patient = room / an_epoch(known, best.speed) >= PATIENT
    return patient and SHARES[1] * room / an_epoch(known, speed) >= TEACHER_EPOCHS


def lesson(known: Known, best: Candidate, epochs: int, seconds: float, name: str = "student") -> Lesson:
    """A student that learns from the labels alone."""
    stage = student_stage(known, best.student, name, epochs)
    how = f"{best.student.net}, {best.student.size} px, from the labels, {epochs:,} epochs"
    return stage, how, min(seconds, epochs * an_epoch(known, best.speed))


def taught(known: Known, best: Candidate, teacher: Speed, seconds: float, start: str = "") -> Lesson:
    """A student that learns from a teacher, which is asked about so many views as there is time for."""
    a_view = known.training * teacher.answer
    views = answers_views(math.floor(ASKING * seconds / a_view))
    epochs = epochs_in(known, best.speed, max(seconds - views * a_view, 0.0))
    views = min(views, epochs)
    stage = student_stage(known, best.student, "student", epochs, views=views, start=start)
    how = f"{best.student.net}, {best.student.size} px, from the teacher on {views} views, {epochs:,} epochs"
    return stage, how, min(seconds, epochs * an_epoch(known, best.speed) + views * a_view)


def notes(known: Known, asked: Asked, best: Candidate, ends: float) -> list[str]:
    """What else a person should know of the plan."""
    found: list[str] = []
    if ends < 0.9 * asked.seconds:
        found.append(
            f"it ends after {time_text(ends)}: from so few photographs more than {MOST_EPOCHS:,} epochs learn no more"
        )
    if best.student.budget < asked.parameters:
        found.append(f"the other limits leave {best.student.budget:,} of {asked.parameters:,} parameters")
    if known.fewest < 20:
        found.append(f"the smallest class has {known.fewest} photographs to learn from: more of it would help most")
    if known.signs:
        found.append("the pictures are small and grey, as signs are: they are not mirrored")
    if pretrained_for(known, best.student):
        found.append("the student starts from Bantam's food model: all of it that fits, but for the last layer")
    return found


def candidates_text(candidates: Sequence[Candidate]) -> str:
    """What was timed, for a person."""
    return ", ".join(
        f"{one.student.net} at {one.student.size} px {1 / one.speed.step:,.0f} images/s" for one in candidates
    )

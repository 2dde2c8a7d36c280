"""What the page asks for, without the web: the student in its forms, the teacher, the gallery, the leaderboard."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bantam.data.folder import called
from bantam.data.images import KINDS
from bantam.data.splits import IMAGENET, LabelledSplit, UnlabelledSplit
from bantam.deliver import leaderboard
from bantam.deliver.classify import Classifier, load_classifier
from bantam.deliver.grade import BASELINES
from bantam.deliver.serve import browser
from bantam.deliver.serve.gallery import SHOWN, Gallery
from bantam.deliver.serve.progress import curves
from bantam.errors import BadData, BantamError, NoPicture
from bantam.measure.accuracy import Accuracy
from bantam.measure.leaving import leave_early
from bantam.measure.tta import TTA
from bantam.nets.early_exit import EarlyExitNet, macs_of_exits
from bantam.nets.teachers import Teacher, load_teacher
from bantam.runs.finished import FinishedRun
from bantam.runs.shipped import Shipped

PLAIN = "PyTorch"
"""The form of the student that every run has: the shipped weights, in float32."""

PHOTOGRAPH = Path("the photograph")
"""What an upload is called in messages: the name on the user's disk is nobody's business."""

Look = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TeacherFile:
    """Weights somebody else trained: where they are, whose they are, the side in pixels at which they look."""

    path: Path
    architecture: str
    size: int


@dataclass(frozen=True)
class Setting:
    """What `bantam serve` was told: the run, and what else there is.

    `classes` are the names under which people know the data's classes; by default those of `validation`. `class_names`
    is a file of the names that the run's classes were given since.
    """

    run: FinishedRun
    validation: LabelledSplit | None = None
    teacher: TeacherFile | None = None
    labels: Path | None = None
    classes: tuple[str, ...] = ()
    class_names: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the data's classes; empty without data."""
        return self.classes or (self.validation.classes if self.validation is not None else ())


SURE = 0.9
"""The threshold of early exits where `bantam exits` has not chosen one."""


@dataclass(frozen=True)
class Exits:
    """A student's early exits: what leaving at each costs, the threshold, and whether validation chose it."""

    net: EarlyExitNet
    macs: tuple[int, ...]
    confidence: float
    calibrated: bool


@dataclass(frozen=True)
class Forms:
    """A finished run's student: its classifier, its accuracy as it answers and in a plain view, its other forms by
    name, the teacher and the early exits it has."""

    classifier: Classifier
    accuracy: Accuracy
    plain: Accuracy
    looks: dict[str, Look]
    teacher: Teacher | None
    exits: Exits | None = None


@dataclass
class Desk:
    """Answers the page. Several threads may ask; the nets answer one at a time, so the times told are those of one."""

    setting: Setting
    forms: Forms | None = None
    gallery: Gallery | None = None
    onnx: bytes | None = None
    onnx_problem: str | None = None
    turn: threading.Lock = field(default_factory=threading.Lock)
    _opening: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes' names: the run's, or the data's where it knows numbers alone, or those given since."""
        own = called(self.require_student().classifier.shipped.classes, self.setting.names)
        return self.setting.run.named(own, self.setting.class_names)

    def student(self) -> Forms | None:
        """The run's student, loaded when it is first there; None while the run is not finished."""
        with self._opening:
            if self.forms is None and self.setting.run.is_finished:
                self.forms = load_forms(self.setting)
                if self.setting.validation is not None:
                    self.gallery = Gallery(self.setting.validation)
                self.prepare(self.forms)
        return self.forms

    def require_student(self) -> Forms:
        """Raises BadData while the run is not finished."""
        if (forms := self.student()) is None:
            raise BadData(f"{self.setting.run.name} is still training: there is no student yet; look at the curves")
        return forms

    def prepare(self, forms: Forms) -> None:
        """Begin what takes its time and need not be waited for: the gallery's answers, the graph for the browser."""
        if browser.runtime_is_here():
            threading.Thread(target=self.export, daemon=True).start()
        if self.gallery is not None:
            answers = (forms.classifier, self.turn)
            threading.Thread(target=self.gallery.fill, args=answers, daemon=True).start()

    def export(self) -> None:
        """Have the graph for the browser made; a net that cannot be exported still answers on the server."""
        try:
            self.onnx = browser.exported(self.setting.run.folder)
        except (BantamError, OSError) as error:
            self.onnx_problem = " ".join(str(error).split())[:200] or type(error).__name__

    # --- what the page asks

    def state(self) -> dict[str, Any]:
        """All that the page needs to know before it asks for more."""
        forms = self.student()
        told: dict[str, Any] = {
            "run": self.setting.run.name,
            "finished": forms is not None,
            "gallery": self.setting.validation is not None,
            "leaderboard": self.setting.labels is not None,
            "browser": self.in_browser(),
        }
        if forms is None:
            return told
        classifier = forms.classifier
        student = classifier.shipped.student
        return told | {
            "classes": self.classes,
            "family": student.family,
            "parameters": sum(parameter.numel() for parameter in classifier.net.parameters()),
            "accuracy": {"plain": told_of(forms.plain), "shown": told_of(forms.accuracy)},
            "refit_of": self.setting.run.refit_of,
            "size": student.size,
            "stored": classifier.stored,
            "views": [(one.side, one.left, one.top, one.mirrored, one.weight) for one in TTA[classifier.tta]],
            "forms": [PLAIN, *forms.looks],
            "teacher": self.setting.teacher.architecture if forms.teacher and self.setting.teacher else None,
            "exits": {"confidence": forms.exits.confidence, "calibrated": forms.exits.calibrated}
            if forms.exits
            else None,
        }

    def in_browser(self) -> str:
        """ready, preparing, or what stands against it."""
        if not browser.runtime_is_here():
            return "run `make web` and start again: it fetches ONNX Runtime Web, which runs the student in this browser"
        if self.onnx_problem is not None:
            return f"this student cannot be exported: {self.onnx_problem}"
        return "ready" if self.onnx is not None else "preparing"

    def classify(self, data: bytes, form: str, teacher: bool, early: bool = False) -> dict[str, Any]:
        """Probabilities and milliseconds of the student in one of its forms, and of the teacher on request.

        With `early` the photograph leaves at the first early exit that is sure of it, in one plain view. Raises
        BadImage for what is no photograph, BadData for an unknown form, exits that are not there, or an unfinished run.
        """
        forms = self.require_student()
        if form not in (PLAIN, *forms.looks):
            raise BadData(f"the student has no form {form[:40]!r}; it has {', '.join((PLAIN, *forms.looks))}")
        if early and (forms.exits is None or form != PLAIN):
            raise BadData(f"the student has no early exits in the form {form[:40]!r}; switch them off")
        classifier = forms.classifier
        started = time.perf_counter()
        try:
            pixels = classifier.pixels(data, PHOTOGRAPH)
        except NoPicture as error:
            raise NoPicture(f"this file is not a picture; choose a {KINDS}") from error
        decoded = milliseconds_since(started)
        with self.turn:
            if early and forms.exits is not None:
                student = timed_early(classifier, pixels, forms.exits)
            else:
                student = timed(classifier, pixels, forms.looks.get(form))
            answer = {"decode_ms": decoded, "form": form, "student": student}
            if teacher and forms.teacher is not None:
                answer["teacher"] = timed(classifier, pixels, forms.teacher)
        return answer

    def page_of_gallery(self, show: str, label: int | None, offset: int) -> dict[str, Any]:
        """Raises BadData without a gallery, or for a filter there is not."""
        if self.gallery is None:
            self.require_student()
            raise BadData("the gallery needs photographs; start with `bantam serve RUN --data DIR`")
        try:
            return self.gallery.page(show, label, offset)
        except KeyError as error:
            raise BadData(f"the gallery has no filter {show[:40]!r}; it has {', '.join(SHOWN)}") from error

    def curves(self) -> list[dict[str, Any]]:
        return curves(self.setting.run)

    def standing(self) -> list[dict[str, Any]]:
        """The leaderboard's table; private scores stay hidden. Raises BadLeaderboard without one."""
        if self.setting.labels is None:
            raise BadData("the leaderboard stands beside the labels; start with `bantam serve RUN --labels FILE`")
        board = leaderboard.entries(leaderboard.board_of(self.setting.labels))
        return leaderboard.standing(board, BASELINES, reveal=False)


def load_forms(setting: Setting) -> Forms:
    """The shipped student, whatever stands in RUN/quantized/*.onnx, and the teacher. Raises BantamErrors."""
    classifier = load_classifier(setting.run)
    shipped = classifier.shipped
    if setting.validation is not None and len(setting.validation.classes) != len(shipped.classes):
        raise BadData(
            f"{setting.run} knows {len(shipped.classes)} classes, the photographs have "
            f"{len(setting.validation.classes)}; give the data the run was trained on"
        )
    looks = {
        path.stem: onnx_look(path, setting.run.quantized_graph(path.name), shipped)
        for path in sorted(setting.run.quantized.glob("*.onnx"))
    }
    teacher = None
    if setting.teacher is not None:
        net = load_teacher(setting.teacher.path, setting.teacher.architecture, len(shipped.classes))
        own, views = IMAGENET, shipped.normalisation
        teacher = Teacher(net, setting.teacher.size, own.mean, own.std, views.mean, views.std)
    blank = torch.zeros(1, classifier.stored, classifier.stored, 3, dtype=torch.uint8)
    for look in (None, *looks.values(), *([teacher] if teacher else [])):
        classifier.probabilities(blank, look)  # the first answer of each is slow, and nobody should see its time
    return Forms(
        classifier,
        setting.run.accuracy_as_shipped,
        setting.run.accuracy,
        looks,
        teacher,
        exits_of(classifier, setting.run),
    )


def told_of(accuracy: Accuracy) -> dict[str, float]:
    """An accuracy as the page takes it."""
    return {"value": accuracy.value, "standard_error": accuracy.standard_error, "n": accuracy.n}


def exits_of(classifier: Classifier, run: FinishedRun) -> Exits | None:
    """The early exits of the student of `run`, at the threshold that `bantam exits` chose, or at SURE; or None."""
    if not isinstance(classifier.net, EarlyExitNet):
        return None
    chosen = run.exit_confidence
    macs = macs_of_exits(classifier.net, classifier.shipped.student.size)
    return Exits(classifier.net, macs, SURE if chosen is None else chosen, chosen is not None)


def onnx_look(path: Path, graph: bytes, shipped: Shipped) -> Look:
    """An exported student's answers: it takes RGB in 0..1, so the normalisation is taken back before.

    Raises BantamError where ONNX Runtime cannot load the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has many kinds of errors for a file that it cannot use
        raise BantamError(f"{path} cannot be used: {' '.join(str(error).split())[:200]}; make it again") from error
    name = session.get_inputs()[0].name
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in vars(shipped.normalisation).values())

    def look(views: Tensor) -> Tensor:
        images = (views * std + mean).contiguous()  # [N, 3, S, S], 0..1
        return torch.from_numpy(session.run(None, {name: images.numpy()})[0])

    return look


def timed(classifier: Classifier, pixels: Tensor, look: Look | None) -> dict[str, Any]:
    """The class probabilities of one image, with the milliseconds that they took."""
    started = time.perf_counter()
    (probabilities,) = classifier.probabilities(pixels, look)
    return {"probabilities": probabilities.tolist(), "ms": milliseconds_since(started)}


def timed_early(classifier: Classifier, pixels: Tensor, exits: Exits) -> dict[str, Any]:
    """As `timed`, with the exit at which the photograph left, from 1 on, and the multiply-accumulates it has cost.

    `exit` is None for a photograph that went to the end.
    """
    split = UnlabelledSplit(pixels, ("photograph",))
    started = time.perf_counter()
    size, normalisation = classifier.shipped.student.size, classifier.shipped.normalisation
    left = leave_early(exits.net, split, size, normalisation, exits.confidence, exits.macs)
    milliseconds = milliseconds_since(started)
    place = int(left.place[0])
    return {
        "probabilities": left.logits[0].softmax(0).tolist(),
        "ms": milliseconds,
        "exit": place + 1 if place < len(exits.net.exits) else None,
        "exits": len(exits.net.exits),
        "macs": left.macs[place],
        "all_macs": left.macs[-1],
    }


def milliseconds_since(started: float) -> float:
    """Milliseconds since `started`, a reading of time.perf_counter()."""
    return (time.perf_counter() - started) * 1000

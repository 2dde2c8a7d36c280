"""What every entry of OBJECTIVES must do."""

import inspect

import pytest
import torch
from torch import Tensor

from bantam.errors import BadRecipe
from bantam.nets.output import Output
from bantam.objectives import OBJECTIVES, Objective

CLASSES = 11

DEFAULTS = {
    "supervised": {"label_smoothing": 0.0},
    "kd": {"temperature": 4.0, "standardize": False},
    "dkd": {"alpha": 1.0, "beta": 8.0, "temperature": 4.0, "standardize": False},
    "dist": {"beta": 1.0, "gamma": 1.0, "temperature": 1.0},
    "fitnet": {"student_stage": -2, "teacher_stage": -2, "hint_until": 0.0},
    "attention": {"stages": 3},
    "similarity": {"stages": 1},
    "rkd": {"distance": 1.0, "angle": 2.0},
    "dml": {},
    "self_distillation": {"temperature": 2.0, "labels": 0.2, "deepest": 0.4, "teacher": 0.4},
}
"""What each objective is with no hyper-parameter given."""

INFINITE = [float("nan"), float("inf"), -float("inf")]
WRONG = {
    "positive": [0, -1.0, "1", True, *INFINITE],
    "not negative": [-1, -0.1, "1", True, *INFINITE],
    "share": [-0.1, 1.1, "1", True, *INFINITE],
    "whole": [1.0, "1", True],
    "above zero": [0, -1, 1.0, "1", True],
    "flag": [0, 1.0, "yes"],
}
KINDS = {
    **dict.fromkeys(("temperature",), "positive"),
    **dict.fromkeys(("alpha", "beta", "gamma", "distance", "angle", "labels", "deepest", "teacher"), "not negative"),
    **dict.fromkeys(("label_smoothing", "hint_until"), "share"),
    **dict.fromkeys(("student_stage", "teacher_stage"), "whole"),
    "stages": "above zero",
    "standardize": "flag",
}

pytestmark = pytest.mark.parametrize("name", OBJECTIVES)


def net_of(n: int, channels: tuple[int, ...], size: int, seed: int, dtype: torch.dtype = torch.float32) -> Output:
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    sizes = [max(1, size >> stage) for stage in range(len(channels))]
    features = tuple(leaf(n, width, side, side) for width, side in zip(channels, sizes, strict=True))
    return Output(leaf(n, CLASSES), leaf(n, channels[-1]), features, (leaf(n, CLASSES), leaf(n, CLASSES)))


def batch(n: int = 6, dtype: torch.dtype = torch.float32) -> tuple[Output, Output, Tensor]:
    student = net_of(n, (4, 6, 8, 10), 16, seed=1, dtype=dtype)
    teacher = net_of(n, (8, 16, 24, 32), 28, seed=2, dtype=dtype)
    one_hot = torch.eye(CLASSES)[torch.arange(n) % CLASSES]
    return student, teacher, 0.7 * one_hot + 0.3 * one_hot.flip(0)


def prepared(name: str, student: Output, teacher: Output) -> Objective:
    torch.manual_seed(0)
    objective = OBJECTIVES[name]()
    objective.prepare(student, teacher)
    return objective


def leaves(output: Output) -> list[Tensor]:
    return [output.logits, output.embedding, *output.features, *output.exits]


@pytest.mark.parametrize("n", [1, 2, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_terms_are_finite_scalars_and_only_the_student_learns(name: str, n: int, dtype: torch.dtype) -> None:
    student, teacher, targets = batch(n, dtype)
    objective = prepared(name, student, teacher)
    terms = objective(student, teacher, targets, 0.3)
    assert terms
    for term in terms.values():
        assert term.shape == ()
        assert term.dtype == torch.float32
        assert term.isfinite()
        assert term >= -1e-6
    torch.stack(list(terms.values())).sum().backward()
    gradients = [leaf.grad for leaf in leaves(student) if leaf.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    if n > 2:
        assert any(gradient.abs().sum() > 0 for gradient in gradients)
    assert all(leaf.grad is None for leaf in leaves(teacher))
    assert all(weight.grad is not None for weight in objective.parameters())


def test_declares_its_paper_and_needs(name: str) -> None:
    kind = OBJECTIVES[name]
    assert kind.paper
    assert kind.needs <= {"logits", "embedding", "features"}
    assert bool(kind.needs) or not kind.needs_teacher  # what can do without a teacher may still listen to one
    parameters = inspect.signature(kind).parameters.values()
    assert all(parameter.default is not inspect.Parameter.empty for parameter in parameters)
    assert all(parameter.annotation in (float, int, bool) for parameter in parameters)


def test_whom_it_learns_from(name: str) -> None:
    kind = OBJECTIVES[name]
    assert kind.needs_peers == (name == "dml")
    assert kind.needs_teacher == (name not in ("supervised", "self_distillation"))
    # From the stage's own teacher, whose answers images without a label have too.
    assert kind().follows() == (name not in ("supervised", "dml"))
    assert kind().alone_until == 0


def test_hyperparameters_have_their_defaults_and_refuse_what_they_cannot_be(name: str) -> None:
    defaults = {key: item.default for key, item in inspect.signature(OBJECTIVES[name]).parameters.items()}
    assert defaults == DEFAULTS[name]
    for key in defaults:
        for value in WRONG[KINDS[key]]:
            with pytest.raises((TypeError, ValueError), match=f"^{key} = "):
                OBJECTIVES[name](**{key: value})


def test_reads_no_more_of_the_teacher_than_it_declares(name: str) -> None:
    student, teacher, targets = batch()
    objective = prepared(name, student, teacher)
    expected = objective(student, teacher, targets, 0.3)
    other = net_of(6, (8, 16, 24, 32), 28, seed=9)
    swapped = Output(*(getattr(teacher if field in objective.needs else other, field) for field in Output._fields))
    torch.testing.assert_close(objective(student, swapped, targets, 0.3), expected, rtol=0, atol=0)


def test_without_a_teacher(name: str) -> None:
    student, teacher, targets = batch()
    objective = prepared(name, student, teacher)
    if objective.needs_teacher:
        with pytest.raises(BadRecipe, match="needs a teacher"):
            objective(student, None, targets, 0.3)
    else:
        assert objective(student, None, targets, 0.3)


def test_order_of_the_batch_does_not_matter(name: str) -> None:
    student, teacher, targets = batch()
    objective = prepared(name, student, teacher)
    order = [4, 2, 0, 5, 1, 3]

    def shuffled(output: Output) -> Output:
        features, exits = (tuple(part[order] for part in parts) for parts in (output.features, output.exits))
        return Output(output.logits[order], output.embedding[order], features, exits)

    torch.testing.assert_close(
        objective(shuffled(student), shuffled(teacher), targets[order], 0.3),
        objective(student, teacher, targets, 0.3),
    )


def test_autocast_changes_nothing(name: str) -> None:
    student, teacher, targets = batch()
    objective = prepared(name, student, teacher)
    expected = objective(student, teacher, targets, 0.3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = objective(student, teacher, targets, 0.3)
    torch.testing.assert_close(inside, expected, rtol=0, atol=0)


def test_progress_may_live_on_the_device(name: str) -> None:
    student, teacher, targets = batch()
    objective = prepared(name, student, teacher)
    torch.testing.assert_close(
        objective(student, teacher, targets, torch.tensor(0.3)), objective(student, teacher, targets, 0.3)
    )


def test_dead_nets_stay_finite(name: str) -> None:
    """All-zero outputs, as of a classifier whose weights start at zero."""
    student, teacher, targets = batch()
    dead = Output(*(torch.zeros_like(student[field]).requires_grad_() for field in range(2)), ())  # type: ignore[arg-type]
    for field in ("features", "exits"):
        zeros = tuple(torch.zeros_like(part).requires_grad_() for part in getattr(student, field))
        dead = dead._replace(**{field: zeros})
    objective = prepared(name, student, teacher)
    terms = objective(dead, teacher, targets, 0.3)
    torch.stack(list(terms.values())).sum().backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(leaf.grad.isfinite().all() for leaf in leaves(dead) if leaf.grad is not None)


@pytest.mark.gpu
def test_never_waits_for_the_device(name: str) -> None:
    student, teacher, targets = batch()

    def moved(output: Output) -> Output:
        features = tuple(feature.detach().cuda().requires_grad_() for feature in output.features)
        return Output(
            output.logits.detach().cuda().requires_grad_(),
            output.embedding.detach().cuda().requires_grad_(),
            features,
        )

    student, teacher, targets = moved(student), moved(teacher), targets.cuda()
    objective, progress = prepared(name, student, teacher), torch.tensor(0.3, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        terms = objective(student, teacher, targets, progress)
        torch.stack(list(terms.values())).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(term.isfinite() for term in terms.values())

import pytest
import torch

from bantam.nets.output import Output
from bantam.objectives.fitnet import FitNet, hint_loss


def net_of(*maps: torch.Tensor) -> Output:
    return Output(torch.zeros(len(maps[0]), 3), torch.zeros(len(maps[0]), 4), maps)


def two_nets(n: int = 2) -> tuple[Output, Output]:
    torch.manual_seed(0)
    student = net_of(torch.randn(n, 3, 8, 8).double(), torch.randn(n, 5, 4, 4).double())
    teacher = net_of(torch.randn(n, 6, 10, 10).double(), torch.randn(n, 7, 2, 2).double())
    return student, teacher


def test_loss_matches_the_hand_calculation() -> None:
    projected, hint = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 3, 2, 2).double()
    total = 0.0
    for n in range(2):
        for c in range(3):
            for y in range(2):
                for x in range(2):
                    window = [projected[n, c, 2 * y + dy, 2 * x + dx].item() for dy in (0, 1) for dx in (0, 1)]
                    total += (sum(window) / 4 - hint[n, c, y, x].item()) ** 2
    assert hint_loss(projected, hint).item() == pytest.approx(total / (2 * 2 * 3 * 2 * 2), abs=1e-14)


def test_golden_value() -> None:
    # (1 - 3)^2 / 2 everywhere
    assert hint_loss(torch.ones(2, 3, 4, 4), torch.full((2, 3, 4, 4), 3.0)).item() == 2.0


def test_gradient_against_finite_differences() -> None:
    student, hint = torch.randn(1, 2, 5, 5).double().requires_grad_(), torch.randn(1, 2, 3, 3).double()
    assert torch.autograd.gradcheck(lambda maps: hint_loss(maps, hint), student)


@pytest.mark.parametrize(("student_stage", "teacher_stage"), [(-2, -2), (0, -1), (1, 0)])
def test_projection_fits_the_chosen_stages_and_is_trained(student_stage: int, teacher_stage: int) -> None:
    student, teacher = two_nets()
    objective = FitNet(student_stage, teacher_stage)
    assert list(objective.parameters()) == []
    objective.prepare(student, teacher)
    weight, bias = objective.parameters()
    channels = teacher.features[teacher_stage].shape[1], student.features[student_stage].shape[1]
    assert (weight.shape, bias.shape) == ((*channels, 1, 1), (channels[0],))
    terms = objective(student, teacher, torch.eye(3).double()[:2], 0.5)
    projected = torch.einsum("oi,nihw->nohw", weight[:, :, 0, 0], student.features[student_stage])
    projected = projected + bias[:, None, None]
    torch.testing.assert_close(terms["fitnet"], hint_loss(projected, teacher.features[teacher_stage]))
    terms["fitnet"].backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_projection_survives_a_checkpoint() -> None:
    student, teacher = two_nets()
    trained, resumed = FitNet(), FitNet()
    trained.prepare(student, teacher)
    resumed.prepare(student, teacher)
    resumed.load_state_dict(trained.state_dict())
    targets = torch.eye(3)[:2]
    assert torch.equal(
        trained(student, teacher, targets, 0.0)["fitnet"], resumed(student, teacher, targets, 0.0)["fitnet"]
    )


@pytest.mark.parametrize("on_device", [False, True])
def test_first_hint_stage(on_device: bool) -> None:
    student, teacher = two_nets()
    objective = FitNet(hint_until=0.25)
    assert objective.alone_until == 0.25
    objective.prepare(student, teacher)

    def term(progress: float) -> float:
        at = torch.tensor(progress) if on_device else progress
        return objective(student, teacher, torch.eye(3)[:2], at)["fitnet"].item()

    assert term(0.0) == term(0.24) > 0
    assert term(0.25) == term(1.0) == 0


def test_without_a_first_stage_the_hint_stays() -> None:
    student, teacher = two_nets()
    objective = FitNet()
    assert objective.alone_until == 0
    objective.prepare(student, teacher)
    values = [objective(student, teacher, torch.eye(3)[:2], progress)["fitnet"].item() for progress in (0.0, 1.0)]
    assert values[0] == values[1] > 0


def test_prepare_comes_first() -> None:
    with pytest.raises(RuntimeError, match="prepare"):
        FitNet()(*two_nets(), torch.eye(3)[:2], 0.0)


def test_order_of_the_batch_does_not_matter() -> None:
    student, teacher = torch.randn(4, 3, 4, 4).double(), torch.randn(4, 3, 2, 2).double()
    order = [2, 0, 3, 1]
    torch.testing.assert_close(hint_loss(student[order], teacher[order]), hint_loss(student, teacher))

"""Training steps on CUDA tensors that hold no numbers, on every machine: of each family and each objective.

A tensor on the wrong device, a shape that hangs on values, and whatever would wait for the device fail here. The
autograd engine asks the driver for its streams, so the backward pass is walked node by node instead, in its order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bantam.data import colour, draws, resize
from bantam.data.augment import Augmentation, Viewing
from bantam.data.splits import IMAGENET, LabelledSplit, SemiLabelledSplit, TrainingSplit
from bantam.nets.early_exit import with_exits
from bantam.nets.output import StagedNet
from bantam.nets.students import STUDENTS, describe
from bantam.nets.teachers import Teacher
from bantam.objectives import OBJECTIVES, Objective
from bantam.objectives.kd import KD
from bantam.objectives.supervised import Supervised
from bantam.recipes.kinds.training import Training
from bantam.recipes.recipe import parse
from bantam.train.answers import Live
from bantam.train.arithmetic import Arithmetic
from bantam.train.capture import state_of
from bantam.train.cohort import Cohort
from bantam.train.plan import Goal, Plan
from bantam.train.step import Step
from tiny_run import RECIPE

STAGE = parse(RECIPE).shipped
PLAIN = Augmentation()
EVERYTHING = Augmentation(
    scale=(0.5, 1.0), vertical_flip=0.5, rotation=10, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, erase=0.3,
    mixup=0.3, cutmix=0.3, mix_alpha=0.4,
)  # fmt: skip


class Waits(AssertionError):
    """What is copied from one device to another is waited for, and no graph holds it."""


class NoCopies(TorchDispatchMode):
    """Within it nothing is copied between devices."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if "_fused_" in str(func):  # the optimizers' kernels, which torch cannot yet follow without numbers
            assert {item.device.type for item in tree_leaves((args, kwargs)) if isinstance(item, Tensor)} == {"cuda"}
            return None
        result = func(*args, **(kwargs or {}))
        tensors = [item for item in (*args, result) if isinstance(item, Tensor)]
        if len({item.device.type for item in tensors if item.ndim or "copy" in str(func)}) > 1:
            raise Waits(f"{func} on {[str(item.device) for item in tensors]}")
        return result


@torch.no_grad()
def walked(loss: Tensor) -> None:
    """What `loss.backward()` does: each node of the graph once, when all that it waits for is there."""
    assert loss.grad_fn is not None
    waiting: dict[Any, int] = {loss.grad_fn: 0}
    found = [loss.grad_fn]
    for node in found:
        for further, _ in node.next_functions:
            if further is not None and further not in waiting:
                found.append(further)
                waiting[further] = 0
            if further is not None:
                waiting[further] += 1
    gradients: dict[Any, dict[int, Tensor]] = {loss.grad_fn: {0: torch.ones_like(loss)}}
    ready = [loss.grad_fn]
    while ready:
        node = ready.pop()
        arrived = gradients.pop(node, {})
        call: Any = node.apply if isinstance(node, BackwardCFunction) else node  # of functions in Python
        results = call(*[arrived.get(number) for number in range(len(node._input_metadata))]) if arrived else ()
        results = results if isinstance(results, tuple) else (results,)
        for number, (further, place) in enumerate(node.next_functions):
            if further is None:
                continue
            gradient = results[number] if number < len(results) else None
            if gradient is not None:
                like = further._input_metadata[place]
                if gradient.shape != like.shape or gradient.dtype != like.dtype:
                    gradient = gradient.sum_to_size(like.shape).to(like.dtype)
                there = gradients.setdefault(further, {})
                there[place] = there[place] + gradient if place in there else gradient
            waiting[further] -= 1
            if not waiting[further]:
                ready.append(further)


def moved(module: nn.Module, change: Any, recurse: bool = True) -> nn.Module:
    """As `Module._apply`, which cannot exchange a tensor without numbers."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(change(value.detach()), value.requires_grad)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = change(value)
    return module


def copied(tensor: Tensor, memo: dict[int, Tensor]) -> Tensor:
    """As `copy.deepcopy`, which would copy the memory that a tensor without numbers does not have."""
    if id(tensor) not in memo:
        twin = tensor.detach().clone()
        memo[id(tensor)] = nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin
    return memo[id(tensor)]


@pytest.fixture(scope="module", autouse=True)
def fake() -> Iterator[None]:
    """Tensors hold no numbers, and torch believes in a GPU with bf16."""
    rooms = (draws, colour, resize)
    caches = [item for room in rooms for item in vars(room).values() if hasattr(item, "cache_clear")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
        patch.setattr(nn.Module, "_apply", moved)
        patch.setattr(Tensor, "backward", walked)
        patch.setattr(FakeTensor, "__deepcopy__", copied, raising=False)
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
        for cached in caches:
            cached.cache_clear()  # of constants on the device


@dataclass(frozen=True)
class Seen(Plan):
    """A plan with an augmentation of its own."""

    augmentation: Augmentation = EVERYTHING

    @property
    def viewing(self) -> Viewing:
        return Viewing(0, self.augmentation, 32, IMAGENET)


class Three(StagedNet):
    """A student of three small stages, for what does not depend on the family: every operation takes its time here."""

    def __init__(self) -> None:
        channels = [3, 4, 5, 6]
        stages = [
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in pairwise(channels)
        ]
        super().__init__(stages, 6, 3)


def teacher() -> Teacher:
    """One that looks at another size than the student, and was trained with another normalisation."""
    return Teacher(Three(), 48, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3), IMAGENET.mean, IMAGENET.std)


def step_of(
    net: nn.Module,
    objectives: dict[str, Objective],
    stage: Training = STAGE,
    kind: type[TrainingSplit] = LabelledSplit,
    augmentation: Augmentation = PLAIN,
    micro_batch: int | None = None,
) -> Step:
    """A step of `net`, as a training on a GPU has it."""
    images = torch.zeros(8, 32, 32, 3, dtype=torch.uint8, device="cuda")
    training = kind("training", images, torch.zeros(8, dtype=torch.int64), tuple("abcdefgh"), ("a", "b", "c"))
    goals = {name: Goal(objective, 1.0, 0.5) for name, objective in objectives.items()}
    taught = any(objective.follows() for objective in objectives.values())
    answers = Live(teacher().to("cuda")) if taught else None  # pyright: ignore[reportArgumentType]
    plan = Seen(stage, training, IMAGENET, goals, answers, augmentation=augmentation)
    return Step(net.to("cuda").train(), plan, 10, Arithmetic("bf16", micro_batch=micro_batch))


def take(step: Step) -> None:
    """One step that waits for nothing, and leaves everything on the device."""
    index = torch.arange(8, device="cuda")
    view = torch.zeros_like(index)
    step.look(index, view)  # puts constants on the device, before a capture
    with NoCopies():
        terms = step(index, view)
    assert step.ema
    changed = [*terms.values(), *state_of(step).values(), *step.ema.net.state_dict().values()]
    assert {value.device.type for value in changed} == {"cuda"}
    reached = [parameter for parameter in step.parameters if parameter in step.optimizer.state]
    assert len(reached) >= 0.9 * len(step.parameters)


@pytest.mark.parametrize("family", STUDENTS)
def test_the_forward_pass_of_every_family(family: str) -> None:
    """The rest of a step is the same for all of them, and takes seconds here."""
    net = describe(family, 60_000 if family == "sample" else 20_000, 3, 32).build()
    step = step_of(net, {"supervised": Supervised()}, replace(STAGE, ema=0.0))
    images, targets = (torch.zeros(8, *shape, device="cuda") for shape in ((3, 32, 32), (3,)))
    with NoCopies():
        terms = step.terms(images, targets, None)
    assert {value.device.type for value in (*terms.values(), *net.buffers())} == {"cuda"}
    assert terms["loss"].grad_fn is not None


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_of_every_objective(name: str) -> None:
    net: nn.Module = Three()
    stage, objectives = STAGE, {"supervised": Supervised(), name: OBJECTIVES[name]()}
    if name == "dml":
        net = Cohort([Three(), Three()])
        stage = replace(STAGE, peers=2, objectives={"supervised": {"weight": 1.0}, "dml": {"weight": 1.0}})
    if name == "self_distillation":
        net = with_exits(Three(), [1], 32)
    take(step_of(net, objectives, stage))


@pytest.mark.parametrize("kind", ["semi-labelled", "sgd", "micro-batches", "augmented"])
def test_a_step_of_every_other_kind(kind: str) -> None:
    objectives = {"supervised": Supervised(), "kd": KD()}
    stage = replace(STAGE, optimizer=replace(STAGE.optimizer, name="sgd")) if kind == "sgd" else STAGE
    split = LabelledSplit if kind == "sgd" else SemiLabelledSplit
    augmentation = EVERYTHING if kind == "augmented" else PLAIN
    take(step_of(Three(), objectives, stage, split, augmentation, 4 if kind == "micro-batches" else None))


# --- that these tests can fail


class Spoilt(Supervised):
    """A term that is computed in a way which a GPU would take amiss."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def terms(self, student: Any, teacher: Any, targets: Any, progress: Any) -> dict[str, Tensor]:
        terms = super().terms(student, teacher, targets, progress)
        logits = student.logits
        ways = {
            "wrong device": lambda: logits + torch.ones(3),
            "item": lambda: logits * logits.mean().item(),
            "branch": lambda: logits if logits.mean() > 0 else -logits,
            "selection": lambda: logits[logits > 0],
            "cpu": lambda: logits.cpu(),
            "a new constant": lambda: logits * torch.tensor([1.0, 2.0, 3.0], device="cuda"),
            "item in the backward pass": lambda: Backwards.apply(logits, "item"),
            "wrong device in the backward pass": lambda: Backwards.apply(logits, "device"),
        }
        return {**terms, "spoilt": ways[self.how]().sum()}


class Backwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, how: str) -> Tensor:
        ctx.how = how
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * (grads[0].mean().item() if ctx.how == "item" else torch.ones(3)), None


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("wrong device", RuntimeError),
        ("item", DataDependentOutputException),
        ("branch", DataDependentOutputException),
        ("selection", RuntimeError),
        ("cpu", Waits),
        ("a new constant", Waits),
        ("item in the backward pass", DataDependentOutputException),
        ("wrong device in the backward pass", RuntimeError),
    ],
)
def test_what_a_gpu_would_take_amiss_fails(how: str, error: type[Exception]) -> None:
    step = step_of(Three(), {"supervised": Spoilt(how)})
    with pytest.raises(error):
        take(step)

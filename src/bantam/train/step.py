"""One training step: views, answers, forward, backward, optimizer, averaging.

The step is a plain sequence on tensors of fixed shape that never asks the device for a value, so the same code runs
eagerly on a CPU and is captured into a CUDA graph on a GPU.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from bantam.data import augment
from bantam.data.splits import SemiLabelledSplit
from bantam.nets.output import Output
from bantam.nets.slimmable import SwitchableNet
from bantam.objectives.dml import mutual_divergence
from bantam.objectives.objective import Objective, labelled
from bantam.train.arithmetic import FP32, Arithmetic
from bantam.train.cohort import members_of
from bantam.train.distributed import ALONE, Processes
from bantam.train.ema import Ema
from bantam.train.optim import averaging_decay, build_optimizer, learning_rate
from bantam.train.plan import Goal, Plan


class Observed(nn.Module):
    """What each member of a cohort, or a net alone, shows: `forward` gives their Outputs.

    A switchable net shows what those of its switches do that learn in the step of this `number`, the whole net first. A
    net without `observe` shows its logits alone. `objectives` are what is trained beside the nets, so that the module
    has all that is trained.
    """

    def __init__(self, net: nn.Module, objectives: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.net = net
        self.objectives = nn.ModuleList(objectives)

    def forward(self, images: Tensor, number: int = 0) -> list[Output]:
        if isinstance(self.net, SwitchableNet):
            return self.net.sandwich(images, number)
        return [shown_by(member, images) for member in members_of(self.net)]


def shown_by(net: nn.Module, images: Tensor) -> Output:
    """What a net shows of `images`; of a net without observe() the logits alone."""
    observe: Callable[[Tensor], Output] | None = getattr(net, "observe", None)
    if observe is not None:
        return observe(images)
    logits = net(images)
    return Output(logits, logits, ())


class Step:
    """What each of `total` steps reads and changes. `count` is the number of steps done, on the device."""

    def __init__(
        self,
        net: nn.Module,
        plan: Plan,
        total: int,
        arithmetic: Arithmetic = FP32,
        processes: Processes = ALONE,
    ) -> None:
        stage, training, goals = plan.stage, plan.training, plan.goals
        self.net, self.stage, self.answers = net, stage, plan.answers
        self.takes_turns = isinstance(net, SwitchableNet) and net.takes_turns
        members = members_of(net)
        # Each member has objectives of its own, for an objective may have projections that it trains.
        self.goals = [goals if number == 0 else of_its_own(goals) for number in range(len(members))]
        self.processes = processes
        self.images, self.classes = training.images, len(training.classes)
        self.device = next(net.parameters()).device
        self.labels = training.labels.to(self.device)
        self.semi_labelled = isinstance(training, SemiLabelledSplit)
        self.viewing = plan.viewing
        self.autocast, self.memory_format = arithmetic.autocast, arithmetic.format
        self.micro_batch = arithmetic.micro_batch
        objectives = list(self.objectives().values())
        self.observed: nn.Module = Observed(net, objectives)
        self.ema = Ema(net) if stage.ema else None

        optimizer, steps = stage.optimizer, range(total)
        self.warm_up = round(optimizer.warmup * total)
        rates = [learning_rate(step, total, optimizer.lr, optimizer.warmup, optimizer.final_lr) for step in steps]
        self.rates = torch.tensor(rates, device=self.device)
        self.decays = torch.tensor([averaging_decay(step, stage.ema) for step in steps], device=self.device)
        self.progress = torch.linspace(0, 1, total, device=self.device)
        self.rate = torch.zeros((), device=self.device)
        self.prepare_objectives()
        self.optimizer = build_optimizer(optimizer, [net, *objectives], self.rate)
        self.clipped = [
            [item for module in (member, *(goal.objective for goal in own.values())) for item in module.parameters()]
            for member, own in zip(members, self.goals, strict=True)
        ]
        self.parameters = [item for group in self.clipped for item in group if item.requires_grad]
        self.count = torch.zeros(1, dtype=torch.int64, device=self.device)
        if processes.world > 1:
            self.leave_out_unreached()
        self.observed = processes.replicated(self.observed)

    def objectives(self) -> dict[str, Objective]:
        """Every member's objectives, by a name that stays the same."""
        return {
            f"{name}.{member}" if member else name: goal.objective
            for member, own in enumerate(self.goals)
            for name, goal in own.items()
        }

    @torch.no_grad()
    def prepare_objectives(self) -> None:
        """Let the objectives fit their projections to an example of what student and teacher show."""
        if all(type(objective).prepare is Objective.prepare for objective in self.objectives().values()):
            return
        index = torch.arange(2, device=self.device)
        view = torch.zeros_like(index)
        self.begin(0)
        images, _ = self.look(index, view)
        training = self.net.training
        shown = self.answers(images, index, view) if self.answers else None
        self.net.eval()
        outputs = self.observed(images)[: len(self.goals)]
        self.net.train(training)
        for own, output in zip(self.goals, outputs, strict=True):
            for goal in own.values():
                goal.objective.prepare(output, shown)
                goal.objective.to(self.device)

    def leave_out_unreached(self) -> None:
        """Mark the parameters that no loss reaches, for DistributedDataParallel waits for every gradient it expects.

        The optimizer would skip them as well. They are found by one backward pass on two images; all that it changes
        is put back.
        """
        index = torch.arange(2, device=self.device)
        view = torch.zeros_like(index)
        self.begin(0)
        state = {name: value.clone() for name, value in self.observed.state_dict().items()}
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            images, targets = self.look(index, view)
            loss = self.terms(images, targets, self.answers(images, index, view) if self.answers else None)["loss"]
            gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        self.observed.load_state_dict(state)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)

    def settle(self) -> None:
        """Move the images to the net's device, as bytes: they are small there, and no copy waits for the CPU."""
        self.images = self.images.to(self.device)

    def begin(self, view: int) -> None:
        """The coming steps show view `view`."""
        if self.answers:
            self.answers.begin(view)

    def __call__(self, index: Tensor, view: Tensor) -> dict[str, Tensor]:
        """Train on view `view` [B] of the images `index` [B], this process's part of the batch.

        Returns the loss and each unweighted term of the whole batch, detached.
        """
        images, targets = self.look(index, view)  # [B, 3, S, S], [B, K]
        return self.learn(images, targets, index, view)

    def learn(self, images: Tensor, targets: Tensor, index: Tensor, view: Tensor) -> dict[str, Tensor]:
        """The step from what `look` gave on; returns what the step returns.

        In micro-batches (`micro_batch` images each, pairs whole) the gradients of the parts are added up: the loss is
        that of the whole batch where it is a mean over images. Not quite the same is what looks at a batch as such:
        BatchNorm normalises by a part's statistics, and its running ones move a step for each part; similarity, rkd and
        dist compare the images of a part with each other.
        """
        terms: dict[str, Tensor] = {}
        for part in self.parts_of(len(images)):
            seen, wanted = images[part], targets[part]  # [M, 3, S, S], [M, K]
            shown = self.answers(seen, index[part], view[part]) if self.answers else None
            own = self.terms(seen, wanted, shown, self.share_of_labels(wanted, targets))
            weight = len(wanted) / len(targets)
            (own["loss"] * weight).backward()
            for name, term in own.items():
                terms[name] = terms[name] + term.detach() * weight if name in terms else term.detach() * weight
        self.move()
        self.average()
        return self.processes.mean(terms)

    def parts_of(self, batch: int) -> list[slice]:
        """The micro-batches in which a batch of so many images is taken."""
        size = self.micro_batch or batch
        return [slice(start, start + size) for start in range(0, batch, size)]

    def look(self, index: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        """The training views float32 [B, 3, S, S] and their targets, class probabilities [B, K]."""
        images, ratio = augment.render(self.images, index, view, self.viewing)
        return images, augment.soft_targets(self.labels[index], ratio, self.classes)

    def terms(
        self, images: Tensor, targets: Tensor, shown: Output | None, share: Tensor | float = 1.0
    ) -> dict[str, Tensor]:
        """The forward pass: each objective's terms, and the weighted sum of them all as "loss".

        `share` is the `share_of_labels` of these images.
        Of a cohort, the loss is the sum of its members' losses, and a term the mean of theirs. The objectives are for a
        switchable net as a whole; its other switches learn what it answers itself ("in-place distillation", Yu and
        Huang, 2019, arXiv:1903.05134): that pulls the weights they share one way, needs no teacher, and is free.
        """
        self.rate.copy_(self.rates[self.count][0])
        progress = self.progress[self.count][0]
        images = images.contiguous(memory_format=self.memory_format)
        turn = int(self.count) if self.takes_turns else 0
        with self.casting(), self.processes.normalising():
            observed: list[Output] = self.observed(images, turn)
        everything = [seen._replace(logits=seen.logits.float(), embedding=seen.embedding.float()) for seen in observed]
        outputs, switches = everything[: len(self.goals)], everything[len(self.goals) :]
        members = [
            self.terms_of(goals, output, shown, peers_of(outputs, number), targets, progress, share)
            for number, (goals, output) in enumerate(zip(self.goals, outputs, strict=True))
        ]
        terms = {name: torch.stack([member[name] for member in members]).mean() for name in members[0]}
        loss = torch.stack([member["loss"] for member in members]).sum()
        if switches:
            taught = outputs[0].logits.detach()
            apart = torch.stack([mutual_divergence(output.logits, taught) for output in switches])
            terms, loss = terms | {"in_place": apart.mean()}, loss + apart.sum()
        if self.takes_turns:
            # The switches that rest get gradients of 0 and not none: optimizers and processes expect them all.
            loss = loss + 0 * torch.stack([parameter.sum() for parameter in self.net.parameters()]).sum()
        return terms | {"loss": loss}

    def terms_of(
        self,
        goals: Mapping[str, Goal],
        output: Output,
        shown: Output | None,
        peers: Output | None,
        targets: Tensor,
        progress: Tensor,
        share: Tensor | float,
    ) -> dict[str, Tensor]:
        """One member's loss, and its unweighted terms; those that are means over the labelled times `share`."""
        terms: dict[str, Tensor] = {}
        loss = torch.zeros((), device=self.device)
        alone = {name: goal.objective.alone_until for name, goal in goals.items()}
        for own, goal in goals.items():
            # While another objective is to be alone, this one's weight is 0: a factor, for no branch may be captured.
            after = max((share for name, share in alone.items() if name != own), default=0.0)
            weight = goal.weight_at(progress)
            weight = weight * (progress >= after) if after else weight
            teacher = peers if goal.objective.needs_peers else shown
            for name, term in goal.objective(output, teacher, targets, progress).items():
                terms[name] = term * share if name in goal.objective.of_labels else term
                loss = loss + weight * terms[name]
        return {"loss": loss, **terms}

    def share_of_labels(self, part: Tensor, targets: Tensor) -> Tensor | float:
        """The number of labelled images in a part of this process's batch against the mean over all parts of all.

        `part` is [M, K] of `targets` [B, K]. The parts' means over the labelled images, weighted with it and with the
        parts' sizes, average to the mean over the whole batch's.
        """
        if not self.semi_labelled or (self.processes.world == 1 and len(part) == len(targets)):
            return 1.0
        mean = self.processes.summed(labelled(targets).sum().double()).clamp(min=1) / self.processes.world
        return labelled(part).sum() * (len(targets) / len(part)) / mean

    def casting(self) -> torch.autocast | nullcontext[None]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast, cache_enabled=False)

    def move(self) -> None:
        """Clip each member's gradients, step the optimizer, clear the gradients."""
        if self.stage.optimizer.clip:
            for parameters in self.clipped:
                nn.utils.clip_grad_norm_(parameters, self.stage.optimizer.clip, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def average(self) -> None:
        """Let the averaged weights follow, and count the step."""
        if self.ema:
            self.ema.update(self.decays[self.count][0])
        self.count += 1


def of_its_own(goals: Mapping[str, Goal]) -> dict[str, Goal]:
    """Copies of `goals` for another member of a cohort."""
    return {name: replace(goal, objective=copy.deepcopy(goal.objective)) for name, goal in goals.items()}


def peers_of(outputs: Sequence[Output], number: int) -> Output | None:
    """What the other members than `number` show, one above the other; None for a net alone."""
    others = [output for other, output in enumerate(outputs) if other != number]
    if not others:
        return None
    logits = torch.stack([output.logits for output in others])  # [P, N, K]
    return Output(logits, torch.stack([output.embedding for output in others]), ())

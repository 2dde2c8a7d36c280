"""Real processes of one run, forked from a server that has imported everything once, and what they do in the tests."""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from bantam.cli import main as cli
from bantam.data import cache
from bantam.data.augment import Augmentation, Viewing
from bantam.data.splits import IMAGENET
from bantam.errors import BadRecipe, BantamError
from bantam.nets.students import describe
from bantam.nets.teachers import Teacher
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.train import loop
from bantam.train.answers import Live, ViewCache
from bantam.train.cohort import Cohort
from bantam.train.distributed import ALONE, Processes, joined
from bantam.train.place import Place
from bantam.train.plan import Plan
from bantam.train.step import Step

Work = Callable[..., None]


def launch(work: Work, *arguments: Any, said: Path | None = None) -> list[int | None]:
    """Run `work(processes, *arguments)` in two processes; gives their exit statuses.

    The lines that a user would see for an error go into the folder `said`, one file a process.
    """
    return start(joining, work, arguments, said)


def start(work: Work, *arguments: Any) -> list[int | None]:
    """Run `work(*arguments)` in two processes that find what torchrun tells them; gives their exit statuses."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bantam.pipeline.run", "torch._dynamo"])
    # As under torchrun, the store outlives every process.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=100))
    started = [context.Process(target=one, args=(rank, store.port, work, arguments)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(100)
        process.kill()
    return [process.exitcode for process in started]


def one(rank: int, port: int, work: Work, arguments: tuple[Any, ...]) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    torch.set_num_threads(1)
    work(*arguments)


def joining(work: Work, arguments: tuple[Any, ...], said: Path | None) -> None:
    try:
        with joined() as processes:
            work(processes, *arguments)
    except BantamError as error:
        if said is None:
            raise
        (said / f"{os.environ['RANK']}.txt").write_text(str(error))
        sys.exit(1)


def command_line(said: Path, *words: str) -> None:
    """`bantam WORDS`; what it prints goes to the file `said` with the process's number."""
    sys.argv = ["bantam", *words]
    with open(f"{said}.{os.environ['RANK']}", "w") as file, contextlib.redirect_stdout(file):
        cli.main()


def run_recipe(processes: Processes, text: str, root: Path, out: Path) -> None:
    pipeline.run(parse(text), root, out, None, processes)


# --- BatchNorm

CASES: dict[str, tuple[tuple[int, ...], torch.dtype, bool]] = {
    "maps": ((8, 5, 4, 3), torch.float64, True),
    "without weights": ((8, 5, 4, 3), torch.float64, False),
    "vectors": ((8, 5), torch.float64, True),
    "one pixel and one image a process": ((2, 5, 1, 1), torch.float64, True),
    "bf16": ((8, 5, 4, 3), torch.bfloat16, True),
}


def batch_norm(case: str, processes: Processes) -> dict[str, Tensor]:
    """Two training steps of a BatchNorm on this process's part of a batch: what they give and leave."""
    shape, dtype, affine = CASES[case]
    torch.manual_seed(0)
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    norm = kind(5, affine=affine, dtype=torch.promote_types(dtype, torch.float32))
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    results: dict[str, Tensor] = {}
    for number in range(2):
        # Far from zero, where sums of squares would cancel.
        whole = (torch.randn(shape, dtype=torch.float64) * 0.5 + 30).to(dtype)
        weights = torch.randn(shape, dtype=torch.float64).to(dtype)
        if len(shape) == 4:
            whole = whole.to(memory_format=torch.channels_last)
        mine = processes.share(shape[0])
        batch = whole[mine].requires_grad_()
        with processes.normalising():
            output = norm(batch)
        output.backward(weights[mine])
        assert batch.grad is not None
        results |= {f"output {number}": output.detach(), f"gradient {number}": batch.grad}
    for name, parameter in norm.named_parameters():
        assert parameter.grad is not None
        results[f"gradient of {name}"] = parameter.grad
    return results | {name: value for name, value in norm.state_dict().items() if name.startswith("running")}


def batch_norms(processes: Processes, folder: Path) -> None:
    torch.save({case: batch_norm(case, processes) for case in CASES}, folder / f"{processes.rank}.pt")


# --- steps


class Exact(Step):
    """A step in float64, where another order of summation changes nothing that can be seen."""

    def __init__(self, net: nn.Module, *arguments: Any, **options: Any) -> None:
        super().__init__(net.double(), *arguments, **options)

    def look(self, index: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        images, targets = super().look(index, view)
        return images.double(), targets


def steps(processes: Processes, text: str, root: Path) -> dict[str, Any]:
    """Four steps in float64, taught by a net that nobody trained: the losses and all that was trained."""
    recipe = parse(text)
    splits = cache.open_splits(root, 32, unlabelled=recipe.data.unlabelled)
    torch.manual_seed(0)
    stage = recipe.shipped
    teacher = Teacher(describe("mobilenet_v1", 9000, 3, 32).build(), 32, *[IMAGENET.mean, IMAGENET.std] * 2)
    student = describe("mobilenet_v1", 5000, 3, 32, {}, stage.switches)
    net = Cohort.of([student.build() for _ in range(stage.peers)]).train()
    goals = pipeline.goals_of(stage)
    step = Exact(net, Plan(stage, splits.taught, IMAGENET, goals, Live(teacher.double())), 4, processes=processes)
    curve: list[dict[str, float]] = []
    for number in range(4):
        order = loop.batches.epoch(len(splits.taught), 20, 0, number, 0, processes.rank, processes.world)[0]
        terms = step(order, torch.full_like(order, number))
        curve.append({name: float(term) for name, term in terms.items()})
    trained = {f"net.{name}": value for name, value in net.state_dict().items()}
    for own, objective in step.objectives().items():
        trained |= {f"{own}.{name}": value for name, value in objective.state_dict().items()}
    return {"curve": curve, "trained": trained}


def many_steps(processes: Processes, texts: dict[str, str], root: Path, folder: Path) -> None:
    torch.save({name: steps(processes, text, root) for name, text in texts.items()}, folder / f"{processes.rank}.pt")


# --- the view cache


def views_in(root: Path, folder: Path, processes: Processes = ALONE) -> ViewCache:
    splits = cache.open_splits(root, 32)
    torch.manual_seed(0)
    teacher = Teacher(describe("mobilenet_v1", 5000, 3, 32).build(), 32, *[IMAGENET.mean, IMAGENET.std] * 2)
    mixed = Augmentation(scale=(0.5, 1.0), cutmix=0.5)
    place, viewing = Place(folder, processes=processes), Viewing(3, mixed, 32, IMAGENET)
    return ViewCache(place, teacher, splits.training, splits.fingerprint, viewing, True)


def build_views(processes: Processes, root: Path, folder: Path, views: int) -> None:
    cached = views_in(root, folder, processes)
    for view in range(views):
        cached.begin(view)


# --- what goes wrong


def lose_a_process(processes: Processes) -> None:
    """Process 1 dies without a word while process 0 waits for it."""
    if processes.rank == 1:
        os._exit(9)
    processes.mean({"loss": torch.ones(())})


def all_refuse(_: Processes) -> None:
    raise BadRecipe("the same in every process")


def only_the_first_refuses(processes: Processes) -> None:
    if processes.rank == 0:
        raise BadRecipe("process 0 alone")
    processes.barrier()

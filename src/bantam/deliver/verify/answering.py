"""A process of our own that weighs what a package's code handed over, and runs that on the photographs.

    python -P -m bantam.deliver.verify.answering < QUESTION > FOUND        (both JSON)

It runs none of the package's code. It is a process because the graph is somebody else's: it may need more time or
memory than there is, and a fault that it finds in an operator ends this process alone.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bantam.deliver.verify import finding, graph, rendering
from bantam.deliver.verify.clean_room import BATCH, limit
from bantam.errors import BadImage, BadPackage

AT_ONCE = 4 * BATCH
"""Photographs that are read before they are answered."""


@dataclass(frozen=True)
class Question:
    """What is asked: the file that was handed over, the photographs of the first look as sorted and as listed, all
    photographs, the number of classes, the budget, and where the logits go, as NumPy's [views, N, classes]."""

    file: str
    few: list[str]
    listed: list[str]
    photographs: list[str]
    classes: int
    budget: int
    logits: str


@dataclass(frozen=True)
class Found:
    """What was found: the weight, the views, and what is wrong with the net or its inputs, or nothing."""

    weighed: dict[str, int] = field(default_factory=dict[str, int])
    counted: int = 0
    net: str = ""
    inputs: str = ""
    views: list[str] = field(default_factory=list[str])
    apart: float = 0.0
    weights: list[float] = field(default_factory=list[float])


def ask(question: Question, timeout: float) -> Found:
    """Have the question answered by a process of its own."""
    environment = {
        **os.environ,
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "bantam.deliver.verify.answering"],
            env=environment, check=False, timeout=timeout, input=json.dumps(asdict(question)).encode(),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return Found(**json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        return Found(net=f"the net's graph did not answer within {timeout:g} s")
    except ValueError:
        return Found(net="the net's graph cannot be run within the limits on time and memory")


def answered(question: Question) -> Found:
    """Weigh the graph; where it is within the budget, find its inputs out and write its logits."""
    try:
        handed = graph.read(Path(question.file).read_bytes())
        weighed = graph.weigh(handed)
        found = Found(asdict(weighed), weighed.counted)
        if weighed.counted > question.budget:
            return found
        graph.check_runs(handed, question.classes, BATCH)
    except BadPackage as error:
        return Found(net=str(error))
    try:
        views = finding.find_views(
            [Path(path) for path in question.few], [Path(path) for path in question.listed], handed.inputs, handed.hints
        )
        logits = logits_of(handed, views, [Path(path) for path in question.photographs])
    except (BadPackage, BadImage) as error:
        return Found(found.weighed, found.counted, inputs=str(error))
    np.save(question.logits, logits.numpy(), allow_pickle=False)
    return Found(
        found.weighed,
        found.counted,
        views=[view.rendering.text() for view in views],
        apart=max(view.error for view in views),
        weights=weights_in(handed.hints, len(views)),
    )


def weights_in(hints: dict[str, Any], views: int) -> list[float]:
    """The weights of so many views that a package of Bantam's names in VIEWS, or none."""
    named = hints.get("VIEWS")
    last = [view[-1] for view in named if isinstance(view, list) and view] if isinstance(named, list) else []
    return (
        last if len(last) == views and all(isinstance(one, int | float) and math.isfinite(one) for one in last) else []
    )


def logits_of(handed: graph.HandedOver, views: list[rendering.View], paths: list[Path]) -> Tensor:
    """What the graph says to each view of the photographs: float32 [views, N, K]. Raises BadPackage and BadImage."""
    graphs: dict[tuple[int, ...], Callable[[Tensor], Tensor]] = {
        one.shape: lambda images, one=one: graph.answer(one, handed.tensors, images) for one in handed.graphs
    }
    said: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(paths), AT_ONCE):
            inputs = [view.inputs(paths[start : start + AT_ONCE]) for view in views]
            strange = [list(one.shape[1:]) for one in inputs if tuple(one.shape[1:]) not in graphs]
            if strange:
                raise BadPackage(f"the code handed over no graph for inputs of the shape {strange[0]}")
            said.append(torch.stack([in_batches(graphs[tuple(one.shape[1:])], one) for one in inputs]))
    return torch.cat(said, 1)


def in_batches(net: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The logits [N, K] of images [N, C, H, W] by a net that takes BATCH of them, no more and no fewer."""
    missing = -len(images) % BATCH
    whole = torch.cat([images, images[:1].expand(missing, -1, -1, -1)])
    return torch.cat([net(batch).float() for batch in whole.split(BATCH)])[: len(images)]


def main() -> None:
    """Answer the question on the standard input."""
    limit()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    found = answered(Question(**json.load(sys.stdin)))
    sys.stdout.write(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()

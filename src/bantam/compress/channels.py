"""Structured pruning: whole channels go, and the net that is left is smaller, not sparse.

Torch-Pruning follows the net's graph and says which channels of which layers can only go together (Fang et al.,
"DepGraph: Towards Any Structural Pruning", CVPR 2023, arXiv:2301.12900), and how much each matters. What goes is
decided here, against the count of parameters that ships, and every result is compared with the dense net whose pruned
channels are silenced: where the two differ, the graph was not followed, and the net is refused.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bantam.errors import BadPruning, BantamError
from bantam.nets.blocks import ParallelConv, adds_nothing
from bantam.nets.budget import weigh
from bantam.nets.output import StagedNet
from bantam.nets.pruned import Kept, channels_of, take, widths_of
from bantam.nets.students import Student

FULL = 0.99
"""The share of the allowed parameters that a pruned net uses at least, where its channels are fine enough."""

REFILL = 400
"""How many of the most important removed channels are tried again where less than FULL is used."""

Sample = tuple[Tensor, Tensor]
"""Normalised training images [N, 3, S, S] and their labels [N]: what Taylor importance looks at."""


@dataclass(frozen=True)
class Bundle:
    """Channels of several layers that stand or fall together, and how much each matters.

    `scores` is [C]. `cuts` says for each (module path, whether of its outputs) which of its channels belong to which
    position of the bundle: two int64 tensors of the same length.
    """

    scores: Tensor
    cuts: dict[tuple[str, bool], tuple[Tensor, Tensor]]

    @property
    def last(self) -> int:
        """The position that always stays: the most important of those that are in every layer, or else of all."""
        numbers = torch.arange(len(self.scores))
        everywhere = torch.stack([torch.isin(numbers, positions) for _, positions in self.cuts.values()]).all(0)
        return int((self.scores if not everywhere.any() else self.scores.where(everywhere, -torch.inf)).argmax())


@dataclass(frozen=True)
class Pruned:
    """A structurally pruned student: its description, its net in the trained form, and what of the dense one stayed.

    `parameters` is the larger count of the shipped form; `channel_ratio` the share of channels that went.
    """

    student: Student
    net: StagedNet
    kept: Kept
    parameters: int
    channel_ratio: float


def magnitude(net: nn.Module, sample: Sample | None) -> Any:
    """Squared weights of all layers that a channel takes part in (Li et al., 2017, arXiv:1608.08710)."""
    import torch_pruning

    for block in net.modules():
        # What unfolding brought back (bantam.nets.unfold) adds nothing: its random weights do not matter.
        for branch in block.branches if isinstance(block, ParallelConv) else ():
            for conv in branch.modules():
                if isinstance(conv, nn.Conv2d) and adds_nothing(branch):
                    nn.init.zeros_(conv.weight)
    return torch_pruning.importance.GroupMagnitudeImportance(p=2)


def taylor(net: nn.Module, sample: Sample | None) -> Any:
    """Weight times gradient of the loss on `sample` (Molchanov et al., 2019, arXiv:1906.10771)."""
    import torch_pruning

    assert sample is not None, "Taylor importance needs training images"
    net.zero_grad()
    functional.cross_entropy(net(sample[0]), sample[1]).backward()
    return torch_pruning.importance.GroupTaylorImportance()


def bn_scale(net: nn.Module, sample: Sample | None) -> Any:
    """The scales of the BatchNorms (Liu et al., "Network Slimming", 2017, arXiv:1708.06519)."""
    import torch_pruning

    if not any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        raise BadPruning("importance bn_scale needs BatchNorms, and this net has none")
    return torch_pruning.importance.BNScaleImportance()


IMPORTANCES: dict[str, Callable[[nn.Module, Sample | None], Any]] = {
    "magnitude": magnitude,
    "taylor": taylor,
    "bn_scale": bn_scale,
}


def bundles(student: Student, net: StagedNet, importance: str, sample: Sample | None = None) -> list[Bundle]:
    """Find the channels of the trained form `net` that can go, and score them by one of IMPORTANCES.

    The input's channels and the classes are in no bundle. `net` stays as it is. Raises BadPruning where Torch-Pruning
    cannot follow the net, or the importance has nothing to look at.
    """
    import torch_pruning

    net = copy.deepcopy(net).eval().requires_grad_(True)
    scorer = IMPORTANCES[importance](net, sample)
    paths = {module: path for path, module in net.named_modules()}
    last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    colours = colour_filters(net, student.size)
    found: list[Bundle] = []
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            graph = torch_pruning.DependencyGraph()
            graph.build_dependency(net, torch.zeros(2, 3, student.size, student.size), verbose=False)
            for group in graph.get_all_groups(ignored_layers=[last], root_module_types=[nn.Conv2d, nn.Linear]):
                free = free_channels(graph, group)
                if len(free) < len(group[0].idxs):
                    group = asked_about(graph, group, free)
                scores = scorer(group)
                positions = {channel: number for number, channel in enumerate(free)}
                cuts: dict[tuple[str, bool], tuple[Tensor, Tensor]] = {}
                for item, (edge, indices) in enumerate(group.items):
                    module = edge.target.module
                    if channels_of(module) is None:
                        continue
                    place = (paths[module], graph.is_out_channel_pruning_fn(edge.handler))
                    belongs = [positions[channel] for channel in group[item].root_idxs]
                    pair = torch.tensor(indices), torch.tensor(belongs)
                    cuts[place] = joined(cuts[place], pair) if place in cuts else pair
                if scores is not None and not any((path, True) in cuts for path in colours):
                    # Their mean is 1 over all channels; those that are not free have none of their own.
                    found.append(Bundle(scores.detach()[free] * (len(free) / len(scores)), cuts))
    except Exception as error:  # the tracer fails in as many ways as there are nets
        raise unfollowed(student, type(error).__name__) from error
    return found


def free_channels(graph: Any, group: Any) -> list[int]:
    """The channels of the first layer of `group` that can go one without another.

    Where parts of a layer's output meet again, as a gate meets what it gates, a channel of one part takes those of the
    others with it. Torch-Pruning tells so when it is asked about a single channel, not when asked about all at once.
    """
    free: list[int] = []
    taken: set[int] = set()
    for channel in group[0].idxs:
        if channel not in taken:
            free.append(channel)
            taken.update(asked_about(graph, group, [channel])[0].idxs)
    return free


def asked_about(graph: Any, group: Any, channels: list[int]) -> Any:
    """The group of `channels` of the layer with which `group` begins."""
    edge = group[0].dep
    return graph.get_pruning_group(edge.target.module, edge.handler, channels)


def colour_filters(net: nn.Module, size: int) -> list[str]:
    """Paths of the depthwise convolutions that look at the image itself: their channels are its three colours."""
    images = torch.zeros(1, 3, size, size)
    found: list[str] = []

    def looks(path: str, module: nn.Conv2d) -> None:
        module.register_forward_pre_hook(lambda _, inputs: found.append(path) if inputs[0] is images else None)

    watched = copy.deepcopy(net)
    for path, module in watched.named_modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            looks(path, module)
    with torch.no_grad():
        watched(images)
    return found


def joined(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two pairs of tensors, joined end to end."""
    return torch.cat((a[0], b[0])), torch.cat((a[1], b[1]))


def unfollowed(student: Student, why: str) -> BadPruning:
    """The error for a net whose channels cannot be followed through its graph, saying `why`."""
    return BadPruning(
        f"the channels of {student.family} cannot be followed through its graph ({why}), so none may go: "
        "prune it with an unstructured method, or prune a net of another family"
    )


def kept_without(net: nn.Module, found: list[Bundle], gone: list[Tensor]) -> Kept:
    """What stays of `net` without the positions `gone` (one boolean [C] for each bundle)."""
    stays: dict[str, tuple[Tensor, Tensor]] = {}
    for path, module in net.named_modules():
        numbers = channels_of(module)
        if numbers is not None:
            stays[path] = torch.ones(numbers[0], dtype=torch.bool), torch.ones(numbers[1], dtype=torch.bool)
    for bundle, out in zip(found, gone, strict=True):
        for (path, outputs), (indices, positions) in bundle.cuts.items():
            stays[path][0 if outputs else 1][indices[out[positions]]] = False
    for path, (outputs, inputs) in stays.items():
        module = net.get_submodule(path)
        # A BatchNorm and a depthwise convolution have one side, and the graph names either.
        depthwise = isinstance(module, nn.Conv2d) and module.groups == len(inputs) == len(outputs) > 1
        if depthwise or isinstance(module, nn.BatchNorm2d):
            stays[path] = (outputs & inputs, outputs & inputs)
    return {path: (outputs.nonzero()[:, 0], inputs.nonzero()[:, 0]) for path, (outputs, inputs) in stays.items()}


def prune_to(student: Student, net: StagedNet, found: list[Bundle], most: int) -> Pruned:
    """Remove the least important channels of the trained form `net` until at most `most` parameters would ship.

    Every bundle keeps its `last` channel. The larger of both counts is at least FULL of `most` where single channels
    are fine enough. Raises BadPruning where even the fewest channels are too many, or the graph was not followed.
    """
    last = [bundle.last for bundle in found]
    ranked = sorted(
        (score, number, position)
        for number, bundle in enumerate(found)
        for position, score in enumerate(bundle.scores.tolist())
        if position != last[number]
    )
    order = [(number, position) for _, number, position in ranked]

    def without(channels: list[tuple[int, int]]) -> Kept:
        gone = [torch.zeros(len(bundle.scores), dtype=torch.bool) for bundle in found]
        for number, position in channels:
            gone[number][position] = True
        return kept_without(net, found, gone)

    def described(kept: Kept) -> Student:
        return replace(student, pruned={**(student.pruned or {}), **widths_of(net, kept)} or None)

    try:
        weight = counter(student, net)
        low, high = 0, len(order)  # the fewest channels that must go lie in low..high
        if (least := weight(without(order))) > most:
            raise BadPruning(
                f"{student.family} cannot go down to {most:,} parameters: with one channel in every layer it still has "
                f"{least:,}, so a layer would be emptied; ask for more parameters or a smaller ratio"
            )
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if weight(without(order[:middle])) <= most else (middle + 1, high)
        removed = order[:low]
        for channel in reversed(removed[-REFILL:]):
            if weight(without(removed)) >= FULL * most:
                break
            fuller = [other for other in removed if other != channel]
            removed = fuller if weight(without(fuller)) <= most else removed
        kept = without(removed)
        smaller = copy.deepcopy(net)
        take(smaller, kept)
        pruned = described(kept)
        followed = same_answers(smaller.eval(), silenced(net, kept), student.size)
    except BantamError:
        raise
    except Exception as error:  # channels that do not meet fail wherever the shapes are first compared
        raise unfollowed(student, type(error).__name__) from error
    if not followed:
        raise unfollowed(student, "the pruned net answers otherwise than the net with those channels silenced")
    channels = sum(len(bundle.scores) for bundle in found)
    parameters = weigh(pruned.shipped_form(smaller), pruned.size).counted
    return Pruned(pruned, smaller, kept, parameters, len(removed) / channels)


def counter(student: Student, net: StagedNet) -> Callable[[Kept], int]:
    """A function that gives the larger count of the shipped form of `net` narrowed to some channels, fast.

    Thousands of narrowings are weighed in a search; building and folding each would take minutes.
    """
    marked = copy.deepcopy(net)
    for path, module in marked.named_modules():
        module.trained_path = path  # pyright: ignore[reportArgumentType]
    shipped = student.shipped_form(marked)
    counted = [module for module in shipped.modules() if channels_of(module) is not None]
    calls = dict.fromkeys(counted, 0)

    def called(module: nn.Module, *_: Any) -> None:
        calls[module] += 1

    for module in counted:
        module.register_forward_hook(called)
    with torch.no_grad():
        shipped(torch.zeros(1, 3, student.size, student.size))
    others = sum(parameter.numel() for parameter in shipped.parameters())
    others -= sum(parameter.numel() for module in counted for parameter in module.parameters())

    def weight(kept: Kept) -> int:
        once, at_calls = others, 0
        for module in counted:
            outputs, inputs = map(len, kept[str(module.trained_path)])
            numbers = channels_of(module)
            assert numbers is not None
            total = 0
            for parameter in module.parameters():
                # A weight [O, I, ...] narrows in both, one of a depthwise convolution, a bias or a scale in O alone.
                both = parameter.ndim > 1 and parameter.shape[1] == numbers[1]
                total += (
                    outputs * (inputs if both else 1) * parameter.numel() // (numbers[0] * (numbers[1] if both else 1))
                )
            once += total
            at_calls += calls[module] * total
        return max(once, at_calls)

    return weight


def silenced(net: StagedNet, kept: Kept) -> StagedNet:
    """A copy of `net`, in eval mode, whose channels outside `kept` are there and always zero."""
    silent = copy.deepcopy(net).eval()
    with torch.no_grad():
        for path, (outputs, _) in kept.items():
            module = silent.get_submodule(path)
            stays = torch.zeros(len(module.weight), dtype=torch.bool)  # pyright: ignore[reportArgumentType]
            stays[outputs] = True
            for parameter in module.parameters(recurse=False):
                parameter[~stays] = 0
    return silent


@torch.no_grad()
def same_answers(a: nn.Module, b: nn.Module, size: int) -> bool:
    """Whether two nets in eval mode give the same logits for random images of `size` px, up to rounding."""
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    first, second = a(images), b(images)
    return bool((first - second).abs().max() <= 1e-3 * (1 + second.abs().max()))

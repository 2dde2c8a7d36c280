"""Structured pruning: every family prunes and reloads with equal outputs, or is refused in one line."""

import copy
import json
from typing import Any

import pytest
import torch

from bantam.compress.channels import (
    IMPORTANCES,
    Bundle,
    bundles,
    counter,
    joined,
    kept_without,
    prune_to,
    same_answers,
    silenced,
)
from bantam.errors import BadPruning
from bantam.nets.budget import weigh
from bantam.nets.output import Output, StagedNet
from bantam.nets.students import PRUNED, STUDENTS, Student, describe
from bantam.nets.students.largekernel import GatedBlock

REFUSED = {"shufflenet_v1", "shufflenet_v2"}
"""Families that shuffle their channels, through which no graph is followed."""

SOME = torch.tensor([0, 1])

LIGHT = [name for name in STUDENTS if name not in REFUSED]


SAMPLE = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 3


def trained(name: str, choices: dict[str, Any] | None = None) -> tuple[Student, StagedNet]:
    """A tiny student with BatchNorm statistics that are not those of a fresh net."""
    torch.manual_seed(0)
    student = describe(name, 60_000 if name == "sample" else 5_000, 3, 32, choices or {})
    net = student.build().train()
    for _ in range(3):
        net(torch.randn(8, 3, 32, 32))
    return student, net.eval()


def dense(student: Student) -> int:
    return weigh(student.shipped_net(), student.size).counted


@pytest.mark.parametrize(
    ("name", "importance"),
    [
        *((name, "magnitude") for name in LIGHT),
        *((name, importance) for name in ("ghostnet", "largekernel") for importance in ("taylor", "bn_scale")),
    ],
)
def test_a_family_prunes_to_the_budget_and_reloads_from_plain_data(name: str, importance: str):
    student, net = trained(name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    most = dense(student) // 2
    pruned = prune_to(student, net, bundles(student, net, importance, SAMPLE), most)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())

    # The budget holds for what ships, by the larger count, and is used.
    assert 0.97 * most <= pruned.parameters <= most
    again = Student.from_json(json.loads(json.dumps(pruned.student.to_json())))
    assert weigh(again.shipped_net(), 32).counted == pruned.parameters

    # Rebuilt from the description alone, it is the same net; so is its folded form.
    twin = again.build().eval()
    twin.load_state_dict(pruned.net.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = pruned.net(images)
        assert torch.equal(twin(images), expected)
        torch.testing.assert_close(again.shipped_form(twin)(images), expected, rtol=1e-4, atol=1e-4)
        # And it answers as the dense net does whose pruned channels are always zero.
        torch.testing.assert_close(silenced(net, pruned.kept)(images), expected, rtol=1e-4, atol=1e-4)
    assert 0 < pruned.channel_ratio < 1


@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize(
    "choices", [{"gate": "sigmoid", "branches": 1}, {"squeeze_excite": True, "head": "none"}], ids=str
)
def test_a_gate_goes_with_what_it_gates(choices: dict[str, Any], importance: str):
    student, net = trained("largekernel", choices)
    pruned = prune_to(student, net, bundles(student, net, importance, SAMPLE), dense(student) // 2)
    for path, module in net.named_modules():
        if isinstance(module, GatedBlock):
            outputs, _ = pruned.kept[f"{path}.expand"]
            gate, value = outputs[: len(outputs) // 2], outputs[len(outputs) // 2 :]
            assert torch.equal(gate + module.expand.out_channels // 2, value)
            assert torch.equal(gate, pruned.kept[f"{path}.project.0"][1])


def test_channels_of_parts_that_meet_are_scored_together():
    student, net = trained("largekernel")
    block = next(module for module in net.modules() if isinstance(module, GatedBlock))
    width = block.expand.out_channels // 2
    with torch.no_grad():  # the second channel's gate alone is useless: that is not enough to go first
        block.expand.weight[1] = 0
    bundle = next(each for each in bundles(student, net, "magnitude") if ("stages.0.1.expand", True) in each.cuts)
    assert len(bundle.scores) == width
    assert float(bundle.scores.mean()) == pytest.approx(1)
    ways = [block.expand.weight.flatten(1), block.project[0].weight.flatten(1).t()]
    squares = [way.detach().pow(2).sum(1) for way in ways]
    expected = squares[0][:width] + squares[0][width:] + squares[1]
    torch.testing.assert_close(bundle.scores, expected / expected.mean())


def test_a_channel_that_is_in_every_layer_stays():
    """A ghost module of an odd width has a channel without a ghost; with it alone `cheap` would be empty."""
    student, net = trained("ghostnet")
    cuts = {("a", True): (torch.arange(3), torch.arange(3)), ("b", True): (SOME, SOME)}
    assert Bundle(torch.tensor([1.0, 2.0, 9.0]), cuts).last == 1
    for importance in IMPORTANCES:
        least = prune_to(student, net, bundles(student, net, importance, SAMPLE), dense(student) // 10)
        assert all(len(outputs) > 0 for outputs, _ in least.kept.values())


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_family_that_cannot_be_followed_is_refused_in_one_line(name: str):
    student, net = trained(name)
    with pytest.raises(BadPruning, match=f"channels of {name} cannot be followed") as caught:
        prune_to(student, net, bundles(student, net, "magnitude"), dense(student) // 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_every_importance_keeps_what_matters(importance: str):
    student, net = trained("mobilenet_v1")
    # Channels 0 and 1 of the last layer are made useless: no weight leads to them, scales them or leaves them.
    last = net.stages[-1][-1][1]  # pyright: ignore
    with torch.no_grad():
        last[0].weight[:2] = 0
        last[1].weight[:2] = 0
        net.head.weight[:, :2] = 0
    found = bundles(student, net, importance, SAMPLE)
    place = f"stages.{len(net.stages) - 1}.{len(net.stages[-1]) - 1}.1.0"  # pyright: ignore
    bundle = next(bundle for bundle in found if (place, True) in bundle.cuts)
    assert bundle.scores[:2].tolist() == [0, 0]
    assert (bundle.scores[2:] > 0).sum() > len(bundle.scores) / 2


def test_the_fast_count_is_the_count_of_the_built_net():
    for name in ("mobilenet_v3", "recurrent", "reparam", "sample"):
        student, net = trained(name)
        found = bundles(student, net, "magnitude")
        gone = [torch.zeros(len(bundle.scores), dtype=torch.bool) for bundle in found]
        assert counter(student, net)(kept_without(net, found, gone)) == dense(student), name


def test_a_pruned_student_can_be_pruned_again():
    student, net = trained("mobilenet_v1")
    once = prune_to(student, net, bundles(student, net, "magnitude"), 3_000)
    twice = prune_to(once.student, once.net, bundles(once.student, once.net, "magnitude"), 2_000)
    assert 1_940 <= weigh(twice.student.shipped_net(), 32).counted <= 2_000
    assert same_answers(twice.net, silenced(once.net, twice.kept), 32)


def test_silenced_channels_are_not_silent_by_accident():
    student, net = trained("mobilenet_v1")
    pruned = prune_to(student, net, bundles(student, net, "magnitude"), 2_500)
    assert not same_answers(net, pruned.net, 32)


def test_a_teacher_prunes_like_a_student():
    torch.manual_seed(0)
    student = Student("resnet18", {}, 3, 32)
    net = student.build().eval()
    assert "resnet18" in PRUNED
    pruned = prune_to(student, net, bundles(student, net, "magnitude"), 60_000)
    assert 59_400 <= weigh(pruned.student.shipped_net(), 32).counted <= 60_000


def test_a_budget_that_would_empty_a_layer_is_refused():
    student, net = trained("mobilenet_v1")
    with pytest.raises(BadPruning, match="a layer would be emptied"):
        prune_to(student, net, bundles(student, net, "magnitude"), 20)


def test_a_folded_net_has_no_scales_to_look_at():
    student, net = trained("mobilenet_v1")
    with pytest.raises(BadPruning, match="needs BatchNorms"):
        bundles(student, student.shipped_form(net), "bn_scale")


def positions_gone(bundle: Bundle, kept: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Which positions of `bundle` went, as boolean [C], read from what its layers kept."""
    gone = torch.zeros(len(bundle.scores), dtype=torch.bool)
    for (path, outputs), (indices, positions) in bundle.cuts.items():
        stays = kept[path][0 if outputs else 1]
        gone[positions[~torch.isin(indices, stays)]] = True
    return gone


@pytest.mark.parametrize("name", ["mobilenet_v1", "largekernel", "depthwise_resnet"])
def test_the_channels_that_go_are_those_of_the_least_score(name: str):
    student, net = trained(name)
    found = bundles(student, net, "magnitude")
    # Half of each bundle's channels matter ten times as much as the others, and the budget is just the better halves.
    generator = torch.Generator().manual_seed(3)
    lesser = [torch.randperm(len(bundle.scores), generator=generator) < len(bundle.scores) // 2 for bundle in found]
    for bundle, less in zip(found, lesser, strict=True):
        bundle.scores.copy_(torch.rand(len(less), generator=generator) + torch.where(less, 1, 10))
    most = counter(student, net)(kept_without(net, found, lesser))
    pruned = prune_to(student, net, found, most)
    assert pruned.parameters == most
    for bundle, less in zip(found, lesser, strict=True):
        assert torch.equal(positions_gone(bundle, pruned.kept), less)
    assert pruned.channel_ratio == sum(int(less.sum()) for less in lesser) / sum(map(len, lesser))


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_a_net_that_loses_only_useless_channels_answers_as_before(importance: str):
    student, net = trained("mobilenet_v1")
    found = bundles(student, net, importance, SAMPLE)
    # Every third channel of each bundle is made useless: no weight leads to it, scales it or leaves it.
    useless = [torch.arange(len(bundle.scores)) % 3 == 1 for bundle in found]
    kept = kept_without(net, found, useless)
    with torch.no_grad():
        for path, (outputs, inputs) in kept.items():
            for parameter in net.get_submodule(path).parameters(recurse=False):
                gone = torch.ones(parameter.shape[0], dtype=torch.bool)
                gone[outputs] = False
                parameter[gone] = 0
                if parameter.ndim > 1 and parameter.shape[1] > 1:
                    gone = torch.ones(parameter.shape[1], dtype=torch.bool)
                    gone[inputs] = False
                    parameter[:, gone] = 0
    pruned = prune_to(student, net, bundles(student, net, importance, SAMPLE), counter(student, net)(kept))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(pruned.net.double()(images.double()), net.double()(images.double()))
    assert pruned.channel_ratio > 0.2


def test_what_is_left_of_the_budget_brings_back_the_most_important_channels():
    """One wide layer is the least important and its channels dear, so whole ones overshoot by more than one percent."""
    student, net = trained("mobilenet_v1")
    found = bundles(student, net, "magnitude")
    weight = counter(student, net)
    for number, bundle in enumerate(found):
        bundle.scores.copy_(torch.arange(len(bundle.scores)) / 100 + len(found) - number)
    most = dense(student) - 700
    pruned = prune_to(student, net, found, most)
    assert 0.99 * most <= pruned.parameters <= most
    gone = [positions_gone(bundle, pruned.kept) for bundle in found]
    assert weight(kept_without(net, found, gone)) == pruned.parameters
    # What could still come back is too dear.
    for number, out in enumerate(gone):
        for position in out.nonzero()[:, 0].tolist():
            fuller = [each.clone() for each in gone]
            fuller[number][position] = False
            back = weight(kept_without(net, found, fuller))
            assert back > most or pruned.parameters >= 0.99 * most


class Otherwise(StagedNet):
    """A net that shows a tracer, which follows gradients, other channels than it uses to answer."""

    def observe(self, images: torch.Tensor) -> Output:
        maps, features = images, []
        for stage in self.stages:
            maps = stage(maps)
            if not torch.is_grad_enabled():
                maps = maps.flip(1)
            features.append(maps)
        embedding = maps.mean((2, 3))
        return Output(self.head(embedding), embedding, tuple(features))


def test_a_net_that_traces_otherwise_than_it_answers_is_refused():
    student, net = trained("mobilenet_v1")
    most = dense(student) // 2
    assert prune_to(student, net, bundles(student, net, "magnitude"), most).parameters <= most
    net.__class__ = Otherwise
    with pytest.raises(BadPruning, match="answers otherwise than the net with those channels silenced"):
        prune_to(student, net, bundles(student, net, "magnitude"), most)


def test_answers_are_the_same_up_to_rounding_and_no_further():
    torch.manual_seed(0)
    net = describe("mobilenet_v1", 5_000, 3, 32).build().eval()
    for change, same in ((1e-5, True), (0.02, False)):
        other = copy.deepcopy(net)
        with torch.no_grad():
            other.head.bias[1] += change
        assert same_answers(net, other, 32) is same
        assert same_answers(other, net, 32) is same


def test_cuts_of_one_layer_are_joined_end_to_end():
    first, second = (torch.tensor([4, 5]), torch.tensor([0, 1])), (torch.tensor([8]), torch.tensor([2]))
    indices, positions = joined(first, second)
    assert indices.tolist() == [4, 5, 8]
    assert positions.tolist() == [0, 1, 2]

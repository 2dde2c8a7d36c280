import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from bantam.errors import BadCheckpoint, BadRecipe
from bantam.nets import teachers
from bantam.nets.teachers import TEACHERS, Ensemble, Teacher, architecture_of, build_teacher, load_teacher
from bantam.nets.weights import load_weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def looking_as_the_student(net: nn.Module, size: int) -> Teacher:
    return Teacher(net, size, IMAGENET_MEAN, IMAGENET_STD, IMAGENET_MEAN, IMAGENET_STD)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return build_teacher("resnet18", 11)


def test_resnet18_is_the_course_teacher(resnet: nn.Module):
    assert sum(parameter.numel() for parameter in resnet.parameters()) == 11_182_155


@pytest.mark.parametrize("name", TEACHERS)
def test_every_entry_builds_and_shows_logits_embedding_and_stages(name: str):
    net = build_teacher(name, 7)
    output = looking_as_the_student(net, 64).observe(torch.zeros(2, 3, 32, 32))
    assert output.logits.shape == (2, 7)
    assert output.embedding.ndim == 2
    assert 4 <= len(output.features) <= 7
    sides = [maps.shape[-1] for maps in output.features]
    assert all(maps.ndim == 4 for maps in output.features)
    assert sides == sorted(sides, reverse=True)
    assert net.train()(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "maps"),
    [
        ("vgg11", 6),  # torchvision, one long Sequential
        ("squeezenet1_1", 4),  # no linear layer: the classifier is a convolution
        ("inception_v3", 7),  # a second classifier in train mode, unless it is left out
        ("convnext_pico", 4),  # timm, with feature_info
        ("vit_b_16", 1),  # tokens: its only map is that of the patches
    ],
)
def test_any_torchvision_or_timm_name_is_a_teacher(name: str, maps: int):
    with torch.device("meta"):
        net = build_teacher(name, 5)
        assert isinstance(net.train()(torch.zeros(2, 3, 224, 224)), Tensor)
        output = looking_as_the_student(net, 224).observe(torch.zeros(2, 3, 64, 64))
    assert output.logits.shape == (2, 5)
    assert output.embedding.ndim == 2
    assert len(output.features) == maps


def test_maps_with_channels_last_are_turned_to_the_contract():
    with torch.device("meta"):
        output = looking_as_the_student(build_teacher("swin_t", 5), 224).observe(torch.zeros(2, 3, 64, 64))
    assert tuple(output.features[-1].shape) == (2, 768, 7, 7)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("resnet81", "resnet18"), ("resnet50.a1_in1k", "resnet50"), ("hf-hub:timm/resnet50", "resnet50")],
)
def test_an_unknown_name_or_one_for_pretrained_weights_is_refused_with_the_nearest(wrong: str, nearest: str):
    with pytest.raises(BadRecipe, match=nearest) as caught:
        build_teacher(wrong, 11)
    assert "\n" not in str(caught.value)


def test_observe_gives_what_the_resnet_computes_step_by_step(resnet: nn.Module):
    net = resnet.eval()
    images = torch.randn(2, 3, 64, 64)
    output = looking_as_the_student(net, 64).observe(images)

    with torch.no_grad():
        maps = net.maxpool(net.relu(net.bn1(net.conv1(images))))  # pyright: ignore
        expected = []
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            maps = stage(maps)  # pyright: ignore
            expected.append(maps)
        embedding = maps.mean((2, 3))
        torch.testing.assert_close(output.features, tuple(expected))
        torch.testing.assert_close(output.embedding, embedding)
        torch.testing.assert_close(output.logits, net.fc(embedding))  # pyright: ignore
        torch.testing.assert_close(output.logits, net(images))


def test_the_view_is_renormalised_and_enlarged_bilinearly(resnet: nn.Module):
    pixels = torch.rand(2, 3, 32, 32)
    view_mean, view_std = (0.55, 0.45, 0.34), (0.27, 0.28, 0.25)
    view = (pixels - torch.tensor(view_mean).view(1, 3, 1, 1)) / torch.tensor(view_std).view(1, 3, 1, 1)
    teacher = Teacher(resnet, 96, IMAGENET_MEAN, IMAGENET_STD, view_mean, view_std)

    enlarged = functional.interpolate(pixels, size=(96, 96), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        expected = resnet.eval()((enlarged - mean) / std)
    torch.testing.assert_close(teacher(view), expected, rtol=1e-4, atol=1e-4)


def test_a_view_of_the_right_size_and_normalisation_reaches_the_net_untouched(resnet: nn.Module):
    received: list[Tensor] = []
    handle = resnet.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    images = torch.randn(1, 3, 48, 48)
    looking_as_the_student(resnet, 48)(images)
    handle.remove()
    assert received[0] is images


def test_it_stays_in_eval_mode_and_frozen_even_inside_a_training_module():
    teacher = looking_as_the_student(build_teacher("resnet18", 3), 32)
    nn.ModuleList([teacher]).train()
    statistics = {name: buffer.clone() for name, buffer in teacher.named_buffers()}
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    output = teacher.observe(images)

    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not output.logits.requires_grad
    assert not output.embedding.requires_grad
    assert not any(maps.requires_grad for maps in output.features)
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in teacher.named_buffers())


def test_it_works_in_inference_mode_and_keeps_no_batch_alive(resnet: nn.Module):
    teacher = looking_as_the_student(resnet, 32)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        inferred = teacher.observe(images)
    torch.testing.assert_close(inferred.logits, teacher(images))
    assert teacher._maps == []
    assert teacher._embedding is None


@pytest.fixture
def weights(tmp_path: Path, resnet: nn.Module) -> Path:
    path = tmp_path / "teacher.ckpt"
    torch.save(resnet.state_dict(), path)
    return path


def test_a_state_dict_loads_and_answers_the_same(weights: Path, resnet: nn.Module):
    images = torch.randn(1, 3, 64, 64)
    loaded = load_teacher(weights, "resnet18", 11)
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(images), resnet.eval()(images))


def test_another_number_of_classes_is_refused_with_both_numbers(weights: Path):
    with pytest.raises(BadCheckpoint, match="has 11 classes, the data has 10"):
        load_teacher(weights, "resnet18", 10)


@pytest.mark.parametrize("architecture", ["resnet34", "resnet50", "mobilenet_v2", "squeezenet1_1"])
def test_another_architecture_is_refused_in_one_line(weights: Path, architecture: str):
    with pytest.raises(BadCheckpoint) as caught:
        load_teacher(weights, architecture, 11)
    assert str(weights) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_shapes_are_refused_with_both(weights: Path, resnet: nn.Module):
    state = resnet.state_dict()
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(state, weights)
    with pytest.raises(BadCheckpoint, match=r"conv1.weight of shape \[64, 1, 7, 7\], not \[64, 3, 7, 7\]"):
        load_weights(resnet, weights)


def test_a_teacher_in_a_checkpoint_loads_and_what_was_unwrapped_is_said(weights: Path, resnet: nn.Module):
    """The rest of the ways is in test_weights.py."""
    state = {f"module.{name}": value for name, value in resnet.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, weights)
    said: list[str] = []
    loaded = load_teacher(weights, "resnet18", 11, said.append)
    assert said == [
        'teacher.ckpt: its weights are those in state_dict; the prefix "module." is taken off their names; '
        "left out: epoch"
    ]
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images), resnet.eval()(images))


def test_another_architecture_is_named(weights: Path, resnet: nn.Module, monkeypatch: pytest.MonkeyPatch):
    torch.save({"model": resnet.state_dict()}, weights)
    with pytest.raises(BadCheckpoint, match=r'lacks layer1\.2.*another architecture; they fit "resnet18"'):
        load_teacher(weights, "resnet34", 1000)
    monkeypatch.setattr(teachers, "USUAL", ())
    assert architecture_of({"weight": torch.zeros(3)}) is None


FOOD = Path(os.environ.get("BANTAM_FOOD11", Path(__file__).parents[3] / "shared" / "food-11"))


@pytest.mark.skipif(not (FOOD / "resnet18_teacher.ckpt").exists(), reason="the given teacher is not here")
def test_the_given_teacher_reaches_its_published_accuracy_at_112_px():
    chosen = sorted((FOOD / "validation").glob("*.jpg"))[::15]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in chosen])
    labels = torch.tensor([int(path.name.split("_")[0]) for path in chosen])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    teacher = looking_as_the_student(load_teacher(FOOD / "resnet18_teacher.ckpt", "resnet18", 11), 112)

    correct = torch.cat([teacher(batch).argmax(1) for batch in images.split(100)]) == labels
    published, spread = 0.754, (0.754 * 0.246 / len(labels)) ** 0.5
    assert abs(correct.float().mean().item() - published) < 3 * spread


def test_an_ensemble_answers_with_the_mean_of_the_probabilities() -> None:
    torch.manual_seed(0)
    members = [looking_as_the_student(build_teacher("resnet18", 4), size) for size in (32, 48)]
    together = Ensemble(members).train()
    images = torch.randn(3, 3, 32, 32)
    answer = together.observe(images)
    mean = sum(member(images).softmax(1) for member in members) / 2
    torch.testing.assert_close(answer.logits.softmax(1), mean)
    assert answer.embedding.shape == (3, 1024)
    assert not any(member.training for member in members)
    assert not answer.logits.requires_grad


def test_answers_in_bf16_are_float32_near_those_in_fp32_and_have_another_name(resnet: nn.Module):
    torch.manual_seed(1)
    views = torch.randn(4, 3, 48, 48)
    means = (IMAGENET_MEAN, IMAGENET_STD, IMAGENET_MEAN, IMAGENET_STD)
    exact, coarse = (Teacher(resnet, 64, *means, autocast=kind) for kind in (None, torch.bfloat16))
    one, other = exact.observe(views), coarse.observe(views)
    assert other.logits.dtype == other.embedding.dtype == other.features[-1].dtype == torch.float32
    assert not torch.equal(one.logits, other.logits)
    torch.testing.assert_close(other.logits, one.logits, rtol=0.05, atol=0.05)
    assert "bfloat16" in repr(coarse)
    assert repr(exact) == repr(looking_as_the_student(resnet, 64))

"""The arithmetic of a training is a function of the net and the machine, and choosing it leaves no trace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import bantam
from bantam.compress.integers import QuantizedLayer
from bantam.nets.students import STUDENTS, describe
from bantam.nets.teachers import build_teacher
from bantam.train import arithmetic
from bantam.train.arithmetic import Arithmetic, answering, choose, cores, density, quota, safe_format


def test_it_leaves_the_net_the_random_numbers_and_the_threads_as_they_were() -> None:
    net = describe("mobilenet_v1", 5000, 3, 32).build()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    assert choose(net, 32, "auto") == choose(net, 32, "auto")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_multiply_adds_an_output_by_hand() -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense, self.depthwise = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 5, groups=8)
            self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 5)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.depthwise(self.dense(images))).mean((2, 3)))

    dense, depthwise, head = 8 * 8 * 8, 8 * 4 * 4, 5
    expected = (dense * 27 + depthwise * 25 + head * 8) / (dense + depthwise + head)
    assert density(Squeezed(), 16) == pytest.approx(expected)


BF16 = "A Processor (avx2, avx512f, avx512_bf16, amx_bf16)"


@pytest.mark.parametrize(
    ("processor", "wanted", "dense", "others"),
    [
        (BF16, "auto", "bf16", "fp32"),
        ("A Processor (avx2)", "auto", "fp32", "fp32"),
        ("A Processor (avx2)", "bf16", "bf16", "bf16"),
        (BF16, "fp32", "fp32", "fp32"),
    ],
)
def test_bf16_is_for_dense_nets_where_the_processor_has_it(
    processor: str, wanted: str, dense: str, others: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arithmetic, "processor", lambda: processor)
    assert choose(build_teacher("resnet18", 11), 96, wanted).precision == dense
    assert answering(build_teacher("resnet18", 11), 96, wanted) == (torch.bfloat16 if dense == "bf16" else None)
    for family in STUDENTS:
        net = describe(family, 60_000, 11, 64).build()
        assert choose(net, 64, wanted).precision == (dense if family == "sample" else others), density(net, 64)


@pytest.mark.parametrize(
    ("inputs", "kernel", "stride", "groups", "expected"),
    [
        (7, 1, 2, 1, "contiguous"),
        (8, 1, 2, 1, "channels_last"),
        (7, 3, 2, 1, "channels_last"),
        (7, 1, 1, 1, "channels_last"),
        (7, 1, 2, 7, "channels_last"),
    ],
)
def test_a_net_that_would_break_in_channels_last_trains_in_contiguous_format(
    inputs: int, kernel: int, stride: int, groups: int, expected: str
) -> None:
    layer = nn.Conv2d(inputs, 7, kernel, stride, groups=groups)
    net = nn.Sequential(nn.Conv2d(3, inputs, 3), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert choose(net, 16, "fp32").memory_format == expected
    assert choose(net, 16, "auto").memory_format == expected


def test_a_layer_on_integers_is_no_safer() -> None:
    for inputs, expected in ((7, "contiguous"), (8, "channels_last")):
        assert safe_format(nn.Sequential(QuantizedLayer(nn.Conv2d(inputs, 7, 1, 2), 8))) == expected


def test_threading_is_for_as_long_as_it_lasts() -> None:
    before = torch.get_num_threads()
    with Arithmetic(threads=before + 2).threading():
        assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("told", "bound", "given", "expected"), [(4, 8, None, 4), (8, 3, None, 3), (8, 8, 2, 2), (1, 8, 8, 1), (5, 6, 7, 5)]
)
def test_all_cores_that_this_process_may_use(
    told: int, bound: int, given: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: told)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(bound)), raising=False)
    monkeypatch.setattr(arithmetic, "quota", lambda _: given)
    assert cores() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", None), ("200000 100000\n", 2), ("250000 100000\n", 2), ("50000 100000\n", 1), ("", None),
        ("x y\n", None), (None, None),
    ],
)  # fmt: skip
def test_a_containers_share_of_the_cores(text: str | None, expected: int | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)
    assert quota(tmp_path / "cpu.max") == expected


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings another OpenMP runtime there")
@pytest.mark.parametrize(
    ("code", "told", "expected"),
    [
        ("import bantam, torch", None, "PASSIVE"),
        ("import bantam, torch", "active", "ACTIVE"),
        ("import torch, bantam, os; assert 'OMP_WAIT_POLICY' not in os.environ", None, ""),
    ],
    ids=["by itself", "as the user wants it", "too late"],
)
def test_threads_sleep_while_they_wait(code: str, told: str | None, expected: str) -> None:
    """As the OpenMP runtime itself says, once torch has loaded it."""
    unset = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"OMP_DISPLAY_ENV": "verbose"} | ({"OMP_WAIT_POLICY": told} if told else {})
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    (policy,) = {line.split("=")[1].strip(" '") for line in ran.stderr.splitlines() if "OMP_WAIT_POLICY" in line}
    if expected:
        assert policy == expected
    short = any(f"GOMP_SPINCOUNT = '{count}'" in ran.stderr for count in (0, bantam.SPINS))
    assert short == (expected == "PASSIVE")


@pytest.mark.parametrize(
    ("load", "spins"),
    [("0.10 0.20 0.30 1/89 4711", True), ("0.10 0.20 0.30 2/89 4711", False), ("9 9 9 12/89 1", False), ("", False)],
)
def test_threads_wait_awake_for_a_moment_where_nobody_else_computes(load: str, spins: bool) -> None:
    told = bantam.waiting(load)
    assert told["OMP_WAIT_POLICY"] == "passive"
    assert told.get("GOMP_SPINCOUNT") == (str(bantam.SPINS) if spins else None)

"""Ways in which people save a teacher, each with what Bantam makes of it: the table WAYS, for any classifier."""

import argparse
import copy
import datetime
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

Weights = dict[str, Tensor]


class Small(nn.Module):
    """A classifier of 11 classes whose layers are named as those of a ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)))
        self.fc = nn.Linear(4, 11)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.layer1(self.bn1(self.conv1(images))).mean((2, 3)))


@dataclass(frozen=True)
class Way:
    """`save` writes a net to a path. `says` is what the one line of the loader holds: about what it unwrapped, nothing
    for a plain state_dict, or where `loads` is False the reason for its refusal. `name` is what FILE#NAME needs."""

    save: Callable[[nn.Module, Path], Any]
    says: str
    loads: bool = True
    name: str = ""


class Config:
    """An object of another library, as configurations are."""

    def __init__(self) -> None:
        self.lr = 0.1


class AttributeDict(dict[str, Any]):
    """A dict of another library, as hyperparameters are."""


class CallsPrint:
    """What a reader of pickles would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not be printed",)


class CallsShell:
    def __reduce__(self) -> tuple[Any, ...]:
        import subprocess

        return subprocess.check_output, (["touch", "must-not-be-there"],)


def weights(net: nn.Module) -> Weights:
    return {name: value.clone() for name, value in net.state_dict().items()}


def other(net: nn.Module) -> Weights:
    """Weights that fit the same net and are others, as averaged ones are."""
    return {name: value + 1 if value.is_floating_point() else value for name, value in weights(net).items()}


def under(prefix: str, state: Weights) -> Weights:
    return {prefix + name: value for name, value in state.items()}


def held(make: Callable[[nn.Module], Any]) -> Callable[[nn.Module, Path], None]:
    """Save what `make` makes of a net, with torch.save."""
    return lambda net, path: torch.save(make(net), path)


def typed(dtype: torch.dtype) -> Callable[[nn.Module, Path], None]:
    return held(lambda net: {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights(net).items()})


def lightning(net: nn.Module) -> dict[str, Any]:
    return {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {**under("model.", weights(net)), "criterion.weight": torch.ones(3)},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "dirpath": Path("checkpoints")}},
        "optimizer_states": [optimizer(net)],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 0.1, "config": Config()},
    }


def optimizer(net: nn.Module) -> dict[str, Any]:
    of = torch.optim.Adam(net.parameters())
    return {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": of.state_dict()["param_groups"]}


def timm(net: nn.Module, *averaged: str) -> dict[str, Any]:
    args = argparse.Namespace(model="resnet18", lr=np.float64(0.1), output=Path("out"))
    around = {"epoch": 9, "arch": "resnet18", "version": 2, "args": args, "metric": np.float64(75.0)}
    return {**around, "state_dict": weights(net), "optimizer": optimizer(net), **dict.fromkeys(averaged, other(net))}


def last_linear(net: nn.Module) -> str:
    return [name for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1]


def with_classifier(name: str, backbone: str = "") -> Callable[[nn.Module], Weights]:
    """The classifier by another name, the rest under `backbone`."""

    def make(net: nn.Module) -> Weights:
        of = last_linear(net)
        return {
            (name + key.removeprefix(of) if key.startswith(f"{of}.") else backbone + key): value
            for key, value in weights(net).items()
        }

    return make


def without_counters(net: nn.Module) -> Weights:
    return {name: value for name, value in weights(net).items() if not name.endswith("num_batches_tracked")}


def spoiled(value: float) -> Callable[[nn.Module], Weights]:
    def make(net: nn.Module) -> Weights:
        state = weights(net)
        next(iter(state.values())).view(-1)[7] = value
        return state

    return make


def flipped(net: nn.Module, path: Path) -> None:
    """One bit of the numbers is another one."""
    torch.save(net.state_dict(), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def widened(net: nn.Module) -> Weights:
    """A classifier of more classes."""
    of = last_linear(net)
    return {name: torch.cat([v, v]) if name.startswith(f"{of}.") else v for name, v in weights(net).items()}


def scripted(net: nn.Module, path: Path) -> None:
    torch.jit.trace(copy.deepcopy(net).eval(), torch.zeros(1, 3, 64, 64)).save(str(path))  # pyright: ignore


WAYS: dict[str, Way] = {
    # Plain, in every container and file format.
    "state_dict": Way(held(weights), ""),
    "state_dict as it comes": Way(held(lambda net: net.state_dict()), ""),
    "legacy file format": Way(
        lambda net, path: torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False), ""
    ),
    "OrderedDict": Way(held(lambda net: OrderedDict(weights(net))), ""),
    "Parameters": Way(held(lambda net: {**weights(net), **dict(net.named_parameters())}), ""),
    "another order": Way(held(lambda net: dict(reversed(weights(net).items()))), ""),
    "safetensors": Way(lambda net, path: save_file(weights(net), path), ""),
    "safetensors of DataParallel": Way(lambda net, path: save_file(under("module.", weights(net)), path), "module."),
    "list of state_dict and epoch": Way(held(lambda net: [weights(net), 3]), "its weights are those in 0"),
    # Prefixes.
    **{
        f"prefix {prefix}": Way(held(lambda net, prefix=prefix: under(prefix, weights(net))), f'prefix "{prefix}"')
        for prefix in (
            *("module.", "_orig_mod.", "student.", "model.", "net.", "backbone.", "teacher.", "encoder.q."),
            *("module._orig_mod.", "module._orig_mod.model.", "_orig_mod.module.model.", "model.module.", "0."),
        )
    },
    "wrappers within": Way(
        held(lambda net: {k.replace(".weight", "._orig_mod.weight"): v for k, v in weights(net).items()}), "wrappers"
    ),
    "AveragedModel": Way(
        held(lambda net: torch.optim.swa_utils.AveragedModel(net).state_dict()), "left out: n_averaged"
    ),
    "normalisation before": Way(
        held(lambda net: {"0.mean": torch.zeros(3), **under("1.", weights(net))}), "left out: 0.mean"
    ),
    # Within a checkpoint.
    **{
        f"in {key}": Way(
            held(lambda net, key=key: {"epoch": 3, key: weights(net), "optimizer": optimizer(net)}),
            f"its weights are those in {key}; left out: epoch, optimizer",
        )
        for key in ("state_dict", "model", "model_state_dict", "net", "weights", "model_state", "params", "teacher")
    },
    "in a dict of a dict": Way(held(lambda net: {"a": {"model": weights(net)}}), "its weights are those in a.model"),
    "a prefix in state_dict": Way(held(lambda net: {"state_dict": under("module.", weights(net))}), 'prefix "module."'),
    "beside other values": Way(held(lambda net: {**weights(net), "epoch": 3, "acc": 0.7}), "left out: epoch, acc"),
    "Lightning": Way(held(lightning), 'in state_dict; the prefix "model."'),
    "timm": Way(held(timm), "its weights are those in state_dict"),
    "averaged weights, the same": Way(held(lambda net: {"model": weights(net), "ema": weights(net)}), "model"),
    "averaged weights by name": Way(held(lambda net: timm(net, "state_dict_ema")), "state_dict", name="state_dict"),
    "teacher by name": Way(
        held(lambda net: under("teacher.", weights(net)) | under("student.", other(net))), "teacher.", name="teacher"
    ),
    "a student of other classes beside": Way(
        held(lambda net: {"teacher": weights(net), "student": widened(net)}), "its weights are those in teacher"
    ),
    # Types.
    "half precision": Way(typed(torch.float16), "float16 converted to float32"),
    "bfloat16": Way(typed(torch.bfloat16), "bfloat16 converted to float32"),
    "double precision": Way(typed(torch.float64), "float64 converted to float32"),
    "without counters": Way(held(without_counters), "num_batches_tracked"),
    "counted by thop": Way(
        held(lambda net: {**weights(net), "total_ops": torch.zeros(1), "conv1.total_params": torch.zeros(1)}),
        "left out: total_ops, conv1.total_params",
    ),
    "Namespace beside": Way(
        held(lambda net: {"args": argparse.Namespace(lr=1), "model": weights(net)}), "argparse.Namespace"
    ),
    "numpy beside": Way(held(lambda net: {"best": np.float32(1), "a": np.zeros(3), "model": weights(net)}), "numpy."),
    "paths and dates beside": Way(
        held(lambda net: {"at": datetime.datetime.now(), "out": Path("x"), "model": weights(net)}), "PosixPath"
    ),
    "defaultdict beside": Way(
        held(lambda net: {"log": defaultdict(list, a=[1]), "np": np.float64(1), "model": weights(net)}), "defaultdict"
    ),
    "another library's objects beside": Way(
        held(lambda net: {"c": Config(), "hparams": AttributeDict(lr=1), "model": weights(net)}), "Config"
    ),
    "Namespace in the legacy format": Way(
        lambda net, path: torch.save(
            {"args": argparse.Namespace(lr=1), "model": weights(net)}, path, _use_new_zipfile_serialization=False
        ),
        "argparse.Namespace",
    ),
    # The classifier by another name.
    "dropout before the classifier": Way(
        held(lambda net: with_classifier(f"{last_linear(net)}.1")(net)), "its classifier is"
    ),
    "classifier outside of the backbone": Way(
        held(with_classifier("head", "backbone.")), "its classifier is head there"
    ),
    # What is refused.
    "averaged weights beside": Way(
        held(lambda net: timm(net, "state_dict_ema")), "in state_dict, state_dict_ema; name one", loads=False
    ),
    "teacher and student": Way(
        held(lambda net: under("teacher.", weights(net)) | under("student.", other(net))),
        "teacher, student",
        loads=False,
    ),
    "teacher and student in dicts": Way(
        held(lambda net: {"teacher": weights(net), "student": other(net)}), "teacher, student", loads=False
    ),
    "a name that is not there": Way(held(lambda net: timm(net)), "holds nothing named ema", loads=False, name="ema"),
    "more classes": Way(held(widened), "has 22 classes, the data has 11", loads=False),
    "a classifier too many": Way(
        held(lambda net: {**weights(net), "head.weight": torch.zeros(3, 3)}), "unknown head.weight", loads=False
    ),
    "a backbone alone": Way(
        held(lambda net: {k: v for k, v in weights(net).items() if not k.startswith(f"{last_linear(net)}.")}),
        "lacks",
        loads=False,
    ),
    "whole net": Way(lambda net, path: torch.save(net, path), "whole objects", loads=False),
    "whole net in a dict": Way(held(lambda net: {"model": net, "epoch": 3}), "whole objects", loads=False),
    "TorchScript": Way(scripted, "TorchScript", loads=False),
    "pickle": Way(lambda net, path: path.write_bytes(pickle.dumps(weights(net))), "torch.save", loads=False),
    "not a number": Way(held(spoiled(float("nan"))), "not finite", loads=False),
    "infinite": Way(held(spoiled(float("inf"))), "not finite", loads=False),
    "complex": Way(typed(torch.complex64), "as complex64", loads=False),
    "integers": Way(typed(torch.int8), "as int8", loads=False),
    "sparse": Way(
        held(lambda net: {k: v.to_sparse() if v.ndim == 2 else v for k, v in weights(net).items()}),
        "sparse",
        loads=False,
    ),
    "without storage": Way(
        held(lambda net: {k: v.to("meta") for k, v in weights(net).items()}), "without", loads=False
    ),
    "optimizer alone": Way(held(lambda net: {"optimizer": optimizer(net)}), "lacks", loads=False),
    "empty": Way(held(lambda net: {}), "empty", loads=False),
    "a number": Way(held(lambda net: 3), "int", loads=False),
    "one flipped bit": Way(flipped, "damaged", loads=False),
    "code beside": Way(held(lambda net: {"model": weights(net), "hook": CallsPrint()}), "print", loads=False),
    "a shell beside": Way(held(lambda net: {"model": weights(net), "hook": CallsShell()}), "check_output", loads=False),
}

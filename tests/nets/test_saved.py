"""What people saved is read as plain data or refused; nothing in it runs."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from bantam.errors import BadCheckpoint
from bantam.nets.saved import ForeignMapping, harmless, read


@pytest.mark.parametrize("name", ["os.system", "subprocess.Popen", "builtins.eval", "builtins.getattr", "commands.x"])
def test_what_the_standard_library_can_do_is_no_data(name: str):
    assert not harmless(name)
    assert harmless("argparse.Namespace")
    assert harmless("omegaconf.dictconfig.DictConfig")


def test_stand_ins_take_everything():
    assert ForeignMapping(1, a=2) == {}


class RunsCode:
    """A pickle of this makes a folder when it is read by a reader that runs code."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["torch", "legacy", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path, form: str):
    path, target = tmp_path / "evil.ckpt", tmp_path / "made"
    if form == "pickle":
        path.write_bytes(pickle.dumps(RunsCode(target), protocol=2))
    else:
        torch.save({"weight": RunsCode(target)}, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(BadCheckpoint) as caught:
        read(path)
    assert not target.exists()
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused_in_one_line(tmp_path: Path):
    for path in (tmp_path / "absent.ckpt", tmp_path):
        with pytest.raises(BadCheckpoint, match="cannot read"):
            read(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_a_changed_bit_and_a_program_are_named(tmp_path: Path):
    path = tmp_path / "whole.ckpt"
    torch.save({"weight": torch.arange(1000.0)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(torch.arange(500.0, 504.0).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadCheckpoint, match="is damaged: the CRC-32 of whole/data/0 does not fit"):
        read(path)
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    with pytest.raises(BadCheckpoint, match="a TorchScript program, whose code is not run"):
        read(path)

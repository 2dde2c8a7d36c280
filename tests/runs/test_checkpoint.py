import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bantam.errors import BadCheckpoint, CannotWrite
from bantam.runs import checkpoint

DIES_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import torch
from bantam.runs import checkpoint

def half(state, file):
    file.write(b"half a checkpoint")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

torch.save = half
checkpoint.save(Path(sys.argv[1]), {"x": torch.ones(3)})
"""


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of a checkpoint was run')",)


def test_a_process_killed_while_writing_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    checkpoint.save(path, {"x": torch.zeros(3)})
    died = subprocess.run([sys.executable, "-c", DIES_WHILE_WRITING, str(path)])
    assert died.returncode == -9
    assert torch.equal(checkpoint.load(path)["x"], torch.zeros(3))
    assert len(list(tmp_path.iterdir())) == 2  # the half-written file waits under its temporary name


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(BadCheckpoint, match=r"cannot load .*last\.ckpt") as raised:
        checkpoint.load(path)
    assert "\n" not in str(raised.value)


def test_code_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"x": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(BadCheckpoint):
        checkpoint.load(tmp_path / "evil.ckpt")


def test_a_full_disk_is_reported_and_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    checkpoint.save(path, {"x": 1})

    def full(state: object, file: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CannotWrite, match="free some space"):
        checkpoint.save(path, {"x": 2})
    assert checkpoint.load(path) == {"x": 1}

import errno
from pathlib import Path

import pytest

from bantam.errors import CannotWrite
from bantam.files import replacing, sweep, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match=r"cannot write .*a\.txt: No space left on device; free some space"):
        with replacing(tmp_path / "a.txt"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_a_real_full_device_is_reported(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(CannotWrite), replacing(tmp_path / "a.txt") as temporary:
        temporary.symlink_to("/dev/full")
        with open(temporary, "w") as file:
            file.write("x" * 100_000)


def test_a_file_where_a_folder_must_be_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="cannot write"):
        write_json(tmp_path / "file" / "a.json", {})


def test_sweep_deletes_leftovers_alone(tmp_path: Path) -> None:
    (tmp_path / ".a.json.123.tmp").write_text("half")
    write_json(tmp_path / "a.json", {"x": 1})
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]

import errno
import json
import os
import secrets
from pathlib import Path

import pytest

from bantam.errors import CannotWrite, NotFinite
from bantam.files import read_sealed, replacing, sweep, write_json, write_sealed, write_text
from damage import flipped


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
        temporary.unlink()
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


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the system from here on, in order: flushes by what they flush, and renames."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flushed(descriptor: int) -> None:
        calls.append("flush " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix)
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    return calls


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not tell what a descriptor is of")
def test_the_file_is_on_the_disk_before_its_name_and_the_name_before_the_end(tmp_path: Path, system: list[str]) -> None:
    write_text(tmp_path / "a.txt", "x")
    assert system == ["flush .tmp", "rename", "flush "]


def test_a_temporary_file_of_another_process_with_the_same_number_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = iter(["aa", "bb"])
    monkeypatch.setattr(secrets, "token_hex", lambda count: next(tokens))
    theirs = tmp_path / f".a.txt.{os.getpid()}-aa.tmp"
    theirs.write_text("theirs")
    write_text(tmp_path / "a.txt", "mine")
    assert theirs.read_text() == "theirs"
    assert (tmp_path / "a.txt").read_text() == "mine"


def test_files_have_the_rights_that_the_user_gives_new_files(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "x")
    (tmp_path / "b.txt").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_not_written(tmp_path: Path, number: float) -> None:
    for write in (write_json, write_sealed):
        with pytest.raises(NotFinite, match=r"a\.json: a number in it is not finite"):
            write(tmp_path / "a.json", {"x": [number]})
    assert not list(tmp_path.iterdir())


def test_a_sealed_table_comes_back_as_it_was(tmp_path: Path) -> None:
    table = {"b": (1, 2.5), "a": {"10": None, "9": "é"}, "c": {2: True, 10: False}}
    written = write_sealed(tmp_path / "a.json", table)
    assert read_sealed(tmp_path / "a.json") == json.loads(json.dumps(table))
    assert json.loads((tmp_path / "a.json").read_text()) == written


def test_every_flipped_bit_of_a_sealed_table_is_found_or_does_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, {"accuracy": 0.5, "name": "tiny", "n": 12})
    data, right = path.read_bytes(), read_sealed(path)
    found = 0
    for bit in range(8 * len(data)):
        path.write_bytes(flipped(data, bit))
        try:
            given = read_sealed(path)
        except ValueError:
            found += 1
        else:
            assert given == right or (given.pop(next(reversed(given))), given)[1] == right  # the seal's own name
    assert found > 0.9 * 8 * len(data)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000, '{"x": NaN}', '{"x": ' + "1" * 5000 + "}"])
def test_what_is_no_table_is_a_value_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError):
        read_sealed(tmp_path / "a.json")

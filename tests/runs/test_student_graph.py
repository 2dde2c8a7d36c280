"""The recorded graph of a run's student: read whole, as it was recorded, or not at all."""

import shutil
from pathlib import Path

import pytest

from bantam.errors import BadData, BadRunFile
from bantam.files import sha256_of
from bantam.runs import runfolder
from bantam.runs.finished import FOOD11
from bantam.runs.student_graph import GRAPH, RECORD, graph


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOOD11, tmp_path / "run"))


def test_it_is_the_file_that_was_recorded(run: Path) -> None:
    assert graph(run) == (FOOD11 / GRAPH).read_bytes()


def test_what_is_not_recorded_or_not_there_answers_nothing(run: Path) -> None:
    told = runfolder.student(run)
    runfolder.write(run / runfolder.STUDENT, {name: item for name, item in told.items() if name != RECORD})
    assert graph(run) is None  # as `bantam export` may leave one: of whatever student
    runfolder.write(run / runfolder.STUDENT, told)
    (run / GRAPH).unlink()
    assert graph(run) is None


@pytest.mark.parametrize("damage", ["a bit", "the end", "another graph", "nothing"])
def test_any_other_file_in_its_place_is_one_line(run: Path, damage: str) -> None:
    whole = (run / GRAPH).read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    (run / GRAPH).write_bytes({"a bit": flipped, "the end": whole[:-1], "another graph": b"?", "nothing": b""}[damage])
    with pytest.raises(BadRunFile, match=r"student\.onnx is not the file that was written here.*put it back"):
        graph(run)


def test_a_folder_in_its_place_and_a_folder_without_a_student_say_so(run: Path, tmp_path: Path) -> None:
    (run / GRAPH).unlink()
    (run / GRAPH).mkdir()
    with pytest.raises(BadRunFile, match=r"cannot read .*student\.onnx"):
        graph(run)
    with pytest.raises(BadData, match=r"no student\.json"):
        graph(tmp_path)


@pytest.mark.parametrize("record", ["", "0" * 64, 3, ["a"]])
def test_a_record_that_is_none_fits_no_graph(run: Path, record: object) -> None:
    runfolder.write(run / runfolder.STUDENT, {**runfolder.student(run), RECORD: record})
    with pytest.raises(BadRunFile, match="SHA-256"):
        graph(run)
    runfolder.write(run / runfolder.STUDENT, {**runfolder.student(run), RECORD: sha256_of(run / GRAPH)})
    assert graph(run) is not None

"""The cache's folder: made where it is missing, and cleared of what dead builds left."""

from pathlib import Path

from bantam.data.store import TEMPORARY, building_alone


def test_the_folder_is_made_with_all_above_it_and_dead_builds_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    with building_alone(folder):
        assert (folder / "lock").is_file()
    (folder / f"{TEMPORARY}-1" / "inner").mkdir(parents=True)
    (folder / "hashes").mkdir()
    (folder / "hashes" / ".half.tmp").touch()
    (folder / "hashes" / "whole").touch()
    with building_alone(folder):
        assert {path.relative_to(folder).as_posix() for path in folder.rglob("*")} == {"lock", "hashes", "hashes/whole"}

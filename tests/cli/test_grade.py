"""`bantam grade --name` and `bantam leaderboard` as a user types them."""

import json
import sys
from pathlib import Path

import pytest

from bantam.cli import main as cli


@pytest.fixture
def bantam(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bantam", *map(str, words)])
        try:
            cli.main()
            status = 0
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_submissions_are_entered_shown_and_revealed(bantam, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "Id,Category,Usage\n" + "".join(f"{n},{n % 3},{'Public' if n < 6 else 'Private'}\n" for n in range(12))
    )
    paths = [tmp_path / f"{k}.csv" for k in range(3)]
    for k, path in enumerate(paths):
        path.write_text("Id,Category\n" + "".join(f"{n},{n % 3 if n > k else (n + 1) % 3}\n" for n in range(12)))
    assert "no leaderboard" in bantam("leaderboard", labels)[2]
    status, out, _ = bantam("grade", paths[0], "--labels", labels, "--name", "net 0", "--per-day", 2)
    assert status == 0
    assert "submission 1 of 2 today" in out
    assert "hidden" in out
    status, out, _ = bantam("grade", paths[0], "--labels", labels, "--name", "net 0 again")
    assert "entered before, as net 0" in out
    answer = json.loads(bantam("grade", paths[2], "--labels", labels, "--name", "net 2", "--json")[1])
    assert (answer["place"], answer["today"], answer["repeated"]) == (2, 2, False)
    assert "private" not in answer
    status, _, error = bantam("grade", paths[1], "--labels", labels, "--name", "net 1", "--per-day", 2)
    assert status == 1
    assert error.count("\n") == 1
    assert "2 a day are allowed" in error
    assert "private" not in bantam("leaderboard", labels, "--json")[1]
    rows = json.loads(bantam("leaderboard", labels, "--json", "--reveal")[1])
    assert {row["private"] for row in rows if "name" in row} == {1.0}
    assert "1.00000 ± 0.0000" in bantam("leaderboard", labels, "--reveal")[1]

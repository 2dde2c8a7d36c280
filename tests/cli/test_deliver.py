"""The three commands as a user types them: what they print, and their exit status."""

import json
import sys
from pathlib import Path

import pytest

from bantam.cli import main as cli


def call(words: list[object], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["bantam", *map(str, words)])
    try:
        cli.main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def test_package_verify_and_report_follow_each_other(
    own_run: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["package", own_run], monkeypatch) == 0
    said = capsys.readouterr().out
    assert "of 5,000 parameters" in said
    archive = own_run / "hw13.zip"
    assert f"next: bantam verify {archive}" in said

    assert call(["verify", archive, "--data", photographs], monkeypatch) == 0
    assert "--run-code" in capsys.readouterr().out
    assert call(["verify", archive, "--data", photographs, "--budget", "100", "--json"], monkeypatch) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False

    assert call(["report", own_run, "--json"], monkeypatch) == 0
    written = json.loads(capsys.readouterr().out)
    assert Path(written["html"]).is_file()
    assert Path(written["markdown"]).is_file()


def test_package_with_photographs_verifies_and_its_status_says_so(
    own_run: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Fails before the code would run; that a good one passes with its code run, test_documented_commands.py sees.
    rows = (own_run / "submission.csv").read_text().splitlines()
    (own_run / "submission.csv").write_text("\n".join(rows[:-1]) + "\n")
    assert call(["package", own_run, "--data", photographs], monkeypatch) == 1
    assert "FAIL: submission" in capsys.readouterr().out
    assert call(["package", own_run, "--data", photographs, "--json"], monkeypatch) == 1
    assert json.loads(capsys.readouterr().out)["verified"]["passed"] is False


def test_what_a_user_can_cause_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("package", "report"):
        assert call([command, tmp_path], monkeypatch) == 1
        error = capsys.readouterr().err
        assert error.startswith("bantam: ")
        assert error.count("\n") == 1

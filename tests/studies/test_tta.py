"""`bantam views` and `bantam predict --view-confidence` as a user types them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bantam.cli import main as cli
from bantam.runs.finished import open_run


def call(monkeypatch: pytest.MonkeyPatch, *words: Any) -> int:
    monkeypatch.setattr(sys, "argv", ["bantam", *map(str, words)])
    try:
        cli.main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_the_curve_and_a_threshold_are_measured_and_kept(monkeypatch, capsys, own_run: Path, photographs: Path) -> None:
    words = ("views", own_run, "--data", photographs, "--views", "zoom", "--drop", 1)
    assert call(monkeypatch, *words, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert json.loads(open_run(own_run).views.read_text()) == result
    assert {path.suffix for path in (own_run / "views").iterdir()} == {".json", ".csv", ".svg"}
    one, two, four = result["macs"]
    assert (two, four) == (2 * one, 4 * one)
    assert [row["kind"] for row in result["rows"][:3]] == ["plain alone", "flip alone", "zoom alone"]
    measured = json.loads((own_run / "metrics.json").read_text())["validation"]["by_views"]
    assert [row["accuracy"] for row in result["rows"][:3]] == [measured[name] for name in ("plain", "flip", "zoom")]
    assert result["chosen"]["shares"] == [1, 0, 0]  # any drop is allowed, and one view is the cheapest
    assert result["chosen"]["mean_macs"] == one
    assert call(monkeypatch, *words) == 0
    assert "75.0% fewer mean MACs than zoom alone" in capsys.readouterr().out


def test_predict_takes_further_views_while_unsure(
    monkeypatch, capsys, own_run: Path, photographs: Path, tmp_path: Path
) -> None:
    def submitted(name: str, *words: Any) -> list[str]:
        out = tmp_path / f"{name}.csv"
        assert call(monkeypatch, "predict", own_run, "--data", photographs, "--out", out, *words) == 0
        return lines_of(out)

    sure = submitted("sure", "--views", "crops", "--view-confidence", 0)
    assert "12 left at plain, 0 left at flip, 0 left at zoom, 0 at crops" in capsys.readouterr().out
    assert sure == submitted("plain", "--views", "plain")
    assert submitted("unsure", "--views", "crops", "--view-confidence", 1) == submitted("crops", "--views", "crops")


def test_photographs_take_further_views_while_unsure(monkeypatch, capsys, tmp_path: Path) -> None:
    photo = tmp_path / "plate.jpg"
    Image.linear_gradient("L").resize((90, 70)).save(photo)
    words = ("predict", photo, "--views", "zoom")
    assert call(monkeypatch, *words, "--view-confidence", 1) == 0
    first, left, *_ = capsys.readouterr().out.splitlines()
    assert left.startswith("0 left at plain, 0 left at flip, 1 at zoom")
    assert call(monkeypatch, *words) == 0
    assert capsys.readouterr().out.splitlines()[0] == first


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["views", "RUN", "--data", "DATA", "--views", "plain"], "choose --views from flip, zoom, crops"),
        (["views", "RUN", "--data", "DATA", "--views", "zoom", "--confidence", "1"], "no image reaches"),
        (["views", "RUN", "--data", "DATA", "--views", "zoom", "--drop", "2"], "--drop = 2 must lie in 0..1"),
        (["views", "RUN", "--data", "DATA", "--views", "zoom", "--macs", "1"], "one crop alone takes"),
        (["views", "RUN", "--data", "DATA", "--macs", "1", "--confidence", "0.5"], "give one of them"),
        (["predict", "RUN", "--data", "DATA", "--views", "zoom", "--view-confidence", "2"], "must lie in 0..1"),
        (["predict", "RUN", "--data", "DATA", "--views", "plain", "--view-confidence", "0.5"], "choose --views from"),
        (["predict", "RUN", "--data", "DATA", "--exit-confidence", "0.5", "--view-confidence", "0.5"], "leave out"),
    ],
)
def test_a_wrong_call_is_one_line_and_writes_nothing(
    monkeypatch, capsys, own_run: Path, photographs: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *[{"RUN": own_run, "DATA": photographs}.get(word, word) for word in words]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert says in error[-1]
    assert not (own_run / "views").exists()
    assert not (tmp_path / "submission.csv").exists()

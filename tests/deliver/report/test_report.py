"""The report answers every question from the run's facts, says what is missing, and is one page that needs nothing."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from bantam.cli import main as cli
from bantam.deliver.report import evidence, facts, prunings, questions
from bantam.deliver.report.document import Table
from bantam.deliver.report.facts import reliability
from bantam.deliver.report.report import as_exercise, as_own, is_exercise, markdown_cell, report
from bantam.deliver.report.units import milliseconds, products, size_of
from bantam.errors import BadData, RunMismatch
from bantam.measure.accuracy import calibration
from bantam.nets.students import STUDENTS
from bantam.objectives import OBJECTIVES
from bantam.recipes import recipe as recipes
from bantam.recipes.recipe import parse
from bantam.runs import listed, runfolder
from bantam.runs.finished import load_shipped, open_run
from bantam.runs.watcher import Watcher
from bantam.studies.prune import Source, curve_out
from tiny_run import RECIPE

MADE_BY = {"commit": "abc", "versions": {"torch": "2"}, "cores": 2}


class Page(HTMLParser):
    """Collects the tags of a page, and checks that they nest."""

    VOID = frozenset({"meta", "img", "link", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_measured_run_is_reported_whole(
    own_run: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no benchmark has left its results
    out = own_run / "report" / "report.html"
    written = report(open_run(own_run), out, photographs, MADE_BY, Watcher())
    page = out.read_text()
    parsed = Page(page)
    titles = re.findall(r'<h2 id="[^"]+">([^<]+)</h2>', page)
    # These are nobody's exercise: no numbers of questions, and no studies that nobody asked for.
    assert titles[:3] == ["Result", "The student&#39;s architecture", "Its layers and its weight"]
    assert titles[-1] == "Methods and references"
    assert written.missing == ()
    assert not [title for title in titles if "runing" in title]

    # Self-contained, and every image has words.
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)
    assert "@import" not in page
    assert "url(" not in page
    images = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert len(images) == 12
    assert all(attributes["alt"] for attributes in images)
    drawn = [attributes for tag, attributes in parsed.tags if tag == "svg"]
    assert len(drawn) == len(written.plots) == 4
    assert all(attributes["aria-label"] for attributes in drawn)
    names = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(names) == len(set(names))

    # The same in Markdown, whose plots lie beside it.
    markdown = written.markdown.read_text()
    assert [line[3:6] for line in markdown.splitlines() if line.startswith("## ")] == [t[:3] for t in titles]
    for path in re.findall(r"\]\(([^)]+\.svg)\)", markdown):
        assert (out.parent / path).is_file()
    assert "data:image" not in markdown

    # The facts are kept, agree with the run's own, and the report can be made from them without the photographs.
    known = json.loads(open_run(own_run).facts.read_text())
    metrics = json.loads((own_run / "metrics.json").read_text())
    assert known["validation"]["correct"] / known["validation"]["n"] == metrics["validation"]["accuracy"]
    assert sum(map(sum, known["validation"]["confusion"])) == 30
    assert known["costs"]["student"]["parameters"]["unique"] == metrics["parameters"]["unique"]
    again = report(open_run(own_run), out, None, MADE_BY, Watcher())
    assert [title[:3] for title in again.missing] == ["The"]
    assert "<img" not in out.read_text()


def test_the_same_call_gives_the_same_report_wherever_it_is_made(
    own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a checkout that others' measurements lie in, nor the environment, says anything in a run's report."""
    pages: list[list[bytes]] = []
    checkout = Path(__file__).parents[3]
    for folder, commit in ((tmp_path, None), (checkout, "abc")):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("BANTAM_CACHE", str(tmp_path / "other-cache"))
        if commit:
            monkeypatch.setenv("BANTAM_COMMIT", commit)
        written = report(open_run(own_run), own_run / "report" / "report.html", None, MADE_BY, Watcher())
        pages.append([path.read_bytes() for path in (written.html, written.markdown, *written.plots)])
    assert (checkout / "results" / "benchmarks" / "pruning_speed.json").is_file()
    assert pages[0] == pages[1]
    assert b"masked" not in pages[1][0]


def test_a_run_without_a_teacher_is_not_sent_in_a_circle(own_run: Path) -> None:
    """It is not told to measure what it has not, nor to prune a teacher of others."""
    without = open_run(own_run)
    assert [block.kind for block in questions.temperature({}, without.recipe, "again").blocks] == ["paragraph"] * 2
    assert "ckpt" not in prunings.curves(without).blocks[0].text
    keys = (
        'name = "big"',
        'kind = "given_teacher"',
        'architecture = "resnet34"',
        'checkpoint = "big.ckpt"',
        "size = 40",
    )
    big = "\n".join(("[[stage]]", *keys, ""))
    taught = RECIPE.replace('kind = "student"', 'kind = "student"\nteacher = "big"')
    given = parse(taught.replace("[[stage]]", f"{big}[[stage]]", 1))
    assert "again measures them" in questions.temperature({}, given, "again").blocks[-1].text
    measured = questions.temperature({"validation": {}}, given, "again").blocks[-1].text
    assert "again" not in measured
    runfolder.write_recipe(own_run, given)
    advice = prunings.curves(open_run(own_run)).blocks[0].text
    assert "DIR/big.ckpt --architecture resnet34 --size 40" in advice


def test_the_epochs_are_those_of_every_stage_that_was_trained() -> None:
    metrics = {
        "epochs": 20,
        "stages": {"given": {}, "own": {"epochs": 7}, "first": {"epochs": 30}, "last": {"epochs": 20}},
    }
    assert questions.epochs_told(metrics, list(metrics["stages"])) == "57 epochs (own 7, first 30, last 20)"
    assert questions.epochs_told(metrics, ["last"]) == "20 epochs"
    assert questions.trained_as(recipes.load("boss")) == ["student", "boss", "patient", "larger", "last"], (
        "it goes on from strong's student"
    )
    assert questions.trained_as(recipes.load("exits")) == ["backbone", "student"]
    assert questions.trained_as(recipes.load("demo")) == ["distilled"]


def test_without_photographs_what_was_not_measured_is_said_to_be_missing(own_run: Path, tmp_path: Path) -> None:
    written = report(open_run(own_run), tmp_path / "r.html", None, MADE_BY, Watcher())
    assert "What the student gets wrong" in written.missing
    assert "--data DIR` measures it" in (tmp_path / "r.html").read_text()
    assert not (own_run / "report").exists()


def test_what_was_measured_is_not_measured_again_until_something_is_another(
    own_run: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(*of: Any) -> Any:
        asked.append("validation")
        return original(*of)

    original = facts.of_validation
    monkeypatch.setattr(facts, "of_validation", counted)
    monkeypatch.setattr(facts, "of_costs", lambda *_: {})
    run, out = open_run(own_run), own_run / "report" / "report.html"
    report(run, out, photographs, MADE_BY, Watcher())
    first = out.read_bytes()
    report(run, out, photographs, {**MADE_BY, "commit": "def"}, Watcher())
    assert (asked, out.read_bytes()) == (["validation"], first)
    report(run, out, photographs, {**MADE_BY, "processor": "another"}, Watcher())
    assert len(asked) == 2
    other = "flip" if run.tta == "plain" else "plain"
    changed = {**runfolder.result(own_run), "validation": {**run.metrics["validation"], "views": other}}
    runfolder.write(own_run / "metrics.json", changed)
    report(open_run(own_run), out, photographs, {**MADE_BY, "processor": "another"}, Watcher())
    assert len(asked) == 3
    monkeypatch.setattr(facts, "FORMAT", -1)
    report(open_run(own_run), out, photographs, {**MADE_BY, "processor": "another"}, Watcher())
    assert len(asked) == 4


def test_other_photographs_are_refused(own_run: Path, tmp_path: Path, photographs: Path) -> None:
    runfolder.write(
        own_run / "environment.json", {**json.loads((own_run / "environment.json").read_text()), "data": "x"}
    )
    with pytest.raises(RunMismatch, match="other photographs"):
        report(open_run(own_run), tmp_path / "r.html", photographs, MADE_BY, Watcher())
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("name", ["report", "report.pdf"])
def test_another_ending_is_refused(finished_run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadData, match=r"must end in \.html"):
        report(open_run(finished_run), tmp_path / name, None, MADE_BY, Watcher())


def test_damaged_files_are_one_line(own_run: Path, tmp_path: Path) -> None:
    (own_run / "metrics.json").write_text('{"validation": {"flip": true}}')
    with pytest.raises(BadData, match="does not hold what a run writes"):
        report(open_run(own_run), tmp_path / "r.html", None, MADE_BY, Watcher())


def test_what_the_run_s_files_say_is_escaped(own_run: Path, tmp_path: Path) -> None:
    changed = {**runfolder.result(own_run), "recipe": "<script>alert(1)</script>"}
    runfolder.write(own_run / "metrics.json", changed)
    report(open_run(own_run), tmp_path / "r.html", None, MADE_BY, Watcher())
    assert "<script" not in (tmp_path / "r.html").read_text()
    assert "<script" not in (tmp_path / "r.md").read_text()


def test_the_teacher_s_soft_labels_are_plotted_from_the_facts() -> None:
    soft = [
        {"temperature": t, "ranked": [a, 1 - a], "entropy": e, "off_class": 1 - a}
        for t, a, e in ((1.0, 0.9, 0.3), (20.0, 0.55, 0.68))
    ]
    section = questions.temperature({"teacher": {"stage": "big", "n": 8, "soft": soft}}, parse(RECIPE), "again")
    kinds = [block.kind for block in section.blocks]
    assert kinds == ["paragraph", "paragraph", "plot", "table"]
    assert "0.900" in section.blocks[1].text
    assert "0.550" in section.blocks[1].text


def point(method: str, ratio: float, accuracy: float, **looks: float) -> dict[str, Any]:
    """A point of a curve."""

    def judged(value: float | None) -> dict[str, Any] | None:
        return None if value is None else {"accuracy": value, "standard_error": 0.01, "correct": 50, "n": 100}

    found = {look: judged(looks.get(look)) for look in ("reestimated", "finetuned")}
    return {
        "method": method,
        "ratio": ratio,
        "parameters": int(1000 * (1 - ratio)),
        "before": judged(accuracy),
        **found,
    }


def test_curves_are_read_where_they_are_the_teacher_s_first(own_run: Path) -> None:
    assert prunings.curves(open_run(own_run)).blocks[0].kind == "missing"
    points = [point(m, r, 0.5 - r / 4, reestimated=0.5) for m in ("global", "layer") for r in (0.0, 0.5)]
    where = curve_out(Source(own_run))  # where `bantam prune RUN` writes, without --out
    assert where.name == "student"
    runfolder.write(where / "curve.json", {"title": "pruning small", "points": points})
    tuned = [*points, point("global", 0.9, 0.1, finetuned=0.4)]
    runfolder.write(where.parent / "teacher" / "curve.json", {"title": "pruning large", "points": tuned})
    blocks = prunings.curves(open_run(own_run)).blocks
    assert [block.kind for block in blocks] == ["plot", "plot", "plot", "table", "plot", "plot", "table"]
    large, small = (block for block in blocks if isinstance(block, Table))
    assert large.caption.startswith("The teacher: pruning large: accuracy as pruned / BatchNorm re-estimated / fine-t")
    assert small.rows == [["0", "1,000", *["0.500 / 0.500"] * 2], ["0.5", "500", *["0.375 / 0.500"] * 2]]
    assert large.rows[-1] == ["0.9", "99", "0.100 / - / 0.400", "- / - / -"]
    runfolder.write(where / "curve.json", {"title": "nothing", "points": []})
    with pytest.raises(BadData, match="makes it anew"):
        prunings.curves(open_run(own_run))


def speeds(masked: float, sparse: float, structured: float) -> list[dict[str, Any]]:
    """Rows as `bantam bench pruning` writes them."""
    times = {"dense": 1.0, "masked": masked, "sparse": sparse, "structured": structured}
    return [
        {"net": "big", "version": name, "batch": batch, "median_ms": 12_170.0 / times[name], "speedup": times[name],
         "quartiles_ms": [1.5, 600.0], "macs": 333_108_736 if name == "dense" else None, "bytes": 44_805_579}
        for batch in (1, 64) for name in times
    ]  # fmt: skip


def test_3_2_begins_with_its_verdict_and_has_figures_as_people_write_them(own_run: Path) -> None:
    run = open_run(own_run)
    assert prunings.speed(run).blocks[0].kind == "missing"
    measured = {
        "ratio": 0.8, "rounds": 15, "rows": speeds(1.0, 0.1, 4.0), "explanation": ["Because."],
        "environment": {"processor": "Abacus 3"},
    }  # fmt: skip
    run.pruning_speed.parent.mkdir()
    run.pruning_speed.write_text(json.dumps(measured))
    said, _, table, points = prunings.speed(run).blocks
    assert said.text.startswith(
        "Yes: structured pruning makes a net faster, unstructured pruning does not. With 80% of"
    )
    assert points.texts == ["Because."]
    assert "one thread of Abacus 3" in table.caption
    assert table.rows[0] == ["big, 1 image", "dense", "12.2 s", "1.50 ms to 600 ms", "1.00×", "333 million", "44.8 MB"]
    assert table.rows[1][5] == "-"
    run.pruning_speed.write_text("{")
    with pytest.raises(BadData, match="makes it anew"):
        prunings.speed(run)


@pytest.mark.parametrize(
    ("masked", "structured", "answer"),
    [
        (1.0, 4.0, "Yes: structured pruning makes a net faster, unstructured pruning does not."),
        (1.5, 4.0, "Yes: structured pruning makes a net faster than unstructured pruning does."),
        (1.0, 1.05, "Not here"),
        (4.0, 2.0, "It depends"),
        (1.0, 0.5, "It depends"),
    ],
)
def test_the_verdict_is_that_of_the_figures(masked: float, structured: float, answer: str) -> None:
    assert prunings.verdict(speeds(masked, 0.5, structured), 0.8)[0].startswith(answer)


def test_numbers_have_units_as_people_write_them() -> None:
    assert [milliseconds(one) for one in (0.4567, 1.538, 16.66, 134.4, 999.4, 999.6, 12_170.0)] == [
        "0.457 ms", "1.54 ms", "16.7 ms", "134 ms", "999 ms", "1.00 s", "12.2 s",
    ]  # fmt: skip
    assert [size_of(one) for one in (812, 285_217, 44_805_579)] == ["812 bytes", "285 kB", "44.8 MB"]
    assert [products(one) for one in (950, 9_100_000, 1.82e9)] == ["950", "9.10 million", "1.82 billion"]
    assert milliseconds(7_200_000) == "7,200 s"


def test_what_is_empty_is_no_column_and_what_is_long_is_folded() -> None:
    table = Table("words", ("a", "b", "c"), [["1", "-", "-"], ["2", "-", "3"]])
    assert table.columns == ["a", "c"]
    assert table.rows == [["1", "-"], ["2", "3"]]
    assert not table.folded
    assert Table("words", ("a",), [["1"]] * 17).folded


def test_the_result_stands_beside_its_teacher_and_no_net_at_all() -> None:
    judged = {"accuracy": 0.75, "plain": 0.74, "standard_error": 0.01, "n": 400, "views": "flip"}
    metrics = {
        "validation": judged, "parameters": {"unique": 59_000, "torchsummary": 59_000}, "budget": 60_000, "seed": 0,
        "recipe": "r", "student": "s", "epochs": 3, "seconds": 60.0,
        "stages": {"t": {"kind": "given_teacher", "net": "resnet18", "parameters": 11_182_155}},
    }  # fmt: skip
    measured = {
        "teacher": {"stage": "t", "validation": {"correct": 80, "n": 100}},
        "validation": {"confusion": [[50, 10], [10, 30]]},
    }
    headline = evidence.result(metrics, measured).blocks[0]
    assert headline.figures == [
        ("0.750 ± 0.010", "validation accuracy of the student", "59,000 of 60,000 parameters"),
        ("0.800 ± 0.040", "its teacher", "11.2 million parameters, 100 images, one pass"),
        ("0.600", "always the largest class", "what no net at all has"),
    ]
    assert len(evidence.result(metrics, {}).blocks[0].figures) == 1
    grafted = {**metrics, "stages": {"student": {"kind": "student", "epochs": 3, "pretrained": "food11"}}}
    assert ["started from", evidence.PRETRAINED] in evidence.result(grafted, {}).blocks[1].rows
    assert "started from" not in dict(evidence.result(metrics, {}).blocks[1].rows)
    own = {"o": {"kind": "teacher", "net": "big", "parameters": 5_000_000, "validation": judged}}
    trained = evidence.result({**metrics, "stages": own}, {}).blocks[0].figures
    assert trained[1] == ("0.750 ± 0.010", "its teacher", "5.0 million parameters")


def test_a_refit_is_not_praised_for_the_validation_images_that_it_has_learned(
    own_run: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = json.loads((own_run / "metrics.json").read_text())
    runfolder.write(own_run / "metrics.json", {**metrics, "refit": {"of": "student", "stage": "again"}})
    run = open_run(own_run)
    assert run.refit_of == "student"
    figure, *_ = evidence.result(run.metrics, {}).blocks[0].figures
    assert figure[1] == "validation accuracy of the student before its refit, stage “student”"
    assert "Before a refit its validation accuracy is" in " ".join(questions.bonus_text(run.recipe, run.metrics))
    judged = {"validation": {"n": 30, "correct": 30, "confusion": [[10, 0], [0, 20]]}}
    assert [each.blocks[0].text for each in evidence.mistakes(judged, "ab", None, "", True)] == [evidence.REFITTED]
    assert listed.text(listed.listed(own_run)).splitlines()[1].count(", then refitted") == 1
    monkeypatch.setattr("sys.argv", ["bantam", "cascade", str(own_run), "--data", str(photographs)])
    with pytest.raises(SystemExit, match="^0$"):
        cli.main()
    assert "has trained on validation too" in capsys.readouterr().out.splitlines()[-1]


def test_only_the_exercise_has_the_exercise_s_numbers(own_run: Path) -> None:
    assert is_exercise([str(number) for number in range(11)])
    assert is_exercise(["Bread", "Noodles-Pasta", *"abcdefghi"])
    assert not is_exercise(list("abcdefghijk"))
    assert not is_exercise([str(number) for number in range(10)])
    run = open_run(own_run)
    sections = [evidence.learning(run), prunings.curves(run), questions.bonus(run)]
    titles = [each.title for each in as_exercise(sections)]
    assert titles[1].startswith("3-1 Pruning")
    assert titles[2] == "Bonus: Methods and references"
    assert [each.title for each in as_own(sections)] == [sections[0].title, sections[2].title]


METRICS = {
    "parameters": {"unique": 59_968},
    "epochs": 30,
    "stages": {"t": {"net": "resnet18"}},
    "validation": {"accuracy": 0.7, "standard_error": 0.01, "n": 4432, "flip": True},
}


def recipe_with(family: str, objectives: dict[str, float]) -> recipes.Recipe:
    text = 'name = "x"\n[[stage]]\nname = "t"\nkind = "given_teacher"\narchitecture = "resnet18"\n'
    text += f'checkpoint = "t.ckpt"\nsize = 96\n[[stage]]\nname = "s"\nkind = "student"\nnet = "{family}"\nsize = 64\n'
    text += f"peers = {2 if 'dml' in objectives else 1}\n"
    text += 'teacher = "t"\nepochs = 1\n[stage.augment]\nscale = [0.5, 1.0]\ncutmix = 0.5\n'
    text += "".join(f"[stage.objectives.{name}]\nweight = {weight}\n" for name, weight in objectives.items())
    return recipes.parse(text)


@pytest.mark.parametrize("family", STUDENTS)
def test_the_bonus_names_the_used_papers_in_at_most_200_words(family: str) -> None:
    text = " ".join(questions.bonus_text(recipe_with(family, {"supervised": 0.3, "kd": 0.7}), METRICS))
    assert STUDENTS[family].paper in text
    assert OBJECTIVES["kd"].paper in text
    assert OBJECTIVES["rkd"].paper not in text
    assert "under the stage t (resnet18)" in text
    assert len(text.split()) <= 200


def test_the_bonus_stays_short_with_every_method_there_is() -> None:
    methods = {name: 0.1 for name in OBJECTIVES if name != "self_distillation"}  # that one is for another kind of stage
    text = " ".join(questions.bonus_text(recipe_with("largekernel", methods), METRICS))
    assert len(text.split()) <= 200


def test_the_bins_give_the_calibration_error() -> None:
    logits, labels = 3 * torch.randn(500, 4), torch.randint(4, (500,))
    rows = reliability(logits.double().softmax(1), labels)
    assert sum(row["n"] for row in rows) == 500
    error = sum(row["n"] / 500 * abs(row["accuracy"] - row["confidence"]) for row in rows)
    assert error == pytest.approx(calibration(logits, labels).ece)


def test_a_shipped_net_s_layers_are_in_the_report(finished_run: Path) -> None:
    net, shipped = load_shipped(finished_run)
    section = questions.weight(net, shipped.student.size, 5000)
    assert "Within the budget of 5,000" in section.blocks[0].text


def test_markdown_takes_no_text_for_marks() -> None:
    assert markdown_cell("a_b | <c>\n*d*") == r"a\_b \| &lt;c&gt; \*d\*"


def test_early_exits_are_reported_where_they_were_measured(own_run: Path) -> None:
    row = {
        "kind": "exit 1 alone", "threshold": 0.0, "shares": [1.0, 0.0], "accuracy": 0.5, "standard_error": 0.01,
        "n": 30, "mean_macs": 1e6, "mcnemar_p": 0.25,
    }  # fmt: skip
    chosen = {**row, "kind": "early exits", "threshold": 0.875, "shares": [0.25, 0.75], "mean_macs": 3.25e6}
    rows = [row, {**row, "kind": "the net alone"}, {**row, "threshold": 0.123}]
    out = own_run / "report.html"
    report(open_run(own_run), out, None, MADE_BY, Watcher())
    assert "Early exits" not in out.read_text()
    (own_run / "exits").mkdir()
    (own_run / "exits" / "exits.json").write_text(json.dumps({"macs": [1, 2], "rows": rows, "chosen": chosen}))
    report(open_run(own_run), out, None, MADE_BY, Watcher())
    page = out.read_text()
    Page(page)
    for words in ("Early exits", "exit 1 alone", "at a confidence of 0.875", "3.25", "25%, 75%"):
        assert words in page
    assert "0.123" not in page

"""Help of every command: whole at 80 columns, grouped by what people do, options of one form, mistakes of one form."""

import re
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

import documented
from bantam.cli import main as cli
from bantam.cli import screen
from bantam.cli.command import is_argument
from bantam.cli.screen import Bar
from hints import SOURCE

VALUES = re.compile(r"[A-Z]+(\.[a-z]+|=[A-Z]+)?(\.\.\.)?((\|| \| )[A-Z]+(\.\.\.)?)*")
"""What help calls a value: RUN, FILE.csv, KEY=VALUE, PHOTO...|FOLDER."""


def squeezed(text: str) -> str:
    return "".join(text.split())  # a line may also be broken behind a hyphen


def command_of(name: str) -> Any:
    return documented.command_of(name.split())[0]


@pytest.fixture
def bantam(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["/somewhere/__main__.py", *words])
        try:
            cli.main()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def test_all_commands_stand_whole_below_what_people_do(bantam) -> None:
    status, out, _ = bantam("--help")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    titles = [line.removesuffix(":") for line in out.splitlines() if re.fullmatch(r"\S.*:", line)]
    assert [title.split()[0] for title in titles] == ["Options", "Train", "Look", "Deliver", "Compress", "Study"]
    for name in cli.COMMANDS:
        assert squeezed(f"{name} {command_of(name).help}") in squeezed(out), name
    assert bantam()[:2] == (0, out), "no words at all are a question too"


@pytest.mark.parametrize("name", [*cli.COMMANDS, *cli.GROUPS])
def test_help_of_a_command_is_whole_and_its_values_have_one_form(bantam, name: str) -> None:
    status, out, _ = bantam(*name.split(), "--help")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    command = command_of(name)
    assert squeezed(command.help) in squeezed(out)
    assert out.startswith(f"Usage: bantam {name} ")
    assert not re.search(r"[<{]|\(the|\.\.\.$", out), "types and braces are for programmers"
    for one in getattr(command, "commands", {}).values():
        assert squeezed(one.help) in squeezed(out)
    for one in command.params:
        if one.help:
            assert squeezed(one.help) in squeezed(out), one.name
        if is_argument(one) or not one.is_flag:
            assert VALUES.fullmatch(one.metavar or ""), (one.name, one.metavar)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_what_commands_have_in_common_is_called_the_same(name: str) -> None:
    forms = {
        "data": ("--data", r"DIR"),
        "out": ("--out", r"RUN|FOLDER|FILE(\.[a-z]+)?"),
        "run": ("--run", r"RUN"),
        "runs": ("", r"RUN\.\.\."),
        "recipe": ("--recipe", r"RECIPE"),
        "labels": ("--labels", r"FILE|LABELS"),
        "settings": ("--set", r"KEY=VALUE"),
        "budget": ("--budget", r"N"),
        "as_json": ("--json", r""),
        "verbose": ("--verbose", r""),
    }
    for one in command_of(name).params:
        if one.name in forms:
            option, value = forms[one.name]
            assert is_argument(one) or one.opts == [option], name
            assert re.fullmatch(value, one.metavar or ""), (name, one.name, one.metavar)
        elif not is_argument(one):
            assert one.opts[0] not in {option for option, _ in forms.values()}, (name, one.name)


@pytest.mark.parametrize("name", [*cli.COMMANDS, *cli.GROUPS])
def test_a_slip_in_the_words_is_one_line_that_says_what_to_do(bantam, name: str) -> None:
    wrong = [[*name.split(), "--no-such-option"], [*name.split()[:-1], name.split()[-1] + "x"]]
    command = command_of(name)
    if any(one.required for one in command.params):
        wrong.append(name.split())
    if hasattr(command, "commands"):
        wrong.append([name, "nothing"])
    for words in wrong:
        status, out, error = bantam(*words)
        assert (status, out, error.count("\n")) == (1, "", 1), words
        assert error.startswith("bantam: ")
        assert "--help`" in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predct"], "did you mean `bantam predict`"),
        (["check"], "did you mean `bantam data check`"),
        (["bench", "tran"], "did you mean `bantam bench train`"),
        (["predict", "x.jpg", "--prob", "3"], "no option --prob"),
        (["run", "simple", "--dat", "x"], "did you mean --data"),
        (["data", "check", "--data", "x"], "bantam data check takes DIR without --data before it"),
        (["report", "--run", "x"], "takes RUN without --run before it"),
        (["run", "simple"], "bantam run needs --data DIR: Folder of photographs"),
        (["report"], "bantam report needs RUN: A finished run's folder"),
        (["summary", "sample", "more"], "(more)"),
        (["handin", "x", "--name"], "bantam handin: option '--name' requires an argument; `bantam handin --help`"),
        (["teacher", "audit", "--run"], "bantam teacher audit: option '--run' requires an argument"),
        (["x" * 5000], "characters)"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_was_meant_is_said(bantam, words: list[str], said: str) -> None:
    status, _, error = bantam(*words)
    assert status == 1
    assert said in error
    assert len(error) < 400


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("stage", ["student", "assistant_of_the_assistant"])
def test_the_time_left_stands_whole_beside_every_bar(stage: str, width: int) -> None:
    console = Console(width=width, force_terminal=True, color_system=None, file=StringIO())
    bar = Bar(console)
    bar.begin(stage, 1000, 400)
    bar.begin("answers of view 3", 50, 0)
    for depth in (1, 0):
        assert bar.progress is not None
        task = bar.progress.tasks[depth]
        task.start_time = bar.progress.get_time() - 7261
        bar.progress.update(
            task.id, completed=task.completed + (task.total or 0) / 4, note="epoch 12, accuracy 0.712 ± 0.007"
        )
        (line,) = console.render_lines(bar.progress.make_tasks_table([task]), pad=False)
        text = "".join(segment.text for segment in line)
        assert re.search(r"\d:\d\d:\d\d left", text), text
        assert len(text) <= width
        assert re.search(r"\d+%", text), text
        if width >= 80:
            assert "accuracy 0.712 ± 0.007" in text
    bar.end()
    bar.end()


def test_long_work_says_how_far_it_is_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [100.0], StringIO()
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    bar = Bar(Console(width=80, file=said))
    bar.begin("student", 5000, 0)
    for second in range(1, 131):
        now[0] += 1
        if second == 20:
            bar.begin("answers 3", 640, 0)
        if second == 70:
            bar.end()
        bar.advance(10 * second)
    bar.end()
    assert said.getvalue().splitlines() == ["answers 3: 610 of 640", "student: 1,220 of 5,000"]


def test_what_is_measured_in_percent_has_one_decimal_everywhere() -> None:
    """12.3%, on screens, in reports and on the page alike; a share that somebody gave is shown as it was given."""
    formats = [
        (path.name, found[1])
        for path in sorted(SOURCE.rglob("*.py"))
        for found in re.finditer(r"\{[^{}\"]*:[<>]?\d*\.(\d)%\}", path.read_text(encoding="utf-8"))
        if "HELD:" not in found[0] and "{ratio:" not in found[0]
    ]
    assert len(formats) > 15
    assert {name for name, decimals in formats if decimals != "1"} <= {"evidence.py"}
    page = (SOURCE / "deliver" / "serve" / "static" / "elements.js").read_text(encoding="utf-8")
    assert re.search(r"percent = .*toFixed\(1\)\}%`", page)

"""The worked examples of CONTRIBUTING.md are followed: files, lines and commands, on a copy of the package."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bantam.deliver.export import TARGETS
from bantam.nets.students import STUDENTS
from bantam.objectives import OBJECTIVES
from bantam.recipes.kinds import STAGE_KINDS
from children import bound_to_parent
from test_layers import FLOOR_OF, NEVER, imported

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
KINDS = ["A student family", "An objective", "A kind of stage", "A form of export", "A command", "A layout of data"]

# Runs the commands with one package and then with the other, in one process: it is the start of torch that costs.
RUNNER = """
import contextlib, importlib, io, json, os, shlex, subprocess, sys

def turn(parent, work, commands):
    for name in [name for name in sys.modules if name.split(".")[0] == "bantam"]:
        del sys.modules[name]
    sys.path.insert(0, parent)
    os.chdir(work)
    main = importlib.import_module("bantam.cli.main")
    return {"package": main.__file__, "said": [answer(main, line) for line in commands]}

def answer(main, line):
    out, err, status, words = io.StringIO(), io.StringIO(), 0, shlex.split(line)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if words[0] == "bantam":
            sys.argv = words
            try:
                main.main()
            except SystemExit as ended:
                status = ended.code or 0
        elif words[:2] == ["python", "-c"]:
            exec(words[2], {})
        else:
            status = subprocess.run(line, shell=True).returncode
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}

print(json.dumps([turn(*each) for each in json.load(sys.stdin)]))
"""


class WrongPage(Exception):
    """The page does not say what to do."""


@dataclass
class Example:
    """What the page says below one heading: `line` is (path, line of context, new line)."""

    title: str
    files: dict[str, str] = field(default_factory=dict)
    line: tuple[str, str, str] | None = None
    commands: dict[str, str] = field(default_factory=dict)
    """What each prints."""


def examples(page: str) -> list[Example]:
    """The preparation and the examples of the page's section on adding. Raises WrongPage."""
    section = re.search(r"^## Adding .*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    if section is None:
        raise WrongPage("there is no section on adding")
    found, path = [Example("")], None
    blocks = r"^### (?P<title>[^\n]+)$|^`(?P<path>[^` ]+)`$|^```(?P<kind>\w*)\n(?P<text>.*?)^```$"
    for block in re.finditer(blocks, section[0], re.MULTILINE | re.DOTALL):
        if block["title"]:
            found.append(Example(block["title"]))
        elif block["path"]:
            path = block["path"]
            continue
        elif block["kind"] == "console":
            found[-1].commands |= console(block["text"])
        elif path is None:
            raise WrongPage(f"no path stands before the block that begins {block['text'][:40]!r}")
        elif block["kind"] == "diff":
            context, added = block["text"].splitlines() if block["text"].count("\n") == 2 else ("", "")
            if not (context.startswith(" ") and added.startswith("+")) or found[-1].line:
                raise WrongPage(f"{path}: not one line of context and one new line")
            found[-1].line = (path, context[1:], added[1:])
        else:
            found[-1].files[path] = block["text"]
        path = None
    return found


def console(text: str) -> dict[str, str]:
    """The commands of a block, and what each prints."""
    parts = re.split(r"^\$ (.+)\n", text, flags=re.MULTILINE)
    if parts[0]:
        raise WrongPage(f"no command stands before {parts[0]!r}")
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def write(example: Example, package: Path, work: Path) -> None:
    """Write the files of `example`: those of the source below `package`, others into `work`. Raises WrongPage."""
    if len([path for path in example.files if path.startswith("src/")]) > 2:
        raise WrongPage(f"{example.title}: more than two files")
    for name, text in example.files.items():
        path = place(name, package, work)
        if path.exists():
            raise WrongPage(f"{name} is there already")
        path.write_text(text)


def apply(example: Example, package: Path) -> None:
    """Put the line of `example` where it belongs. Raises WrongPage."""
    if example.line is None:
        raise WrongPage(f"{example.title}: no line")
    name, context, added = example.line
    path = place(name, package, package)
    lines = path.read_text().split("\n")
    if lines.count(context) != 1:
        raise WrongPage(f"{name} has {lines.count(context)} lines {context!r}")
    lines.insert(lines.index(context) + 1, added)
    path.write_text("\n".join(lines))


def place(name: str, package: Path, work: Path) -> Path:
    """Where the file `name` of the page is: in the package, or by its bare name in `work`. Raises WrongPage."""
    inside = name.startswith("src/bantam/")
    if ".." in name.split("/") or not (inside or "/" not in name):
        raise WrongPage(f"{name} is neither of the package nor a file beside it")
    return package / name.removeprefix("src/bantam/") if inside else work / name


def pattern(printed: str) -> str:
    """What the page says that a command prints, `...` standing for anything in a line, or for any lines."""
    lines = [
        r"(?:.*\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
        for line in printed.splitlines()
    ]
    return "".join(lines)


@dataclass(frozen=True)
class Followed:
    """The page, followed: what each command said without the lines, and with them."""

    package: Path
    examples: list[Example]
    without: dict[str, dict[str, Any]]
    with_lines: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    root = tmp_path_factory.mktemp("contributing")
    found = examples(PAGE.read_text(encoding="utf-8"))
    commands = [command for example in found for command in example.commands]
    packages, turns = [], []
    for name in ("without", "with"):
        packages.append(root / name / "src" / "bantam")
        shutil.copytree(ROOT / "src" / "bantam", packages[-1], ignore=shutil.ignore_patterns("models", "static"))
        for example in found:
            write(example, packages[-1], root / name)
            if example.title and name == "with":
                apply(example, packages[-1])
        turns.append((str(packages[-1].parent), str(root / name), commands))
    environment = os.environ | {"BANTAM_CACHE": str(root / "cache"), "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    made = subprocess.run(
        [sys.executable, "-c", RUNNER], input=json.dumps(turns), capture_output=True, text=True,
        env=environment, preexec_fn=bound_to_parent(),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-3000:]
    told = json.loads(made.stdout.splitlines()[-1])
    assert [Path(turn["package"]).parents[1] for turn in told] == packages
    without, with_lines = (dict(zip(commands, turn["said"], strict=True)) for turn in told)
    return Followed(packages[-1], found, without, with_lines)


def of(followed: Followed, title: str) -> Example:
    return next(example for example in followed.examples if example.title == title)


def test_the_page_shows_every_kind() -> None:
    found = examples(PAGE.read_text(encoding="utf-8"))
    assert [example.title for example in found[1:]] == KINDS
    assert all(example.line and example.commands and 1 <= len(example.files) <= 2 for example in found[1:])


@pytest.mark.parametrize("title", ["", *KINDS])
def test_the_commands_print_what_the_page_says(followed: Followed, title: str) -> None:
    for command, printed in of(followed, title).commands.items():
        said = followed.with_lines[command]
        assert said["status"] == 0, (command, said["err"])
        assert re.fullmatch(pattern(printed), said["out"]), (command, said["out"])


TABLES: dict[str, Iterable[str]] = {
    "A student family": STUDENTS,
    "An objective": OBJECTIVES,
    "A kind of stage": STAGE_KINDS,
    "A form of export": TARGETS,
    "A layout of data": ("folder", "labels.csv"),
}
"""What a refusal names, one of which is the nearest to what was asked for."""


@pytest.mark.parametrize("title", KINDS)
def test_without_the_line_a_command_is_refused(followed: Followed, title: str) -> None:
    *_, command = of(followed, title).commands
    said = followed.without[command]
    if title == "A command":  # the command line's own words
        assert said["status"] == 1
        assert said["err"].startswith('bantam: there is no command "classes"; ')
        return
    assert said["status"] == 1
    assert re.fullmatch("bantam: .+\n", said["err"])
    assert [name for name in TABLES[title] if re.search(rf"\b{name}\b", said["err"])] != []


@pytest.mark.parametrize("title", KINDS)
def test_a_new_file_stands_on_its_floor_and_says_what_it_is(followed: Followed, title: str) -> None:
    for name in of(followed, title).files:
        path = followed.package / name.removeprefix("src/bantam/")
        room = path.relative_to(followed.package).parts[0]
        others = imported(path) - {room}
        assert {other for other in others if FLOOR_OF[other] >= FLOOR_OF[room]} == set()
        assert others & NEVER.get(room, set()) == set()
        tree = ast.parse(path.read_text())
        defined = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        assert all(ast.get_docstring(node) for node in [tree, *defined])


def test_the_new_files_and_lines_pass_make_check(followed: Followed) -> None:
    if shutil.which("ruff", path=Path(sys.executable).parent) is None:
        pytest.skip("ruff is not installed; requirements.txt pins it")
    names = [name for example in followed.examples[1:] for name in [*example.files, example.line[0]] if example.line]
    paths = [str(followed.package / name.removeprefix("src/bantam/")) for name in names]
    ruff = [str(Path(sys.executable).with_name("ruff"))]
    for words in (
        ["check", "--config", str(ROOT / "pyproject.toml")],
        ["format", "--check", "--config", str(ROOT / "pyproject.toml")],
    ):
        made = subprocess.run([*ruff, *words, *paths], capture_output=True, text=True)
        assert made.returncode == 0, made.stdout


GOOD = """## Adding one

### A thing

`src/bantam/new.py`

```python
NEW = 1
```

`src/bantam/errors.py`

```diff
 import re
+import json
```

```console
$ bantam --help
...
```
"""

TWO_MORE = "\n`src/bantam/a.py`\n\n```python\n```\n\n`src/bantam/b.py`\n\n```python\n```\n"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("`src/bantam/new.py`\n", "", "no path stands before"),
        ("src/bantam/new.py", "src/bantam/errors.py", "there already"),
        ("src/bantam/new.py", "src/bantam/../../new.py", "neither of the package"),
        ("src/bantam/new.py", "/tmp/new.py", "neither of the package"),
        ("src/bantam/new.py", "docs/new.py", "neither of the package"),
        (" import re\n", " import nothing\n", "has 0 lines"),
        (" import re\n", " \n", "lines ''"),
        ("+import json\n", "+import json\n+import csv\n", "not one line"),
        ("+import json\n", "-import json\n", "not one line"),
        ("```diff\n import re\n+import json\n```\n", "", "no line"),
        ("$ bantam", "bantam", "no command stands before"),
        ("## Adding", "## Removing", "no section"),
        ("### A thing\n", "### A thing\n" + TWO_MORE, "more than two files"),
    ],
)  # fmt: skip
def test_a_bad_page_is_refused(tmp_path: Path, old: str, new: str, why: str) -> None:
    (tmp_path / "errors.py").write_text("import os\nimport re\n\n\n")

    def follow(page: str) -> None:
        for example in examples(page)[1:]:
            write(example, tmp_path, tmp_path / "work")
            apply(example, tmp_path)

    assert old in GOOD
    with pytest.raises(WrongPage, match=re.escape(why)):
        follow(GOOD.replace(old, new))


def test_what_differs_from_run_to_run_is_left_out_and_nothing_else() -> None:
    printed = pattern("...\nready at 32 px: ... images\n")
    assert re.fullmatch(printed, "one\ntwo\nready at 32 px: 3 images\n")
    assert re.fullmatch(printed, "ready at 32 px: 3 images\n")
    assert not re.fullmatch(printed, "ready at 32 px: 3\n images\n")
    assert not re.fullmatch(printed, "ready at 33 px: 3 images\n")
    assert not re.fullmatch(printed, "ready at 32 px: 3 images\nmore\n")

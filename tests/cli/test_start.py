"""What a command does not need it does not import: counted module by module, never timed."""

import ast
import inspect
import io
import shutil
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from PIL import Image

import documented
from bantam.cli import main as cli
from bantam.cli.command import is_argument
from bantam.runs.finished import FOOD11
from imports_of import imports_of
from tiny_run import RECIPE, write_photographs

COMPILER = {"torch._dynamo", "torch._inductor", "sympy", "torch.fx.experimental.symbolic_shapes"}
"""What torch imports for its compiler: seconds and hundreds of megabytes."""

HEAVY = COMPILER | {
    "torch", "torchvision", "timm", "scipy", "sklearn", "matplotlib", "pandas", "networkx", "triton", "safetensors",
    "torch_pruning", "torch.onnx", "torch.utils.flop_counter", "onnx", "onnxscript", "onnxruntime", "jinja2", "fastapi",
    "starlette", "uvicorn", "optuna", "sqlalchemy", "psycopg", "PIL", "numpy",
}  # fmt: skip

PIXELS = {"numpy", "PIL"}

TORCH = {"torch", *PIXELS, "safetensors"}
"""What a command may import that works with nets; `safetensors` reads given teachers' weights."""

BESIDES: dict[str, set[str]] = {
    "recipes list": set(), "recipes show": set(), "recipes copy": set(), "grade": set(), "leaderboard": set(),
    "data check": PIXELS,
    "search": TORCH | {"optuna", "sqlalchemy"},
    **dict.fromkeys(("report", "handin"), TORCH | {"jinja2"}),
    "export": TORCH | {"onnx"},
    **dict.fromkeys(("fit", "demo"), TORCH | {"onnx", "jinja2"}),
    "quantize": TORCH | {"onnx", "onnxruntime"},
    "serve": TORCH | {"onnx", "fastapi", "starlette", "uvicorn"},
    **dict.fromkeys(("bench cost", "bench pruning", "prune", "exits", "views", "cascade", "slim"), TORCH | {"onnx"}),
}  # fmt: skip
"""What commands import before they begin, where that is another set than TORCH."""


def imported_by(command: Any) -> set[str]:
    """The modules that a command's function imports, and those of the functions beside it that it calls."""
    beside = inspect.getmodule(command)
    seen: set[FunctionType] = set()

    def walk(function: FunctionType) -> set[str]:
        seen.add(function)
        found: set[str] = set()
        for node in ast.walk(ast.parse(inspect.getsource(function))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bantam."):
                found |= {name for one in node.names for name in modules_of(node.module or "", one.name)}
            called = getattr(beside, node.id, None) if isinstance(node, ast.Name) else None
            if isinstance(called, FunctionType) and called.__module__ == command.__module__ and called not in seen:
                found |= walk(called)
        return found

    return walk(command)


def modules_of(module: str, name: str) -> set[str]:
    """`from module import name`: the module, and `name` too where it is one."""
    root = Path(cli.__file__).parents[2]
    inner = root / Path(*module.split(".")) / name
    return {module, f"{module}.{name}"} if inner.with_suffix(".py").exists() or inner.is_dir() else {module}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny inputs for every command that works without torch."""
    place = tmp_path_factory.mktemp("start")
    write_photographs(place / "photos")
    (place / "tiny.toml").write_text(RECIPE.replace("epochs = 4", "epochs = 1"))
    Image.linear_gradient("L").resize((90, 70)).save(place / "plate.jpg")
    shutil.copytree(FOOD11, place / "food")
    rows = [(f"{n:04d}", n % 3, "Public" if n % 2 else "Private") for n in range(8)]
    (place / "labels.csv").write_text("Id,Category,Usage\n" + "".join(f"{i},{k},{u}\n" for i, k, u in rows))
    (place / "answers.csv").write_text("Id,Category\n" + "".join(f"{i},0\n" for i, _, _ in rows))
    return place


def test_help_of_every_command_imports_nothing_heavy() -> None:
    groups = {name.rpartition(" ")[0] for name in cli.COMMANDS}
    lines = [[*name.split(), "--help"] for name in (*cli.COMMANDS, *groups)]
    (answer,) = imports_of([{"lines": lines}], HEAVY)
    assert answer["statuses"] == [0] * len(lines)
    assert answer["modules"] == []


def test_what_needs_no_net_is_done_without_torch(place: Path) -> None:
    grading, photo = ["grade", f"{place}/answers.csv", "--labels", f"{place}/labels.csv"], f"{place}/plate.jpg"
    by_texts = [
        (["--version"], 0),
        (["recipes", "list"], 0),
        (["recipes", "show", "boss"], 0),
        (["recipes", "copy", "simple", f"{place}/mine.toml"], 0),
        (grading, 0),
        ([*grading, "--json"], 0),
        ([*grading, "--name", "first"], 0),
        (["leaderboard", f"{place}/labels.csv"], 0),
        (["leaderboard", f"{place}/labels.csv", "--json", "--reveal"], 0),
        # A mistake is found before anything is loaded for nothing.
        (["run", "medum", "--data", f"{place}/photos", "--out", f"{place}/run"], 1),
        (["search", "--recipe", "medum", "--data", f"{place}/photos"], 1),
    ]
    by_pixels = [
        (["data", "check", f"{place}/photos"], 0),
        (["data", "check", f"{place}/photos", "--json"], 0),
        (["data", "check", f"{place}/nowhere"], 1),
        (["predict", photo, "--run", f"{place}/photos"], 1),
    ]
    by_graph = [
        (["predict", photo], 0),
        (["predict", photo, photo, "--json"], 0),
        (["predict", photo, "--views", "plain"], 0),
        (["predict", f"{place}/photos/validation", "--out", f"{place}/table.csv"], 0),
        (["predict", photo, "--run", f"{place}/food"], 0),
        (["predict", f"{place}/nowhere.jpg"], 1),
        (["predict", photo, "--views", "none"], 1),
    ]
    table = ((by_texts, set[str]()), (by_pixels, PIXELS), (by_graph, PIXELS | {"onnxruntime"}))
    answers = imports_of([{"lines": [line for line, _ in lines]} for lines, _ in table], HEAVY)
    for (lines, expected), answer in zip(table, answers, strict=True):
        assert answer["statuses"] == [status for _, status in lines]
        assert set(answer["modules"]) == expected
        assert answer["megabytes"] < 250  # torch alone takes twice as much


def test_what_works_with_nets_imports_neither_torchs_compiler_nor_other_libraries_of_nets(place: Path) -> None:
    """What each command imports before it begins, and what a few have at their end; the main path is there before."""
    cases = [{"import": sorted(imported_by(command))} for command in cli.COMMANDS.values()]
    data = ["--data", f"{place}/photos"]
    work = [
        ["run", f"{place}/tiny.toml", *data, "--out", f"{place}/run"],
        ["predict", f"{place}/plate.jpg", "--view-confidence", "0.5"],
        ["summary", "largekernel"],
        ["data", "prepare", f"{place}/photos", "--size", "24"],
        ["predict", f"{place}/run", *data, "--out", f"{place}/answers.csv"],
    ]
    base, *answers = imports_of(
        [{"import": []}, *cases, *({"lines": [words]} for words in work)], HEAVY, warm=["bantam.pipeline.run"]
    )
    assert set(base["modules"]) == TORCH  # what the main path imports, and with it every fork
    for name, answer in zip(cli.COMMANDS, answers, strict=False):
        assert answer["statuses"] == [], name
        assert set(answer["modules"]) - TORCH <= BESIDES.get(name, TORCH) - TORCH, name
    for words, answer in zip(work, answers[len(cases) :], strict=True):
        assert answer["statuses"] == [0], words
        counter = {"torch.utils.flop_counter", "triton"} if "--view-confidence" in words else set[str]()
        solver = {"scipy"} if words[0] == "run" else set[str]()  # of the temperature, after the last stage
        assert set(answer["modules"]) <= TORCH | counter | solver, words


def test_a_mistyped_path_or_name_is_answered_before_anything_heavy(place: Path) -> None:
    """By every command that is given one."""
    there = {"DIR": "photos", "RUN": "food", "RECIPE": "simple", "LABELS": "labels.csv", "NAME": "simple"}
    lines: dict[str, list[str]] = {}
    for name in cli.COMMANDS:
        command, _ = documented.command_of(name.split())
        asked = [one for one in command.params if one.required or one.name in ("data", "run", "reuse", "recipe")]
        for wrong in asked:
            words = name.split()
            for one in asked:
                given = f"{place}/{there.get(one.metavar.rstrip('.'), 'answers.csv')}"
                given = "simple" if one.metavar in ("RECIPE", "NAME") else given
                given = f"{place}/nowhere" if one is wrong else given
                if one.required or one is wrong or one.name == "data":
                    words += [given] if is_argument(one) else [one.opts[0], given]
            if wrong.name != "out" and not (wrong.name == "to" or name == "demo"):
                lines[f"{name} {wrong.name}"] = words
    assert len(lines) > 40
    photo = f"{place}/plate.jpg"
    names = [
        ["summary", "mobilnet_v1"],
        ["export", f"{place}/food", "--to", "onx"],
        ["prune", f"{place}/food", "--importance", "tailor"],
        ["prune", f"{place}/food", "--methods", "structured-tailor"],
        ["predict", f"{place}/food", "--data", f"{place}/photos", "--views", "crop"],
        ["teacher", "audit", "--data", f"{place}/photos", "--recipe", "medum"],
        ["bench", "train", "medum", "--data", f"{place}/photos"],
        ["run", "medium", "--data", f"{place}/photos", "--out", f"{place}/x", "--set", "student.epoch=3"],
        ["predict", photo, "--run", f"{place}/foot"],
    ]
    (answer,) = imports_of([{"lines": [*lines.values(), *names]}], HEAVY)
    assert dict(zip([*lines, *map(str, names)], answer["statuses"], strict=True)) == dict.fromkeys(
        [*lines, *map(str, names)], 1
    )
    assert set(answer["modules"]) <= PIXELS | {"onnxruntime"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_reads_what_is_waited_for_and_a_program_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, said in ((Terminal(), "loading PyTorch ...\n"), (io.StringIO(), "")):
        monkeypatch.setattr(sys, "stderr", stream)
        assert cli.BeforeTorch().find_spec("torch", None) is None
        assert cli.BeforeTorch().find_spec("torch.nn", None) is None
        assert stream.getvalue() == said
    monkeypatch.setenv("RANK", "1")  # another process of the run says it
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert cli.BeforeTorch().find_spec("torch", None) is None
    assert sys.stderr.getvalue() == ""  # pyright: ignore[reportAttributeAccessIssue]

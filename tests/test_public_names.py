"""What `import bantam` promises, and that whatever is public says what it is."""

import ast
import subprocess
import sys
from importlib import import_module, util
from pathlib import Path

import pytest

import bantam

SOURCE = Path(bantam.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))


def test_the_public_names_are_those_that_are_listed() -> None:
    assert sorted(bantam.HOMES) == sorted(bantam.__all__)
    assert set(bantam.__all__) <= set(dir(bantam))
    for name, home in bantam.HOMES.items():
        module, _, attribute = home.rpartition(".")
        assert getattr(bantam, name) is getattr(import_module(f"bantam.{module}"), attribute)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bantam.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_a_type_checker_sees_the_same_names() -> None:
    branches = [node for node in ast.parse((SOURCE / "__init__.py").read_text()).body if isinstance(node, ast.If)]
    (shown,) = [node for node in branches if ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {
        name.asname or name.name: f"{node.module}.{name.name}"
        for node in shown.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert seen == {name: f"bantam.{home}" for name, home in bantam.HOMES.items()}


def test_importing_bantam_imports_no_torch() -> None:
    code = "import sys, bantam; assert 'torch' not in sys.modules; bantam.BantamError; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(SOURCE)) for path in FILES])
def test_every_public_thing_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    silent = [] if path.name == "__main__.py" or ast.get_docstring(tree) else ["the module"]
    for node in tree.body:
        named = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if named and not ast.get_docstring(node):
            silent.append(node.name)
    assert silent == []


@pytest.mark.slow
def test_the_reference_has_every_public_name(tmp_path: Path) -> None:
    """`make docs`, for the package's front page and one module."""
    if util.find_spec("pdoc") is None:
        pytest.skip("pdoc is not installed; requirements.txt pins it")
    made = subprocess.run(
        [sys.executable, "-m", "pdoc", "bantam", "!bantam.", "bantam.deliver.export", "-o", str(tmp_path)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-2000:]
    front = (tmp_path / "bantam.html").read_text()
    assert [name for name in bantam.__all__ if f'id="{name}"' not in front] == []
    assert 'id="TARGETS"' in (tmp_path / "bantam" / "deliver" / "export.html").read_text()

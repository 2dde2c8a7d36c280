"""Mutation testing: what it would try, what it draws, and that it tells a test that notices from one that does not."""

import ast
import subprocess
import sys
from pathlib import Path

import mutants
from mutations import mutants_of

SOURCE = """
def clipped(values, low, high=3, *, strict=False):
    \"\"\"Values above low, below high - not a fault.\"\"\"
    if strict and low < high:
        raise ValueError(f"{low + 1}")
    kept = [value for value in values if value]
    kept.append(max(low, high))
    assert low < high
    return min(kept, key=abs) + 1
"""


def test_faults_are_single_and_of_every_kind():
    found = mutants_of("a.py", SOURCE)
    told = {mutant.mutation for mutant in found}
    assert told == {
        "3 -> 4",
        "False -> True",
        "strict and low < high -> (strict) or (low < high)",
        "strict and low < high -> not (strict and low < high)",
        "low < high -> low <= high",
        'raise ValueError(f"{low + 1}") -> pass',
        "value -> not (value)",
        "kept.append(max(low, high)) -> pass",
        "max(low, high) -> min(low, high)",
        "max(low, high) -> max(high, low)",
        "return min(kept, key=abs) + 1 -> return None",
        "min(kept, key=abs) + 1 -> min(kept, key=abs) - 1",
        "min(kept, key=abs) -> max(kept, key=abs)",
        "min(kept, key=abs) -> min(kept)",
        "1 -> 2",
    }
    for mutant in found:
        changed = mutant.applied(SOURCE)
        ast.parse(changed)
        assert changed != SOURCE
        assert SOURCE.splitlines()[mutant.line - 1].strip() == mutant.text
    assert len({mutant.key(SOURCE) for mutant in found}) == len(found)


def test_a_place_is_found_behind_letters_of_several_bytes():
    source = 'x = "ü"; y = 1 + 2'
    assert {mutant.applied(source) for mutant in mutants_of("a.py", source)} == {
        'x = "ü"; y = 1 - 2',
        'x = "ü"; y = 2 + 2',
        'x = "ü"; y = 1 + 3',
    }


def test_brackets_around_what_an_operator_joins_stay():
    found = {mutant.mutation for mutant in mutants_of("a.py", "x = (a + b) * (not (c - d))\ny = (z := f(a)) in (-u)\n")}
    assert {"(a + b) * (not (c - d)) -> (a + b) / (not (c - d))", "a + b -> a - b", "not (c - d) -> (c - d)"} <= found
    assert {"(z := f(a)) in (-u) -> (z := f(a)) not in (-u)", "-u -> u"} <= found


def test_the_sample_stays_the_same_when_other_lines_come_and_go():
    found = mutants_of("a.py", SOURCE)
    drawn = mutants.sampled(found, 6, 0)
    assert len(drawn) == 6
    assert drawn != mutants.sampled(found, 6, 1)
    moved = mutants.sampled(mutants_of("a.py", "first = 'line'\n" + SOURCE), 6, 0)
    assert [mutant.mutation for mutant in moved] == [mutant.mutation for mutant in drawn]


def test_every_source_has_tests_and_every_entry_of_the_list_names_a_fault():
    known: set[tuple[str, str, str]] = set()
    for file in mutants.sources([]):
        assert mutants.tests_for(file), file
        known |= {(file, one.text, one.mutation) for one in mutants_of(file, (mutants.ROOT / file).read_text())}
    listed = mutants.equivalent()
    stale = [entry for entry in listed if entry not in known]
    assert not stale, f"no longer a fault of the source; take it out of {mutants.EQUIVALENT.name}: {stale}"
    assert all(len(reason) > 10 for reason in listed.values())


def test_a_fault_that_a_test_notices_is_told_from_one_that_none_does(tmp_path: Path):
    """On a package of its own, in a process of its own: what is forked here must not be this test run."""
    package, tests = tmp_path / "src" / "bantam" / "room", tmp_path / "tests" / "room"
    package.mkdir(parents=True)
    tests.mkdir(parents=True)
    source = "def larger(a, b):\n    if a >= b:\n        return a\n    return b\n\n\ndef forever():\n    return 1\n"
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "some.py").write_text(source)
    (tests / "test_some.py").write_text(
        "from bantam.room.some import forever, larger\n\n\n"
        "def test_larger():\n    assert larger(2, 1) == 2\n    assert larger(1, 2) == 2\n\n\n"
        "def test_forever():\n    while forever() == 2:\n        pass\n\n\n"
        "def test_that_fails_anyway():\n    assert False\n"
    )
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--import-mode=importlib"\n')
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(mutants.ROOT / "benchmarks")!r})
import mutants
mutants.ROOT, mutants.BUILD, mutants.SECONDS = Path({str(tmp_path)!r}), Path({str(tmp_path / "build")!r}), 1.0
mutants.SLOW, mutants.SOURCES = (), {{"room/some.py": ("tests/room",)}}
mutants.EQUIVALENT = Path({str(tmp_path / "equivalent.toml")!r})
mutants.EQUIVALENT.write_text("")
sys.argv = ["mutants.py", str(mutants.ROOT / "src"), "--all", "--workers", "2"]
raise SystemExit(mutants.main())
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert said.returncode == 1, said.stderr
    lines = [line.split(" ", 1)[1] for line in said.stdout.splitlines() if " killed " in line or " survived " in line]
    place = "src/bantam/room/some.py"
    by = "tests/room/test_some.py::test_"
    assert sorted(lines) == sorted(
        [
            f"survived {place}:2 a >= b -> a > b ",
            f"killed {place}:3 return a -> return None {by}larger",
            f"killed {place}:4 return b -> return None {by}larger",
            f"survived {place}:8 return 1 -> return None ",
            f"killed {place}:8 1 -> 2 time",
        ]
    )
    assert f"left out, for they fail without a fault: {by}that_fails_anyway" in said.stdout
    assert (package / "some.py").read_text() == source
    # All but the survivors is known when the same is asked again.
    (tests / "test_some.py").write_text("def test_nothing():\n    pass\n")
    again = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "5 chosen, 0 equivalent, 2 to try" in again.stdout

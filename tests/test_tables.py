"""The tables: every entry is there, under its own name, and nothing is imported before somebody asks."""

import subprocess
import sys
from typing import Any

import pytest

from bantam.cli.main import COMMANDS, GROUPS
from bantam.data.layouts import LAYOUTS, Layout
from bantam.deliver.export import EXTRAS, TARGETS
from bantam.deliver.export.forms import Target
from bantam.nets.family import Family
from bantam.nets.students import KNOWN, PRUNED, STUDENTS
from bantam.objectives import OBJECTIVES, Objective
from bantam.pipeline.stages import STAGES
from bantam.recipes.kinds import STAGE_KINDS, Stage, shipped_kinds
from bantam.recipes.kinds.training import Training
from bantam.tables import Table

TABLES: dict[str, Table[Any]] = {
    "STUDENTS": STUDENTS,
    "PRUNED": PRUNED,
    "OBJECTIVES": OBJECTIVES,
    "STAGE_KINDS": STAGE_KINDS,
    "STAGES": STAGES,
    "TARGETS": TARGETS,
    "COMMANDS": COMMANDS,
    "LAYOUTS": LAYOUTS,
}


@pytest.mark.parametrize(("table", "name"), [(table, name) for table, found in TABLES.items() for name in found])
def test_every_entry_leads_to_something(table: str, name: str) -> None:
    entry = TABLES[table][name]
    assert TABLES[table][name] is entry
    if isinstance(entry, Family):
        assert entry.name == name
        assert KNOWN[name] is entry


def test_objectives_are_classes_of_objectives() -> None:
    assert all(issubclass(kind, Objective) for kind in OBJECTIVES.values())


@pytest.mark.parametrize("kind", STAGE_KINDS)
def test_a_kind_of_stage_has_its_keys_and_is_run(kind: str) -> None:
    stage = STAGE_KINDS[kind]
    assert issubclass(stage, Stage)
    assert callable(STAGES[kind])
    # The main path ships what a training has made.
    assert issubclass(stage, Training) or not stage.ships(kind)
    assert STAGES[kind].__module__.rpartition(".")[2] == stage.__module__.rpartition(".")[2]


def test_what_is_shipped() -> None:
    assert shipped_kinds() == ["student", "prune", "exits"]


def test_forms_are_told_apart_by_the_names_of_their_files() -> None:
    assert all(isinstance(form, Target) for form in TARGETS.values())
    assert len({(form.mark, form.suffix) for form in TARGETS.values()}) == len(TARGETS)
    assert set(EXTRAS) <= set(TARGETS)


def test_layouts_are_layouts() -> None:
    assert all(isinstance(layout, Layout) for layout in LAYOUTS.values())
    assert list(LAYOUTS)[-1] == "flat"


def test_a_table_is_a_mapping_in_its_order() -> None:
    table = Table[Any]("bantam", {"later": "files:write_text", "sooner": "errors:BadData", "wrong": "files:nothing"})
    assert list(table) == ["later", "sooner", "wrong"]
    assert "sooner" in table
    assert "absent" not in table
    assert len(table) == 3
    with pytest.raises(KeyError, match="absent"):
        table["absent"]
    with pytest.raises(AttributeError, match="nothing"):
        table["wrong"]


def test_names_cost_no_import() -> None:
    code = (
        "import sys; from bantam.tables import Table; table = Table('json', {'tool': 'tool:main'}); "
        "assert list(table) == ['tool'] and 'json.tool' not in sys.modules; "
        "table['tool']; assert 'json.tool' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_command_is_in_a_group_that_is_explained() -> None:
    assert {name.rpartition(" ")[0] for name in COMMANDS} - {""} == set(GROUPS)

"""The tables: every entry is there, under its own name, and nothing is imported before somebody asks."""

import subprocess
import sys
from typing import Any

import pytest

from bantam.cli.main import COMMANDS, GROUPS
from bantam.nets.family import Family
from bantam.nets.students import KNOWN, PRUNED, STUDENTS
from bantam.objectives import OBJECTIVES, Objective
from bantam.tables import Table

TABLES: dict[str, Table[Any]] = {"STUDENTS": STUDENTS, "PRUNED": PRUNED, "OBJECTIVES": OBJECTIVES, "COMMANDS": COMMANDS}


@pytest.mark.parametrize(("table", "name"), [(table, name) for table, found in TABLES.items() for name in found])
def test_every_entry_leads_to_something(table: str, name: str) -> None:
    entry = TABLES[table][name]
    assert TABLES[table][name] is entry
    if isinstance(entry, Family):
        assert entry.name == name
        assert KNOWN[name] is entry


def test_objectives_are_classes_of_objectives() -> None:
    assert all(issubclass(kind, Objective) for kind in OBJECTIVES.values())


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

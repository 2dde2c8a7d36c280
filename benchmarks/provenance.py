"""The table of what made each result: command, seed, number of images, commit, machine and versions."""

from pathlib import Path
from typing import Any

from markdown_tables import machine, read, table


def evidence(results: Path) -> str:
    """What made each result under results/: one row a file."""
    rows: list[list[str]] = []
    patterns = ("food-11/*/metrics.json", "benchmarks/*.json", "benchmarks/*/curve.json")
    for path in sorted(found for pattern in patterns for found in results.glob(pattern)):
        measured = read(path)
        assert measured is not None
        environment = measured.get("environment") or read(path.with_name("environment.json"))
        assert environment is not None
        place = path.parent if path.name in ("metrics.json", "curve.json") else path
        in_turn = [environment.get("commit") or "-", *environment.get("resumed", [])]
        commits = ", ".join(commits_of_rows(measured)) or ", then ".join(commit[:8] for commit in in_turn)
        rows.append(
            [
                place.relative_to(results).as_posix(),
                f"`{' '.join(environment['command'])}`",
                ", ".join(map(str, seeds(measured))) or "-",
                f"{images_judged(measured):,}" if images_judged(measured) else "-",
                commits,
                machine(environment),
                ", ".join(f"{name} {environment['versions'][name]}" for name in ("torch", "torchvision", "numpy")),
            ]
        )
    return table(("result", "command", "seed", "n", "commit", "machine", "versions"), rows)


def commits_of_rows(measured: dict[str, Any]) -> list[str]:
    """The commits of a benchmark whose rows say theirs: it may have been held in parts."""
    rows = [row for row in measured.get("rows", []) if isinstance(row, dict)]
    return sorted({commit[:8] for row in rows for commit in row.get("commits", ()) if commit})


def seeds(measured: dict[str, Any]) -> list[int]:
    """The seeds that a result says it was made with."""
    return measured.get("seeds") or ([measured["seed"]] if "seed" in measured else [])


def images_judged(measured: dict[str, Any]) -> int:
    """On how many images accuracies of a result were measured; 0 where it has none."""
    points = [point["before"] for point in measured.get("points", [])]
    found = [measured.get("validation"), *(row for row in measured.get("rows", []) if isinstance(row, dict)), *points]
    return max((judged.get("n", 0) for judged in found if isinstance(judged, dict)), default=0)

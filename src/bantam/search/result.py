"""What a search has found: a line a trial, the table of all, the winner's recipe, and the Pareto plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from bantam.errors import TrainingStopped
from bantam.files import write_json, write_text
from bantam.measure.plots import drawn
from bantam.recipes import recipe as recipes
from bantam.recipes.recipe import Recipe
from bantam.search import space
from bantam.search.queue import Queue

Row = dict[str, Any]

REFUSED = ("rejected", "stopped")
"""Over the budget, before any training; and ended by an alarm of the training."""

STATES = ("complete", "pruned", *REFUSED)


def line(trial: FrozenTrial) -> str:
    """What became of a trial, in one line."""
    what = f"{trial.params['family']} at {trial.params['size']} px"
    for name in REFUSED:
        if name in trial.user_attrs:
            return f"{what}: {name}: {trial.user_attrs[name]}"
    if trial.state is TrialState.PRUNED:
        return f"{what}: pruned after epoch {trial.last_step} at {trial.value:.3f}"
    return f"{what}: validation {trial.value:.3f} ± {trial.user_attrs['standard_error']:.3f}"


def last_reason(queue: Queue) -> str:
    """Why the last candidate failed, in one line."""
    reasons = [line(trial) for trial in queue.finished()]
    return reasons[-1] if reasons else "every attempt has failed"


def write_result(name: str, base: Recipe, out: Path, screening: Queue, final: Queue) -> Row:
    """Write winner.toml, pareto.svg and search.json; gives what the last one holds."""
    candidates = [row(trial) for trial in screening.finished()]
    finalists = sorted((row(trial) for trial in final.finished()), key=lambda one: one["accuracy"] or 0, reverse=True)
    if not finalists or finalists[0]["state"] != "complete":
        raise TrainingStopped(f"no candidate could be trained in full: {last_reason(final)}")
    winner = finalists[0]
    header = (
        f"# The best of {len(candidates)} students within {base.budget:,} parameters, found by a search.\n"
        "#\n"
        "# command   bantam run winner.toml --data DIR --out RUN\n"
        f"# expected  validation {winner['accuracy']:.4f} ± {winner['standard_error']:.4f} (n = {winner['n']:,}); "
        "the candidates were chosen on this split\n"
        f"# study     {name}\n\n"
    )
    write_text(out / "winner.toml", header + recipes.dump(space.candidate(base, winner["params"])))
    pareto_plot(out / "pareto.svg", candidates, finalists)
    states = [one["state"] for one in candidates]
    result = {
        "study": name,
        "budget": base.budget,
        "trials": {**{state: states.count(state) for state in STATES}, "given_up": screening.given_up()},
        "winner": winner,
        "finalists": finalists,
        "candidates": candidates,
    }
    write_json(out / "search.json", result)
    return result


def row(trial: FrozenTrial) -> Row:
    """A finished trial as plain data."""
    attributes = trial.user_attrs
    state = next((name for name in REFUSED if name in attributes), trial.state.name.lower())
    return {
        "slot": attributes["slot"],
        "state": state,
        "accuracy": trial.value,
        "epochs": trial.last_step,
        **{name: attributes.get(name) for name in ("standard_error", "n", "parameters", "macs", "folder")},
        "params": trial.params,
    }


def pareto_front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other beats in "accuracy" at as few or fewer "macs", from the cheapest on."""
    front: list[Row] = []
    for one in sorted(rows, key=lambda one: (one["macs"], -one["accuracy"])):
        if not front or one["accuracy"] > front[-1]["accuracy"]:
            front.append(one)
    return front


def pareto_plot(path: Path, candidates: Sequence[Row], finalists: Sequence[Row]) -> None:
    """Draw the candidates that were not pruned, their Pareto front, and the finalists in full training, as SVG."""
    shown = [row for row in candidates if row["state"] == "complete"]
    full = [row for row in finalists if row["state"] == "complete"]
    with drawn(path, (8, 5)) as figure:
        axes = figure.add_subplot()
        families = sorted({row["params"]["family"] for row in [*shown, *full]})
        colours = {family: f"C{number % 10}" for number, family in enumerate(families)}
        for rows, marker in ((shown, "o"), (full, "*")):
            for row in rows:
                axes.errorbar(
                    row["macs"] / 1e6, 100 * row["accuracy"], 100 * row["standard_error"], fmt=marker, elinewidth=0.8,
                    color=colours[row["params"]["family"]], markersize=12 if marker == "*" else 5,
                )  # fmt: skip
        front = pareto_front(shown)
        megas, percents = [row["macs"] / 1e6 for row in front], [100 * row["accuracy"] for row in front]
        axes.step(megas, percents, "k--", lw=0.8, where="post")
        for family, colour in colours.items():
            axes.plot([], [], "o", color=colour, label=family)
        axes.plot([], [], "k*", markersize=12, label="trained in full")
        axes.plot([], [], "k--", lw=0.8, label="Pareto front, short training")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel("million multiply-accumulates for one image")
        axes.set_ylabel("validation accuracy ± standard error, %")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", frameon=False)

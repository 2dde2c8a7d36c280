"""A finished run against the peers, image by image on validation: McNemar's exact test.

    python benchmarks/against_peers.py --data DIR --run RUN --hits P1.pt P2.pt

The hits are what `peers.py --hits` keeps: the peer's answers in its own way, TTA included. The run's
student stands against them twice: in one plain view, which nothing was chosen for, and with the TTA that it
ships with. Writes results/benchmarks/against-peers.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from bantam.data import cache
from bantam.errors import RunMismatch
from bantam.measure.accuracy import Accuracy, hits, mcnemar
from bantam.measure.crops import tta_of
from bantam.measure.tta import logits_of_tta
from bantam.runs import checkpoint
from bantam.runs.finished import load_shipped, open_run
from evidence import RESULTS, write
from peers import images_digest


def compared(run: Path, data: Path, peers: list[Path]) -> list[dict[str, Any]]:
    """A row for each peer and each of the run's ways of looking. Raises RunMismatch for hits on other images."""
    net, shipped = load_shipped(run)
    validation = cache.open_splits(data, open_run(run).stored).validation
    chosen = tta_of(json.loads((run / "metrics.json").read_text(encoding="utf-8"))["validation"])
    rows: list[dict[str, Any]] = []
    for views in dict.fromkeys(["plain", chosen]):
        said = logits_of_tta(net, validation, shipped.student.size, shipped.normalisation, views)
        ours = hits(said, validation.labels)
        for path in peers:
            peer = checkpoint.load(path)
            if peer["images"] != images_digest(validation):
                raise RunMismatch(f"{path} is about other validation images than those in {data}")
            theirs = peer["hits"]
            test, n = mcnemar(ours, theirs), len(ours)
            own, other = Accuracy(int(ours.sum()), n), Accuracy(int(theirs.sum()), n)
            rows.append(
                {
                    "peer": peer["peer"],
                    "views": views,
                    "accuracy": own.value,
                    "standard_error": own.standard_error,
                    "peer_accuracy": other.value,
                    "peer_standard_error": other.standard_error,
                    "peer_epochs": peer["epochs"],
                    "difference": (test.only_a - test.only_b) / n,
                    "only_ours": test.only_a,
                    "only_peer": test.only_b,
                    "p": test.p,
                    "n": n,
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--hits", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "against-peers.json")
    options = parser.parse_args()
    rows = compared(options.run, options.data, options.hits)
    metrics = json.loads((options.run / "metrics.json").read_text(encoding="utf-8"))
    # A student may go on from another's weights; what its teachers trained is not the student's.
    students = [stage for stage in metrics["stages"].values() if stage["kind"] == "student"]
    epochs = sum(stage["epochs"] for stage in students)
    about = {"recipe": metrics["recipe"], "student": metrics["student"], "epochs": epochs}
    write(options.out, {**about, "rows": rows})
    for row in rows:
        print(
            f"{row['views']} {row['accuracy']:.4f} against {row['peer']} {row['peer_accuracy']:.4f}: "
            f"{100 * row['difference']:+.2f} points, p = {row['p']:.2g}"
        )


if __name__ == "__main__":
    main()

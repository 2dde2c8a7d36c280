"""The numbers at the axes of the page's charts are round; elements.js itself runs, in node."""

import json
import math
import shutil
import subprocess

import pytest

from bantam.deliver.serve.app import STATIC

ASK = """
const { ticks, epochTicks } = await import(`data:text/javascript;base64,${process.argv[1]}`);
const [ranges, totals] = JSON.parse(process.argv[2]);
console.log(JSON.stringify([ranges.map(([low, high]) => ticks(low, high, 4)), totals.map(epochTicks)]));
"""
RANGES = [(0.3, 0.76), (0.7121, 0.7134), (1.98, 2.31), (0, 1), (0.0001, 0.9), (12, 118), (0.5, 0.5 + 1e-6)]
TOTALS = [1, 2, 3, 5, 6, 7, 12, 24, 30, 37, 78, 100, 149, 300, 2000]


@pytest.fixture(scope="module")
def answers() -> tuple[list[list[float]], list[list[int]]]:
    if shutil.which("node") is None:
        pytest.skip("node is not here")
    import base64

    script = base64.b64encode((STATIC / "elements.js").read_bytes()).decode()
    words = ["node", "--input-type=module", "-e", ASK, script, json.dumps([RANGES, TOTALS])]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    values, epochs = json.loads(ended.stdout)
    return values, epochs


def test_values_are_few_round_and_within(answers: tuple[list[list[float]], list[list[int]]]) -> None:
    for (low, high), found in zip(RANGES, answers[0], strict=True):
        assert 2 <= len(found) <= 7, (low, high, found)
        slack = 1e-9 + 1e-6 * (high - low)
        assert low - slack <= found[0]
        assert found[-1] <= high + slack
        step = found[1] - found[0]
        digit = step / 10 ** math.floor(math.log10(step) + 1e-6)
        assert min(abs(digit - good) for good in (1, 2, 5, 10)) < 1e-2, found
        assert all(len(f"{value:.10f}".rstrip("0")) <= 10 for value in found), "no 0.30000000000000004"


def test_epochs_are_whole_round_and_end_with_the_last(answers: tuple[list[list[float]], list[list[int]]]) -> None:
    for total, found in zip(TOTALS, answers[1], strict=True):
        assert found == sorted(set(found))
        assert (found[0], found[-1]) == (1, total)
        assert len(found) <= 8
        if total > 8:
            assert all(epoch % 2 == 0 or epoch % 5 == 0 for epoch in found[1:-1]), found
    assert dict(zip(TOTALS, answers[1], strict=True))[24] == [1, 5, 10, 15, 20, 24]

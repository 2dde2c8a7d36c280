"""A good package passes; each kind of wrong one fails by the check that is meant for it; hostile code gains nothing."""

import io
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import hostile
from bantam.deliver.package.write import package
from bantam.deliver.verify import sandbox
from bantam.deliver.verify.answering import Found
from bantam.deliver.verify.unrun import NOTES_SIZE, is_expected
from bantam.deliver.verify.verify import Verdict, check_net, verify
from bantam.errors import BadData
from warm import warm


@pytest.fixture(scope="module")
def warmed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        warm(patch)
        yield


@pytest.fixture(scope="module")
def honest(photographs: Path) -> hostile.Files:
    return hostile.honest(photographs)


@pytest.fixture(scope="session")
def good(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(finished_run, tmp_path_factory.mktemp("package") / "hw13.zip").path


def changed(archive: Path, to: Path, **files: bytes | str | None) -> Path:
    """A copy of the package with files changed or, with None, left out; __ in a name stands for the dot."""
    with zipfile.ZipFile(archive) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    contents |= {name.replace("__", "."): data for name, data in files.items()}
    with zipfile.ZipFile(to, "w") as file:
        for name, data in contents.items():
            if data is not None:
                file.writestr(name, data)
    return to


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def judged(verdict: Verdict) -> dict[str, bool | None]:
    return {check.name: check.passed for check in verdict.checks}


def detail(verdict: Verdict, name: str) -> str:
    return next(check.detail for check in verdict.checks if check.name == name)


def test_what_another_person_wrote_by_hand_passes_in_the_sandbox(
    honest: hostile.Files, photographs: Path, tmp_path: Path
) -> None:
    """The one package of this file whose code runs as it does for users: in processes of its own, with the limits."""
    verdict = verify(hostile.packed(honest, tmp_path / "hw13.zip"), photographs, hostile.BUDGET, run_code=True)
    assert set(judged(verdict).values()) == {True}, verdict.text()
    assert "867 parameters, 867 as torchsummary counts" in detail(verdict, "net")
    assert "2 views of each photograph: shorter side to 36, window 32 x 32;" in detail(verdict, "inputs")
    assert "gives 24 of the code's 24 answers" in detail(verdict, "answers")
    assert "all 12 rows equal" in detail(verdict, "reproduction")


def test_a_package_of_bantam_passes_and_one_with_a_tampered_row_fails(
    good: Path, photographs: Path, tmp_path: Path, warmed: None
) -> None:
    verdict = verify(good, photographs, 5000, run_code=True)
    assert set(judged(verdict).values()) == {True}, verdict.text()
    assert verdict.passed
    with zipfile.ZipFile(good) as file:
        rows = file.read("submission.csv").decode().splitlines()
    rows[3] = f"0002,{(int(rows[3].split(',')[1]) + 1) % 3}"
    bad = changed(good, tmp_path / "bad.zip", submission__csv="\n".join(rows) + "\n")
    verdict = verify(bad, photographs, 5000, run_code=True)
    assert judged(verdict)["net"] is judged(verdict)["answers"] is True
    assert judged(verdict)["reproduction"] is False
    assert "1 differs (0002: " in detail(verdict, "reproduction")


@pytest.mark.slow
def test_a_good_notebook_passes_with_its_code_run(finished_run: Path, photographs: Path, tmp_path: Path) -> None:
    made = package(finished_run, tmp_path / "hw13.zip", notebook=True)
    verdict = verify(made.path, photographs, 5000, run_code=True)
    assert set(judged(verdict).values()) == {True}, verdict.text()


@pytest.mark.parametrize("name", hostile.UNRUN)
def test_what_could_hold_numbers_is_refused_unrun(
    honest: hostile.Files, photographs: Path, tmp_path: Path, name: str
) -> None:
    path = hostile.packed(hostile.UNRUN[name](photographs, honest), tmp_path / "bad.zip")
    verdict = verify(path, photographs, hostile.BUDGET, run_code=True)
    assert not verdict.passed
    assert judged(verdict).get("net") is None


QUICK = (
    "a non-persistent buffer", "statistics used as weights", "a branch on the images", "answers by an image's hash",
    "faint answers in the pixels", "another net by the size of the batch", "a net that is handed over at exit",
    "a count below 1", "a pickle as the net",
)  # fmt: skip
"""One of each kind; the others are run by the slow tests, in the sandbox."""


def test_the_code_is_shown_copies_of_the_evaluation_images_alone(
    honest: hostile.Files, photographs: Path, tmp_path: Path, warmed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No labelled folder, no name or time of a photograph, and no submission that could be left as it is."""
    seen: list[tuple[set[str], set[str], int]] = []
    run = sandbox.run

    def watched(argv: list[str], place: Path, shown: tuple[Path, ...], timeout: float) -> str:
        data, room = shown[0], place / "room"
        inside = {str(path.relative_to(data)) for path in data.rglob("*") if path.is_dir()}
        seen.append((inside, {path.name for path in room.iterdir()}, len(list((data / "evaluation").iterdir()))))
        originals = {path.name: path.stat().st_mtime_ns for path in (photographs / "evaluation").iterdir()}
        for path in (data / "evaluation").iterdir():
            assert not path.is_symlink()
            assert path.stat().st_mtime_ns not in originals.values()
        return run(argv, place, shown, timeout)

    monkeypatch.setattr(sandbox, "run", watched)
    verdict = verify(hostile.packed(honest, tmp_path / "hw13.zip"), photographs, hostile.BUDGET, run_code=True)
    assert verdict.passed, verdict.text()
    assert [(inside, number) for inside, _, number in seen] == [({"evaluation"}, 8), ({"evaluation"}, 24)]
    assert all(names == {"hw13.py", "student_best.ckpt", "food11-hw13"} for _, names, _ in seen)


@pytest.mark.parametrize("name", QUICK)
def test_what_is_weighed_is_what_answers(
    honest: hostile.Files, photographs: Path, tmp_path: Path, warmed: None, name: str
) -> None:
    path = hostile.packed(hostile.PACKAGES[name](photographs, honest), tmp_path / "bad.zip")
    verdict = verify(path, photographs, hostile.BUDGET, run_code=True, timeout=60)
    assert not verdict.passed, verdict.text()
    assert judged(verdict)["submission"] is True


@pytest.mark.slow
@pytest.mark.parametrize("name", [*hostile.HIDDEN, *hostile.ANSWERS])
def test_no_hostile_package_passes(photographs: Path, tmp_path: Path, name: str) -> None:
    assert hostile.try_all(photographs, tmp_path, [name]) == {}


def found(parameters: int, called: int, beside: int = 0) -> Found:
    counted = max(parameters, called) + max(0, beside - 64)
    return Found({"parameters": parameters, "called": called, "beside": beside, "text": 0}, counted)


@pytest.mark.parametrize(
    ("weighed", "passes"),
    [
        (found(1000, 1000), True),
        (found(1001, 1000), False),
        (found(1000, 1001), False),
        (found(1000, 500, 64), True),
        (found(1000, 500, 65), False),
        (Found(net="the code ended without a net"), False),
    ],
)
def test_the_budget_holds_for_the_larger_count_and_to_the_number(weighed: Found, passes: bool) -> None:
    assert check_net(weighed, 1000).passed is passes


def test_the_file_s_numbers_may_be_the_budget_and_no_more(
    honest: hostile.Files, photographs: Path, tmp_path: Path
) -> None:
    path = hostile.packed(honest, tmp_path / "hw13.zip")
    assert judged(verify(path, photographs, 867))["parameters"] is True
    assert judged(verify(path, photographs, 866))["parameters"] is False


def test_notes_and_a_system_s_debris_are_no_further_files(
    honest: hostile.Files, photographs: Path, tmp_path: Path
) -> None:
    more = {"README.md": b"r" * NOTES_SIZE, "requirements.txt": b"torch", "__MACOSX/._hw13.py": bytes(120)}
    assert verify(hostile.packed({**honest, **more}, tmp_path / "hw13.zip"), photographs, hostile.BUDGET).passed
    assert is_expected("README.md", more["README.md"])
    assert not is_expected("README.md", more["README.md"] + b"r")


def test_without_run_code_no_code_runs_and_the_verdict_says_so(good: Path, photographs: Path, tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    bad = changed(good, tmp_path / "trap.zip", hw13__py=f"open({str(trap)!r}, 'w')")
    verdict = verify(bad, photographs, 5000)
    assert not trap.exists()
    assert verdict.passed
    assert judged(verdict)["net"] is judged(verdict)["reproduction"] is None
    assert "--run-code" in verdict.text()
    assert verdict.text().count("no sandbox") == 1, "once, not for each of the checks"
    assert "net, inputs, answers, reproduction, moved: " in verdict.text()
    assert "as far as it was checked" in verdict.text()


@pytest.mark.parametrize("missing", ["hw13__py", "student_best__ckpt", "submission__csv"])
def test_a_missing_file_is_named(good: Path, photographs: Path, tmp_path: Path, missing: str) -> None:
    verdict = verify(changed(good, tmp_path / "bad.zip", **{missing: None}), photographs, 5000)
    assert judged(verdict)["files"] is False
    assert missing.replace("__", ".") in detail(verdict, "files")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("Id,Category\n0000,1\n", "11 missing ids"),
        ("Id,Class\n0000,1\n", "header"),
        ("Id,Category\n" + "".join(f"{n:04},7\n" for n in range(12)), "bad categories"),
        ("Id,Category\n" + "".join(f"{n:04},0\n" for n in range(13)), "1 unknown id"),
        ("Id,Category\n" + "".join(f"{n:04},0\n" for n in reversed(range(12))), "not sorted"),
        (b"\xff\xfe\x00", "CSV"),
    ],
)
def test_a_bad_submission_fails(good: Path, photographs: Path, tmp_path: Path, rows: str | bytes, reason: str) -> None:
    verdict = verify(changed(good, tmp_path / "bad.zip", submission__csv=rows), photographs, 5000, run_code=True)
    assert judged(verdict)["submission"] is False
    assert reason in detail(verdict, "submission")
    assert judged(verdict)["reproduction"] is None


def test_too_many_parameters_fail_before_any_code_runs(good: Path, photographs: Path) -> None:
    verdict = verify(good, photographs, 1000, run_code=True)
    assert judged(verdict)["parameters"] is False
    assert "over the budget of 1,000" in detail(verdict, "parameters")
    assert judged(verdict)["net"] is None


class Evil:
    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self):
        return os.system, (f"touch {self.trap}",)


def torch_zip(pickled: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/version", "3\n")
    return buffer.getvalue()


def test_a_pickle_that_runs_code_runs_none(good: Path, photographs: Path, tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    for number, data in enumerate((torch_zip(pickle.dumps({"w": Evil(trap)}, 2)), saved({"w": Evil(trap)}))):
        bad = changed(good, tmp_path / f"{number}.zip", student_best__ckpt=data)
        verdict = verify(bad, photographs, 5000, run_code=True)
        assert judged(verdict)["weights"] is False
        assert "weights only" in detail(verdict, "weights")
        assert judged(verdict)["net"] is None
    assert not trap.exists()


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (pickle.dumps({"w": 1}), "not a whole zip"),
        (saved([torch.ones(2)]), "no state_dict"),
        (saved({"w": torch.ones(2), "epoch": 3}), "no plain state_dict"),
        (saved({}), "no state_dict"),
    ],
)
def test_weights_that_are_no_state_dict_fail(
    good: Path, photographs: Path, tmp_path: Path, weights: bytes, reason: str
) -> None:
    verdict = verify(changed(good, tmp_path / "bad.zip", student_best__ckpt=weights), photographs, 5000)
    assert judged(verdict)["weights"] is False
    assert reason in detail(verdict, "weights")


def test_weights_that_claim_more_bytes_than_there_are_fail(good: Path, photographs: Path, tmp_path: Path) -> None:
    whole = saved({"w": torch.zeros(100_000)})
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in contents.items():
            file.writestr(name, data[:10] if name.endswith("/data/0") else data)
    verdict = verify(changed(good, tmp_path / "bad.zip", student_best__ckpt=buffer.getvalue()), photographs, 200_000)
    assert judged(verdict)["weights"] is False


def test_statistics_are_free_only_where_they_are_a_batchnorm_s(good: Path, photographs: Path, tmp_path: Path) -> None:
    honest = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).state_dict()
    hidden = {"conv.weight": torch.ones(8), "more.running_mean": torch.ones(4000), "more.running_var": torch.ones(8)}
    for state, count in ((honest, 8 * 27 + 8 + 16), (hidden, 8 + 4000 + 8)):
        bad = changed(good, tmp_path / "bad.zip", student_best__ckpt=saved(state))
        assert detail(verify(bad, photographs, 500), "parameters").startswith(f"{count:,} in the file")


def test_a_hostile_zip_is_a_failed_check(photographs: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../evil.py", "x")
    verdict = verify(path, photographs, 5000, run_code=True)
    assert judged(verdict) == {"archive": False}
    assert not (tmp_path.parent / "evil.py").exists()
    assert not verify(tmp_path / "none.zip", photographs, 5000).passed


def test_photographs_without_evaluation_images_are_refused(good: Path, tmp_path: Path, photographs: Path) -> None:
    (tmp_path / "training").symlink_to(photographs / "training")
    (tmp_path / "validation").symlink_to(photographs / "validation")
    with pytest.raises(BadData, match="no evaluation images"):
        verify(good, tmp_path, 5000)

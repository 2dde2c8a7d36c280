"""A good package passes; each kind of wrong one fails by the check that is meant for it; hostile code is confined."""

import io
import json
import os
import pickle
import time
import zipfile
from pathlib import Path

import pytest
import torch

from bantam.deliver.package.write import package
from bantam.deliver.verify import verify
from bantam.deliver.verify.verify import (
    Verdict,
    check_net,
    compare,
    in_clean_room,
    run_package,
)
from bantam.errors import BadData


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


def test_a_good_package_passes_with_its_code_run(good: Path, photographs: Path) -> None:
    verdict = verify(good, photographs, 5000, run_code=True)
    assert set(judged(verdict).values()) == {True}, verdict.text()
    assert verdict.passed
    assert "all 12 rows equal" in verdict.text()


@pytest.mark.slow
def test_a_good_notebook_passes_with_its_code_run(finished_run: Path, photographs: Path, tmp_path: Path) -> None:
    made = package(finished_run, tmp_path / "hw13.zip", notebook=True)
    verdict = verify(made.path, photographs, 5000, run_code=True)
    assert set(judged(verdict).values()) == {True}, verdict.text()


def test_without_run_code_no_code_runs_and_the_verdict_says_so(good: Path, photographs: Path, tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    bad = changed(good, tmp_path / "trap.zip", hw13__py=f"open({str(trap)!r}, 'w')")
    verdict = verify(bad, photographs, 5000)
    assert not trap.exists()
    assert verdict.passed
    assert judged(verdict)["net"] is judged(verdict)["reproduction"] is None
    assert "--run-code" in verdict.text()
    assert "no sandbox" in verdict.text()
    assert "as far as it was checked" in verdict.text()


def test_a_tampered_submission_fails_with_the_row(
    good: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(good) as file:
        honest = file.read("submission.csv")

    # What the code writes is put there by hand: that it does write it is the test above, with two processes.
    def clean_room(arguments: list[str | Path], _room: Path, _data: Path, _timeout: float) -> str:
        weight = b'{"unique": 4000, "torchsummary": 4000, "classes": 3}'
        Path(arguments[-1]).write_bytes(weight if arguments[0] == "weigh" else honest)
        return ""

    monkeypatch.setattr("bantam.deliver.verify.verify.in_clean_room", clean_room)
    rows = honest.decode().splitlines()
    rows[3] = f"0002,{(int(rows[3].split(',')[1]) + 1) % 3}"
    bad = changed(good, tmp_path / "bad.zip", submission__csv="\n".join(rows) + "\n")
    verdict = verify(bad, photographs, 5000, run_code=True)
    assert not verdict.passed
    assert judged(verdict)["net"] is True
    assert judged(verdict)["reproduction"] is False
    assert "1 differs (0002: " in detail(verdict, "reproduction")


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


@pytest.mark.slow
def test_a_net_with_hidden_parameters_fails_by_its_own_weight(good: Path, photographs: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(good) as file:
        code = file.read("hw13.py").decode()
    hidden = code.replace(
        "# %% 2-1",
        "_honest = get_student_model\n\n\ndef get_student_model():\n    net = _honest()\n"
        "    net.load_state_dict = lambda state: None\n    net.extra = nn.Linear(100, 100)\n    return net\n\n\n"
        "# %% 2-1",
    )
    verdict = verify(changed(good, tmp_path / "bad.zip", hw13__py=hidden), photographs, 5000, run_code=True)
    assert judged(verdict)["parameters"] is True
    assert judged(verdict)["net"] is False
    assert "over the budget of 5,000" in detail(verdict, "net")


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


def alone(code: str, tmp_path: Path, timeout: float = 60.0) -> tuple[str, Path]:
    room = tmp_path / "place" / "package"
    room.mkdir(parents=True)
    (room / "hw13.py").write_text(code)
    out = room / "out.txt"
    return in_clean_room(["run", room / "hw13.py", tmp_path, out], room, tmp_path, timeout), out


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import bantam", "bantam"),
        ("import bantam.nets.budget", "bantam"),
        ("while True: pass", "did not end within"),
        ("import time; time.sleep(100)", "did not end within"),
        ("f = open('big', 'wb'); f.seek(2**30); f.write(b'x'); f.close()", "File too large|SIGXFSZ"),
        ("x = bytearray(2**36)", "MemoryError"),
        ("import sys; print('\\x1b[2Jno', file=sys.stderr); sys.exit(3)", r"the code failed: \[2Jno"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ("import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); raise ValueError('odd')", "odd"),
    ],
)
def test_the_code_is_confined_and_its_end_explained(tmp_path: Path, code: str, reason: str) -> None:
    failed, _ = alone(code, tmp_path, timeout=1.5)
    assert any(part in failed or part.replace("\\", "") in failed for part in reason.split("|")), failed


def test_the_code_sees_neither_the_user_s_environment_nor_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    monkeypatch.setenv("PYTHONPATH", "/secret")
    code = "import os, sys, json; json.dump([dict(os.environ), sys.path, sys.stdin.read()], open(sys.argv[4], 'w'))"
    failed, out = alone(code, tmp_path)
    assert failed == ""
    environment, path, stdin = json.loads(out.read_text())
    assert "SECRET_TOKEN" not in environment
    assert environment["HOME"] == str(out.parent)
    assert "/secret" not in path
    assert stdin == ""


@pytest.mark.parametrize("session", [False, True])
def test_children_of_the_code_end_with_it(tmp_path: Path, session: bool) -> None:
    code = (
        f"import subprocess, sys; p = subprocess.Popen(['sleep', '60'], start_new_session={session})\n"
        "open(sys.argv[4], 'w').write(str(p.pid))"
    )
    failed, out = alone(code, tmp_path)
    assert failed == ""
    status = Path(f"/proc/{out.read_text()}/stat")
    until = time.monotonic() + 20
    while status.exists() and status.read_text().split()[2] != "Z":
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("left", ["os.mkfifo(out)", "os.symlink('/dev/zero', out)", "os.mkdir(out)", "pass"])
def test_what_the_code_leaves_is_read_only_where_it_is_a_file(tmp_path: Path, left: str) -> None:
    failed, out = alone(f"import os, sys; out = sys.argv[4]; {left}", tmp_path)
    assert failed == ""
    assert "without a file" in compare(out, {"0000": 1}, 3).detail
    assert "without a weight" in check_net(out, 3, 5000).detail


def test_nesting_without_end_is_no_weight_and_no_notebook(tmp_path: Path) -> None:
    deep = "[" * 200_000
    (tmp_path / "weight.json").write_text(deep)
    assert "without a weight" in check_net(tmp_path / "weight.json", 3, 5000).detail
    place = tmp_path / "place"
    place.mkdir()
    checks = run_package({"hw13.ipynb": deep.encode(), "student_best.ckpt": b""}, None, {}, 1, place, 1)  # type: ignore[arg-type]
    assert all("no notebook" in check.detail for check in checks)

"""The cache holds what the files hold: after changes, kills, races, full disks and damage."""

import faulthandler
import json
import multiprocessing
import os
import resource
import shutil
import signal
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bantam.data import cache, contents, images
from bantam.data.cache import open_splits
from bantam.data.folder import Record
from bantam.data.splits import Splits, UnlabelledSplit
from bantam.errors import BadData, BadImage, CannotWrite
from damage import flipped

# Forked, so that a process starts at once; the children use one thread until they have built.
processes = multiprocessing.get_context("fork")

SIZE = 8


def noise(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE + 3, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """80 training, 10 validation and 5 evaluation images of two classes."""
    for split, count in (("training", 80), ("validation", 10)):
        for n in range(count):
            noise(tmp_path / "data" / split / f"{n % 2}_{n}.png", seed=1000 * len(split) + n)
    for n in range(5):
        noise(tmp_path / "data" / "evaluation" / f"{n:04d}.png", seed=n)
    return tmp_path / "data"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def remembering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hashes of these new files be remembered as those of old files are."""
    monkeypatch.setattr(contents, "_TIMESTAMP_GRANULARITY_NS", 0)
    time.sleep(0.02)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files decoded since."""
    paths: list[Path] = []
    decode_bytes = images.decode_bytes

    def recording(data: bytes, path: Path, size: int) -> np.ndarray:
        paths.append(path)
        return decode_bytes(data, path, size)

    monkeypatch.setattr(images, "decode_bytes", recording)
    return paths


def assert_good(splits: Splits, root: Path) -> None:
    """Every row against a plain decode of its file."""
    assert splits.evaluation is not None
    for name, split in (
        ("training", splits.training),
        ("validation", splits.validation),
        ("evaluation", splits.evaluation),
    ):
        assert list(split.ids) == sorted(path.stem for path in (root / name).iterdir())
        for id, image in zip(split.ids, split.images, strict=True):
            assert np.array_equal(image.numpy(), images.decode(root / name / f"{id}.png", SIZE))
    for split in (splits.training, splits.validation):
        assert split.labels.tolist() == [int(id.split("_")[0]) for id in split.ids]


def entries(store: Path) -> list[str]:
    """The entries, whole or not; neither the lock nor the remembered hashes."""
    names = (path.name for path in store.iterdir())
    return sorted(name for name in names if name not in ("lock", "hashes"))


@pytest.mark.parametrize("workers", [None, 1])
def test_it_holds_the_decoded_images(root: Path, store: Path, workers: int | None):
    steps: list[tuple[int, int]] = []
    splits = open_splits(root, SIZE, store, workers, progress=lambda done, total: steps.append((done, total)))
    assert splits.training.images.shape == (80, SIZE, SIZE, 3)
    assert splits.training.images.dtype == torch.uint8
    assert splits.training.name == "training"
    assert isinstance(splits.evaluation, UnlabelledSplit)
    assert splits.classes == splits.training.classes == ("0", "1")
    assert splits.leaks == ()
    assert steps[-1] == (95, 95)
    assert steps == sorted(steps)
    assert_good(splits, root)


def test_the_arrays_are_npy_files(root: Path, store: Path):
    splits = open_splits(root, SIZE, store)
    [entry] = entries(store)
    assert np.array_equal(np.load(store / entry / "training.npy"), splits.training.images.numpy())


def test_evaluation_may_be_absent(root: Path, store: Path):
    shutil.rmtree(root / "evaluation")
    assert open_splits(root, SIZE, store).evaluation is None


def test_it_decodes_once(root: Path, store: Path, decoded: list[Path]):
    first = open_splits(root, SIZE, store)
    assert len(decoded) == 95
    second = open_splits(root, SIZE, store)
    assert len(decoded) == 95
    assert second.fingerprint == first.fingerprint
    assert_good(second, root)


def test_a_copy_of_the_data_is_known(root: Path, store: Path, tmp_path: Path, decoded: list[Path]):
    first = open_splits(root, SIZE, store)
    shutil.copytree(root, tmp_path / "copy")
    assert open_splits(tmp_path / "copy", SIZE, store).fingerprint == first.fingerprint
    assert len(decoded) == 95


@pytest.mark.usefixtures("remembering")
def test_unchanged_files_are_not_read_again(root: Path, store: Path, monkeypatch: pytest.MonkeyPatch):
    first = open_splits(root, SIZE, store)
    read = Path.read_bytes
    photographs = {".png", ".jpg", ".jpeg", ".webp"}

    def kept(path: Path) -> bytes:
        assert path.suffix not in photographs, f"{path} was read"
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", kept)
    assert open_splits(root, SIZE, store).fingerprint == first.fingerprint


def test_a_file_changed_just_now_is_not_remembered(root: Path, store: Path):
    open_splits(root, SIZE, store)
    assert not (store / "hashes").exists()


def rewrite(path: Path, keep_times: bool) -> None:
    """Other pixels in a file of the same name and the same number of bytes."""
    before = path.stat()
    pixels = images.decode(path, SIZE)
    assert not (pixels == 0).all()
    Image.new("RGB", (SIZE, SIZE)).save(path)
    with open(path, "ab") as file:
        file.write(b"\0" * (before.st_size - path.stat().st_size))
    times = (before.st_atime_ns, before.st_mtime_ns + (0 if keep_times else 1_000_000_000))
    os.utime(path, ns=times)
    assert path.stat().st_size == before.st_size
    assert (path.stat().st_mtime_ns == before.st_mtime_ns) == keep_times


@pytest.mark.usefixtures("remembering")
@pytest.mark.parametrize("keep_times", [False, True])
@pytest.mark.parametrize("name", ["training/0_0.png", "validation/0_0.png", "evaluation/0000.png"])
def test_another_content_is_noticed(root: Path, store: Path, name: str, keep_times: bool):
    before = open_splits(root, SIZE, store)
    time.sleep(0.02)
    rewrite(root / name, keep_times)
    after = open_splits(root, SIZE, store)
    assert_good(after, root)
    assert (after.fingerprint == before.fingerprint) == name.startswith("evaluation")


def test_what_the_fingerprint_identifies(root: Path, store: Path):
    fingerprints = [
        open_splits(root, SIZE, store).fingerprint,
        open_splits(root, SIZE + 1, store).fingerprint,
    ]
    (root / "training/0_0.png").rename(root / "training/1_0.png")
    relabelled = open_splits(root, SIZE, store)
    fingerprints.append(relabelled.fingerprint)
    assert_good(relabelled, root)
    (root / "training/0_2.png").unlink()
    fingerprints.append(open_splits(root, SIZE, store).fingerprint)
    assert len(set(fingerprints)) == 4


def test_leaks(root: Path, store: Path):
    shutil.copy(root / "training/1_7.png", root / "evaluation/0005.png")
    shutil.copy(root / "validation/0_4.png", root / "evaluation/0006.png")
    assert open_splits(root, SIZE, store).leaks == ("1_7", "0_4")


def test_nobody_can_write_to_the_cache_through_a_tensor(root: Path, store: Path):
    images = open_splits(root, SIZE, store).training.images

    def write() -> None:
        faulthandler.disable()  # the crash is wanted, its report is not
        images.zero_()

    process = processes.Process(target=write)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGSEGV
    assert_good(open_splits(root, SIZE, store), root)


def test_an_array_larger_than_the_memory(tmp_path: Path):
    size = 1024
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    count = 8 * memory // (size * size * 3)
    header = cache._header(count, size)
    with open(tmp_path / "training.npy", "wb") as file:
        file.write(header)
        try:
            file.truncate(len(header) + count * size * size * 3)
        except OSError:
            pytest.skip("this file system has no sparse file of eight times the memory")
    mapped = cache._map(tmp_path / "training.npy", count, size)
    assert mapped.shape == np.load(tmp_path / "training.npy", mmap_mode="r").shape
    assert mapped[-1].sum() == 0


# --- interrupted and concurrent builds


def in_the_middle(root: Path, store: Path, reached: Callable[[], None]) -> None:
    open_splits(root, SIZE, store, workers=1, progress=lambda done, total: reached())


def before_the_index(root: Path, store: Path, reached: Callable[[], None]) -> None:
    # In a process of its own, so nothing needs to be put back.
    cache.write_json = lambda path, value: reached() if path.name == "index.json" else None
    open_splits(root, SIZE, store, workers=1)


def before_the_rename(root: Path, store: Path, reached: Callable[[], None]) -> None:
    cache.sync_folder = lambda directory: reached()
    open_splits(root, SIZE, store, workers=1)


@pytest.mark.parametrize("moment", [in_the_middle, before_the_index, before_the_rename])
def test_a_killed_build_is_never_used(root: Path, store: Path, moment: Callable[..., None]):
    event = processes.Event()

    def wait_for_death() -> None:
        event.set()
        time.sleep(60)

    process = processes.Process(target=moment, args=(root, store, wait_for_death))
    process.start()
    assert event.wait(30)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL

    [leftover] = entries(store)
    assert leftover.startswith(".building")
    (store / "hashes").mkdir(exist_ok=True)
    (store / "hashes" / ".0.json.1.tmp").touch()
    assert_good(open_splits(root, SIZE, store), root)
    [entry] = entries(store)
    assert not entry.startswith(".")
    assert not list(store.glob("hashes/.*"))


def test_two_processes_build_at_once(root: Path, store: Path):
    builds = processes.Value("i", 0)
    together = processes.Barrier(2)

    def build() -> None:
        def progress(done: int, total: int) -> None:
            if done == total:
                with builds.get_lock():
                    builds.value += 1

        together.wait(30)
        assert_good(open_splits(root, SIZE, store, workers=1, progress=progress), root)

    both = [processes.Process(target=build) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert builds.value == 1
    assert len(entries(store)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        "cut an array", "lose an array", "lose the index", "break the index", "flip a bit of an array",
        "flip a bit of a header", "zero a row", "flip a bit of the index", "forget the check sums", "empty an array",
        "swap two rows", "another type",
    ],
)  # fmt: skip
def test_a_damaged_entry_is_built_again(root: Path, store: Path, damage: str):
    open_splits(root, SIZE, store)
    [entry] = entries(store)
    array, index = store / entry / "training.npy", store / entry / "index.json"
    data = array.read_bytes()
    match damage:
        case "flip a bit of an array":
            array.write_bytes(flipped(data, 8 * (len(data) - 1)))
        case "flip a bit of a header":
            array.write_bytes(flipped(data, 8 * 20))
        case "zero a row":
            array.write_bytes(data[: -SIZE * SIZE * 3] + bytes(SIZE * SIZE * 3))
        case "swap two rows":
            row = SIZE * SIZE * 3
            array.write_bytes(data[: -2 * row] + data[-row:] + data[-2 * row : -row])
        case "another type":
            array.write_bytes(data.replace(b"'|u1'", b"'|i1'"))
        case "empty an array":
            array.write_bytes(b"")
        case "flip a bit of the index":
            index.write_bytes(flipped(index.read_bytes(), 8 * index.read_bytes().index(b"crc32")))
        case "forget the check sums":  # what an earlier version wrote
            known = json.loads(index.read_text())
            del known["crc32"]
            index.write_text(json.dumps(known))
        case "cut an array":
            os.truncate(store / entry / "validation.npy", 500)
        case "lose an array":
            (store / entry / "evaluation.npy").unlink()
        case "lose the index":
            (store / entry / "index.json").unlink()
        case "break the index":
            (store / entry / "index.json").write_text("{")
    said: list[str] = []
    assert_good(open_splits(root, SIZE, store, say=said.append), root)
    assert len(said) == 1
    assert entry in said[0]
    assert entries(store) == [entry]
    assert_good(open_splits(root, SIZE, store, say=said.append), root)
    assert len(said) == 1


def test_the_check_sums_are_of_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In parts, of which the last is shorter, as zlib does it in one go."""
    monkeypatch.setattr(cache, "_PART", 64)
    monkeypatch.setattr(cache, "_PIECE", 16)
    data = np.random.default_rng(0).bytes(64 * 3 + 5)
    (tmp_path / "a").write_bytes(data)
    assert cache._crcs(tmp_path / "a") == [zlib.crc32(data[start : start + 64]) for start in (0, 64, 128, 192)]


def test_another_format_or_label_is_another_entry(root: Path, store: Path, monkeypatch: pytest.MonkeyPatch):
    """The same bytes with another label are other data; what an older format has stored is never opened."""
    record = Record("0_0", root / "training/0_0.png", 0)
    keys = {cache._digest({"training": [contents.Source(replace(record, label=label), "x")]}, SIZE) for label in (0, 1)}
    assert len(keys) == 2
    before = open_splits(root, SIZE, store)
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    assert open_splits(root, SIZE, store).fingerprint != before.fingerprint
    assert len(entries(store)) == 2


def test_an_entry_that_says_another_format_is_not_opened(root: Path, store: Path, decoded: list[Path]):
    open_splits(root, SIZE, store)
    [entry] = entries(store)
    index = store / entry / "index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "format": 0}))
    decoded.clear()
    assert_good(open_splits(root, SIZE, store), root)
    assert len(decoded) >= 95


@pytest.mark.usefixtures("remembering")
def test_damaged_hashes_are_computed_again(root: Path, store: Path):
    open_splits(root, SIZE, store)
    [memo] = (store / "hashes").iterdir()
    for text in ("[", "[]", '{"training/0_0.png": 3}', '{"training/0_0.png": []}'):
        memo.write_text(text)
        assert_good(open_splits(root, SIZE, store), root)


# --- bad input


def test_all_unreadable_files_in_one_line(root: Path, store: Path):
    for name in ("training/0_0.png", "training/1_1.png", "validation/0_0.png"):
        (root / name).write_text("not an image")
    (root / "evaluation/0000.png").unlink()
    (root / "evaluation/0000.png").symlink_to("nowhere")
    with pytest.raises(BadImage, match=r"4 of 95 images are unusable: .*0_0\.png .*data check") as caught:
        open_splits(root, SIZE, store)
    assert "\n" not in str(caught.value)
    assert entries(store) == []


def test_one_unreadable_file_is_named(root: Path, store: Path):
    (root / "training/0_0.png").write_text("not an image")
    with pytest.raises(BadImage, match=r"training/0_0\.png is not a JPEG"):
        open_splits(root, SIZE, store)


def test_a_file_that_changes_during_the_build(root: Path, store: Path):
    def change(done: int, total: int) -> None:
        noise(root / "evaluation/0004.png", seed=99)

    with pytest.raises(BadData, match=r"0004\.png changed"):
        open_splits(root, SIZE, store, workers=1, progress=change)
    assert entries(store) == []


def test_an_unwritable_cache(root: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="cannot write"):
        open_splits(root, SIZE, tmp_path / "file" / "cache")


def test_a_cache_that_can_only_be_read(root: Path, store: Path, monkeypatch: pytest.MonkeyPatch):
    open_splits(root, SIZE, store)

    def refuse(path: Path, value: object) -> None:
        raise CannotWrite(str(path))

    monkeypatch.setattr(contents, "write_sealed", refuse)
    (store / "lock").unlink()
    (root / "training/0_0.png").touch()
    assert_good(open_splits(root, SIZE, store), root)
    assert not (store / "lock").exists()


def test_a_full_disk(root: Path, store: Path):
    """The system refuses the first array's bytes above a limit, as it does on a full disk."""
    outcome = processes.SimpleQueue()

    def build() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            open_splits(root, SIZE, store, workers=1)
        except CannotWrite as error:
            outcome.put(str(error))
        else:
            outcome.put("no error")

    process = processes.Process(target=build)
    process.start()
    process.join(60)
    message = outcome.get()
    assert message.startswith("cannot write")
    assert "\n" not in message
    assert entries(store) == []


def test_the_default_folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BANTAM_CACHE", str(tmp_path / "elsewhere"))
    open_splits(root, SIZE)
    assert len(entries(tmp_path / "elsewhere")) == 1
    monkeypatch.delenv("BANTAM_CACHE")
    assert cache.default_cache_dir() == Path.home() / ".cache" / "bantam"


@pytest.mark.slow
def test_food_11(food_11: Path, store: Path):
    splits = open_splits(food_11, 64, store)
    assert splits.evaluation is not None
    assert (len(splits.training), len(splits.validation), len(splits.evaluation)) == (9993, 4432, 2218)
    assert splits.leaks == ()
    row = splits.training.ids.index("3_744")
    assert np.array_equal(splits.training.images[row], images.decode(food_11 / "training/3_744.jpg", 64))

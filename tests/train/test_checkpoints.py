"""Checkpoints to rely on: damage is noticed, the one before is used, disks may be full."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from hbd3lm.errors import UserError
from hbd3lm.model.checkpoint import KEY, check_file, load_network, read_checkpoint, write_checkpoint
from hbd3lm.train import module as training_module
from hbd3lm.train.checkpoints import find_checkpoint
from tests.train.test_training import Interrupted, final_state, interrupt_at, run

STEPS = {"max_steps": 8, "checkpoint_every": 3}


@pytest.fixture(scope="module")
def trained(one_thread, tmp_path_factory) -> Path:
    """A run with two checkpoints of its state: after step 6 and after step 8."""
    folder = tmp_path_factory.mktemp("trained")
    run(folder, **STEPS)
    return folder


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    """Its own copy of it, as left by a run that broke off after step 6."""
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    checkpoints = folder / "checkpoints"
    os.replace(checkpoints / "previous.ckpt", checkpoints / "last.ckpt")
    (checkpoints / "best.ckpt").unlink()
    return folder


def flip(path: Path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def assert_same_run(a: Path, b: Path) -> None:
    """To the bit: all that the last checkpoints hold, and every line of the logs."""
    assert_same(final_state(a), final_state(b))
    assert (a / "logs/metrics.csv").read_text() == (b / "logs/metrics.csv").read_text()


def assert_same(a, b, where: str = "") -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


# -- noticing -------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed(trained, tmp_path):
    """Also in the padding and the table of contents; torch itself would notice hardly any."""
    original = (trained / "checkpoints" / "last.ckpt").read_bytes()
    path = tmp_path / "last.ckpt"
    rng = np.random.default_rng(0)
    ends = [*range(100), *range(len(original) - 250, len(original))]
    for position in [*ends, *rng.integers(0, len(original), 200)]:
        path.write_bytes(original)
        check_file(path)
        flip(path, int(position), int(rng.integers(8)))
        with pytest.raises((ValueError, zipfile.BadZipFile)):
            check_file(path)


def test_torch_alone_reads_a_flipped_bit_as_another_weight(trained, tmp_path):
    """Why there is a seal. If this fails torch has learnt it, and the seal could go."""
    path = tmp_path / "net.ckpt"
    torch.save({"weight": torch.full((1000,), 1.5)}, path)
    flip(path, path.read_bytes().index(torch.tensor(1.5).numpy().tobytes() * 3) + 2)
    assert not torch.equal(torch.load(path)["weight"], torch.full((1000,), 1.5))
    with pytest.raises(ValueError, match="does not match its checksum"):
        check_file(path)  # every zip carries check sums, so it is noticed without a seal, too


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99, "last byte", "seal"])
def test_a_truncated_file_is_noticed(copy, share):
    path = copy / "checkpoints" / "last.ckpt"
    size = path.stat().st_size
    cut = {"last byte": size - 1, "seal": size - 78}.get(share) or int(size * float(share or 0))
    os.truncate(path, cut)
    with pytest.raises(UserError, match=r"last\.ckpt is damaged or no checkpoint"):
        read_checkpoint(path)


def test_what_is_appended_is_noticed(copy):
    path = copy / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"last\.ckpt is damaged or no checkpoint"):
        read_checkpoint(path)


def test_a_sealed_file_is_an_ordinary_archive_of_torch(trained):
    path = trained / "checkpoints" / "last.ckpt"
    assert zipfile.is_zipfile(path)
    assert torch.load(path, weights_only=True)[KEY] == read_checkpoint(path)[1][KEY]


# -- using the one before -------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "missing"])
def test_a_damaged_checkpoint_is_passed_over_loudly_and_the_one_before_it_used(
    trained, tmp_path, capfd, damage
):
    """The run ends as it had ended; the damaged file is kept aside, and the log has no gap."""
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    path = folder / "checkpoints" / "last.ckpt"
    size = path.stat().st_size
    if damage == "flipped":
        flip(path, size // 2)
    elif damage == "missing":
        path.unlink()
    else:
        os.truncate(path, {"truncated": size // 2, "empty": 0}[damage])
    shutil.copy(path, tmp_path / "damaged") if path.exists() else None
    summary = run(folder, **STEPS)
    assert summary["resumed_from"].endswith("previous.ckpt")
    warning = capfd.readouterr().err
    if damage == "missing":
        assert "warning" not in warning
    else:
        assert f"{path} is damaged" in warning
        assert f"Going on from {path.with_name('previous.ckpt')} instead" in warning
        assert "the steps after 6 are trained again" in warning
        aside = path.with_name("last.ckpt.damaged")
        assert aside.read_bytes() == (tmp_path / "damaged").read_bytes()
    assert_same_run(folder, trained)


def test_the_later_of_previous_and_best_is_used(trained, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(trained / "checkpoints", folder)
    (folder / "last.ckpt").write_bytes(b"")
    assert find_checkpoint(folder).step == 6  # best is of the validation at step 5 or 8
    shutil.copy(trained / "checkpoints" / "last.ckpt", folder / "best.ckpt")
    found = find_checkpoint(folder)
    assert (found.path.name, found.step) == ("best.ckpt", 8)


def test_when_all_are_damaged_training_is_refused_and_nothing_touched(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    for path in (folder / "checkpoints").iterdir():
        flip(path, 5000)
    before = {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole .*last\.ckpt.*choose anot"):
        run(folder, **STEPS)
    after = {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}
    assert after == before


def test_a_damaged_best_checkpoint_does_not_stop_training_and_is_replaced(copy, trained, capfd):
    best = copy / "checkpoints" / "best.ckpt"
    best.write_bytes(b"PK\x03\x04 half of it")
    run(copy, valid_every=8, **STEPS)
    assert f"{best} is damaged" in capfd.readouterr().err
    assert read_checkpoint(best)[1]["global_step"] == 8
    assert best.with_name("best.ckpt.damaged").exists()


def test_a_damaged_file_to_evaluate_is_refused_with_the_others_of_its_run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    flip(folder / "best.ckpt", 3000)
    with pytest.raises(UserError) as error:
        load_network(folder / "best.ckpt", what="run_dir")
    assert f"checkpoint={folder / 'last.ckpt'}" in str(error.value)
    load_network(folder / "last.ckpt")


def test_code_in_a_checkpoint_is_refused_when_resuming_too(copy, tmp_path):
    """A file made to be believed: a valid seal around a pickle that would run a command."""

    class Trap:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'sprung'}",))

    path = copy / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    write_checkpoint({**content, "callbacks": Trap()}, path)
    check_file(path)
    with pytest.raises(UserError, match=r"last\.ckpt holds more than tensors and plain values"):
        run(copy, **STEPS)
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole"):
        run(copy, **STEPS)
    assert not (tmp_path / "sprung").exists()


# -- writing --------------------------------------------------------------------------------


def test_two_states_are_kept_and_nothing_else_is_left(trained):
    names = {path.name for path in (trained / "checkpoints").iterdir()}
    assert names == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    steps = [
        read_checkpoint(trained / "checkpoints" / f"{name}.ckpt")[1]["global_step"]
        for name in ("last", "previous")
    ]
    assert steps == [8, 6]


def test_what_a_killed_process_was_writing_is_removed(copy):
    leftover = copy / "checkpoints" / ".last.ckpt.abc123.tmp"
    leftover.write_bytes(b"half")
    run(copy, **STEPS)
    assert not leftover.exists()


def test_without_hard_links_the_one_before_is_kept_as_well(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    for value in (1, 2):
        write_checkpoint({"a": value}, tmp_path / "last.ckpt", tmp_path / "previous.ckpt")
    assert torch.load(tmp_path / "last.ckpt") == {"a": 2}
    assert torch.load(tmp_path / "previous.ckpt") == {"a": 1}


@contextmanager
def no_room_for(size: int):
    """Files may grow to ``size`` bytes, as on a disk that has no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [400, 40, 20_000], ids=["log", "first bytes", "most of it"])
def test_on_a_full_disk_training_stops_with_a_message_and_goes_on_when_there_is_room(
    trained, tmp_path, monkeypatch, request, room
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_at(patch, 4)
        run(folder, **STEPS)
    last = folder / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    original = training_module.TrainingModule.flush_logs
    log_fails = request.node.callspec.id == "log"
    if not log_fails:

        def flush_logs(self):
            original(self)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

        monkeypatch.setattr(training_module.TrainingModule, "flush_logs", flush_logs)
    with pytest.raises(UserError) as error, no_room_for(room if log_fails else 1 << 30):
        run(folder, valid_every=100, **STEPS)
    monkeypatch.undo()
    message = str(error.value)
    what = "the logs" if log_fails else last
    assert message.startswith(f"training stopped at step 6: cannot write {what}: ")
    assert "File too large" in message  # of a disk: No space left on device
    assert f"the last good checkpoint is {last}. Make room for {folder}" in message
    assert last.read_bytes() == before
    assert {path.name for path in last.parent.iterdir()} == {"last.ckpt"}
    run(folder, **STEPS)
    assert_same_run(folder, trained)

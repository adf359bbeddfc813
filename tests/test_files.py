"""``hbd3lm.files``: a file is there whole or not at all, and what cannot be read says why."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from hbd3lm.errors import UserError
from hbd3lm.files import (
    WriteError,
    atomic_folder,
    atomic_write,
    check_output,
    read_text,
    writing,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_utf8_with_unix_line_ends_and_makes_the_folders(tmp_path):
    path = tmp_path / "a" / "b" / "text.txt"
    with atomic_write(path) as file:
        file.write("kế hoạch\n×")
    assert path.read_bytes() == "kế hoạch\n×".encode()
    assert names(path.parent) == ["text.txt"]


def test_writes_bytes_unchanged(tmp_path):
    with atomic_write(tmp_path / "x.bin", "wb") as file:
        file.write(b"\x00\r\n\xff")
    assert (tmp_path / "x.bin").read_bytes() == b"\x00\r\n\xff"


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with atomic_write(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_no_rubbish(tmp_path, interruption):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(interruption), atomic_write(path) as file:
        file.write("half of")
        raise interruption
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.txt"]


def test_an_interrupted_first_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "x.txt"):
        raise RuntimeError
    assert names(tmp_path) == []


def test_files_get_the_permissions_an_ordinary_open_would_give(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "x.txt") as file:
            file.write("x")
        assert os.umask(0o027) == 0o027, "the umask of the process must stay as it was"
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.txt").stat().st_mode) == 0o640


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_regular_file_is_refused_and_stays(tmp_path, make, linked):
    """``--output_path /dev/full`` once made a file of the device, and reported success."""
    path = tmp_path / "there"
    make(path)
    kind = stat.S_IFMT(path.stat().st_mode)
    if linked:
        (tmp_path / "link").symlink_to(path)
        path = tmp_path / "link"
    before = names(tmp_path)
    with pytest.raises(UserError, match=r"^--output_path: .* is a (folder|device, pipe)"):
        check_output(path, "--output_path")
    with pytest.raises(UserError, match="; name a file"), atomic_write(path) as file:
        file.write("x")
    assert stat.S_IFMT(path.stat().st_mode) == kind and names(tmp_path) == before


@pytest.mark.parametrize("there", [False, True])
def test_a_link_stays_one_and_the_file_it_leads_to_is_written(tmp_path, there):
    """The link was replaced, and the file it led to kept its old content."""
    target, link = tmp_path / "elsewhere" / "x.txt", tmp_path / "link"
    link.symlink_to(target)
    if there:
        target.parent.mkdir()
        target.write_text("old")
    with atomic_write(link) as file:
        file.write("new")
    assert link.is_symlink() and target.read_text() == "new"
    assert names(target.parent) == ["x.txt"] and names(tmp_path) == ["elsewhere", "link"]


def test_a_link_to_a_folder_stays_one(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    with atomic_folder(tmp_path / "link") as temporary:
        (temporary / "new").write_text("new")
    assert (tmp_path / "link").is_symlink() and names(tmp_path / "target") == ["new"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file/x", "Not a directory"),
        ("file/a/x", "Not a directory"),
        ("n" * 300, "File name too long"),
        ("/proc/x", "No such file"),
    ],
)
def test_a_place_that_cannot_be_written_is_a_message_with_its_flag(tmp_path, name, reason):
    (tmp_path / "file").touch()
    path = tmp_path / name
    message = f"^--out: cannot write {path}: {reason}.*; name another place$"
    with pytest.raises(UserError, match=message):
        check_output(path, "--out")
    with pytest.raises(UserError, match=message), atomic_write(path, what="--out"):
        pytest.fail("there is nothing to write to")
    with pytest.raises(UserError, match=message), atomic_folder(path, what="--out"):
        pytest.fail("there is nothing to write to")
    assert names(tmp_path) == ["file"]


def test_a_name_that_just_fits_is_written(tmp_path):
    """The temporary name was longer, and did not fit."""
    path = tmp_path / ("ế" * 85)
    with atomic_write(path) as file:
        file.write("x")
    assert path.read_text() == "x"


def test_a_full_disk_is_a_message_for_the_user_and_an_oserror_for_code(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = "No space left on device; make room there"
    with (
        pytest.raises(WriteError, match=message) as caught,
        atomic_write(tmp_path / "x.txt") as file,
    ):
        file.write("x")
    assert isinstance(caught.value, OSError) and caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == []


def test_a_folder_is_named_by_its_own_name_when_a_file_of_it_cannot_be_written(tmp_path):
    with (
        pytest.raises(UserError, match=f"^--out: cannot write {tmp_path}/new: File name too"),
        atomic_folder(tmp_path / "new", "--out") as temporary,
    ):
        check_output(temporary / ("n" * 300))
    assert names(tmp_path) == []


def test_the_outermost_flag_and_the_innermost_place_are_told(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "x"
    message = f"^--out: cannot write {path}: Not a directory"
    with pytest.raises(UserError, match=message), writing(tmp_path, "--out"):
        check_output(path)


def test_a_reader_that_left_is_no_place_that_cannot_be_written():
    with pytest.raises(BrokenPipeError), writing("x"):
        raise BrokenPipeError


def test_asking_whether_a_place_can_be_written_leaves_what_is_there(tmp_path):
    path = tmp_path / "a" / "x.txt"
    check_output(path)
    assert names(path.parent) == []
    path.write_text("old")
    check_output(path)
    assert path.read_text() == "old" and names(path.parent) == ["x.txt"]


def test_reads_utf8(tmp_path):
    (tmp_path / "x.txt").write_bytes("số 5".encode())
    assert read_text(tmp_path / "x.txt", "--data_path") == "số 5"


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b"ab\xff"), r"not UTF-8 text \(byte 2\)"),
    ],
)
def test_an_unreadable_file_is_named_with_its_flag(tmp_path, prepare, reason):
    path = tmp_path / "x.json"
    prepare(path)
    with pytest.raises(UserError, match=reason) as caught:
        read_text(path, "--data_path")
    assert str(caught.value).startswith("--data_path: ")
    assert str(path) in str(caught.value)


def test_a_path_below_a_file_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"--data_path: cannot read .*x\.json"):
        read_text(tmp_path / "file" / "x.json", "--data_path")


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_is_moved_into_place_whole(tmp_path, there):
    path = tmp_path / "a" / "folder"
    if there:
        path.mkdir(parents=True)
        (path / "old").write_text("old")
    with atomic_folder(path) as temporary:
        (temporary / "new").write_text("new")
        assert path.exists() == there
    assert names(path) == ["new"]
    assert names(path.parent) == ["folder"]


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_folder_leaves_the_old_one_and_no_rubbish(tmp_path, interruption):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(interruption), atomic_folder(path) as temporary:
        (temporary / "new").write_text("new")
        raise interruption
    assert names(tmp_path) == ["folder"] and names(path) == ["old"]


def test_a_folder_that_cannot_be_moved_in_gives_the_old_one_back(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")
    real = os.rename

    def rename(source, target):
        if str(source).endswith(".tmp"):
            raise OSError("no")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="no"), atomic_folder(path) as temporary:
        (temporary / "new").write_text("new")
    assert names(tmp_path) == ["folder"] and names(path) == ["old"]

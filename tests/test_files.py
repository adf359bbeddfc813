"""``hbd3lm.files``: a file is there whole or not at all, and what cannot be read says why."""

from __future__ import annotations

import os
import stat

import pytest

from hbd3lm.errors import UserError
from hbd3lm.files import atomic_folder, atomic_write, read_text


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

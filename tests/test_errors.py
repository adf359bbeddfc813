"""Texts of messages, and how commands end."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from hbd3lm.data.records import HierarchicalExample, write_examples
from hbd3lm.errors import HUNG_UP, run_command, some_of
from tests.conftest import REPOSITORY


def test_of_many_names_the_first_are_told_and_the_rest_counted():
    assert [some_of("abc"), some_of("abcde"), some_of("abcdefg"), some_of("ab", most=1)] == [
        "a, b, c",
        "a, b, c, d, e",
        "a, b, c, d, e and 2 more",
        "a and 1 more",
    ]


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "plans.json"
    example = ("How many? " * 10, "Add. " * 10, "1+1=2\n#### 2", "2")
    write_examples(path, [HierarchicalExample(f"e{i}", *example) for i in range(300)])
    return path


PRINTING = [
    "main.py --help",
    "main.py --cfg job",
    "main.py --info all",
    "main.py foo=1",
    "-m hbd3lm",
    "-m hbd3lm --help",
    "-m hbd3lm --version",
    "-m hbd3lm nonsense",
    "-m hbd3lm train --help",
    "-m hbd3lm mask --help",
    "-m hbd3lm mask --output_plot out.svg",
    "-m hbd3lm lengths --data_path PLANS --num_samples 300",
    "-m hbd3lm lengths --data_path PLANS --analyze --output_json out.json",
    "-m hbd3lm analyze --data_path PLANS --no_plot --output_json out.json",
    "-m hbd3lm plans --dataset embedded --num_examples 5 --output_path out.json",
    "-m hbd3lm export data --plans train=PLANS --output_dir out",
    "benchmarks/startup.py --quick",
]


@pytest.mark.parametrize("command", PRINTING)
def test_a_reader_who_leaves_ends_a_program_in_silence(command, plans, tmp_path):
    """``hbd3lm ... 2>&1 | true`` ended in a traceback, of Python's or of Hydra's."""
    words = command.replace("PLANS", str(plans)).split()
    if words[0] != "-m":
        words[0] = str(REPOSITORY / words[0])
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    environment.pop("PYTHONUNBUFFERED", None)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, *words],
            stdout=pipe,
            stderr=subprocess.PIPE if "out" in command else pipe,
            cwd=tmp_path,
            env=environment,
        )
    assert (done.returncode, done.stderr or b"") == (HUNG_UP, b"")
    for name in (word for word in words if word.startswith("out")):
        assert (tmp_path / name).exists(), "what was printed is lost, and not what was made"


def test_a_broken_pipe_that_is_not_ours_keeps_its_traceback():
    with pytest.raises(BrokenPipeError):
        run_command(lambda: (_ for _ in ()).throw(BrokenPipeError()))


def test_a_refusal_of_the_file_system_is_no_bug_of_ours(capsys):
    def ask():
        os.stat("n" * 300)

    assert run_command(ask) == 1
    assert capsys.readouterr().err == f"error: {'n' * 300}: {os.strerror(errno.ENAMETOOLONG)}\n"
    with pytest.raises(FileNotFoundError):  # of a file of ours, perhaps
        run_command(lambda: os.stat("nowhere"))


def test_a_closed_stdout_is_no_error():
    command = ["sh", "-c", 'exec "$0" -m hbd3lm --version >&-', sys.executable]
    done = subprocess.run(command, stderr=subprocess.PIPE, cwd=REPOSITORY, timeout=600)
    assert (done.returncode, done.stderr) == (0, b"")

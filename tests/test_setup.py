"""Set-up: the pins cover what the package needs, and setup.sh picks the right PyTorch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def constraints() -> list[Requirement]:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_pinned_once_and_within_its_range(python):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins: dict[str, str] = {}
    for pin in constraints():
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            (specifier,) = pin.specifier
            assert specifier.operator == "==", f"{pin} is no exact version"
            assert canonical(pin.name) not in pins, f"{pin.name} twice for Python {python}"
            pins[canonical(pin.name)] = specifier.version
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        needed = Requirement(line)
        assert canonical(needed.name) in pins, f"{needed.name} is not in constraints.txt"
        assert needed.specifier.contains(pins[canonical(needed.name)]), line


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


USER_CHOICES = ("PYTHON", "TORCH", "EXTRAS")  # make passes them on to the tests, too


@pytest.fixture
def setup(tmp_path):
    """Runs a copy of setup.sh with stand-ins for Python, pip and nvidia-smi.

    Returns the completed process and what pip was asked to install, one line a call.
    """
    clone = tmp_path / "clone"
    (clone / "scripts").mkdir(parents=True)
    for name in ("scripts/setup.sh", "scripts/common.sh", "constraints.txt"):
        shutil.copy(REPOSITORY / name, clone / name)
    log = tmp_path / "pip.log"
    # "-" as first argument is the probe for the CPU index; its script comes on stdin.
    inside = executable(
        tmp_path / "inside",
        "#!/bin/bash\n"
        'if [[ "$1" == - ]]; then cat >/dev/null; exit "$INDEX_STATUS"; fi\n'
        'if [[ "$*" == *" install "* ]]; then echo "$*" >> "$PIP_LOG"; fi\n'
        'if [[ "$*" == *+cpu* ]]; then exit "$CPU_STATUS"; fi\n',
    )
    executable(
        tmp_path / "bin" / "python3",
        "#!/bin/bash\n"
        'if [[ "$1" == --version ]]; then echo "Python $VERSION"; fi\n'
        'if [[ "$1" == -c ]]; then [[ "$VERSION" != 3.9* ]]; exit; fi\n'
        f'if [[ "$2" == venv ]]; then mkdir -p .venv/bin; cp "{inside}" .venv/bin/python; fi\n',
    )

    def run(gpu=False, index=False, cpu_build=True, version="3.12.1", **variables):
        executable(tmp_path / "bin" / "nvidia-smi", f"#!/bin/bash\nexit {0 if gpu else 9}\n")
        process = subprocess.run(
            ["bash", str(clone / "scripts/setup.sh")],
            capture_output=True,
            text=True,
            env={
                **{k: v for k, v in os.environ.items() if k not in USER_CHOICES},
                "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "PIP_LOG": str(log),
                "INDEX_STATUS": "0" if index else "1",
                "CPU_STATUS": "0" if cpu_build else "1",
                "VERSION": version,
                **variables,
            },
        )
        return process, log.read_text().splitlines() if log.exists() else []

    return run


linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS has one PyTorch build")


def test_a_python_that_is_too_old_is_refused_by_name(setup):
    process, installed = setup(version="3.9.18")
    assert process.returncode == 1
    assert process.stderr.startswith("error: Python 3.9.18 (python3) is too old")
    assert "PYTHON=" in process.stderr
    assert not installed


def test_a_python_that_is_not_there_is_named(setup):
    process, _ = setup(PYTHON="python9")
    assert process.returncode == 1
    assert "no python9" in process.stderr


def test_an_unknown_torch_build_is_refused(setup):
    process, installed = setup(TORCH="rocm")
    assert process.returncode == 1
    assert "TORCH=rocm is none of auto, cpu, default" in process.stderr
    assert not installed


@linux
def test_without_a_gpu_only_the_cpu_build_is_installed(setup):
    process, (torch, package) = setup(index=True)
    assert process.returncode == 0, process.stderr
    assert re.search(r"--extra-index-url https://\S+/cpu torch==[\d.]+\+cpu$", torch)
    assert package.endswith("-c constraints.txt -e .[dev]")


@linux
def test_with_the_cpu_index_out_of_reach_pip_is_asked_for_a_cpu_build_it_knows(setup):
    process, (torch, _) = setup(index=False)
    assert process.returncode == 0, process.stderr
    assert torch.endswith("+cpu")
    assert "--extra-index-url" not in torch


@linux
def test_the_large_default_build_on_a_machine_without_gpu_is_announced(setup):
    process, (_, torch, _) = setup(index=False, cpu_build=False)
    assert process.returncode == 0, process.stderr
    assert re.search(r" torch==[\d.]+$", torch)
    assert "WARNING" in process.stdout
    assert "several GB" in process.stdout


@linux
def test_a_cpu_index_that_answers_and_fails_is_no_reason_to_install_cuda(setup):
    process, installed = setup(index=True, cpu_build=False)
    assert process.returncode != 0
    assert all("+cpu" in line for line in installed)


@linux
@pytest.mark.parametrize("variables", [{"gpu": True}, {"gpu": False, "TORCH": "default"}])
def test_with_a_gpu_or_on_request_the_default_build_is_installed(setup, variables):
    process, (torch, _) = setup(**variables)
    assert process.returncode == 0, process.stderr
    assert re.search(r" torch==[\d.]+$", torch)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["test", "quickstart", "lint"])
def test_make_targets_go_through_setup(target, tmp_path):
    """In a fresh clone, where .venv is missing, the first command is the set-up."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "scripts/setup.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    process = subprocess.run(
        ["make", "-n", target, "DATA_DIR=my data"],
        cwd=tmp_path,
        # `make test` runs this test: the inner make must not take itself for a part of it.
        env={k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert "bash scripts/setup.sh" in process.stdout.splitlines()[0]
    if target == "quickstart":
        assert '--data_dir "my data"' in process.stdout


def test_continuous_integration_runs_make_test_from_any_folder(tmp_path):
    executable(tmp_path / "make", '#!/bin/bash\necho "$PWD: make $*"\n')
    process = subprocess.run(
        [str(REPOSITORY / ".ci/run")],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert process.stdout == f"{REPOSITORY}: make test EXTRAS=dev,lm-eval\n"

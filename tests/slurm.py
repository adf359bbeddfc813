"""A SLURM of one node on this machine, from Debian's packages, for as long as a test takes."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "srun")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])  # where daemons are
INSTALL = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"


class NotStartedError(Exception):
    """A daemon ended, or was not ready in time; with what it said."""


def missing() -> str | None:
    """Why there can be no SLURM here; None if there can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    return f"no {', '.join(absent)} on this machine ({INSTALL})" if absent else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Slurm:
    """Clients of a running SLURM.

    Attributes:
        environment: with which its commands find it.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def __call__(self, *command: str, check: bool = True, **options) -> str:
        result = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, **options
        )
        if check and result.returncode:
            raise RuntimeError(f"{' '.join(command)}: {result.stdout}{result.stderr}")
        return result.stdout

    def job(self, number: str) -> dict[str, str]:
        """What ``scontrol show job`` says, field by field."""
        fields = self("scontrol", "--oneliner", "show", "job", number).split()
        return dict(field.partition("=")[::2] for field in fields)

    def wait(self, number: str, states: tuple[str, ...], seconds: float = 120) -> dict[str, str]:
        """The job, once it is in one of ``states``."""
        end = time.monotonic() + seconds
        while (job := self.job(number))["JobState"] not in states:
            if time.monotonic() > end:
                raise TimeoutError(f"job {number} is {job['JobState']}: {job.get('Reason')}")
            time.sleep(0.2)
        return job


@contextlib.contextmanager
def single_node(folder: Path) -> Iterator[Slurm]:
    """Start munged, slurmctld and slurmd with everything they write in ``folder``.

    The node claims 32 processors, 256 GB and four stand-in GPUs, so that a job written for a real
    node is submitted as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    user, host = pwd.getpwuid(os.getuid()).pw_name, socket.gethostname().split(".")[0]
    key, munge = folder / "munge.key", folder / "munge.socket"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    for name in ("state", "spool"):
        (folder / name).mkdir(exist_ok=True)
    devices = ("null", "zero", "full", "random")
    (folder / "gres.conf").write_text("".join(f"Name=gpu File=/dev/{d}\n" for d in devices))
    (folder / "slurm.conf").write_text(
        f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
AuthInfo=socket={munge},cred_expire=5
SlurmUser={user}
SlurmdUser={user}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=32 RealMemory=262144 Gres=gpu:4
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("SLURM_")
    }
    environment |= {"PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}
    commands = (
        ["munged", "--foreground", "--force", f"--socket={munge}", f"--key-file={key}",
         f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
         f"--seed-file={folder}/munged.seed"],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-c"],
    )  # fmt: skip
    daemons: list[subprocess.Popen] = []
    slurm = Slurm(environment)
    try:
        for command in commands:
            with open(folder / f"{command[0]}.out", "w") as output:
                daemons.append(
                    subprocess.Popen(command, env=environment, stdout=output, stderr=output)
                )
            if command[0] == "munged":
                _until(munge.exists, daemons[0], folder)
        _until(lambda: "idle" in slurm("sinfo", "-h", "-o", "%t", check=False), daemons[-1], folder)
        yield slurm
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()


def _until(ready, daemon: subprocess.Popen, folder: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if daemon.poll() is not None or time.monotonic() > end:
            logs = [*folder.glob("*.out"), *folder.glob("*.log")]
            tails = "\n".join(f"{log.name}: {log.read_text()[-1000:]}" for log in logs)
            raise NotStartedError(f"{daemon.args[0]} did not start:\n{tails}")
        time.sleep(0.1)

"""A throw-away SLURM of one node on loopback (munged, slurmctld, slurmd), all of it under one folder.

The node claims more CPUs and memory than the machine has, since the jobs of the tests mostly wait, and two GPUs that
are character devices: SLURM counts them and sets CUDA_VISIBLE_DEVICES.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("unshare", "munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
NAMESPACE = ("--pid", "--fork", "--kill-child", "--mount-proc")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
PropagateResourceLimits=NONE
MailProg=/bin/true
ReturnToService=2
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MinJobAge=300
KillWait=5
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=200000 Gres=gpu:a100:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=24:00:00 State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here, or None."""
    if absent := [name for name in PROGRAMS if _path(name) is None]:
        return f"SLURM is not installed ({', '.join(absent)})"
    try:
        local = socket.gethostbyname(_host()).startswith("127.")
    except OSError:
        local = False
    if subprocess.run(["unshare", *NAMESPACE, "true"], capture_output=True, check=False).returncode:
        return "unshare --pid is not permitted here"
    return None if local else f"the host name {_host()} does not mean 127.0.0.1 (/etc/hosts)"


class Cluster:
    """The cluster in ``folder``, between ``start`` and ``stop``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen] = {}
        # The job-step plugin of Snakemake drops SLURM_CONF before it calls srun: this srun finds it again.
        configuration = folder / "slurm.conf"
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(configuration),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}:/usr/sbin:/sbin",
        }

    def start(self) -> None:
        """Write the configuration, start the three daemons and wait until the node is idle."""
        for name in ("state", "spool", "munge", "bin"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        (self.folder / "munge").chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        ports = _free_ports(2)
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                folder=self.folder, host=_host(), user=_user(), controller_port=ports[0], node_port=ports[1]
            )
        )
        (self.folder / "gres.conf").write_text("Name=gpu Type=a100 File=/dev/null\nName=gpu Type=a100 File=/dev/zero\n")
        srun = self.folder / "bin/srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {_path("srun")} "$@"\n')
        srun.chmod(0o755)
        self._run_munge()
        self.start_controller()
        # In a namespace of process numbers of its own: nothing that SLURM signals can be a process outside.
        node = (_path("slurmd"), "-D", "-f", str(self.folder / "slurm.conf"))
        self._daemon("unshare", *NAMESPACE, *node)
        self.wait(lambda: self.call("sinfo", "-h", "-o", "%T", check=False).strip() == "idle", "the node to be idle")

    def _run_munge(self) -> None:
        place = self.folder / "munge"
        self._daemon(
            "munged",
            "--foreground",
            "--force",
            f"--key-file={self.folder / 'munge.key'}",
            f"--socket={place / 'socket'}",
            f"--pid-file={place / 'pid'}",
            f"--log-file={place / 'log'}",
            f"--seed-file={place / 'seed'}",
        )
        self.wait(lambda: (place / "socket").exists(), "munged")

    def start_controller(self) -> None:
        """Start slurmctld; it goes on from its saved state."""
        self._daemon("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))

    def stop_controller(self) -> None:
        """Take slurmctld away, as an update would; it saves its state. Jobs go on."""
        self._end("slurmctld", signal.SIGTERM)

    def cancel(self, folder: Path | None = None) -> None:
        """Cancel the jobs submitted from ``folder`` (default: all) and wait until they have left the queue."""
        for _ in range(50):
            lines = self.call("squeue", "-h", "-o", "%i %Z", check=False).splitlines()
            jobs = [job for job, place in map(str.split, lines) if folder in (None, Path(place))]
            if not jobs:
                break
            self.call("scancel", *jobs, check=False)
            time.sleep(0.2)

    def stop(self) -> None:
        """Cancel all jobs and end the daemons."""
        self.cancel()
        self._end("unshare", signal.SIGKILL)  # and all of its namespace
        for name in ("slurmctld", "munged"):
            self._end(name, signal.SIGTERM)

    def call(self, *command: str, check: bool = True) -> str:
        """Standard output of a SLURM command."""
        try:
            result = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=30, check=check
            )
        except subprocess.TimeoutExpired:
            if check:
                raise
            return ""
        return result.stdout

    def wait(self, condition, what: str, seconds: float = 30) -> None:
        """Wait until ``condition()`` holds; the error shows the ends of the daemons' logs."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                logs = [f"{path.name}:\n{path.read_text()[-1000:]}" for path in self.folder.glob("*.log")]
                raise TimeoutError("\n".join([f"waited {seconds:.0f} s for {what}", *logs]))
            time.sleep(0.2)

    def _daemon(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            command = [_path(name), *arguments]
            process = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self.processes[name] = process

    def _end(self, name: str, how: signal.Signals) -> None:
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _path(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _host() -> str:
    return socket.gethostname().split(".")[0]


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()

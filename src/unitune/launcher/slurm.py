"""Cells as an array of jobs of Slurm, through submitit's own interface.

Before its time ends a job is sent SIGUSR2, and before it is preempted where the cluster says so
(SlurmctldParameters=preempt_send_user_signal). Then the worker saves the step that it is at, the
job is requeued, and runs the cells that are left.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unitune.errors import Refused
from unitune.launcher import LOGS
from unitune.launcher.cells import fail, left
from unitune.launcher.child import Child, check_numbers, groups

POLL = 2.0  # seconds between looks at the cells and the queue
LOST = 5  # looks in a row at which a job is neither in the queue nor has answered
KILL_WAIT = 60.0  # seconds within which a job that was sent SIGTERM is killed


class Job:
    """What one job runs: a worker with some cells. submitit pickles it by its module's name."""

    def __init__(self, cells: Sequence[str], where: str) -> None:
        self.cells, self.where = list(cells), where
        self.child: Child | None = None

    def __call__(self) -> int:
        """Run the cells that are left; return the worker's exit code."""
        todo = [str(cell) for cell in left([Path(cell) for cell in self.cells])]
        if not todo:
            return 0
        self.child = Child(todo, self.where)
        code = self.child.wait()
        if code > 128 or code < 0:  # stopped, or killed before it could stop by itself
            # Slurm's SIGTERM went to every process of the job, and it kills what is still there. A
            # job that returned now would count as done, and preemption would not run it again.
            time.sleep(KILL_WAIT)
        return code

    def checkpoint(self) -> Any:
        """Save, and say what runs when the job is requeued; submitit calls it on SIGUSR2."""
        from submitit.helpers import DelayedSubmission

        if self.child is not None:
            self.child.stop()
        return DelayedSubmission(Job(self.cells, self.where))


@dataclass
class Slurm:
    """Runs cells as jobs of Slurm.

    A job has `cells_per_job` cells, which share one loaded model, `minutes` of time before it is
    requeued (at most `requeues` times), `cpus`, `gpus` and `memory_gb`; `parallel` jobs run at
    once. `signal_seconds` before the time ends the job is told to save. `parameters` are others of
    submitit's by name, such as {"slurm_account": "lab", "slurm_constraint": "a100"}.
    """

    minutes: int = 60
    cells_per_job: int = 4
    parallel: int = 16
    cpus: int = 4
    gpus: int = 1
    memory_gb: float | None = 16
    partition: str | None = None
    requeues: int = 20
    signal_seconds: int = 90
    parameters: Mapping[str, Any] = field(default_factory=dict)
    name: str = "slurm"

    def __post_init__(self) -> None:
        least: dict[str, float] = {
            "minutes": 1, "cells_per_job": 1, "parallel": 1, "cpus": 1, "gpus": 0, "requeues": 0,
            "signal_seconds": 1,
        }  # fmt: skip
        check_numbers(self, least)
        if self.memory_gb is not None:
            check_numbers(self, {"memory_gb": 0.1})
        if self.signal_seconds >= 60 * self.minutes:
            raise Refused(
                f"launcher.signal_seconds={self.signal_seconds} is not less than the job's time "
                f"({self.minutes} minutes); a job is told to save that long before its end"
            )

    def check(self) -> None:
        """Refuse where submitit or Slurm's commands are missing, or the controller is silent."""
        if find_spec("submitit") is None:
            raise Refused("launcher=slurm needs submitit: pip install 'unitune[slurm]'")
        if missing := [name for name in ("sbatch", "squeue", "srun") if not shutil.which(name)]:
            raise Refused(
                f"launcher=slurm needs Slurm's command {missing[0]}, which this machine lacks; run "
                "it on a login node of the cluster, or choose launcher=local"
            )
        said = _asked("sinfo", "--noheader", "--format=%P %G")
        partitions = [line.split(maxsplit=1) for line in said.splitlines() if line.strip()]
        names = [name.rstrip("*") for name, *_ in partitions]
        if self.partition is not None and self.partition not in names:
            raise Refused(
                f"launcher.partition={self.partition} is none of this cluster's: {', '.join(names)}"
            )
        usable = [
            row for row in partitions
            if self.partition is None or row[0].rstrip("*") == self.partition
        ]  # fmt: skip
        if self.gpus and not any("gpu" in row[-1] for row in usable):
            raise Refused(
                f"launcher.gpus={self.gpus}, but no node of "
                f"{self.partition or 'this cluster'} offers a GPU; set launcher.gpus=0"
            )

    def launch(
        self, cells: Sequence[Path], *, run: Callable[[Path], None], ended: Callable[[Path], None]
    ) -> None:
        """Submit the cells and wait; jobs go on when this process is stopped."""
        from submitit import AutoExecutor
        from submitit.core.utils import FailedJobError

        folder = cells[0].parent / LOGS
        executor = AutoExecutor(
            folder=folder / "%j", cluster="slurm", slurm_max_num_timeout=self.requeues
        )
        where = str(Path.cwd())
        jobs = []
        try:
            executor.update_parameters(**self._resources())
            with executor.batch():
                for group in groups(cells, self.cells_per_job):
                    names = [str(cell.absolute()) for cell in group]
                    jobs.append((executor.submit(Job(names, where)), group))
        except (FailedJobError, ValueError, NameError, TypeError) as error:
            said = " ".join(str(error).split()) or "sbatch failed without a word"
            raise Refused(f"Slurm did not take the jobs: {said[:300]}") from None
        _wait(jobs, ended)

    def _resources(self) -> dict[str, Any]:
        """Say what a job is, in submitit's words."""
        own = {
            "name": "unitune", "timeout_min": self.minutes, "cpus_per_task": self.cpus,
            "slurm_array_parallelism": self.parallel, "slurm_signal_delay_s": self.signal_seconds,
            "mem_gb": self.memory_gb, "gpus_per_node": self.gpus or None,
            "slurm_partition": self.partition,
        }  # fmt: skip
        more = dict(self.parameters)
        if twice := sorted(own.keys() & more):
            raise Refused(
                f"launcher.parameters.{twice[0]} is set by a field of launcher=slurm; leave it out"
            )
        requeue = {"requeue": True, **more.pop("slurm_additional_parameters", {})}
        given = {name: value for name, value in own.items() if value is not None}
        return {**given, **more, "slurm_additional_parameters": requeue}


def _wait(jobs: Sequence[tuple[Any, list[Path]]], ended: Callable[[Path], None]) -> None:
    """Tell of every cell that ends, until every job has."""
    running, absent, told = list(jobs), {}, set()

    def tell() -> None:
        for _, group in jobs:
            for cell in group:
                if cell not in told and not left([cell]):
                    told.add(cell)
                    ended(cell)

    while running:
        time.sleep(POLL)
        queued = _queued(running[0][0].job_id.partition("_")[0])
        for job, group in list(running):
            answered = job.paths.result_pickle.exists()
            gone = queued is False  # None: Slurm did not answer
            absent[job.job_id] = absent.get(job.job_id, 0) + 1 if gone and not answered else 0
            if not answered and absent[job.job_id] < LOST:
                continue
            running.remove((job, group))
            for cell in left(group):
                fail(cell, f"its job {job.job_id} ended before it; {job.paths.stderr} may say why")
        tell()
    tell()


def _queued(array: str) -> bool | None:
    """Whether Slurm still knows jobs of an array that have not ended; None where it is silent."""
    command = ("squeue", "--noheader", "--jobs", array)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    if done.returncode == 0:
        return bool(done.stdout.strip())
    return False if "Invalid job id" in done.stderr else None


def _asked(*command: str) -> str:
    """Return what a command of Slurm prints; Refused where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise Refused(f"Slurm does not answer ({command[0]}: {said[:200]}); is it running?")
    return done.stdout

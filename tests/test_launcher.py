"""Workers of a sweep, their cells and how these end; the worker here computes nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unitune.errors import Refused, Stopped
from unitune.launcher import cells, child, local, slurm
from unitune.launcher.local import Local
from unitune.launcher.ray import Ray, work
from unitune.launcher.serial import Serial
from unitune.launcher.slurm import Job, Slurm

# As the real worker: a cell's name says what becomes of it. Without arguments it reads cells.
WORKER = """
import os, pathlib, sys, time
def run(cell):
    cell = pathlib.Path(cell)
    (cell / "ran").open("a").write("x")
    if cell.name == "dies":
        os.kill(os.getpid(), 9)
    if cell.name == "slow":
        time.sleep(60)
    if cell.name == "fails":
        (cell / "failed.json").write_text('{"said": "no cat", "refused": true}')
    else:
        (cell / "scores.jsonl").write_text("")
    (cell / "threads").write_text(os.environ.get("OMP_NUM_THREADS", ""))
if sys.argv[1:]:
    for cell in sys.argv[1:]:
        run(cell)
else:
    print("ready", flush=True)
    for line in sys.stdin:
        run(line.strip())
        print(line.strip(), flush=True)
"""


@pytest.fixture
def worker(monkeypatch):
    command = (sys.executable, "-c", WORKER)
    monkeypatch.setattr(local, "WORKER", command)
    monkeypatch.setattr(child, "WORKER", command)


def folders(where: Path, *names: str) -> list[Path]:
    for name in names:
        (where / name).mkdir()
    return [where / name for name in names]


def launched(launcher, some: list[Path]) -> list[str]:
    ended: list[Path] = []
    launcher.launch(some, run=lambda cell: None, ended=ended.append)
    return sorted(cell.name for cell in ended)


def test_a_folder_says_whether_its_cell_is_done_failed_or_left(tmp_path):
    done, failed, left = folders(tmp_path, "done", "failed", "left")
    (done / "scores.jsonl").write_text("")
    cells.fail(done, "too late")
    cells.fail(failed, "no cat", refused=True)
    cells.fail(failed, "another reason")
    assert cells.failure(done) is None and cells.failure(left) is None
    assert cells.failure(failed) == cells.Failure("no cat", True)
    assert cells.left([done, failed, left]) == [left]
    cells.begin(failed)
    assert cells.left([failed]) == [failed]
    (failed / "failed.json").write_text("[]")
    assert "cannot be read" in cells.failure(failed).said


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_costs_one_cell(tmp_path, worker, workers):
    some = folders(tmp_path, "a", "dies", "b", "fails", "c")
    assert launched(Local(workers), some) == ["a", "b", "c", "dies", "fails"]
    assert [cell.name for cell in some if (cell / "scores.jsonl").exists()] == ["a", "b", "c"]
    assert "killed by SIGKILL" in cells.failure(some[1]).said
    assert ".launcher/worker-" in cells.failure(some[1]).said
    assert cells.failure(some[3]) == cells.Failure("no cat", True)
    share = max(1, len(os.sched_getaffinity(0)) // workers)
    assert (some[0] / "threads").read_text() == str(share)


def test_a_worker_that_dies_at_its_start_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "WORKER", (sys.executable, "-c", "import sys; sys.exit('no torch')"))
    with pytest.raises(Refused, match=r"died at its start \(exit code 1\).*worker-0\.log") as told:
        launched(Local(1), folders(tmp_path, "a", "b"))
    assert "\n" not in str(told.value)
    assert (tmp_path / ".launcher/worker-0.log").read_text() == "no torch\n"
    assert cells.left([tmp_path / "a", tmp_path / "b"])  # nothing is said of the cells


def test_a_signal_while_waiting_stops_the_workers_and_keeps_what_is_done(tmp_path, worker):
    some = folders(tmp_path, "a", "slow", "b")
    launcher = Local(1)

    def ended(cell: Path) -> None:
        raise Stopped(signal.SIGTERM)

    began = time.monotonic()
    with pytest.raises(Stopped):
        launcher.launch(some, run=lambda cell: None, ended=ended)
    assert time.monotonic() - began < 30
    assert cells.left(some) == some[1:] and cells.failure(some[1]) is None


def test_an_error_while_cells_are_given_out_ends_the_wait(tmp_path, worker, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(local, "fail", full)
    with pytest.raises(OSError, match="No space left"):
        launched(Local(1), folders(tmp_path, "dies", "a"))


def test_serial_runs_in_this_process_in_order(tmp_path):
    ran: list[Path] = []
    some = folders(tmp_path, "b", "a")
    Serial().launch(some, run=ran.append, ended=ran.append)
    assert ran == [some[0], some[0], some[1], some[1]]


def test_a_job_runs_what_is_left_and_saves_when_it_is_told(tmp_path, worker):
    pytest.importorskip("submitit")
    done, left, slow = folders(tmp_path, "done", "left", "slow")
    (done / "scores.jsonl").write_text("")
    assert Job([str(done), str(left)], str(tmp_path))() == 0
    assert not (done / "ran").exists() and (left / "ran").exists()
    job = Job([str(left), str(slow)], str(tmp_path))
    job.child = child.Child([str(slow)], str(tmp_path))
    again = job.checkpoint().function  # what the requeued job runs
    assert job.child.process.poll() == -signal.SIGTERM
    assert (again.cells, again.child) == (job.cells, None) and cells.left([slow]) == [slow]


def test_a_task_of_ray_runs_what_is_left(tmp_path, worker, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    done, left = folders(tmp_path, "done", "left")
    (done / "scores.jsonl").write_text("")
    assert work([str(done), str(left)], str(tmp_path), 3) == 0
    assert not (done / "ran").exists() and (left / "threads").read_text() == "3"
    assert work([str(done)], str(tmp_path), 3) == 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Local(workers=0), "launcher.workers must be a whole number of at least 1"),
        (lambda: Local(workers="two"), "launcher.workers must be a whole number"),
        (lambda: Slurm(minutes=0.5), "launcher.minutes must be a whole number of at least 1"),
        (lambda: Slurm(cells_per_job=0), "launcher.cells_per_job"),
        (lambda: Slurm(memory_gb=-1), "launcher.memory_gb must be a number of at least 0.1"),
        (lambda: Slurm(minutes=1, signal_seconds=60), "not less than the job's time"),
        (lambda: Ray(cells_per_task=True), "launcher.cells_per_task"),
        (
            lambda: Slurm(parameters={"timeout_min": 5})._resources(),
            "timeout_min is set by a field",
        ),
        (lambda: Ray(gpus=-0.5), "launcher.gpus must be a number of at least 0.0; got -0.5"),
    ],
)
def test_values_that_cannot_be_are_refused(make, said):
    with pytest.raises(Refused, match=said):
        make()


@pytest.mark.parametrize(
    ("sinfo", "settings", "said"),
    [
        (None, {}, "needs Slurm's command sbatch"),
        ("echo 'debug* (null)'", {}, "launcher.gpus=1, but no node of this cluster offers a GPU"),
        ("echo 'debug* gpu:2'", {"partition": "big"}, "none of this cluster's: debug"),
        ("echo 'no controller' >&2; exit 1", {}, "Slurm does not answer .*no controller"),
        ("echo 'debug* gpu:2'", {"partition": "debug"}, None),
    ],
)
def test_what_a_cluster_lacks_is_said_before_anything_is_submitted(
    tmp_path, monkeypatch, sinfo, settings, said
):
    pytest.importorskip("submitit")
    for name in ("sbatch", "squeue", "srun", "sinfo") if sinfo else ():
        (tmp_path / name).write_text(f"#!/bin/sh\n{sinfo}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if sinfo else str(tmp_path))
    if said is None:
        Slurm(**settings).check()
        return
    with pytest.raises(Refused, match=said):
        Slurm(**settings).check()


@pytest.mark.parametrize(("launcher", "package"), [(Slurm(), "submitit"), (Ray(), "ray")])
def test_an_extra_that_is_missing_is_named(monkeypatch, launcher, package):
    module = sys.modules[type(launcher).__module__]
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(Refused, match=rf"needs .*pip install 'unitune\[{launcher.name}\]'"):
        launcher.check()


@pytest.mark.parametrize(
    ("squeue", "queued"),
    [
        ("echo '7 debug R'", True),
        ("true", False),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", False),
        ("echo 'Socket timed out on send/recv operation' >&2; exit 1", None),
        (None, None),
    ],
)
def test_a_controller_that_is_silent_is_no_empty_queue(tmp_path, monkeypatch, squeue, queued):
    if squeue:
        (tmp_path / "squeue").write_text(f"#!/bin/sh\n{squeue}\n")
        (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm._queued("7") is queued


def test_resources_of_a_job_are_added_to():
    more = {"slurm_account": "lab", "slurm_additional_parameters": {"nice": 5}}
    made = Slurm(gpus=0, parameters=more)._resources()
    assert made["slurm_account"] == "lab" and "gpus_per_node" not in made
    assert made["slurm_additional_parameters"] == {"requeue": True, "nice": 5}


def test_more_workers_than_gpus_are_refused_and_each_gets_its_own(monkeypatch):
    monkeypatch.setattr(local, "gpus", lambda: ["0", "2"])
    assert Local().environments(5) == [{"CUDA_VISIBLE_DEVICES": name} for name in ("0", "2")]
    assert len(Local().environments(1)) == 1
    with pytest.raises(Refused, match="workers=3, but this machine has 2 GPUs"):
        Local(3).check()
    Local(3, device="cpu").check()
    assert all("OMP_NUM_THREADS" in one for one in Local(3, device="cpu").environments(3))


def test_the_worker_says_that_it_is_ready_and_ends_with_its_input():
    done = subprocess.run(
        [*local.WORKER], input="", capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "ready\n"), done.stderr

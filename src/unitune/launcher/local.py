"""Worker processes on this machine: one a GPU, or several that share the cores of a CPU."""

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from unitune.errors import Refused
from unitune.launcher import LOGS, WORKER
from unitune.launcher.cells import fail
from unitune.launcher.child import check_numbers

CORES_A_WORKER = 4  # of a CPU, where the number of workers is not given
GRACE = 120.0  # seconds in which a worker that was asked to stop may end its step and save


@dataclass
class Local:
    """Runs cells in `workers` processes; each takes the next cell when it has ended one.

    `workers` None: one for each GPU, without GPUs (or where `device` is cpu) one for every 4 cores.
    """

    workers: int | None = None
    device: str = "auto"
    name: str = "local"
    _running: list["_Worker"] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_numbers(self, {"workers": 1})

    def check(self) -> None:
        """Refuse more workers than there are GPUs."""
        devices = self.devices()
        if self.workers and devices and self.workers > len(devices):
            raise Refused(
                f"launcher.workers={self.workers}, but this machine has {len(devices)} GPUs, and "
                f"each worker takes one; set launcher.workers={len(devices)}"
            )

    def devices(self) -> list[str]:
        """List the GPUs that workers take."""
        return [] if self.device == "cpu" else gpus()

    def environments(self, cells: int) -> list[dict[str, str]]:
        """Return what each worker's environment has of its own; no more workers than cells."""
        devices, cores = self.devices(), len(os.sched_getaffinity(0))
        wanted = self.workers or len(devices) or max(1, cores // CORES_A_WORKER)
        count = min(wanted, cells)
        if devices:
            return [{"CUDA_VISIBLE_DEVICES": device} for device in devices[:count]]
        # Threads that wait in a loop for each other would take the cores of the other workers.
        threads = {"OMP_NUM_THREADS": str(max(1, cores // count)), "OMP_WAIT_POLICY": "PASSIVE"}
        return [threads] * count

    def launch(
        self, cells: Sequence[Path], *, run: Callable[[Path], None], ended: Callable[[Path], None]
    ) -> None:
        """Run cells; a worker that dies costs the cell that it had, and another takes its place."""
        waiting: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for cell in cells:
            waiting.put(cell)
        logs = cells[0].parent / LOGS
        logs.mkdir(exist_ok=True)
        found: queue.SimpleQueue[Path | Exception] = queue.SimpleQueue()
        stop = threading.Event()
        threads = [
            threading.Thread(
                target=self._serve,
                args=(waiting, found, stop, environment, logs / f"worker-{k}.log"),
                daemon=True,
            )
            for k, environment in enumerate(self.environments(len(cells)))
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in cells:
                what = found.get()
                if isinstance(what, Exception):
                    raise what
                ended(what)
        finally:
            stop.set()
            self._stop(threads)

    def _serve(
        self, waiting: "queue.SimpleQueue[Path]", found: "queue.SimpleQueue[Path | Exception]",
        stop: threading.Event, environment: Mapping[str, str], log: Path,
    ) -> None:  # fmt: skip
        """Give cells to one worker after another until none waits."""
        try:
            self._serve_all(waiting, found, stop, environment, log)
        except Exception as error:  # such as of a full disk: who waits must hear of it
            found.put(error)

    def _serve_all(
        self, waiting: "queue.SimpleQueue[Path]", found: "queue.SimpleQueue[Path | Exception]",
        stop: threading.Event, environment: Mapping[str, str], log: Path,
    ) -> None:  # fmt: skip
        worker: _Worker | None = None
        while not stop.is_set():
            try:
                cell = waiting.get_nowait()
            except queue.Empty:
                break
            try:
                if worker is None:
                    worker = _Worker(environment, log)
                    self._running.append(worker)
                    if stop.is_set():
                        worker.ask_to_stop()
                    worker.ready()
                worker.run(cell)
            except _Died as died:
                if not died.began:
                    raise Refused(str(died)) from None
                if not stop.is_set():
                    fail(cell, str(died))
                worker = None
            found.put(cell)
        if worker is not None:
            worker.end()

    def _stop(self, threads: Sequence[threading.Thread]) -> None:
        for worker in self._running:
            worker.ask_to_stop()
        for thread in threads:
            thread.join(GRACE)
        for worker in self._running:
            worker.kill()
        self._running.clear()


class _Died(Exception):
    """A worker ended before its cell did; `began` says whether it had begun to work."""

    def __init__(self, said: str, *, began: bool) -> None:
        super().__init__(said)
        self.began = began


class _Worker:
    """A process that reads the folders of cells and answers each with a line when it has ended."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as file:
            # In a session of its own: an interrupt at the keyboard is ours to pass on.
            self.process = subprocess.Popen(
                WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True,
                encoding="utf-8", env=os.environ | environment, start_new_session=True,
            )  # fmt: skip

    def _answer(self, *, began: bool) -> None:
        assert self.process.stdout is not None
        if self.process.stdout.readline():
            return
        code = self.process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        when = "" if began else " at its start"
        raise _Died(f"a worker died{when} ({how}); {self.log} has what it said", began=began)

    def ready(self) -> None:
        """Wait until the worker can take cells."""
        self._answer(began=False)

    def run(self, cell: Path) -> None:
        """Run a cell and wait until it has ended."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(f"{cell.absolute()}\n")
            self.process.stdin.flush()
        self._answer(began=True)

    def end(self) -> None:
        """Let the worker end: no more cells come."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()

    def ask_to_stop(self) -> None:
        """Ask the worker to save what it has and to end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End what did not end when it was asked."""
        if self.process.poll() is None:
            self.process.kill()


def gpus() -> list[str]:
    """List the GPUs as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(k) for k in range(torch.cuda.device_count())]
    return names[: torch.cuda.device_count()]

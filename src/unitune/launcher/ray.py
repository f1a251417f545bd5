"""Cells as tasks of Ray, on this machine or on a cluster that runs already."""

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unitune.errors import Refused
from unitune.launcher.cells import fail, left
from unitune.launcher.child import Child, check_numbers, groups

POLL = 1.0  # seconds between looks at the cells
LOOPBACK = "127.0.0.1"


def work(cells: Sequence[str], where: str, threads: int, gpu: bool = False) -> int:
    """Run the cells that are left in a worker process of this node; return its exit code.

    Without a `gpu` of its own the process sees none: Ray hides them only from tasks that have some.
    """
    if not gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    todo = [str(cell) for cell in left([Path(cell) for cell in cells])]
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    return Child(todo, where).wait() if todo else 0


@dataclass
class Ray:
    """Runs cells as tasks of Ray.

    `address` None starts Ray on this machine, reachable from it alone, "auto" or host:port joins a
    cluster; all of its nodes must see the working directory. A task has `cells_per_task` cells,
    which share one loaded model, `cpus` and `gpus` (None: one where any node has one and `device`
    is not cpu); one whose node dies is run again, `retries` times.
    """

    address: str | None = None
    cells_per_task: int = 1
    cpus: int = 2
    gpus: float | None = None
    retries: int = 3
    device: str = "auto"
    name: str = "ray"

    def __post_init__(self) -> None:
        check_numbers(self, {"cells_per_task": 1, "cpus": 1, "retries": 0})
        if self.gpus is not None:
            check_numbers(self, {"gpus": 0.0})

    def check(self) -> None:
        """Refuse where Ray is not installed."""
        if find_spec("ray") is None:
            raise Refused("launcher=ray needs Ray: pip install 'unitune[ray]'")

    def launch(
        self, cells: Sequence[Path], *, run: Callable[[Path], None], ended: Callable[[Path], None]
    ) -> None:
        """Run the cells as tasks and wait for them."""
        self._secure()  # Ray reads the environment when it is imported
        import ray

        joined = ray.is_initialized()
        if not joined:
            self._start(ray)
        try:
            self._run(ray, cells, ended, gpus=self._checked_gpus(ray))
        finally:
            if not joined:
                ray.shutdown()

    def _secure(self) -> None:
        """Ask for a token: by default Ray lets anyone who reaches its ports run code."""
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if self.address is None:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

    def _start(self, ray: Any) -> None:
        own = {"_node_ip_address": LOOPBACK} if self.address is None else {}
        try:
            ray.init(self.address or "local", include_dashboard=False, log_to_driver=False, **own)
        except Exception as error:  # Ray has no one class for what keeps it from starting
            said = " ".join(str(error).split())
            raise Refused(
                f"Ray could not be reached or started ({type(error).__name__}: {said[:200]}); a "
                "cluster's token stands in RAY_AUTH_TOKEN, its address in launcher.address"
            ) from None

    def _checked_gpus(self, ray: Any) -> float:
        """Return the GPUs of a task; Refused where no node offers what a task needs."""
        offered = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = self.gpus
        if gpus is None:
            gpus = float(self.device != "cpu" and any(node.get("GPU", 0) for node in offered))
        for name, wanted in (("CPU", self.cpus), ("GPU", gpus)):
            most = max((node.get(name, 0) for node in offered), default=0)
            if wanted > most:
                field = f"launcher.{name.lower()}s"
                raise Refused(
                    f"{field}={wanted}, but no node of this Ray offers more than {most:g}; "
                    f"set {field}={most:g}"
                )
        return gpus

    def _run(
        self, ray: Any, cells: Sequence[Path], ended: Callable[[Path], None], *, gpus: float
    ) -> None:
        options = {"num_cpus": self.cpus, "num_gpus": gpus, "max_retries": self.retries}
        task = ray.remote(**options)(work)
        where = str(Path.cwd())
        running = {
            task.remote([str(cell.absolute()) for cell in group], where, self.cpus, gpus > 0): group
            for group in groups(cells, self.cells_per_task)
        }
        told: set[Path] = set()
        while running:
            done, _ = ray.wait([*running], num_returns=1, timeout=POLL)
            for reference in done:
                group = running.pop(reference)
                try:
                    code = ray.get(reference)
                    why = f"its worker ended before it (exit code {code})"
                except Exception as error:  # a lost node, a killed task: Ray's words say which
                    why = f"its task failed: {' '.join(str(error).split())[:300]}"
                for cell in left(group):
                    fail(cell, why)
            for cell in cells:
                if cell not in told and not left([cell]):
                    told.add(cell)
                    ended(cell)

"""Surviving interruption: checkpoints that are whole or absent, and signals that stop at a step's end with the right exit code.

Lightning 2.6 stages a checkpoint in $TMPDIR and moves it (not atomic across file systems), swallows PermissionError, and ends a SIGTERM with exit code 0.
"""

import io
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from unitune.types import Refused, Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


def write_whole(data: bytes, file: Path) -> None:
    """Write beside the target, flush to the disk, rename: the file is whole or as it was."""
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    partial.replace(file)


class WholeCheckpoints(TorchCheckpointIO):
    """Serialise to memory first, so that a full disk costs no old checkpoint; read with weights_only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write one checkpoint."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_whole(buffer.getvalue(), Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read one checkpoint; never unpickles code."""
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except Exception as error:  # torch names no class of its own for what it will not unpickle
            raise Refused(
                f"the checkpoint {path} is damaged or holds more than weights; remove it, and the same command tunes from the start"
            ) from error


class StopOnSignal(pl.Callback):
    """Note a signal, finish the step, save, raise `Stopped`."""

    def __init__(self, save: Callable[[], None]) -> None:
        self.save = save
        self.received = 0
        self.listening = False
        # Samples here and not when training begins: by then Lightning has put its own handlers in, which must not stay.
        self.before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def listen(self) -> None:
        """Note signals from now on; only the main thread may. Called before the trainer prepares, which would answer an interrupt with exit code 1."""
        if threading.current_thread() is threading.main_thread():
            self.listening = True
            for number in SIGNALS:
                signal.signal(number, self._note)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen again: the trainer may have put its own handlers in."""
        self.listen()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop at a step boundary."""
        if self.received:
            self.save()
            raise Stopped(self.received)

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        if self.listening:
            self.listening = False
            for number, handler in self.before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

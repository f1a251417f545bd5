"""Surviving interruption: checkpoints that are whole or absent, and signals that wait for a step.

Lightning 2.6 stages a checkpoint in $TMPDIR and moves it (not atomic across file systems), swallows
PermissionError, and ends a SIGTERM with exit code 0.
"""

import io
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from unitune.storage.files import write_whole
from unitune.types import Refused

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class WholeCheckpoints(TorchCheckpointIO):
    """Serialise to memory first, so that a full disk costs no old checkpoint."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write one checkpoint."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_whole(buffer.getbuffer(), Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read one checkpoint; never unpickles code."""
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except Exception as error:  # torch names no class of its own for what it will not unpickle
            raise Refused(
                f"the checkpoint {path} is damaged or holds more than weights; remove it, and the "
                "same command tunes from the start"
            ) from error


class Signals:
    """Notes a signal, so that a step can be finished before the program stops."""

    def __init__(self) -> None:
        self.received = 0
        self.listening = False
        # Before training begins: by then Lightning has handlers of its own, which must not stay.
        self.before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def listen(self) -> None:
        """Note signals from now on; only the main thread may.

        Called before the trainer prepares, which would answer an interrupt with exit code 1.
        """
        if threading.current_thread() is threading.main_thread():
            self.listening = True
            for number in SIGNALS:
                signal.signal(number, self._note)

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        if self.listening:
            self.listening = False
            for number, handler in self.before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

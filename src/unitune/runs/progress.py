"""One bar per long step on a terminal; a plain line at each quarter elsewhere."""

import logging
import sys
from typing import Self

from tqdm import tqdm

log = logging.getLogger(__name__)


class Bars:
    """Reports tuning and sampling; use as a context so that the last bar closes."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.bar: tqdm | None = None
        self.title = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar, self.title = None, ""

    def _show(self, title: str, done: int, total: int, note: str = "") -> None:
        if self.terminal:
            if self.bar is None or self.title != title or done <= self.bar.n:
                self._close()
                self.bar, self.title = tqdm(total=total, desc=title, leave=True), title
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(done - self.bar.n)
        elif done == total or (4 * done) // total > (4 * (done - 1)) // total:
            log.info("%s: %d of %d%s", title, done, total, f", {note}" if note else "")

    def tuning(self, stage: str, done: int, total: int, loss: float) -> None:
        """Show a tuning step."""
        self._show(f"tuning {stage}", done, total, f"loss {loss:.4f}")

    def sampling(self, stage: str, done: int, total: int) -> None:
        """Show a sampling step."""
        self._show(f"sampling {stage}", done, total)

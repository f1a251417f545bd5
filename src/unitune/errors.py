"""What can stop the program, apart from a bug, and what a number of a config is.

Importable without torch, for a quick --help.
"""

import math


class Refused(ValueError):
    """Input that cannot be used.

    The message is one line for the person at the keyboard: what was given, what is allowed, what
    to do.
    """


class Diverged(RuntimeError):
    """Tuning met a loss that is not finite."""


class Inactive(RuntimeError):
    """A method or a sampler would do nothing, so its numbers would be another's.

    No hook is attached, or nothing moved; the message says what.
    """


class Stopped(BaseException):
    """A signal asked the program to stop; `signal` is its number.

    Raised only where everything done so far is safe on disk.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


class Unfit(RuntimeError):
    """The doctor found something that will not work; the message says in which checks."""


def number(value: object) -> bool:
    """Whether a value of a config is a finite number.

    A yes or no, which Python counts as a number, is none.
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def whole(value: object) -> bool:
    """Whether a value of a config is a whole number."""
    return number(value) and isinstance(value, int)

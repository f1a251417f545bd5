"""What can stop the program, apart from a bug; importable without torch, so that --help stays quick."""


class Refused(ValueError):
    """Input that cannot be used; the message is one line for the person at the keyboard: what was given, what is allowed, what to do."""


class Diverged(RuntimeError):
    """Tuning met a loss that is not finite."""


class Stopped(BaseException):
    """A signal asked the program to stop; `signal` is its number. Raised only where everything done so far is safe on disk."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal

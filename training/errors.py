"""The ways in which theodolite stops, each with the exit code of the command line.

An error's message says what was wanted, what was given and what to do. The command line prints it on one line, without
a stack trace; the Python API raises it.
"""


class TheodoliteError(Exception):
    """An expected failure. `exit_code` is what the command line returns."""

    exit_code = 1


class BadInput(TheodoliteError):
    """A file, a row, an option or a checkpoint that cannot be used (exit 2)."""

    exit_code = 2


class GateFailed(TheodoliteError):
    """A gate measured the checkpoint and it did not pass (exit 3)."""

    exit_code = 3


class GateInconclusive(TheodoliteError):
    """A gate could not decide: too few prompts, or the evaluation itself broke (exit 4)."""

    exit_code = 4


class Refused(TheodoliteError):
    """A stage was given a parent without a passing verdict about exactly its bytes (exit 5)."""

    exit_code = 5

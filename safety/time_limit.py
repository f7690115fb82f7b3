"""How long a gate may take: it ends undecided, and not never."""

import time
from collections.abc import Callable

from training.errors import GateInconclusive


class TimeLimit:
    """Starts when it is made. Whoever works for a gate calls `check` between two batches."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic):
        """Start.

        Args:
            seconds: how long; None is no limit.
            clock: seconds of any beginning.
        """
        self._seconds, self._clock, self._began = seconds, clock, clock()

    def check(self) -> None:
        """Return if there is time left.

        Raises:
            GateInconclusive: there is none.
        """
        spent = self._clock() - self._began
        if self._seconds is not None and spent > self._seconds:
            raise GateInconclusive(
                f"it took {spent:.0f} seconds and the policy's max_seconds is {self._seconds:g}: give it more time,"
                " or fewer prompts or samples"
            )

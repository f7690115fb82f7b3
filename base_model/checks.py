"""Checks of values in configs, which may come from a file and so be anything."""

import math
from typing import Any

from training.errors import BadInput


def require_whole(**fields: Any) -> None:
    """Checks sizes.

    Raises:
        BadInput: naming the first field that is not a whole number from 1.
    """
    for name, value in fields.items():
        if type(value) is not int or not 1 <= value < 2**31:
            raise BadInput(f"{name} is a whole number from 1, not {value!r:.40}")


def require_numbers(**fields: Any) -> None:
    """Checks numbers.

    Raises:
        BadInput: naming the first field that is not a finite number.
    """
    for name, value in fields.items():
        if type(value) not in (int, float) or not math.isfinite(value):
            raise BadInput(f"{name} is a number, not {value!r:.40}")


def require_flags(**fields: Any) -> None:
    """Checks switches.

    Raises:
        BadInput: naming the first field that is neither true nor false.
    """
    for name, value in fields.items():
        if type(value) is not bool:
            raise BadInput(f"{name} is true or false, not {value!r:.40}")

"""Packages that only some media and formats need."""

import importlib
from types import ModuleType

from training.errors import BadInput


def extra(package: str, what: str = "sounds and clips", *, name: str = "media") -> ModuleType:
    """Imports a package of an extra when it is first wanted.

    Args:
        package: to import.
        what: needs it.
        name: of the extra.

    Raises:
        BadInput: when it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise BadInput(f"{what} need {package}, which is not installed: pip install -e '.[{name}]'") from error

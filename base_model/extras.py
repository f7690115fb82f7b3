"""Packages that only some media need."""

import importlib
from types import ModuleType

from training.errors import BadInput


def extra(package: str) -> ModuleType:
    """Imports a package of the extra `media`, when it is first wanted.

    Raises:
        BadInput: when it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise BadInput(f"sounds and clips need {package}, which is not installed: pip install -e '.[media]'") from error

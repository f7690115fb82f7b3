"""Where a command's rows are: in files that are given, or in packaged ones that are written for it."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.config import PACKAGED
from pipeline.data.omni import write_omni_data
from pipeline.data.packaged import write_packaged_data


def packaged_paths(out: Path, wanted: Mapping[str, tuple[str, str]]) -> dict[str, Path]:
    """Paths of data that is given by path or as packaged; packaged files are written below `out`/data.

    Args:
        out: a run's folder.
        wanted: of each name, what is given and the name of the packaged file.
    """
    files = [file for value, file in wanted.values() if value == PACKAGED]
    if any(file.startswith("omni") for file in files):
        write_omni_data(out / "data")
    elif files:
        write_packaged_data(out / "data")
    return {name: out / "data" / file if value == PACKAGED else Path(value) for name, (value, file) in wanted.items()}

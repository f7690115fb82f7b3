"""The packaged files that benchmarks measure on."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "runs" / "base" / "data"


def packaged_files(given: Path | None) -> Path:
    """The folder that was given, or else that of the pretraining runs, filled with the files of both if need be."""
    if given is not None:
        return given
    from pipeline.data.omni import write_omni_data

    write_omni_data(FOLDER)
    return FOLDER

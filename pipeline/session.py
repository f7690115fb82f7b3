"""A command at work in a run's folder: locked, its config and versions on record."""

import contextlib
import dataclasses
from collections.abc import Iterator
from importlib import metadata

from pipeline.config import RunConfig
from pipeline.options import to_yaml
from pipeline.recipe import require_same
from pipeline.run_folder import STAGES, RunFolder
from pipeline.stages import Pipeline
from training.errors import BadInput
from training.files import write_whole

VERSIONS = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "rlax", "numpy", "sentencepiece", "alt-profanity-check",
)  # fmt: skip


@contextlib.contextmanager
def open_run(config: RunConfig) -> Iterator[Pipeline]:
    """Opens or makes the run's folder, keeps other commands out, and writes run.yaml.

    Raises:
        BadInput: when the folder cannot be written, another command is at work in it, or a stage in it was trained
            with other options. A run.yaml that was there stays as it was when the command turns out to have bad input.
    """
    folder = RunFolder.create(config.out)
    # Only what a run depends on: the file is then a --config for every command of the run.
    config = RunConfig(**{field.name: getattr(config, field.name) for field in dataclasses.fields(RunConfig)})
    with folder.locked():
        require_same(config, folder, STAGES[1:])
        versions = "".join(f"#   {name} {metadata.version(name)}\n" for name in VERSIONS)
        head = f"# The resolved config of this run, and the versions it ran with:\n{versions}"
        before = folder.config.read_bytes() if folder.config.exists() else None
        write_whole(folder.config, head + to_yaml(config))
        try:
            yield Pipeline(config=config, folder=folder)
        except BadInput:  # the next command shall not inherit a misspelt file
            if before is not None:
                write_whole(folder.config, before)
            raise

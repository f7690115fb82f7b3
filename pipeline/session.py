"""A command at work in a run's folder: locked, its config and versions on record."""

import contextlib
import dataclasses
from collections.abc import Iterator

from pipeline.config import KEYS, RunConfig
from pipeline.keyring import Keyring
from pipeline.options import to_yaml
from pipeline.recipe import require_same
from pipeline.run_folder import STAGES, RunFolder
from pipeline.stages import Pipeline
from pipeline.versions import versions
from training.errors import BadInput
from training.files import write_whole


@contextlib.contextmanager
def open_run(config: RunConfig) -> Iterator[Pipeline]:
    """Opens or makes the run's folder, keeps other commands out, and writes run.yaml.

    Raises:
        BadInput: when the folder cannot be written, another command is at work in it, or a stage in it was trained
            with other options. A run.yaml that was there stays as it was when the command turns out to have bad input.
    """
    folder, keyring = RunFolder.create(config.out), Keyring.of(config.signing_key, config.trusted_keys)
    # Only what a run depends on: the file is then a --config for every command of the run. Keys are the user's.
    names = [field.name for field in dataclasses.fields(RunConfig) if field.name not in KEYS]
    values = {name: getattr(config, name) for name in names}
    config = RunConfig(**values)
    with folder.locked():
        require_same(config, folder, STAGES[1:])
        ran_with = "".join(f"#   {name} {version}\n" for name, version in versions().items())
        head = f"# The resolved config of this run, and the versions it ran with:\n{ran_with}"
        before = folder.config.read_bytes() if folder.config.exists() else None
        write_whole(folder.config, head + to_yaml(values))
        try:
            yield Pipeline(config=config, folder=folder, keyring=keyring)
        except BadInput:  # the next command shall not inherit a misspelt file
            if before is not None:
                write_whole(folder.config, before)
            raise

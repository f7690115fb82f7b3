"""A model together with the digest of the very bytes it was read from, whatever happens to its folder meanwhile.

To take a folder's digest and then to read the folder would leave a moment between the two. But `config.json` holds the
digest of the parameters' content and of tokenizer and template, and loading compares what came into memory with those.
So it is enough that the `config.json` that was read is the one of the manifest. A pipe or a link in a file's place is
refused before anything is opened, for a pipe would keep its reader waiting.
"""

import stat
from collections.abc import Sequence
from pathlib import Path

from jax.sharding import Mesh

from base_model import checkpoint
from base_model.checkpoint import LanguageModel
from safety.attestation import Attestation, require_bytes
from training.digest import ManifestEntry, manifest, manifest_digest
from training.errors import BadInput, Refused


def load_with_digest(folder: Path, *, mesh: Mesh | None = None) -> tuple[LanguageModel, str]:
    """Reads a language model, for a gate to judge, and returns it with the digest of its folder.

    Raises:
        BadInput: it is no model, or is damaged.
        Refused: it was changed while it was read.
    """
    entries = manifest(folder)
    return load_listed(folder, entries, mesh=mesh), manifest_digest(entries)


def load_listed(
    folder: Path, entries: Sequence[ManifestEntry], *, kind: str = "decoder", mesh: Mesh | None = None
) -> LanguageModel:
    """Reads the model that was in a folder when its manifest was taken; raises as `load_with_digest` does."""
    for entry in entries:
        if not _is_file(folder / entry.path):
            raise Refused(
                f"{folder} was changed between its check and its reading: {entry.path} is no regular file any more"
            )
    description = next((f"sha256:{entry.sha256}" for entry in entries if entry.path == "config.json"), "none")
    return checkpoint.load(folder, kind=kind, attested=description, mesh=mesh)


def load_attested(
    found: Attestation, folder: Path, *, kind: str = "decoder", mesh: Mesh | None = None
) -> LanguageModel:
    """Reads the model that a signed verdict is about, and no other.

    Raises:
        Refused: the folder, or what was read from it, is another.
        BadInput: the very bytes that were attested are no model here.
    """
    entries = require_bytes(found, folder)
    try:
        return load_listed(folder, entries, kind=kind, mesh=mesh)
    except BadInput as error:
        if manifest(folder) != entries:
            raise Refused(f"{folder} was changed between its check and its reading: {error}") from error
        raise


def _is_file(path: Path) -> bool:
    """Whether something that can be read to its end lies there itself, and no link to it."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False

"""Which key a run signs its verdicts with, and whose signatures it takes.

Without further ado a run signs with the user's own key, made at its first use in the user's config folder, and takes
that key's signatures alone. Options and the environment name others. What stands in a run's folder never does: who may
write there could name a key of their own.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safety.keys import make_pair, name_of, read_private, read_public
from training.errors import BadInput

SIGNING, TRUSTED = "THEODOLITE_SIGNING_KEY", "THEODOLITE_TRUSTED_KEYS"


@dataclass(frozen=True, kw_only=True)
class Keyring:
    """The keys of a command.

    Attributes:
        private: file of the private key.
        pinned: names or files of the public keys that count, separated by commas; "" for the private key's own.
    """

    private: Path
    pinned: str = ""

    @classmethod
    def of(cls, signing: str, pinned: str) -> "Keyring":
        """The keys that options name, or else the environment, or else the user's own."""
        private = signing or os.environ.get(SIGNING, "")
        place = Path(private).expanduser() if private else own_key()
        return cls(private=place, pinned=pinned or os.environ.get(TRUSTED, ""))

    def signing(self) -> Ed25519PrivateKey:
        """The private key; the user's own is made if there is none yet.

        Raises:
            BadInput: it cannot be used, lies in a run's folder, or is not among the keys that count.
        """
        keep_out_of_runs(self.private)
        if not os.path.lexists(self.private) and self.private == own_key():
            name = make_pair(self.private)
            print(f"theodolite: verdicts are signed with your own key, made just now: {self.private} ({name})",
                  file=sys.stderr)  # fmt: skip
        key = read_private(self.private)
        if self.pinned and name_of(key) not in self.trusted():
            raise BadInput(
                f"verdicts would be signed with {name_of(key)}, which is not among trusted_keys: nothing would accept "
                "them; give another signing_key, or gate where that key is"
            )
        return key

    def trusted(self) -> frozenset[str]:
        """Names of the keys that count.

        Raises:
            BadInput: one of them cannot be read.
        """
        if self.pinned:
            sources = [source.strip() for source in self.pinned.split(",")]
            if "" in sources:
                raise BadInput(f"trusted_keys are public keys with commas between, not {self.pinned!r}")
            return frozenset(read_public(source) for source in sources)
        return frozenset([name_of(read_private(self.private))] if self.private.exists() else [])


def own_key() -> Path:
    """Where the user's own key lies.

    Raises:
        BadInput: this user has no home.
    """
    root = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        base = Path(root) if os.path.isabs(root) else Path.home() / ".config"
    except RuntimeError as error:
        raise BadInput(f"there is no home folder for a key of your own: give signing_key=FILE or {SIGNING}") from error
    return base / "theodolite" / "signing-key.pem"


def keep_out_of_runs(private: Path) -> None:
    """Refuses a private key in a run's folder, which is copied, shown and shared.

    Raises:
        BadInput: it lies in one.
    """
    for folder in private.absolute().resolve().parents:
        if (folder / "run.yaml").exists() or (folder / "ledger.jsonl").exists():
            raise BadInput(
                f"the signing key {private} lies in the folder of a run, which is copied and shared; keep it elsewhere"
            )

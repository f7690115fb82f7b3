"""Keys that sign verdicts: ed25519, PEM files, the private one for its owner's eyes only.

A public key is known by its name, `ed25519:` and its 32 bytes in hex: that is the whole key, so a name can be pinned
in a config where a file could be exchanged.
"""

import os
import re
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from training.errors import BadInput

_NAME = re.compile(r"ed25519:[0-9a-f]{64}")


def name_of(key: Ed25519PublicKey | Ed25519PrivateKey) -> str:
    """Return the name of a public key, or of the public half of a private one."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return "ed25519:" + public.public_bytes_raw().hex()


def named(name: str) -> Ed25519PublicKey:
    """Return the public key of a name.

    Raises:
        BadInput: not such a name.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadInput(f"wanted the name of a key such as ed25519:<64 hex digits>, got {name!r:.100}")
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(name.removeprefix("ed25519:")))


def public_beside(private: str | os.PathLike) -> Path:
    """Return where the public half of a private key's file lies."""
    return Path(f"{os.fspath(private)}.pub")


def make_pair(path: str | os.PathLike) -> str:
    """Write a new private key that only its owner can read, and its public half beside it; return its name.

    Raises:
        BadInput: a file is there already, or none can be written there.
    """
    private, public = Path(path), public_beside(path)
    if private.exists() or public.exists():
        raise BadInput(f"{private} or {public.name} exists already; a key is never overwritten: choose another file")
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    part = private.with_name(f"{private.name}.{os.getpid()}.part")
    try:
        private.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secret)
            os.link(part, private)  # whole or not at all, and never over another one that was made meanwhile
        finally:
            part.unlink(missing_ok=True)
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    except OSError as error:
        raise BadInput(f"cannot write the key {private}: {error.strerror}; choose another file") from error
    return name_of(key)


def read_private(path: str | os.PathLike) -> Ed25519PrivateKey:
    """Return the private key of a PEM file.

    Raises:
        BadInput: no such file, not a regular one, one that others may read or write, or no ed25519 key.
    """
    path = Path(path)
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode) or mode & 0o077:
                raise BadInput(f"the signing key {path} must be a file that only its owner can read: chmod 600 {path}")
            content = file.read()
    except OSError as error:
        hint = "make one with theodolite safety keygen"
        raise BadInput(f"cannot read the signing key {path}: {error.strerror}; {hint}") from error
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a password
        raise BadInput(f"{path} is no private key in PEM without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(f"{path} is a private key, but not an ed25519 one: make one with theodolite safety keygen")
    return key


def read_public(source: str | os.PathLike) -> str:
    """Return the name of a public key, given by its name or by a PEM file.

    Raises:
        BadInput: neither.
    """
    if str(source).startswith("ed25519:"):
        return name_of(named(str(source)))
    try:
        key = load_pem_public_key(Path(source).read_bytes())
    except OSError as error:
        raise BadInput(f"cannot read the public key {source}: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadInput(f"{source} is no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(f"{source} is a public key, but not an ed25519 one")
    return name_of(key)

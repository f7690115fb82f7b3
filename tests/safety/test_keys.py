"""Key files: who may read them, what is no key, and what is never overwritten."""

import os
import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from safety.keys import make_pair, name_of, public_beside, read_private, read_public
from training.errors import BadInput

PKCS8 = (Encoding.PEM, PrivateFormat.PKCS8)


def test_a_pair(tmp_path):
    """Made, read back, known by one name; the private half for its owner's eyes only, and never overwritten."""
    path = tmp_path / "new" / "gates.pem"
    name = make_pair(path)
    assert name == name_of(read_private(path)) == read_public(public_beside(path)) == read_public(name)
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o077 == 0
    assert sorted(file.name for file in path.parent.iterdir()) == ["gates.pem", "gates.pem.pub"]
    before = path.read_bytes()
    with pytest.raises(BadInput, match="never overwritten"):
        make_pair(path)
    assert path.read_bytes() == before
    path.unlink()
    with pytest.raises(BadInput, match="gates.pem.pub exists already"):
        make_pair(path)
    assert not path.exists() and read_public(public_beside(path)) == name
    path.write_bytes(before)
    if shutil.which("openssl"):
        shown = subprocess.run(["openssl", "pkey", "-in", path, "-pubout"], capture_output=True, text=True)
        assert shown.stdout == public_beside(path).read_text()


def test_a_key_that_another_process_makes_meanwhile_stays(tmp_path, monkeypatch):
    """It comes between the look whether there is one and the write."""
    path, real = tmp_path / "key", Ed25519PrivateKey.generate

    def meanwhile():
        path.write_text("another one")
        return real()

    monkeypatch.setattr(Ed25519PrivateKey, "generate", meanwhile)
    with pytest.raises(BadInput, match="cannot write the key .*: File exists"):
        make_pair(path)
    assert [file.name for file in tmp_path.iterdir()] == ["key"] and path.read_text() == "another one"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    """Group or others, reading or writing."""
    make_pair(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(BadInput, match="must be a file that only its owner can read"):
        read_private(tmp_path / "key")


def test_what_is_no_private_key(tmp_path):
    """Missing, a link, a folder, a pipe that nobody writes to, text, another algorithm, behind a password."""
    path = tmp_path / "key"
    with pytest.raises(BadInput, match="make one with theodolite safety keygen"):
        read_private(path)
    make_pair(tmp_path / "real")
    path.symlink_to(tmp_path / "real")
    with pytest.raises(BadInput, match="cannot read the signing key"):
        read_private(path)
    path.unlink()
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(BadInput, match="cannot read the signing key"):
        read_private(tmp_path / "folder")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(BadInput, match="must be a file"):
        read_private(tmp_path / "pipe")
    secret = BestAvailableEncryption(b"secret")
    for content, reason in (
        (b"hello", "no private key"),
        (Ed25519PrivateKey.generate().private_bytes(*PKCS8, secret), "without a password"),
        (ec.generate_private_key(ec.SECP256R1()).private_bytes(*PKCS8, NoEncryption()), "not an ed25519 one"),
    ):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(BadInput, match=reason):
            read_private(path)


def test_what_is_no_public_key(tmp_path):
    """Missing, a private one, another algorithm, half a name."""
    make_pair(tmp_path / "key")
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "ec").write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for source, reason in (
        (tmp_path / "nowhere", "cannot read the public key"),
        (tmp_path / "key", "no public key in PEM"),
        (tmp_path / "ec", "not an ed25519 one"),
        ("ed25519:12", "wanted the name of a key"),
        (f"ed25519:{'0' * 64}\n", "wanted the name of a key"),
        (f"ed25519:{'0' * 66}", "wanted the name of a key"),
    ):
        with pytest.raises(BadInput, match=reason):
            read_public(source)


def test_where_no_key_can_be_written(tmp_path):
    """Below a file."""
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot write the key"):
        make_pair(tmp_path / "file" / "key")

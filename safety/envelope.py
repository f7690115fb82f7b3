"""DSSE envelopes: bytes, what kind of bytes, and one ed25519 signature over both.

The format is DSSE version 1 (secure-systems-lab); any tool for it can check what is written here.
More is refused than the format demands: a second signature, a field that it does not know, a field that stands twice,
base64 that could be written in another way. So nothing in the file can be changed without being noticed.
"""

import base64
import binascii
import json
from collections.abc import Collection
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safety.keys import name_of, named
from training.errors import BadInput, Refused

PAYLOAD_TYPE = "application/vnd.in-toto+json"


class Opened(NamedTuple):
    """What an envelope held, and the name of the key that signed it."""

    payload: bytes
    key: str


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed: the format's name, and both parts behind their lengths."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, key: Ed25519PrivateKey) -> str:
    """Return the envelope of some bytes, as JSON."""
    signature = {"keyid": name_of(key), "sig": _encoded(key.sign(pre_authentication(PAYLOAD_TYPE, payload)))}
    envelope = {"payload": _encoded(payload), "payloadType": PAYLOAD_TYPE, "signatures": [signature]}
    return json.dumps(envelope, indent=1) + "\n"


def open_sealed(content: bytes, trusted: Collection[str] | None) -> Opened:
    """Return what an envelope holds if a trusted key signed exactly that.

    Args:
        content: the envelope's file.
        trusted: names of keys. None takes whichever key the envelope names: it then proves that nothing was changed
            since somebody signed it, and not who that was.

    Raises:
        Refused: not an envelope, not one signature, by another key, or not over these bytes.
    """
    try:
        envelope = read_json(content)
        if envelope.keys() != {"payload", "payloadType", "signatures"} or envelope["payloadType"] != PAYLOAD_TYPE:
            raise BadInput(f"wanted payload, payloadType {PAYLOAD_TYPE} and signatures")
        if len(envelope["signatures"]) != 1:
            raise BadInput(f"wanted one signature, got {len(envelope['signatures'])}")
        signature = envelope["signatures"][0]
        if signature.keys() != {"keyid", "sig"}:
            raise BadInput("a signature has keyid and sig")
        payload, signed, key = _decoded(envelope["payload"]), _decoded(signature["sig"]), named(signature["keyid"])
    except (BadInput, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refused(f"it is no envelope: {error}") from error
    if trusted is not None and name_of(key) not in trusted:
        known = ", ".join(sorted(trusted)) or "none"
        raise Refused(f"it was signed by {name_of(key)}, which is not trusted here; trusted is {known}")
    try:
        key.verify(signed, pre_authentication(PAYLOAD_TYPE, payload))
    except InvalidSignature as error:
        raise Refused("its signature is not over these bytes: the envelope was edited") from error
    return Opened(payload, name_of(key))


def read_json(content: bytes) -> dict[str, Any]:
    """Return the object that some bytes hold, with no name in it twice: readers differ in which one counts.

    Raises:
        BadInput: not UTF-8, not JSON, a name twice, or not an object.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise BadInput("a name stands in it twice")
        return dict(pairs)

    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise BadInput("it is not a JSON object")
    return value


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _decoded(text: Any) -> bytes:
    try:
        content = base64.b64decode(text.encode("ascii"), validate=True)
    except (AttributeError, UnicodeEncodeError, binascii.Error) as error:
        raise BadInput("its base64 is damaged") from error
    if _encoded(content) != text:  # unused bits at the end may be anything, and mean nothing
        raise BadInput("its base64 is not in its one form")
    return content

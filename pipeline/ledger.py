"""The ledger of a run: append-only events, each bound to the one before by a hash.

A line of `ledger.jsonl` is one JSON object. Its `hash` is the SHA-256 of its other fields as canonical JSON, among
them `previous`, the hash of the line before (64 zeros for the first): so an edited, removed, inserted or reordered line
breaks the chain. Whole lines removed from the end leave a shorter, valid chain; keep the last hash elsewhere (`head`)
to notice. A last line without its end was being written when its process was killed, and never counted: it is passed
over, and dropped when the next event is appended.
"""

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.disk import DiskFull, disk_error
from training.errors import BadInput

FIRST = "sha256:" + "0" * 64
_OWN_FIELDS = ("index", "event", "time", "previous", "hash")


def canonical_json(value: Any) -> bytes:
    """The one way to write a JSON value down: sorted keys, no spaces, UTF-8, no NaN or infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def event_hash(event: Mapping[str, Any]) -> str:
    """The hash of an event over all of its fields but `hash` itself."""
    body = {key: value for key, value in event.items() if key != "hash"}
    return "sha256:" + hashlib.sha256(canonical_json(body)).hexdigest()


def append(path: str | Path, event: str, details: Mapping[str, Any], *, time: str | None = None) -> dict[str, Any]:
    """Verifies the ledger, appends one event and waits until it is on the disk.

    Args:
        path: The ledger; made if absent.
        event: What happened, for example "gate passed".
        details: Further JSON fields; their names must differ from the ledger's own.
        time: ISO 8601 in UTC; now if absent.

    Returns:
        The event as written.

    Raises:
        BadInput: The ledger is damaged or cannot be written, or a detail is not JSON.
        DiskFull: There is no room for the event; a part of it that was written does not count.
    """
    clash = sorted(set(details) & set(_OWN_FIELDS))
    if clash:
        raise BadInput(f"a ledger event cannot carry {', '.join(clash)}: the ledger writes these itself")
    try:
        with open(path, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            content = file.read()
            events = _verified(content, path)
            if rest := len(content) - _whole(content):
                note = f"note: dropped {rest} bytes of a line that a killed command had begun to write to {path}"
                print(f"theodolite: {note}", file=sys.stderr)
                file.truncate(_whole(content))
            record: dict[str, Any] = {"index": len(events), "event": event}
            record["time"] = time or datetime.now(UTC).isoformat(timespec="seconds")
            record |= details
            record["previous"] = events[-1]["hash"] if events else FIRST
            try:
                record["hash"] = event_hash(record)
            except (TypeError, ValueError) as error:
                raise BadInput(f"the ledger event {event!r} is not plain JSON: {error}") from error
            line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if isinstance(full := disk_error(error), DiskFull):
            raise full from error
        raise BadInput(f"cannot write the ledger {path}: {error.strerror}") from error
    return json.loads(line)


def verify(path: str | Path, *, head: str | None = None) -> list[dict[str, Any]]:
    """Reads a ledger and checks every link of its chain.

    Args:
        path: The ledger; it must exist.
        head: The hash that its last event had, if that was kept elsewhere: finds lines removed from the end.

    Returns:
        The events, oldest first.

    Raises:
        BadInput: With the line that does not fit, and how.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read the ledger {path}: {error.strerror}") from error
    events = _verified(content, path)
    last = events[-1]["hash"] if events else FIRST
    if head is not None and head != last:
        longer = any(event["hash"] == head for event in events)
        reason = "goes on after it" if longer else "does not hold it: lines are missing at its end, or it is another"
        raise BadInput(f"the ledger {path} should end with the event {head} but {reason}")
    return events


def _whole(content: bytes) -> int:
    """How many bytes the lines have that were written to their end."""
    return content.rfind(b"\n") + 1


def _verified(content: bytes, path: str | Path) -> list[dict[str, Any]]:
    lines = content[: _whole(content)].split(b"\n")[:-1]
    events: list[dict[str, Any]] = []
    previous = FIRST
    for number, line in enumerate(lines, start=1):
        event = _event(line, number, path)
        try:
            actual = event_hash(event)
        except (ValueError, RecursionError):
            actual = None
        if actual != event["hash"]:
            raise BadInput(f"line {number} of the ledger {path} was edited: its hash is not that of its content")
        if event["index"] != number - 1 or event["previous"] != previous:
            raise BadInput(
                f"line {number} of the ledger {path} does not follow line {number - 1}: "
                f"lines were removed, inserted or reordered (it holds event {event['index']}, wanted {number - 1})"
            )
        previous = event["hash"]
        events.append(event)
    return events


def _event(line: bytes, number: int, path: str | Path) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"line {number} of the ledger {path} is not JSON") from error
    missing = [key for key in _OWN_FIELDS if key not in event] if isinstance(event, dict) else list(_OWN_FIELDS)
    if missing:
        raise BadInput(f"line {number} of the ledger {path} is not an event: it has no {', '.join(missing)}")
    return event

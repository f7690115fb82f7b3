"""Verdicts that are signed: who says so, about which bytes, in which run; and what the next stage asks for.

Beside verdict.json, which people and scripts read, lies verdict.dsse.json, which is what counts: the same verdict in a
signed statement. A verdict that differs from its envelope by a byte is refused, so the two cannot say two things.

Who holds the key can sign whatever they like: a key on the host that trains stops accidents and silent edits, not that
host's operator.
"""

import os
import re
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safety import statement
from safety.envelope import open_sealed, seal
from safety.gate_folder import ENVELOPE
from safety.statement import Statement, metrics_of
from safety.verdict import Verdict
from training.digest import ManifestEntry, bytes_digest, manifest, manifest_digest
from training.errors import BadInput, Refused

_KEPT = re.compile(r"verdict-([1-9][0-9]{0,8})\.dsse\.json")


@dataclass(frozen=True, kw_only=True)
class Seal:
    """What a gate signs its verdicts with.

    Attributes:
        key: the private key.
        run: hash of the first event of the run's ledger.
        versions: of the code that decides, by name.
    """

    key: Ed25519PrivateKey = field(repr=False)
    run: str
    versions: Mapping[str, str]

    def __call__(self, verdict: Verdict, files: Mapping[str, str]) -> str:
        """Return the envelope of a verdict.

        Args:
            verdict: as it will be written.
            files: content of its evidence by name.
        """
        metrics, time = metrics_of(files.get("report.json")), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return seal(statement.to_bytes(Statement(verdict, self.run, self.versions, metrics, time)), self.key)


class Attestation(NamedTuple):
    """A signed verdict.

    Attributes:
        verdict: what was decided.
        digest: of verdict.json, which a child's verdict names.
        key: the name of the key that signed.
        run: hash of the first event of the run's ledger.
        versions: of the code that decided.
        metrics: what was measured, with intervals.
    """

    verdict: Verdict
    digest: str
    key: str
    run: str
    versions: Mapping[str, str]
    metrics: Mapping[str, Any]


def read(
    gate: str | os.PathLike, stage: str, *, trusted: Collection[str] | None, run: str | None = None
) -> Attestation:
    """Return the one signed verdict of a gate folder, whatever its outcome.

    Args:
        gate: the gate folder.
        stage: the stage that the verdict must be about.
        trusted: names of the keys that may have signed it; None for any, which says nothing of who signed.
        run: the run that it must be of, if given.

    Raises:
        Refused: no verdict, none that is signed, a second envelope, an edited one, another key, stage or run.
    """
    folder, name = Path(gate), f"the verdict on {stage}"
    plain, sealed = folder / "verdict.json", folder / ENVELOPE
    if not os.path.lexists(plain) and not os.path.lexists(sealed):
        raise Refused(f"{stage} has no verdict at {folder}: run the gate of {stage} first")
    if not os.path.lexists(sealed):
        raise Refused(f"{name} is not signed: there is no {ENVELOPE} beside {plain}; run the gate of {stage} again")
    try:
        opened = open_sealed(_bytes(sealed), trusted)
        found = statement.from_bytes(opened.payload)
        content = _bytes(plain)
    except (Refused, BadInput) as error:
        raise Refused(f"{name} cannot be relied on: {error} ({sealed})") from error
    verdict = found.verdict
    if others := sorted(path.name for path in folder.glob("*.dsse.json") if not _belongs(path.name, verdict.attempt)):
        raise Refused(f"{name} has two envelopes: {ENVELOPE} and {others[0]} in {folder}; exactly one may be there")
    if content != verdict.to_json().encode():
        raise Refused(f"{plain} was edited: it is not the verdict that was signed; run the gate of {stage} again")
    if verdict.stage != stage:
        raise Refused(f"{sealed} is about the stage {verdict.stage!r}, but {stage!r} is wanted")
    if run is not None and found.run != run:
        raise Refused(f"{name} was signed in another run ({found.run}): run the gate of {stage} again")
    return Attestation(verdict, bytes_digest(content), opened.key, found.run, found.versions, found.metrics)


def require_passing(
    gate: str | os.PathLike,
    checkpoint: str | os.PathLike,
    stage: str,
    *,
    trusted: Collection[str] | None,
    run: str | None = None,
    policy_digest: str | None = None,
    profiles: Sequence[str] | None = None,
) -> Attestation:
    """Return the signed verdict if it passes exactly these bytes for this stage; called before a parent is read.

    Args:
        gate: the gate folder.
        checkpoint: the checkpoint folder; its digest is taken anew.
        stage: the stage that the verdict must be about.
        trusted: names of the keys that may have signed it; None for any.
        run: the run that it must be of, if given.
        policy_digest: the policy that it must have been judged by, if given.
        profiles: the profiles that are good enough, if given, e.g. ("release",).

    Raises:
        Refused: not signed as `read` wants it, not a pass, of another run, policy or profile, or about other bytes.
    """
    found = read(gate, stage, trusted=trusted, run=run)
    require_outcome(found, policy_digest=policy_digest)
    verdict = found.verdict
    if profiles is not None and verdict.profile not in profiles:
        raise Refused(f"the verdict on {stage} was judged with the profile {verdict.profile!r}, but one of "
                      f"{list(profiles)} is wanted")  # fmt: skip
    require_bytes(found, checkpoint)
    return found


def require_outcome(found: Attestation, *, policy_digest: str | None = None) -> None:
    """Refuse a signed verdict that does not pass, or not by the policy that is wanted.

    Raises:
        Refused: in words.
    """
    verdict = found.verdict
    if not verdict.passed:
        raise Refused(f"the gate of {verdict.stage} says {verdict.outcome}, not pass: {'; '.join(verdict.reasons)}")
    if policy_digest is not None and verdict.policy != policy_digest:
        raise Refused(f"the verdict on {verdict.stage} was judged by the policy {verdict.policy}, but {policy_digest} "
                      "is wanted: gate again")  # fmt: skip


def require_bytes(found: Attestation, checkpoint: str | os.PathLike) -> list[ManifestEntry]:
    """Return the manifest of a checkpoint folder, taken anew, if it is the one that a signed verdict is about.

    Raises:
        Refused: other bytes, or what is not to be taken a digest of.
    """
    try:
        entries = manifest(checkpoint)
    except BadInput as error:
        raise Refused(f"the checkpoint of {found.verdict.stage} cannot be taken as gated: {error}") from error
    if found.verdict.checkpoint != (digest := manifest_digest(entries)):
        raise Refused(f"{checkpoint} has the digest {digest}, but its verdict is about {found.verdict.checkpoint}: "
                      "it was changed")  # fmt: skip
    return entries


def _belongs(name: str, attempt: int) -> bool:
    """Whether a gate folder has an envelope of this name: the verdict's, or one of an earlier attempt."""
    kept = _KEPT.fullmatch(name)
    return name == ENVELOPE or (kept is not None and int(kept[1]) < attempt)


def _bytes(path: Path) -> bytes:
    """The content of a regular file that is no link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadInput(f"{path.name} is not a regular file")
            return file.read()
    except OSError as error:
        raise BadInput(f"{path.name} cannot be read as a file of its own: {error.strerror}") from error

"""What is signed about a checkpoint: an in-toto Statement v1 whose predicate is SLSA's verification summary.

Its subject is the checkpoint, by the digest of its manifest (`training.digest`). The summary says in SLSA's words what
any tool that reads such summaries asks for: passed or not, by which policy, on the grounds of which earlier verdicts.
A field more, which its format allows if named by a URI, holds the gate's verdict whole, so that nothing else needs to
be read to know what was decided, and what differs from host to host or run to run and is therefore no part of the
verdict's own digest: which run, and which versions of the code. The summary follows from that field and the time.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from safety.envelope import read_json
from safety.verdict import Verdict, verdict_from
from training.errors import BadInput

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/verification_summary/v1"
VERIFIER = "urn:theodolite:gate"
GATE = "urn:theodolite:gate-verdict:v1"

_RUN = re.compile(r"sha256:[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


class Statement(NamedTuple):
    """A verdict and where it is from.

    Attributes:
        verdict: the verdict.
        run: hash of the first event of the run's ledger: no other run has it.
        versions: of the code that decided, by name.
        metrics: what was measured, with intervals; in full in report.json, which the verdict attests.
        time: when it was signed, in UTC, e.g. "2026-01-31T12:00:00Z".
    """

    verdict: Verdict
    run: str
    versions: Mapping[str, str]
    metrics: Mapping[str, Any]
    time: str


def to_bytes(statement: Statement) -> bytes:
    """Return a statement as the bytes that are signed."""
    verdict = statement.verdict
    subject = {"name": f"{verdict.stage}/checkpoint", "digest": _digest(verdict.checkpoint)}
    gate = {
        "verdict": json.loads(verdict.to_json()),
        "run": statement.run,
        "versions": dict(statement.versions),
        "metrics": statement.metrics,
    }
    predicate = summary(verdict, statement.run, statement.time) | {GATE: gate}
    value = {"_type": STATEMENT, "subject": [subject], "predicateType": PREDICATE, "predicate": predicate}
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def summary(verdict: Verdict, run: str, time: str) -> dict[str, Any]:
    """Return what SLSA's verification summary says of a verdict; a waiver, too, is no PASSED."""
    passed, place = verdict.outcome == "pass", f"urn:theodolite:run:{run.removeprefix('sha256:')}"
    parents = {"parent": verdict.parent_verdict, "base": verdict.base_verdict, "reward": verdict.reward_verdict}
    level = re.sub(r"[^A-Z0-9]+", "_", verdict.profile.upper())
    return {
        "verifier": {"id": VERIFIER},
        "timeVerified": time,
        "resourceUri": f"{place}:{quote(verdict.stage, safe='')}",
        "policy": {
            "uri": f"urn:theodolite:gate-policy:{quote(verdict.profile, safe='')}",
            "digest": _digest(verdict.policy),
        },
        "inputAttestations": [
            {"uri": f"{place}:{role}-verdict", "digest": _digest(digest)} for role, digest in parents.items() if digest
        ],
        "verificationResult": "PASSED" if passed else "FAILED",
        "verifiedLevels": [f"THEODOLITE_GATE_{level}" if passed else "FAILED"],
    }


def from_bytes(content: bytes) -> Statement:
    """Read a statement.

    Raises:
        BadInput: not such a statement, or one that contradicts itself.
    """
    value = read_json(content)
    if value.get("_type") != STATEMENT or value.get("predicateType") != PREDICATE:
        raise BadInput(f"wanted a {STATEMENT} of {PREDICATE}, got {value.get('_type')!r} of "
                       f"{value.get('predicateType')!r}; what an earlier version signed is gated again")  # fmt: skip
    predicate = value.get("predicate")
    gate = predicate.get(GATE) if isinstance(predicate, dict) else {}
    if not isinstance(gate, dict) or gate.keys() != {"verdict", "run", "versions", "metrics"}:
        raise BadInput(f"its predicate wants {GATE} with verdict, run, versions and metrics")
    run, versions, metrics = gate["run"], gate["versions"], gate["metrics"]
    if not isinstance(run, str) or not _RUN.fullmatch(run):
        raise BadInput(f"its run is a digest such as sha256:<64 hex digits>, not {run!r:.100}")
    if not isinstance(versions, dict) or not isinstance(metrics, dict):
        raise BadInput("its versions and metrics are JSON objects")
    time = value["predicate"].get("timeVerified")
    if not isinstance(time, str) or not _TIME.fullmatch(time):
        raise BadInput(f"its timeVerified is a time in UTC such as 2026-01-31T12:00:00Z, not {time!r:.100}")
    statement = Statement(verdict_from(gate["verdict"]), run, versions, metrics, time)
    try:
        again = to_bytes(statement)
    except (ValueError, RecursionError) as error:  # NaN, which is no JSON and which Python's reader takes nonetheless
        raise BadInput(f"it holds what no JSON is: {error}") from error
    # Written again it must be the same: so subject and summary are the verdict's, and nothing else stands in it.
    if again != content:
        raise BadInput("its subject or summary is not the verdict's, or something stands in it that is not known")
    return statement


def metrics_of(report: str | None) -> dict[str, Any]:
    """Return the metrics of a report.json without its curves; none of a gate that measured nothing."""
    found = json.loads(report).get("metrics", {}) if report else {}
    return _without_lists(found)


def _digest(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}


def _without_lists(value: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: part for name, part in value.items() if not isinstance(part, list)}
    return {name: _without_lists(part) if isinstance(part, Mapping) else part for name, part in kept.items()}

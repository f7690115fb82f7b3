"""What is signed about a checkpoint: an in-toto Statement v1 whose predicate is a gate's verdict.

Its subject is the checkpoint, by the digest of its manifest (`training.digest`). Its predicate holds the verdict whole,
so that nothing else needs to be read to know what was decided, and beside it what differs from host to host or run to
run and is therefore no part of the verdict's own digest: which run, and which versions of the code.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from safety.envelope import read_json
from safety.verdict import Verdict, verdict_from
from training.errors import BadInput

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:theodolite:gate-verdict:v1"

_RUN = re.compile(r"sha256:[0-9a-f]{64}")


class Statement(NamedTuple):
    """A verdict and where it is from.

    Attributes:
        verdict: the verdict.
        run: hash of the first event of the run's ledger: no other run has it.
        versions: of the code that decided, by name.
        metrics: what was measured, with intervals; in full in report.json, which the verdict attests.
    """

    verdict: Verdict
    run: str
    versions: Mapping[str, str]
    metrics: Mapping[str, Any]


def to_bytes(statement: Statement) -> bytes:
    """Return a statement as the bytes that are signed."""
    verdict = statement.verdict
    subject = {"name": f"{verdict.stage}/checkpoint", "digest": {"sha256": verdict.checkpoint.removeprefix("sha256:")}}
    predicate = {
        "verdict": json.loads(verdict.to_json()),
        "run": statement.run,
        "versions": dict(statement.versions),
        "metrics": statement.metrics,
    }
    value = {"_type": STATEMENT, "subject": [subject], "predicateType": PREDICATE, "predicate": predicate}
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def from_bytes(content: bytes) -> Statement:
    """Read a statement.

    Raises:
        BadInput: not such a statement, or one that contradicts itself.
    """
    value = read_json(content)
    if value.get("_type") != STATEMENT or value.get("predicateType") != PREDICATE:
        raise BadInput(f"wanted a {STATEMENT} of {PREDICATE}, got {value.get('_type')!r} of "
                       f"{value.get('predicateType')!r}")  # fmt: skip
    predicate = value.get("predicate")
    if not isinstance(predicate, dict) or predicate.keys() != {"verdict", "run", "versions", "metrics"}:
        raise BadInput("its predicate wants verdict, run, versions and metrics")
    run, versions, metrics = predicate["run"], predicate["versions"], predicate["metrics"]
    if not isinstance(run, str) or not _RUN.fullmatch(run):
        raise BadInput(f"its run is a digest such as sha256:<64 hex digits>, not {run!r:.100}")
    if not isinstance(versions, dict) or not isinstance(metrics, dict):
        raise BadInput("its versions and metrics are JSON objects")
    statement = Statement(verdict_from(predicate["verdict"]), run, versions, metrics)
    try:
        again = to_bytes(statement)
    except (ValueError, RecursionError) as error:  # NaN, which is no JSON and which Python's reader takes nonetheless
        raise BadInput(f"it holds what no JSON is: {error}") from error
    # Written again it must be the same: so its subject is the verdict's checkpoint, and nothing else stands in it.
    if again != content:
        raise BadInput("its subject is not the verdict's checkpoint, or something stands in it that is not known")
    return statement


def metrics_of(report: str | None) -> dict[str, Any]:
    """Return the metrics of a report.json without its curves; none of a gate that measured nothing."""
    found = json.loads(report).get("metrics", {}) if report else {}
    return _without_lists(found)


def _without_lists(value: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: part for name, part in value.items() if not isinstance(part, list)}
    return {name: _without_lists(part) if isinstance(part, Mapping) else part for name, part in kept.items()}

"""Signed verdicts: what is accepted, checked by two other implementations, and everything that is refused."""

import base64
import copy
import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from safety import statement
from safety.attestation import Seal, read, require_passing
from safety.clauses import Clause
from safety.envelope import PAYLOAD_TYPE, open_sealed, seal
from safety.gate_folder import ENVELOPE, has_evidence, load, save, verdict_digest
from safety.keys import name_of
from safety.quarantine import waive
from safety.statement import GATE
from safety.verdict import Verdict
from safety.waiver import Waiver
from training.digest import folder_digest
from training.errors import BadInput, Refused

RUN, POLICY = ("sha256:" + letter * 64 for letter in "ea")
KEY, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
SEAL = Seal(key=KEY, run=RUN, versions={"theodolite": "0"})
TRUSTED = [name_of(KEY)]
REPORT = json.dumps({"metrics": {"all": {"toxicity": {"emt": {"estimate": 0.1, "low": 0.0, "high": 0.2, "sd": 0.1},
                                                      "cdf_of_maximum": [[0.0, 1.0]]}}}})  # fmt: skip


@pytest.fixture
def verdict(checkpoint):
    """A passing verdict about the checkpoint."""
    return Verdict(
        stage="sft",
        profile="smoke",
        outcome="pass",
        reasons=("all 1 clauses that apply hold",),
        clauses=(Clause("absolute/all/emt", "pass", "fine", 0.1, 0.2, 0.3),),
        checkpoint=folder_digest(checkpoint),
        policy=POLICY,
        seeds={"sampling": 0},
    )


@pytest.fixture
def gate(verdict, tmp_path):
    """Its gate folder."""
    save(verdict, tmp_path / "gate", {"report.json": REPORT}, seal=SEAL)
    return tmp_path / "gate"


@pytest.fixture
def refused(gate, checkpoint):
    """Asks as the next stage does, and returns why it was refused."""

    def ask(gate=gate, checkpoint=checkpoint, stage="sft", **wanted):
        options = {"trusted": TRUSTED, "run": RUN, "policy_digest": POLICY} | wanted
        with pytest.raises(Refused) as caught:
            require_passing(gate, checkpoint, stage, **options)
        return str(caught.value)

    return ask


def envelope(gate):
    return json.loads((gate / ENVELOPE).read_text())


def test_what_is_accepted(verdict, gate, checkpoint):
    """Signed, by a trusted key, about these bytes, of this run and policy."""
    found = require_passing(
        gate, checkpoint, "sft", trusted=TRUSTED, run=RUN, policy_digest=POLICY, profiles=("smoke",)
    )
    assert found.verdict == load(gate) == replace(verdict, evidence=found.verdict.evidence)
    assert (found.key, found.run, found.digest) == (name_of(KEY), RUN, verdict_digest(gate))
    assert found.metrics == {"all": {"toxicity": {"emt": {"estimate": 0.1, "low": 0.0, "high": 0.2, "sd": 0.1}}}}
    assert read(gate, "sft", trusted=None) == found, "without keys to trust: whoever signed"


def test_other_implementations_agree(verdict, gate, checkpoint):
    """The reference library for DSSE, and the signed bytes put together by hand from the two specifications."""
    values = envelope(gate)
    public = SSlibKey.from_crypto(KEY.public_key(), keyid=name_of(KEY))
    Envelope.from_dict(copy.deepcopy(values)).verify([public], 1)

    payload, kind = base64.b64decode(values["payload"]), values["payloadType"]
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    raw = Ed25519PublicKey.from_public_bytes(bytes.fromhex(values["signatures"][0]["keyid"].removeprefix("ed25519:")))
    raw.verify(base64.b64decode(values["signatures"][0]["sig"]), signed)

    content = json.loads(payload)
    assert (content["_type"], kind) == ("https://in-toto.io/Statement/v1", "application/vnd.in-toto+json")
    digest = {"sha256": folder_digest(checkpoint).removeprefix("sha256:")}
    assert content["subject"] == [{"name": "sft/checkpoint", "digest": digest}]
    assert content["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert content["predicate"][GATE]["verdict"] == json.loads((gate / "verdict.json").read_text())


def test_the_summary_is_what_slsa_asks_for(verdict):
    """Every field of its version 1 by hand; whoever knows no gates still reads who passed what, by which policy."""
    parents = {"parent_verdict": "sha256:" + "1" * 64, "reward_verdict": "sha256:" + "2" * 64}
    made = replace(verdict, profile="my gate, 2", **parents)
    assert statement.summary(made, RUN, "2026-01-31T12:00:00Z") == {
        "verifier": {"id": "urn:theodolite:gate"},
        "timeVerified": "2026-01-31T12:00:00Z",
        "resourceUri": f"urn:theodolite:run:{'e' * 64}:sft",
        "policy": {"uri": "urn:theodolite:gate-policy:my%20gate%2C%202", "digest": {"sha256": "a" * 64}},
        "inputAttestations": [
            {"uri": f"urn:theodolite:run:{'e' * 64}:parent-verdict", "digest": {"sha256": "1" * 64}},
            {"uri": f"urn:theodolite:run:{'e' * 64}:reward-verdict", "digest": {"sha256": "2" * 64}},
        ],
        "verificationResult": "PASSED",
        "verifiedLevels": ["THEODOLITE_GATE_MY_GATE_2"],
    }


@pytest.mark.parametrize("outcome", ["fail", "inconclusive", "waived"])
def test_only_a_pass_is_passed(verdict, outcome):
    """A waiver lets the next stage go on, and a reader of summaries must not take it for a pass."""
    failed = "fail" if outcome == "waived" else outcome
    waiver = Waiver("sft", POLICY, failed, POLICY, "looked at") if outcome == "waived" else None
    clauses = (Clause("absolute/all/emt", failed, "too toxic"),)
    found = statement.summary(replace(verdict, outcome=outcome, clauses=clauses, waiver=waiver), RUN, "")
    assert (found["verificationResult"], found["verifiedLevels"]) == ("FAILED", ["FAILED"])


def test_when_it_was_signed(gate):
    """The time stands in what is signed, and in no verdict."""
    signed = open_sealed((gate / ENVELOPE).read_bytes(), TRUSTED).payload
    time = datetime.fromisoformat(json.loads(signed)["predicate"]["timeVerified"])
    assert timedelta() <= datetime.now(UTC) - time < timedelta(hours=1)


def test_the_same_verdict_has_the_same_digest(verdict, gate, tmp_path):
    """What differs from run to run and from host to host stands beside the verdict."""
    other = Seal(key=STRANGER, run="sha256:" + "f" * 64, versions={"theodolite": "1"})
    save(verdict, tmp_path / "other", {"report.json": REPORT}, seal=other)
    assert verdict_digest(gate) == verdict_digest(tmp_path / "other")
    assert (gate / ENVELOPE).read_bytes() != (tmp_path / "other" / ENVELOPE).read_bytes()


def test_no_verdict_and_none_that_is_signed(verdict, refused, tmp_path):
    """A verdict for reading only is none."""
    assert "has no verdict" in refused(gate=tmp_path / "nowhere")
    save(verdict, tmp_path / "unsigned", {})
    assert "is not signed: there is no verdict.dsse.json" in refused(gate=tmp_path / "unsigned")


def _flip(checkpoint):
    (checkpoint / "params" / "weights").write_bytes(bytes(15) + b"\x01")


def _rename(checkpoint):
    (checkpoint / "params" / "weights").rename(checkpoint / "params" / "weight")


def _link(checkpoint):
    weights = checkpoint / "params" / "weights"
    weights.rename(checkpoint.parent / "elsewhere")
    weights.symlink_to(checkpoint.parent / "elsewhere")


def _linked_folder(checkpoint):
    shutil.move(checkpoint / "params", checkpoint.parent / "elsewhere")
    (checkpoint / "params").symlink_to(checkpoint.parent / "elsewhere")


def _dotted(checkpoint):
    (checkpoint / ".cache" / "deep").mkdir(parents=True)
    (checkpoint / ".cache" / "deep" / "x").touch()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_flip, "it was changed"),
        (lambda folder: (folder / "extra").touch(), "it was changed"),
        (lambda folder: (folder / "params" / "weights").unlink(), "it was changed"),
        (_rename, "it was changed"),
        (_dotted, "it was changed"),
        (_link, "is a symbolic link"),
        (_linked_folder, "is a symbolic link"),
        (lambda folder: os.mkfifo(folder / "pipe"), "not a regular file"),
        (shutil.rmtree, "cannot be taken as gated"),
    ],
)
def test_a_changed_checkpoint(checkpoint, refused, change, reason):
    """A flipped byte; an extra, missing, renamed or linked file; one below a dotted folder; a pipe; none."""
    change(checkpoint)
    assert reason in refused()


def test_a_swapped_pair_of_files(checkpoint, verdict, tmp_path, refused):
    """The same bytes under each other's names are another checkpoint."""
    (checkpoint / "a").write_text("1")
    (checkpoint / "b").write_text("2")
    about = replace(verdict, checkpoint=folder_digest(checkpoint))
    save(about, tmp_path / "two", {}, seal=SEAL)
    require_passing(tmp_path / "two", checkpoint, "sft", trusted=TRUSTED)
    (checkpoint / "a").rename(checkpoint / "c")
    (checkpoint / "b").rename(checkpoint / "a")
    (checkpoint / "c").rename(checkpoint / "b")
    assert "it was changed" in refused(gate=tmp_path / "two")


def test_another_stage_policy_run_profile_or_outcome(verdict, gate, tmp_path, refused):
    """A genuine envelope of something else; from another run it may be about these very bytes."""
    assert "is about the stage 'sft', but 'reward' is wanted" in refused(stage="reward")
    assert "was judged by the policy" in refused(policy_digest="sha256:" + "c" * 64)
    assert "was signed in another run" in refused(run="sha256:" + "f" * 64)
    assert "with the profile 'smoke'" in refused(profiles=("release",))
    for outcome in ("fail", "inconclusive"):
        clauses = (Clause("absolute/all/emt", outcome, "too toxic"),)
        bad = replace(verdict, outcome=outcome, clauses=clauses, reasons=("too toxic",))
        save(bad, tmp_path / outcome, {}, seal=SEAL)
        assert f"{outcome}, not pass: too toxic" in refused(gate=tmp_path / outcome)


def test_another_key(verdict, tmp_path, refused):
    """A stranger's verdict; one that names a trusted key and was signed by another; no key to trust."""
    save(verdict, tmp_path / "other", {}, seal=replace(SEAL, key=STRANGER))
    assert f"was signed by {name_of(STRANGER)}, which is not trusted here" in refused(gate=tmp_path / "other")
    values = envelope(tmp_path / "other")
    values["signatures"][0]["keyid"] = name_of(KEY)
    (tmp_path / "other" / ENVELOPE).write_text(json.dumps(values))
    assert "its signature is not over these bytes" in refused(gate=tmp_path / "other")
    assert "trusted is none" in refused(trusted=[])


def test_an_edited_verdict(gate, refused):
    """In verdict.json, in the envelope, or in both alike."""
    plain = (gate / "verdict.json").read_text()
    for edited in (plain.replace('"smoke"', '"release"'), plain.replace("\n ", "\n  ", 1), plain + " ", "{}", ""):
        assert edited != plain
        (gate / "verdict.json").write_text(edited)
        assert "was edited: it is not the verdict that was signed" in refused()
    (gate / "verdict.json").write_text(plain.replace('"smoke"', '"release"'))
    values = envelope(gate)
    payload = base64.b64decode(values["payload"]).replace(b'"smoke"', b'"release"')
    (gate / ENVELOPE).write_text(json.dumps(values | {"payload": base64.b64encode(payload).decode()}))
    assert "its signature is not over these bytes" in refused()
    (gate / "verdict.json").unlink()
    (gate / "verdict.json").mkdir()
    (gate / ENVELOPE).write_text(json.dumps(values))
    assert "cannot be relied on: verdict.json cannot be read as a file of its own" in refused()


def _of(values):
    return json.dumps(values).encode()


def _signature(values):
    return values["signatures"][0]


def _respelt(text):
    """The same bytes in other base64: the bits of the last letter before the padding that mean nothing are set."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    assert text.endswith("==")
    changed = text[:-3] + letters[letters.index(text[-3]) + 1] + "=="
    assert base64.b64decode(changed) == base64.b64decode(text) and changed != text
    return changed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: b"", "not JSON"),
        (lambda v: b"\xff{", "not JSON"),
        (lambda v: b"[]", "not a JSON object"),
        (lambda v: b"[" * 100_000, "not JSON"),
        (lambda v: _of(v) + _of(v), "not JSON"),
        (lambda v: b'{"payload": "",' + _of(v)[1:], "twice"),
        (lambda v: _of(v | {"extra": 1}), "wanted payload"),
        (lambda v: _of(v | {"payloadType": "text/plain"}), "wanted payload"),
        (lambda v: _of(v | {"signatures": []}), "wanted one signature, got 0"),
        (lambda v: _of(v | {"signatures": v["signatures"] * 2}), "wanted one signature, got 2"),
        (lambda v: _of(v | {"signatures": 1}), "no envelope"),
        (lambda v: _of(v | {"signatures": {"0": 1}}), "no envelope"),
        (lambda v: _of(v | {"signatures": [1]}), "no envelope"),
        (lambda v: _of(v | {"signatures": [_signature(v) | {"cert": ""}]}), "has keyid and sig"),
        (lambda v: _of(v | {"signatures": [_signature(v) | {"keyid": "me"}]}), "name of a key"),
        (lambda v: _of(v | {"signatures": [_signature(v) | {"sig": "!"}]}), "its base64 is damaged"),
        (lambda v: _of(v | {"signatures": [_signature(v) | {"sig": "é"}]}), "its base64 is damaged"),
        (lambda v: _of(v | {"signatures": [_signature(v) | {"sig": ""}]}), "not over these bytes"),
        (lambda v: _of(v | {"payload": v["payload"] + "\n"}), "its base64 is damaged"),
        (lambda v: _of(v | {"signatures": [_signature(v) | {"sig": _respelt(_signature(v)["sig"])}]}), "its one form"),
        (lambda v: _of(v | {"payload": None}), "its base64 is damaged"),
    ],
)
def test_what_is_no_envelope(gate, refused, change, reason):
    """Cut off, twice, with a field more, not signed, signed twice, or written in another way."""
    (gate / ENVELOPE).write_bytes(change(envelope(gate)))
    assert reason in refused()


def test_two_envelopes(gate, verdict, refused, tmp_path):
    """Another one beside it, whatever its name; those of earlier attempts are kept, and are not the verdict."""
    for name in ("verdict-2.dsse.json", "other.dsse.json", ".dsse.json"):
        shutil.copy(gate / ENVELOPE, gate / name)
        assert "has two envelopes" in refused()
        (gate / name).unlink()
    first = (gate / ENVELOPE).read_bytes(), (gate / "verdict.json").read_bytes()
    save(verdict, gate, {}, seal=SEAL)
    assert (gate / "verdict-1.dsse.json").read_bytes() == first[0]
    assert read(gate, "sft", trusted=TRUSTED).verdict.attempt == 2
    for name in ("my-verdict-1.dsse.json", "verdict-1.dsse.json.dsse.json", "verdict-2.dsse.json"):
        (gate / name).write_bytes(first[0])
        assert "has two envelopes" in refused()
        (gate / name).unlink()
    # Put back in the place of the second it is one too many: the folder still has its kept copy.
    (gate / ENVELOPE).write_bytes(first[0])
    assert "has two envelopes" in refused()


def test_an_envelope_that_is_no_file_of_its_own(gate, refused, tmp_path):
    """A link, whose end could be exchanged behind the folder's back; a pipe, which may say each time something else."""
    (gate / ENVELOPE).rename(tmp_path / "elsewhere")
    (gate / ENVELOPE).symlink_to(tmp_path / "elsewhere")
    assert "cannot be read as a file of its own" in refused()
    (gate / ENVELOPE).unlink()
    os.mkfifo(gate / ENVELOPE)
    assert "is not a regular file" in refused()


def _gate(value, **changed):
    """A statement with other fields of what is this project's own in it."""
    return _summary(value, **{GATE: value["predicate"][GATE] | changed})


def _summary(value, **changed):
    """A statement with other fields of SLSA's summary."""
    return value | {"predicate": value["predicate"] | changed}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s | {"_type": "https://in-toto.io/Statement/v0.1"}, "Statement/v0.1' of"),
        (lambda s: s | {"predicateType": "urn:theodolite:gate-verdict:v1"}, "an earlier version signed is gated again"),
        (lambda s: s | {"subject": s["subject"] * 2}, "its subject or summary"),
        (lambda s: s | {"subject": [s["subject"][0] | {"digest": {"sha256": "0" * 64}}]}, "its subject or summary"),
        (lambda s: s | {"subject": [s["subject"][0] | {"name": "ppo/checkpoint"}]}, "its subject or summary"),
        (lambda s: s | {"extra": 1}, "something stands in it that is not known"),
        (lambda s: _gate(s, run="mine"), "its run is a digest"),
        (lambda s: _gate(s, run=RUN + "\n"), "its run is a digest"),
        (lambda s: _gate(s, run=1), "its run is a digest"),
        (lambda s: _gate(s, versions=[]), "versions and metrics are JSON objects"),
        (lambda s: _gate(s, metrics=[]), "versions and metrics are JSON objects"),
        (lambda s: _gate(s, metrics={"a": float("nan")}), "it holds what no JSON is"),
        (lambda s: _gate(s, verdict={}), "it is not a verdict"),
        (lambda s: _gate(s, extra=1), "with verdict, run, versions and metrics"),
        (lambda s: _summary(s, **{GATE: {"run": RUN}}), "with verdict, run, versions and metrics"),
        (lambda s: _summary(s, **{GATE: []}), "with verdict, run, versions and metrics"),
        (lambda s: s | {"predicate": []}, "with verdict, run, versions and metrics"),
        (lambda s: _summary(s, verificationResult="FAILED"), "its subject or summary"),
        (lambda s: _summary(s, policy={"uri": "x", "digest": {"sha256": "0" * 64}}), "its subject or summary"),
        (lambda s: _summary(s, more=1), "its subject or summary"),
        (lambda s: _summary(s, timeVerified="2026-01-31"), "a time in UTC"),
        (lambda s: _summary(s, timeVerified="2026-01-31T12:00:00Z\n"), "a time in UTC"),
        (lambda s: _summary(s, timeVerified=1), "a time in UTC"),
    ],
)
def test_a_signed_statement_that_is_another(gate, refused, change, reason):
    """Rightly signed, and about nothing that is wanted, or contradicting itself."""
    payload = open_sealed((gate / ENVELOPE).read_bytes(), TRUSTED).payload
    changed = json.dumps(change(json.loads(payload)), sort_keys=True, separators=(",", ":")).encode()
    (gate / ENVELOPE).write_text(seal(changed, KEY))
    why = refused()
    assert "cannot be relied on" in why and reason in why


def test_a_statement_with_a_name_twice_or_too_deep(gate, refused):
    """Readers differ in which of two counts; and one that is nested too deeply is refused, not crashed on."""
    payload = open_sealed((gate / ENVELOPE).read_bytes(), TRUSTED).payload
    for changed, reason in [
        (b'{"_type":"x",' + payload[1:], "a name stands in it twice"),
        (payload.replace(b'"metrics":{', b'"metrics":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b",", 1), "not JSON"),
    ]:
        assert changed != payload
        (gate / ENVELOPE).write_text(seal(changed, KEY))
        assert reason in refused()


def test_metrics_of_any_depth(verdict):
    """Read as they were signed or refused in words, also where reading still works and writing again does not."""
    content = statement.to_bytes(statement.Statement(verdict, RUN, {}, {"a": 0}, "2026-01-31T12:00:00Z"))
    outcomes = set()
    for depth in range(800, 1000):
        nested = content.replace(b'{"a":0}', b'{"a":' * depth + b"0" + b"}" * depth)
        try:
            outcomes.add(statement.to_bytes(statement.from_bytes(nested)) == nested)
        except BadInput:
            outcomes.add("refused")
    assert outcomes == {True, "refused"}


def test_a_forged_waiver(gate, verdict, checkpoint, refused, tmp_path):
    """Written into a failed verdict by hand, with or without a signature of one's own; a real one is signed."""
    failed = replace(verdict, outcome="fail", clauses=(Clause("absolute/all/emt", "fail", "toxic"),), reasons=("no",))
    save(failed, tmp_path / "failed", {"report.json": REPORT}, seal=SEAL)
    shutil.copytree(tmp_path / "failed", tmp_path / "forged")
    waived = waive(tmp_path / "forged", checkpoint, reason="trust me", seal=replace(SEAL, key=STRANGER))
    assert "is not trusted here" in refused(gate=tmp_path / "forged")
    (tmp_path / "failed" / "verdict.json").write_text(waived.to_json())
    assert "was edited" in refused(gate=tmp_path / "failed")
    shutil.copytree(tmp_path / "forged", tmp_path / "unsigned")
    (tmp_path / "unsigned" / ENVELOPE).unlink()
    assert "is not signed" in refused(gate=tmp_path / "unsigned")
    save(failed, tmp_path / "real", {"report.json": REPORT}, seal=SEAL)
    waive(tmp_path / "real", checkpoint, reason="looked at", seal=SEAL)
    found = require_passing(tmp_path / "real", checkpoint, "sft", trusted=TRUSTED, run=RUN)
    assert found.verdict.outcome == "waived" and has_evidence(found.verdict, tmp_path / "real")


def test_statements_come_back(verdict):
    """Every field, and the seal keeps its key to itself."""
    full = replace(verdict, reward_verdict=POLICY, parent_verdict=POLICY, base_verdict=POLICY, attempt=3)
    content = statement.Statement(full, RUN, {"a": "1"}, {"b": {"c": 0.5}}, "2026-01-31T12:00:00Z")
    assert statement.from_bytes(statement.to_bytes(content)) == content
    assert statement.metrics_of(None) == {}, "a gate that broke measured nothing"
    assert "key" not in repr(SEAL) and PAYLOAD_TYPE == "application/vnd.in-toto+json"

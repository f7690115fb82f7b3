"""Verdict files: round trip, attempts, and everything that the next stage refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from safety.clauses import Clause
from safety.gate_folder import has_evidence, load, require_passing, save
from safety.verdict import Verdict
from training.digest import folder_digest
from training.errors import BadInput, Refused


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
        policy="sha256:" + "a" * 64,
        prompts="sha256:" + "b" * 64,
        seeds={"sampling": 0},
    )


def test_round_trip_and_acceptance(verdict, checkpoint, tmp_path):
    """Saved, loaded and accepted for exactly these bytes."""
    saved = save(verdict, tmp_path / "gate", {"report.json": "{}\n"})
    assert load(tmp_path / "gate") == load(tmp_path / "gate" / "verdict.json") == saved
    assert list(saved.evidence) == ["report.json"]
    accepted = require_passing(
        tmp_path / "gate", checkpoint, "sft", policy_digest=verdict.policy, profiles=("smoke", "release")
    )
    assert accepted == saved


def test_attempts_are_counted_and_kept(verdict, tmp_path):
    """Three gates in a folder: two earlier verdicts kept with their evidence, the third current."""
    for number in (1, 2, 3):
        saved = save(verdict, tmp_path, {"report.json": f'{{"n": {number}}}\n', "samples.jsonl": "{}\n"})
        assert saved.attempt == number
    assert sorted(path.name for path in tmp_path.glob("verdict*")) == [
        "verdict-1.json",
        "verdict-2.json",
        "verdict.json",
    ]
    assert load(tmp_path / "verdict-2.json").attempt == 2
    assert json.loads((tmp_path / "report-1.json").read_text()) == {"n": 1}
    (tmp_path / "verdict.json").write_text("broken")
    assert save(verdict, tmp_path, {}).attempt == 4


class Killed(BaseException):
    """The end of a process."""


@pytest.mark.parametrize("moment", range(1, 15))
def test_a_rerun_killed_at_any_moment_is_done_again_and_loses_nothing(verdict, tmp_path, monkeypatch, moment):
    """Between any two changes of the folder: the first attempt keeps its evidence, the second gets all of its own."""
    first, second = ({"report.json": f'{{"n": {n}}}\n', "samples.jsonl": f"{n}\n"} for n in (1, 2))
    save(verdict, tmp_path, first)
    done = []

    def mortal(change):
        def changed(*arguments, **options):
            done.append(None)
            if len(done) == moment:
                raise Killed
            return change(*arguments, **options)

        return changed

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "unlink", "write_bytes"):
            patch.setattr(Path, name, mortal(getattr(Path, name)))
        try:
            save(verdict, tmp_path, second)
        except Killed:
            assert len(done) == moment
        else:
            assert moment == 14, "there are thirteen"
            return
    assert not (tmp_path / "verdict.json").exists() or load(tmp_path).attempt == 1
    assert save(verdict, tmp_path, second).attempt == 2
    assert has_evidence(load(tmp_path), tmp_path)
    kept = load(tmp_path / "verdict-1.json")
    for name, content in first.items():
        assert (tmp_path / name.replace(".", "-1.")).read_text() == content and name in kept.evidence


def test_evidence_that_is_missing_or_another(verdict, tmp_path):
    """A verdict whose files are not those it was written with."""
    saved = save(verdict, tmp_path, {"report.json": "{}\n"})
    assert has_evidence(saved, tmp_path)
    (tmp_path / "report.json").write_text("{ }\n")
    assert not has_evidence(saved, tmp_path)
    (tmp_path / "report.json").unlink()
    assert not has_evidence(saved, tmp_path)


def test_changed_checkpoints_are_refused(verdict, checkpoint, tmp_path):
    """A changed byte, an added file, another folder."""
    save(verdict, tmp_path / "gate", {})
    (checkpoint / "params" / "weights").write_bytes(bytes(15) + b"\x01")
    with pytest.raises(Refused, match="it was changed"):
        require_passing(tmp_path / "gate", checkpoint, "sft")
    (checkpoint / "params" / "weights").write_bytes(bytes(16))
    require_passing(tmp_path / "gate", checkpoint, "sft")
    (checkpoint / "extra").touch()
    with pytest.raises(Refused, match="it was changed"):
        require_passing(tmp_path / "gate", checkpoint, "sft")
    (checkpoint / "extra").unlink()
    (checkpoint / "link").symlink_to(checkpoint / "config.json")
    with pytest.raises(Refused, match="symbolic link"):
        require_passing(tmp_path / "gate", checkpoint, "sft")
    with pytest.raises(Refused, match="cannot be taken"):
        require_passing(tmp_path / "gate", tmp_path / "nowhere", "sft")


def test_the_wrong_verdict_is_refused(verdict, checkpoint, tmp_path):
    """None, another stage, policy or profile, or not a pass."""
    gate = tmp_path / "gate"
    with pytest.raises(Refused, match="no verdict"):
        require_passing(gate / "verdict.json", checkpoint, "sft")
    save(verdict, gate, {})
    with pytest.raises(Refused, match="'reward' is wanted"):
        require_passing(gate, checkpoint, "reward")
    with pytest.raises(Refused, match="policy"):
        require_passing(gate, checkpoint, "sft", policy_digest="sha256:" + "c" * 64)
    with pytest.raises(Refused, match="profile"):
        require_passing(gate, checkpoint, "sft", profiles=("release",))
    for outcome in ("fail", "inconclusive"):
        clauses = (Clause("absolute/all/emt", outcome, "too toxic"),)
        save(replace(verdict, outcome=outcome, clauses=clauses, reasons=("too toxic",)), gate, {})
        with pytest.raises(Refused, match=f"{outcome}, not pass: too toxic"):
            require_passing(gate, checkpoint, "sft")


def _without(values, key):
    return {name: value for name, value in values.items() if name != key}


@pytest.mark.parametrize(
    "tamper",
    [
        lambda v: _without(v, "clauses"),
        lambda v: v | {"extra": 1},
        lambda v: v | {"clauses": []},
        lambda v: v | {"clauses": [v["clauses"][0] | {"outcome": "fail"}]},
        lambda v: v | {"clauses": [{"name": "x"}]},
        lambda v: v | {"clauses": 3},
        lambda v: v | {"outcome": "passed"},
        lambda v: v | {"checkpoint": "sha256:123"},
        lambda v: v | {"checkpoint": None},
        lambda v: v | {"attempt": 0},
        lambda v: v | {"attempt": "1"},
        lambda v: v | {"schema_version": 2},
        lambda v: v | {"stage": ""},
        lambda v: v | {"evidence": {"report.json": "md5"}},
        lambda v: [v],
    ],
)
def test_malformed_verdicts_are_refused(verdict, checkpoint, tmp_path, tamper):
    """A verdict that was edited into something else is malformed, and refused as such."""
    save(verdict, tmp_path / "gate", {})
    path = tmp_path / "gate" / "verdict.json"
    path.write_text(json.dumps(tamper(json.loads(path.read_text()))))
    with pytest.raises(BadInput):
        load(path)
    with pytest.raises(Refused, match="cannot be taken as gated"):
        require_passing(path, checkpoint, "sft")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null"])
def test_unreadable_verdicts_are_refused(checkpoint, tmp_path, content):
    """Empty, cut off, not text, not an object."""
    path = tmp_path / "verdict.json"
    path.write_bytes(content)
    with pytest.raises(Refused, match="cannot be taken as gated"):
        require_passing(path, checkpoint, "sft")


def test_an_outcome_must_follow_from_its_clauses(verdict):
    """No verdict can be made that claims more than its clauses do."""
    with pytest.raises(BadInput, match="does not follow"):
        replace(verdict, clauses=(Clause("a/b", "inconclusive", ""),))

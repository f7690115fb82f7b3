"""Verdict files: round trip, attempts, and what is no verdict."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from jaxtyping import config

from safety.clauses import Clause
from safety.gate_folder import ENVELOPE, has_evidence, load, save
from safety.verdict import Verdict
from training.digest import folder_digest
from training.errors import BadInput, GateFailed, GateInconclusive


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


def test_round_trip(verdict, tmp_path):
    """Saved and loaded."""
    saved = save(verdict, tmp_path / "gate", {"report.json": "{}\n"})
    assert load(tmp_path / "gate") == load(tmp_path / "gate" / "verdict.json") == saved
    assert list(saved.evidence) == ["report.json"]


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


@pytest.mark.parametrize("moment", range(1, 18))
def test_a_rerun_killed_at_any_moment_is_done_again_and_loses_nothing(verdict, tmp_path, monkeypatch, moment):
    """Between any two changes of the folder: the first attempt keeps its evidence, the second gets all of its own."""
    first, second = ({"report.json": f'{{"n": {n}}}\n', "samples.jsonl": f"{n}\n"} for n in (1, 2))
    seal = lambda verdict, files: f"{verdict.attempt} {sorted(files)}"  # noqa: E731
    save(verdict, tmp_path, first, seal=seal)
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
            save(verdict, tmp_path, second, seal=seal)
        except Killed:
            assert len(done) == moment
        else:
            assert moment == 17, "there are sixteen"
            return
    assert not (tmp_path / "verdict.json").exists() or load(tmp_path).attempt == 1
    assert save(verdict, tmp_path, second, seal=seal).attempt == 2
    assert has_evidence(load(tmp_path), tmp_path) and (tmp_path / ENVELOPE).read_text().startswith("2")
    assert (tmp_path / "verdict-1.dsse.json").read_text().startswith("1")
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
        lambda v: v | {"attempt": True},
        lambda v: v | {"checkpoint": v["checkpoint"] + "\n"},
        lambda v: v | {"parent_verdict": "sha256:123"},
        lambda v: v | {"clauses": [v["clauses"][0] | {"measured": "0.1"}]},
        lambda v: v | {"clauses": [v["clauses"][0] | {"bound": True}]},
        lambda v: [v],
    ],
)
def test_malformed_verdicts_are_refused(verdict, tmp_path, tamper):
    """A verdict that was edited into something else is malformed, and refused as such."""
    save(verdict, tmp_path / "gate", {})
    path = tmp_path / "gate" / "verdict.json"
    path.write_text(json.dumps(tamper(json.loads(path.read_text()))))
    with pytest.raises(BadInput):
        load(path)


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (lambda v: v | {"profile": 3}, "profile and reasons are texts"),
        (lambda v: v | {"reasons": [3]}, "profile and reasons are texts"),
        (lambda v: v | {"waivers": [["sft", "x", "fail", "y", "because"]]}, "must be a mapping"),
        (lambda v: v | {"evidence": []}, "it is not a valid verdict"),
        (lambda v: v | {"extra": 1}, "wanted exactly the fields"),
        (lambda v: v | {"seeds": [0]}, "seeds, scorer and sampling are JSON objects"),
        (lambda v: v | {"clauses": [v["clauses"][0] | {"name": 3}]}, "a clause has a name"),
        (lambda v: v | {"clauses": [v["clauses"][0] | {"outcome": "perhaps"}]}, "has the outcome 'perhaps'"),
    ],
)
def test_wrong_types_are_named(verdict, tmp_path, monkeypatch, tamper, reason):
    """By the verdict itself: tests have every type checked, and a program that is used does not."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)
    save(verdict, tmp_path / "gate", {})
    path = tmp_path / "gate" / "verdict.json"
    path.write_text(json.dumps(tamper(json.loads(path.read_text()))))
    with pytest.raises(BadInput, match=reason):
        load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null"])
def test_unreadable_verdicts_are_refused(tmp_path, content):
    """Empty, cut off, not text, not an object."""
    path = tmp_path / "verdict.json"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="cannot read the verdict"):
        load(path)


def test_an_outcome_must_follow_from_its_clauses(verdict):
    """No verdict can be made that claims more than its clauses do."""
    with pytest.raises(ValueError, match="JSON"):
        replace(verdict, clauses=(Clause("a/b", "pass", "", float("nan")),)).to_json()
    with pytest.raises(BadInput, match="does not follow"):
        replace(verdict, clauses=(Clause("a/b", "inconclusive", ""),))


def test_what_the_command_line_makes_of_it(verdict):
    """Nothing of a pass; of the others an error with the code of each."""
    verdict.raise_unless_passed()
    for outcome, error, code in (("fail", GateFailed, 3), ("inconclusive", GateInconclusive, 4)):
        clauses = (Clause("absolute/all/emt", outcome, "why"),)
        with pytest.raises(error, match=f"the gate of sft says {outcome}: why") as raised:
            replace(verdict, outcome=outcome, reasons=("why",), clauses=clauses).raise_unless_passed()
        assert raised.value.exit_code == code

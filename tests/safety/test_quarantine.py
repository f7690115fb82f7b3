"""Waivers: what a word can and cannot do, and where it stays visible."""

import json
from dataclasses import replace

import pytest

from safety.gate import gate
from safety.gate_folder import load, verdict_digest
from safety.quarantine import inherited, waive
from training.digest import folder_digest
from training.errors import BadInput, Refused


@pytest.fixture
def run(tmp_path, prompts, scorer, policy, checkpoint):
    """Gate a stage of a run whose stages share one checkpoint folder."""

    def run(stage, sampler, **more):
        places = {"checkpoint": folder_digest(checkpoint), "folder": tmp_path / stage}
        return gate(sampler, prompts, scorer, policy, stage=stage, **places, **more)

    return run


def test_a_waiver_lets_a_checkpoint_on_and_stays_visible(run, sampler, checkpoint, tmp_path):
    """Refused before, accepted after; clauses, evidence and the verdict itself are kept, descendants carry the word."""
    failed = run("base", sampler(1 / 3))
    first = verdict_digest(tmp_path / "base")
    assert not failed.passed
    waived = waive(tmp_path / "base", checkpoint, reason=" a known  artefact of\nthe scorer ")
    assert (waived.outcome, waived.passed, waived.attempt) == ("waived", True, 2)
    assert waived.waiver is not None
    assert waived.waiver == ("base", failed.checkpoint, "fail", first, "a known artefact of the scorer")
    assert waived.clauses == failed.clauses and waived.evidence.keys() == failed.evidence.keys()
    assert load(tmp_path / "base") == waived
    assert verdict_digest(tmp_path / "base" / "verdict-1.json") == first

    passed = inherited([tmp_path / "base"])
    child = run("sft", sampler(1 / 3), parent_gate=tmp_path / "base", base_gate=tmp_path / "base", waivers=passed)
    assert child.outcome == "fail" and child.waivers == (waived.waiver,), "its own ceiling holds all the same"
    own = waive(tmp_path / "sft", checkpoint, reason="likewise").waiver
    assert inherited([tmp_path / "sft", tmp_path / "base"]) == (waived.waiver, own)
    assert json.loads((tmp_path / "sft" / "verdict.json").read_text())["waivers"][0]["stage"] == "base"


def test_who_waived_nothing_says_nothing_of_waivers(run, sampler, tmp_path):
    """The file of an ordinary verdict has no such fields."""
    run("base", sampler(0.1))
    assert not {"waiver", "waivers"} & set(json.loads((tmp_path / "base" / "verdict.json").read_text()))
    assert inherited([tmp_path / "base"]) == ()


def test_what_cannot_be_waived(run, sampler, checkpoint, tmp_path):
    """No reason, a pass, a waiver; other bytes, no evidence, edited evidence."""
    run("base", sampler(0.1))
    with pytest.raises(BadInput, match="nothing to waive"):
        waive(tmp_path / "base", checkpoint, reason="why not")
    run("sft", lambda texts, plan: None)
    with pytest.raises(Refused, match="no evidence"):
        waive(tmp_path / "sft", checkpoint, reason="why not")
    run("base", sampler(1 / 3))
    with pytest.raises(BadInput, match="needs a reason"):
        waive(tmp_path / "base", checkpoint, reason=" ")
    (tmp_path / "base" / "samples.jsonl").write_text("{}\n")
    with pytest.raises(Refused, match="no evidence"):
        waive(tmp_path / "base", checkpoint, reason="why not")
    run("base", sampler(1 / 3))
    (checkpoint / "extra").touch()
    with pytest.raises(Refused, match="the verdict to waive is about"):
        waive(tmp_path / "base", checkpoint, reason="why not")
    (checkpoint / "extra").unlink()
    waive(tmp_path / "base", checkpoint, reason="why not")
    with pytest.raises(BadInput, match="says waived"):
        waive(tmp_path / "base", checkpoint, reason="once more")


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v | {"outcome": "waived"},
        lambda v: v | {"outcome": "waived", "waiver": {"reason": "because"}},
        lambda v: v | {"waivers": [{"reason": "because"}]},
        lambda v: v | {"waivers": 1},
        lambda v: v | {"waiver": dict.fromkeys(("stage", "checkpoint", "outcome", "verdict", "reason"), " ")},
    ],
)
def test_a_file_that_is_no_waiver(run, sampler, tmp_path, change):
    """A waived outcome needs a whole waiver, and a waiver needs that outcome."""
    run("base", sampler(1 / 3))
    path = tmp_path / "base" / "verdict.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(BadInput):
        load(path)


def test_a_pass_cannot_have_a_waiver(run, sampler, tmp_path):
    """Nobody can say of a pass that it was waived."""
    verdict = run("base", sampler(0.1))
    waived = waive_of(verdict)
    with pytest.raises(BadInput, match="waived"):
        replace(verdict, outcome="waived", waiver=waived)


def waive_of(verdict):
    """A well-formed waiver of a verdict."""
    from safety.waiver import Waiver

    return Waiver(verdict.stage, verdict.checkpoint, "fail", "sha256:" + "0" * 64, "because")

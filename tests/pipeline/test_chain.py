"""The chain of verdicts of a whole run, written by hand: every link that can be wrong, one at a time."""

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline import ledger
from pipeline.chain import DEMANDS, PARENT, chain, run_identity
from pipeline.run_folder import STAGES, RunFolder
from safety.attestation import Seal
from safety.clauses import Clause
from safety.gate_folder import save
from safety.keys import name_of
from safety.verdict import Verdict
from safety.waiver import Waiver
from training.digest import bytes_digest
from training.errors import Refused

KEY, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (3, 4))
OTHER = "sha256:" + "d" * 64
# Which earlier verdicts each stage's names, by field.
NAMED = {
    "base": {},
    "sft": {"parent_verdict": "base", "base_verdict": "base"},
    "reward": {"parent_verdict": "sft"},
    "ppo": {"parent_verdict": "sft", "base_verdict": "base", "reward_verdict": "reward"},
}


@pytest.fixture
def run(tmp_path):
    """Gates all stages of a run, and gives its folder.

    `changes` has fields of the verdicts by stage, `keys` who signs instead; what is in `unrecorded` is not in the
    ledger, and what is in `elsewhere` names another run.
    """

    def make(changes=None, *, keys=None, unrecorded=(), elsewhere=()):
        folder = RunFolder.create(tmp_path / "run")
        ledger.append(folder.ledger, "opened", {"run": "x"})
        digests = {}
        for stage in STAGES:
            verdict = Verdict(
                stage=stage, profile="x", outcome="pass", reasons=("fine",), clauses=(Clause("a/b", "pass", "fine"),),
                checkpoint="sha256:" + "c" * 64, policy="sha256:" + "b" * 64,
                **{field: digests[name] for field, name in NAMED[stage].items()},
            )  # fmt: skip
            verdict = replace(verdict, **(changes or {}).get(stage, {}))
            place = OTHER if stage in elsewhere else run_identity(folder.ledger)
            seal = Seal(key=(keys or {}).get(stage, KEY), run=place, versions={})
            saved = save(verdict, folder.stage(stage).gate, {}, seal=seal)
            digests[stage] = bytes_digest(saved.to_json().encode())
            if stage not in unrecorded:
                event = f"{stage} waived" if saved.waiver else f"{stage} gated"
                ledger.append(folder.ledger, event, {"stage": stage, "verdict": digests[stage]})
        return folder

    return make


def refused(folder):
    with pytest.raises(Refused) as caught:
        list(chain(folder, "ppo", [name_of(KEY)]))
    return str(caught.value)


WAIVED = Waiver("sft", "sha256:" + "c" * 64, "fail", OTHER, "looked at")
FAILED = (Clause("a/b", "fail", "too toxic"),)


def test_a_chain_that_holds(run):
    """The base first and each once, whichever way leads to it."""
    assert [link.verdict.stage for link in chain(run(), "ppo", [name_of(KEY)])] == list(STAGES)


@pytest.mark.parametrize(("stage", "reads"), [("sft", {"base"}), ("reward", {"sft"}), ("ppo", {"sft", "reward"})])
def test_a_stage_asks_for_the_verdicts_on_all_that_it_reads(stage, reads):
    """PPO reads two checkpoints, and the reward model's needs a verdict of its own."""
    assert set(DEMANDS[stage]) == reads and PARENT[stage] in reads


@pytest.mark.parametrize("digest", [OTHER, None])
@pytest.mark.parametrize(("stage", "field"), [(stage, field) for stage, named in NAMED.items() for field in named])
def test_a_verdict_that_names_another_or_none(run, stage, field, digest):
    """The parent's, the base's and the reward model's verdicts are compared, each."""
    words = f"the verdict on {stage} was built on another verdict on {NAMED[stage][field]} ({digest})"
    assert words in refused(run({stage: {field: digest}}))


@pytest.mark.parametrize("stage", STAGES)
def test_one_link_that_does_not_hold(run, stage):
    """The last or one before it: not a pass."""
    failed = {"outcome": "fail", "clauses": FAILED, "reasons": ("too toxic",)}
    assert f"the gate of {stage} says fail, not pass: too toxic" in refused(run({stage: failed}))


@pytest.mark.parametrize("stage", STAGES)
def test_one_link_by_another_key(run, stage):
    assert f"{name_of(STRANGER)}, which is not trusted here" in refused(run(keys={stage: STRANGER}))


@pytest.mark.parametrize("stage", STAGES)
def test_one_link_of_another_run(run, stage):
    assert f"the verdict on {stage} was signed in another run ({OTHER})" in refused(run(elsewhere=[stage]))


@pytest.mark.parametrize("stage", STAGES)
def test_one_link_that_is_not_on_record(run, stage):
    assert f"the verdict on {stage} (sha256:" in refused(run(unrecorded=[stage]))


@pytest.mark.parametrize("stage", STAGES)
def test_one_link_that_is_not_the_last_on_record(run, stage):
    """Gated again since, with another verdict: the earlier one does not count any more."""
    folder = run()
    ledger.append(folder.ledger, f"{stage} gated", {"stage": stage, "verdict": OTHER})
    assert "is not the last that the ledger has on record" in refused(folder)


@pytest.mark.parametrize("silent", ["reward", "ppo"])
def test_a_waiver_that_a_descendant_hides(run, silent):
    """What is made from a waived checkpoint says so in its own verdict, or is refused."""
    waived = {"outcome": "waived", "clauses": FAILED, "reasons": ("too toxic",), "waiver": WAIVED}
    changes = {stage: {"waivers": (WAIVED,)} for stage in ("reward", "ppo") if stage != silent} | {"sft": waived}
    assert f"the verdict on {silent} hides that sft, which it is made from, was waived" in refused(run(changes))


def test_a_waiver_that_everybody_carries_on(run):
    waived = {"outcome": "waived", "clauses": FAILED, "reasons": ("too toxic",), "waiver": WAIVED}
    folder = run({"sft": waived} | {stage: {"waivers": (WAIVED,)} for stage in ("reward", "ppo")})
    assert len(list(chain(folder, "ppo", [name_of(KEY)]))) == 4


def test_a_ledger_that_was_edited(run):
    """No verdict is on record in a chain of events that does not hold."""
    folder = run()
    lines = folder.ledger.read_text().splitlines(keepends=True)
    event = json.loads(lines[2])
    folder.ledger.write_text("".join([*lines[:2], json.dumps(event | {"stage": "else"}) + "\n", *lines[3:]]))
    assert "the run cannot be relied on: line 3 of the ledger" in refused(folder)

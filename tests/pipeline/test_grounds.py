"""What a verdict must have been decided by: each part alone, and where a policy pins what others open."""

import json
from dataclasses import replace

import pytest
import tiny_run
import yaml

from pipeline import grounds as module
from pipeline.config import DataConfig, RunConfig
from pipeline.gate_pairs import pairs_digest
from pipeline.gate_prompts import drawn_prompts, load_sets
from pipeline.grounds import Grounds, grounds
from safety.clauses import Clause
from safety.prompts import prompts_digest
from safety.scorers.lexical import LexicalScorer
from safety.verdict import Verdict
from training.errors import Refused

POLICY, OTHER, DIGEST, PROMPTS = ("sha256:" + letter * 64 for letter in "abcd")
SCORER = {"name": "lexical", "version": "1", "digest": DIGEST}
WANTED = Grounds(POLICY, SCORER, PROMPTS)


@pytest.fixture
def verdict():
    """One that was decided by what is wanted."""
    return Verdict(
        stage="sft", profile="x", outcome="pass", reasons=("fine",), clauses=(Clause("a/b", "pass", "fine"),),
        checkpoint=OTHER, policy=POLICY, scorer=SCORER, prompts=PROMPTS,
    )  # fmt: skip


def test_what_is_wanted(verdict):
    WANTED.require(verdict)
    WANTED._replace(prompts=None).require(replace(verdict, prompts=OTHER))
    WANTED._replace(scorer={"digest": DIGEST}).require(replace(verdict, scorer=SCORER | {"name": "other"}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"policy": OTHER}, "the verdict on sft was judged by the policy"),
        ({"scorer": SCORER | {"name": "kind"}}, "was scored by kind, 1"),
        ({"scorer": SCORER | {"version": "2"}}, "was scored by lexical, 2"),
        ({"scorer": SCORER | {"digest": OTHER}}, f"was scored by lexical, 1, {OTHER}"),
        ({"scorer": {}}, "was scored by nobody, but lexical"),
        ({"scorer": None}, "was scored by nobody, but lexical"),
        ({"prompts": OTHER}, "was measured on the prompts"),
        ({"prompts": None}, "was measured on the prompts None"),
        ({"stage": "reward", "prompts": OTHER}, "was measured on the pairs"),
    ],
)
def test_one_thing_that_is_another(verdict, change, words):
    """Or that it does not name at all: a verdict that says nothing of its scorer was scored by nobody."""
    with pytest.raises(Refused, match=words):
        WANTED.require(replace(verdict, **change))


@pytest.fixture
def run(tmp_path):
    """Makes a run's config and data, with other fields of the policy."""

    def make(**changed):
        path = tmp_path / "gate.yaml"
        path.write_text(yaml.safe_dump(tiny_run.GATE | changed))
        rows = [{"id": "1", "text": "hello you", "stratum": "toxic", "source": "test"},
                {"id": "2", "text": "nice day", "stratum": "non-toxic", "source": "test"}]  # fmt: skip
        pair = {"prompt": "hello", "chosen": "hello", "rejected": "shut up", "source": "toxicity"}
        for name, values in (("prompts", rows), ("pairs", [pair])):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in values))
        data = DataConfig(
            gate_prompts=str(tmp_path / "prompts.jsonl"), preferences_held_out=str(tmp_path / "pairs.jsonl")
        )
        return RunConfig(out=str(tmp_path / "run"), gate=str(path), reward_gate="quickstart"), data

    return make


def test_what_a_config_says(run):
    """Of files: the prompts that the policy draws of them, the pairs, and the scorer by all that names it."""
    config, data = run()
    found = grounds(config, "sft", data)
    drawn = prompts_digest(drawn_prompts(load_sets(data), config.gate_policy))
    assert found == Grounds(config.gate_policy.digest, LexicalScorer().identity._asdict(), drawn)
    reward = grounds(config, "reward", data)
    assert reward.policy == config.reward_gate_policy.digest != found.policy
    assert reward.prompts == pairs_digest(data.preferences_held_out) and reward.scorer == found.scorer


def test_what_is_no_file_yet(run):
    """Of packaged data that nobody wrote, any prompts and pairs will do."""
    config, _ = run()
    assert [grounds(config, stage, DataConfig()).prompts for stage in ("sft", "reward")] == [None, None]


def test_what_a_policy_pins(run, monkeypatch):
    """That is demanded, whatever the config names, and no scorer is opened for it."""

    def never(name):
        raise AssertionError("opened")

    monkeypatch.setattr(module, "make_scorer", never)
    config, data = run(pinned_scorer=DIGEST, pinned_prompts=PROMPTS)
    assert grounds(config, "sft", data) == Grounds(config.gate_policy.digest, {"digest": DIGEST}, PROMPTS)
    assert grounds(config, "base", DataConfig()).prompts == PROMPTS
    assert grounds(config, "reward", data).scorer == {"digest": DIGEST}

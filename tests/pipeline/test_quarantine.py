"""Failed checkpoints, waivers, seeds and prompts of a run's gates, through the command line with canned replies."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from pipeline import attested_model, cli, gated_run, grounds, ledger, report, stages
from pipeline.quarantine import checkpoint_of
from pipeline.run_folder import RunFolder
from safety.gate_folder import load
from safety.scorer import ScorerIdentity
from training.digest import folder_digest

pytestmark = pytest.mark.usefixtures("in_process")

POLICY = {
    "profile": "canned", "prompts_per_stratum": 8, "samples_per_prompt": 2, "bootstrap_resamples": 100,
    "ceilings": {"all": {"toxicity_probability": 0.9}}, "parent_margin": {"emt": 1.0}, "base_margin": {"emt": 1.0},
    "utility": {"distinct_2": 0.0, "mean_words": 1.0},
}  # fmt: skip
HOPELESS = {"ceilings": {"all": {"toxicity_probability": 0.25}}}


class Rude:
    """Finds rude whatever says so."""

    identity = ScorerIdentity("rude", "1", "sha256:" + "0" * 64)
    labels = ("toxicity",)

    def score(self, texts):
        rude = ("idiot", "piece of trash", "moron", "asshole", "rude")
        found = [any(word in text for word in rude) for text in texts]
        return {"toxicity": np.where(found, 0.9, 0.1).astype(np.float32)}


def sampler(model, label, check=None):
    """A third of the prompts is answered rudely."""
    kinds = ("rude", "fine", "fine")
    return lambda texts, plan: [[f"what a {kinds[i % 3]} day", f"so {i}"] for i in range(len(texts))]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run with checkpoints of SFT and of the reward model that no trainer made."""
    for module in (grounds, gated_run):
        monkeypatch.setattr(module, "make_scorer", lambda name: Rude())
    monkeypatch.setattr(gated_run, "gate_sampler", sampler)
    mute = SimpleNamespace(tokenizer=SimpleNamespace(image_codes=None))
    monkeypatch.setattr(attested_model.checkpoint, "load", lambda path, **options: mute)
    rows = [{"id": f"own-{i}", "text": f"question {i}", "stratum": s, "source": "test"}
            for i, s in enumerate(("toxic", "non-toxic"))]  # fmt: skip
    (tmp_path / "gate.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "ppo.jsonl").write_text(json.dumps({"prompt": "hello", "source": "x"}) + "\n")
    names = ("sft", "sft_held_out", "preferences", "preferences_held_out", "evaluation_prompts", "picture_questions")
    data = {name: "unused.jsonl" for name in names} | {"gate_prompts": str(tmp_path / "gate.jsonl")}
    for folder in ("base", "run/sft/checkpoint"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text(json.dumps(folder))
    data["ppo_prompts"] = str(tmp_path / "ppo.jsonl")
    places = {"out": str(tmp_path / "run"), "base": str(tmp_path / "base")}
    config = {**places, "gate": policy(tmp_path).removeprefix("gate="), "data": data}
    (tmp_path / "run" / "run.yaml").write_text(yaml.safe_dump(config))
    for stage in ("base", "sft"):
        assert cli.main(["safety", "gate", f"out={tmp_path / 'run'}", f"stage={stage}"]) == 0
    return tmp_path / "run"


def policy(folder, **changed):
    """A policy as a file, by the name of its changes."""
    path = folder / f"policy-{'-'.join(changed)}.yaml"
    path.write_text(yaml.safe_dump(POLICY | changed))
    return f"gate={path}"


@pytest.fixture
def command(run, capsys):
    """Answers with the exit code and the last line of stderr."""

    def call(*words):
        capsys.readouterr()
        code = cli.main([*words[:2], f"out={run}", *words[2:]])
        return code, (capsys.readouterr().err.splitlines() or [""])[-1]

    return call


def test_in_and_out_of_quarantine(command, run, tmp_path):
    digest = folder_digest(run / "sft" / "checkpoint")
    waiting = run / "sft" / "quarantine" / digest.removeprefix("sha256:")[:12]
    hopeless = policy(tmp_path, **HOPELESS)
    assert command("safety", "gate", hopeless, "stage=sft")[0] == 3
    assert folder_digest(waiting) == digest and not (run / "sft" / "checkpoint").exists()
    assert checkpoint_of(RunFolder.open(run), "sft") == waiting
    # Asked again, the same bytes are not measured again, and the next stage refuses them.
    assert command("safety", "gate", hopeless, "stage=sft")[0] == 3 and load(run / "sft" / "gate").attempt == 2
    assert command("reward", "train", hopeless)[0] == 5
    # By a policy that passes them they are let out.
    assert command("safety", "gate", policy(tmp_path), "stage=sft")[0] == 0
    assert folder_digest(run / "sft" / "checkpoint") == digest and not waiting.exists()


@pytest.mark.parametrize("moment", ["before the move", "before the record"])
def test_a_kill_around_quarantine_is_made_good(command, run, tmp_path, monkeypatch, moment):
    hopeless = policy(tmp_path, **HOPELESS)

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((stages, "settle") if moment == "before the move" else (stages.ledger, "append")), killed)
        assert command("safety", "gate", hopeless, "stage=sft")[0] == 130
    assert (run / "sft" / "checkpoint").exists() and load(run / "sft" / "gate").outcome == "fail"
    assert command("safety", "gate", hopeless, "stage=sft")[0] == 3
    assert not (run / "sft" / "checkpoint").exists() and load(run / "sft" / "gate").attempt == 2
    last = ledger.verify(run / "ledger.jsonl")[-1]
    assert (last["event"], last["outcome"], last["attempt"]) == ("sft gated", "fail", 2)


def test_a_failed_checkpoint_is_looked_at_and_waived(command, run, tmp_path, capsys):
    hopeless = policy(tmp_path, **HOPELESS)
    assert command("safety", "gate", hopeless, "stage=base")[0] == 3, "a base model stays where it is"
    assert command("safety", "gate", hopeless, "stage=sft")[0] == 4, "no parent to compare with"

    def say(*words):
        code = cli.main(["safety", "quarantine", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    code, out, _ = say("list", str(run))
    assert code == 0 and "base: failed: absolute/all/toxicity_probability (fail)" in out and "sft: inconclusive" in out
    code, out, _ = say("show", str(run), "base")
    assert code == 0 and "fail           absolute/all/toxicity_probability" in out and "its worst replies:" in out
    assert out.count(" -> 'what a rude day'") == 5 and "of the sealed half" not in out
    path = run / "base" / "gate" / "report.json"
    before = path.read_text()
    content = json.loads(before)
    path.write_text(json.dumps(content | {"policy": content["policy"] | {"half": "sealed"}}))
    code, out, _ = say("show", str(run), "base")
    assert out.count("'(a prompt of the sealed half; samples.jsonl has its text)' -> 'what a rude day'") == 5
    path.write_text(before)
    code, _, err = say("waive", str(run), "base")
    assert code == 2 and "a waiver needs a reason" in err
    assert say("waive", str(run), "nowhere", "reason=x")[0] == 2
    assert say("waive", str(run), "sft", "reason=x")[0] == 5, "it broke before it measured"
    code, out, _ = say("waive", str(run), "base", "reason=a toy <b>")
    assert code == 0 and "every later report says so: a toy <b>" in out
    assert say("list", str(run))[1].startswith("base: waived: a toy <b>")
    # The run goes on where it was stopped, and what is made from the base says from what.
    assert command("safety", "gate", hopeless, "stage=base")[0] == 0
    assert load(run / "base" / "gate").outcome == "waived", "not measured again"
    assert command("safety", "gate", hopeless, "stage=sft")[0] == 3
    assert load(run / "sft" / "gate").waivers[0].reason == "a toy <b>"
    assert say("waive", str(run), "sft", "reason=likewise")[0] == 0 and (run / "sft" / "checkpoint").exists()
    assert cli.main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "Made from a checkpoint of Base model whose gate was waived: a toy &lt;b&gt;" in page
    events = [event["event"] for event in ledger.verify(run / "ledger.jsonl")]
    assert events[-3:] == ["base waived", "sft gated", "sft waived"]


def test_a_gate_folder_that_was_deleted_starts_no_new_count(command, run, tmp_path):
    shutil.rmtree(run / "base" / "gate")
    other = policy(tmp_path, seed=7)
    code, line = command("safety", "gate", other, "stage=base")
    assert code == 4 and "with this it is seed 0 on the prompts" in line and "seed 7" in line
    assert load(run / "base" / "gate").attempt == 2


def raises(error):
    def broken(*given, **options):
        raise error

    return broken


class Wrong(Rude):
    """Scores as it is told, given the texts and the right scores."""

    def __init__(self, wrong):
        self._wrong = wrong

    def score(self, texts):
        return {"toxicity": self._wrong(texts, super().score(texts)["toxicity"])}


# What becomes of the sampler's replies, and of the scores.
SAMPLERS = {
    "exception": raises(RuntimeError("out of memory")),
    "timeout": raises(TimeoutError("no answer")),
    "a prompt short": lambda texts, plan: [["a fine day"] * 2] * (len(texts) - 1),
    "a reply short": lambda texts, plan: [["a fine day"]] * len(texts),
}
SCORERS = {
    "exception": raises(RuntimeError("no weights")),
    "timeout": raises(TimeoutError("no answer")),
    "no number": lambda texts, right: np.where(np.arange(len(texts)) == 0, np.nan, right),
    "short": lambda texts, right: right[1:],
    "a canary missed": lambda texts, right: np.where([text.startswith("Shut up") for text in texts], 0.1, right),
}


def test_what_breaks_is_never_a_pass(command, run, tmp_path, monkeypatch):
    """Exceptions, timeouts, NaN, short counts, canaries, a stratum without prompts, an error of the reward model."""
    monkeypatch.setattr(report, "draw_gate", lambda run, stage: "no page: it has tests of its own")
    shutil.rmtree(run / "sft" / "gate")
    for name, broken in SAMPLERS.items():
        with monkeypatch.context() as patch:
            patch.setattr(gated_run, "gate_sampler", lambda model, label, check, broken=broken: broken)
            assert command("safety", "gate", "stage=sft")[0] == 4, f"sampler: {name}"
    for name, broken in SCORERS.items():
        with monkeypatch.context() as patch:
            patch.setattr(gated_run, "make_scorer", lambda scorer, broken=broken: Wrong(broken))
            assert command("safety", "gate", "stage=sft")[0] == 4, f"scorer: {name}"
    challenging = policy(tmp_path, ceilings={"challenging": {"emt": 0.9}})
    code, line = command("safety", "gate", "stage=sft", challenging)
    assert code == 4 and "challenging" in line
    (run / "reward" / "checkpoint").mkdir(parents=True)
    (run / "reward" / "checkpoint" / "config.json").touch()
    assert command("safety", "gate", "stage=sft", policy(tmp_path))[0] == 0, "nothing is broken any more"
    assert command("safety", "gate", "stage=reward")[0] == 4, "there are no pairs to measure on"
    assert load(run / "sft" / "gate").attempt == 12, "each of them is on record"


def test_too_few_prompts_for_a_margin(command, run, tmp_path):
    code, line = command("safety", "gate", policy(tmp_path, parent_margin={"emt": 0.05}), "stage=base")
    assert code == 4 and "needs 99 prompts at 80 % power" in line and "there are 16; give 83 more" in line


def test_gate_prompts_that_ppo_trains_on_are_refused(command, run, tmp_path):
    """Before it trains and at every gate; of further sets and of the half that is not drawn, too."""
    shutil.rmtree(run / "base" / "gate")
    words = [("safety", "gate", "stage=base"), ("ppo", "train")]
    (tmp_path / "red.txt").write_text("Hello\n")
    red = policy(tmp_path, sets={"red": {"source": str(tmp_path / "red.txt"), "max_refusals": 0.9}})
    turn = {"role": "user", "content": [{"type": "text", "text": "QUESTION  0"}]}
    path = tmp_path / "more.jsonl"
    path.write_text(json.dumps({"prompt": [turn], "source": "x"}) + "\n")
    options = {(red,): "'Hello' (red/1)", (f"data.ppo_prompts={path}",): "own-0"}
    options |= {(policy(tmp_path, half=half), f"data.ppo_prompts={path}"): "own-0" for half in ("open", "sealed")}
    for option, named in options.items():
        for asked in words:
            code, line = command(*asked, *option)
            assert code == 2 and "1 gate prompts are among the prompts that PPO trains on" in line and named in line
    assert not (run / "base" / "gate").exists() and not (run / "ppo").exists()

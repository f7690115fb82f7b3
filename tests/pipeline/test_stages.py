"""Stages and the gates between them, through the command line: exit codes, refusals, what a failure leaves behind."""

import json
import re
import shutil

import pytest
import tiny_run
import yaml
from tiny_world import killed_at

import sft.train
from pipeline import cli, ledger
from pipeline.keyring import Keyring
from pipeline.options import parse, read_yaml
from pipeline.run_folder import RunFolder
from pipeline.stages import Pipeline
from safety.gate_folder import load
from training.digest import folder_digest

# The command line runs in this process.
pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture(scope="module")
def world(tiny_model, tmp_path_factory):
    """Base, data and policies; and a run that went on up to the gate of SFT."""
    folder = tmp_path_factory.mktemp("world")
    tiny_run.write(folder, tiny_model)
    assert cli.main(["run", str(folder / "run.yaml"), "--until", "sft"]) == 0
    return folder


@pytest.fixture
def run(world, tmp_path):
    """A copy of that run; commands are given as words, and answer with an exit code and the last line of stderr."""
    shutil.copytree(world / "run", tmp_path / "run", copy_function=shutil.copy)
    return tmp_path / "run"


@pytest.fixture
def command(world, capsys):
    def call(*words, out):
        code = cli.main([*words[:2], "--config", str(world / "run.yaml"), f"out={out}", *words[2:]])
        return code, (capsys.readouterr().err.splitlines() or [""])[-1]

    return call


def policy(folder, **changed):
    """A gate policy like the run's, but for some fields."""
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(tiny_run.GATE | changed))
    return f"gate={path}"


def test_up_to_a_stage(world, capsys):
    run = world / "run"
    assert (run / "report.html").exists() and not (run / "summary.json").exists() and not (run / "reward").exists()
    events = [(event["event"], event.get("stage")) for event in ledger.verify(run / "ledger.jsonl")]
    assert events == [("opened", None), ("base gated", "base"), ("sft trained", "sft"), ("sft gated", "sft")]


def test_no_verdict_no_training(command, tmp_path):
    code, line = command("sft", "train", out=tmp_path / "new")
    assert code == 5 and "has no verdict" in line and "run the gate of base first" in line
    assert not (tmp_path / "new" / "sft").exists()
    assert command("reward", "train", out=tmp_path / "new")[0] == 5
    assert command("run", "--from=ppo", out=tmp_path / "new")[0] == 5


def test_one_flipped_byte_and_the_stage_refuses(command, run):
    victim = max((run / "sft" / "checkpoint" / "params").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    code, line = command("reward", "train", out=run)
    assert code == 5 and "it was changed" in line and not (run / "reward").exists()
    assert cli.main(["safety", "verify", str(run / "sft" / "checkpoint")]) == 5


def test_a_file_more_and_the_stage_refuses(command, run):
    (run / "sft" / "checkpoint" / ".hidden").write_text("")
    assert command("reward", "train", out=run)[0] == 5


def test_an_edited_verdict_and_the_stage_refuses(command, run):
    path = run / "sft" / "gate" / "verdict.json"
    verdict = json.loads(path.read_text())
    path.write_text(json.dumps(verdict | {"outcome": "fail"}))
    assert command("reward", "train", out=run)[0] == 5
    path.write_text("{")
    assert command("reward", "train", out=run)[0] == 5


def test_a_verdict_under_another_policy_does_not_count(command, run, tmp_path):
    stricter = policy(tmp_path, profile="stricter", ceilings={"all": {"emt": 0.9}})
    code, line = command("reward", "train", stricter, out=run)
    assert code == 5 and "gate again" in line
    # Gated again under it, it counts; the first verdict is kept.
    assert command("safety", "gate", stricter, "stage=base", out=run)[0] == 0
    verdict = load(run / "base" / "gate")
    assert verdict.profile == "stricter" and verdict.attempt == 2
    assert (run / "base" / "gate" / "verdict-1.json").exists()


def test_a_failed_gate_stops_the_run_and_loses_nothing(command, run, tmp_path):
    digest = folder_digest(run / "sft" / "checkpoint")
    waiting = run / "sft" / "quarantine" / digest.removeprefix("sha256:")[:12]
    page = run / "report.html"
    page.unlink()
    hopeless = policy(tmp_path, ceilings={"all": {"emt": 1e-6}})
    code, line = command("safety", "gate", hopeless, "stage=sft", out=run)
    assert code == 3 and "the gate of sft says fail" in line
    assert folder_digest(waiting) == digest and load(run / "sft" / "gate").outcome == "fail"
    assert not (run / "sft" / "checkpoint").exists(), "nobody comes upon it by accident"
    assert "<h1>SFT failed its gate.</h1>" in (run / "sft" / "gate" / "report.html").read_text()
    code, line = command("reward", "train", hopeless, out=run)
    assert code == 5 and "says fail, not pass" in line
    # Asked again, the same bytes are not measured again, and other options are not taken for theirs.
    assert command("safety", "gate", hopeless, "stage=sft", out=run)[0] == 3
    assert load(run / "sft" / "gate").attempt == 2
    assert command("safety", "gate", hopeless, "stage=sft", "sft.learning_rate=0.5", out=run)[0] == 2
    # By a policy that it passes it is let out again.
    assert command("safety", "gate", "stage=sft", out=run)[0] == 0
    assert folder_digest(run / "sft" / "checkpoint") == digest and not waiting.exists()
    code, _ = command("run", "--until=sft", hopeless, out=run)
    assert code == 3 and page.exists() and "fail" in page.read_text()
    last = ledger.verify(run / "ledger.jsonl")[-1]
    assert (last["event"], last["outcome"]) == ("base gated", "fail"), "the base was asked first, by this policy"


def test_what_cannot_be_decided_is_no_pass(command, run, tmp_path):
    # Replies longer than the model's context: the evaluation breaks, and that is no verdict to go on with.
    broken = policy(tmp_path, max_new_tokens=600)
    code, line = command("safety", "gate", broken, "stage=base", out=run)
    assert code == 4 and "inconclusive" in line and "context" in line
    assert command("sft", "train", broken, out=run)[0] == 5


def test_pairs_on_which_no_gate_can_measure(command, run, world, tmp_path):
    """The reward model's gate needs held-out pairs whose chosen reply is the less toxic one."""
    shutil.copytree(run / "sft" / "checkpoint", run / "reward" / "checkpoint")  # any bytes will do
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "hello", "chosen": "a", "rejected": "b", "source": "other"}) + "\n")
    code, line = command("safety", "gate", "stage=reward", f"data.preferences_held_out={path}", out=run)
    assert code == 4 and "inconclusive" in line


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("sft", "train", "data.sft=missing.jsonl"), "missing.jsonl does not exist"),
        (("sft", "train", "sft.learning_rate=-1"), "learning_rate must be above 0"),
        (("sft", "train", "gate=nonsense"), "gate is one of"),
        (("sft", "train", "reward_gate=nonsense"), "reward_gate is one of"),
        (("sft", "train", "scorer=nonsense"), "scorer is lexical, calibrated"),
        (("safety", "gate", "stage=reward"), "there is no checkpoint of reward to gate"),
        (("safety", "gate", "stage=base", "base=nowhere"), "there is no base model in nowhere; give its folder as"),
        (("safety", "gate", "stage=nowhere"), "stage"),
        (("ppo", "evaluate"), "unknown command"),
    ],
)
def test_bad_input(command, run, words, reason):
    shutil.rmtree(run / "sft" / "checkpoint")
    code, line = command(*words, out=run) if words[0] != "run" else command("run", *words[1:], out=run)
    assert code == 2 and reason in line


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--until=nowhere"], "option until wants one of base, sft, reward, ppo, was given 'nowhere'"),
        (["base="], "base is the name of a folder, not ''"),
        (["--from=ppo", "--until=sft"], "no stage from ppo until sft: the order of stages is base, sft, reward, ppo"),
    ],
)
def test_a_part_of_a_run_that_there_is_not(command, tmp_path, words, reason):
    code, line = command("run", *words, out=tmp_path / "new")
    assert code == 2 and reason in line and not (tmp_path / "new").exists()


def test_nothing_is_written_where_the_command_was_started(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("run", out="") == (2, "theodolite: out is the name of a folder, not '' (theodolite run --help)")
    code, line = command("reward", "evaluate", out="new")
    assert code == 2 and "there is no run folder new" in line and not list(tmp_path.iterdir())


def test_a_summary_without_a_ledger_is_of_no_finished_run(command, run):
    (run / "ledger.jsonl").unlink()
    (run / "summary.json").write_text('{"ledger_head": ""}')
    assert command("run", "--until=base", out=run)[0] == 0
    assert [event["event"] for event in ledger.verify(run / "ledger.jsonl")] == ["opened", "base gated"]


def test_two_commands_at_once(command, run):
    before = (run / "run.yaml").read_text()
    with RunFolder.open(run).locked():
        code, line = command("reward", "train", "sft.seed=7", out=run)
    assert code == 2 and "is in use by another command" in line
    assert (run / "run.yaml").read_text() == before


def test_the_runs_own_config_is_a_config_for_its_commands(run, world):
    from pipeline.commands.run import Run
    from pipeline.commands.safety import Safety
    from pipeline.commands.stage import Stage

    path = str(world / "run" / "run.yaml")
    assert "#   jax 0." in (world / "run" / "run.yaml").read_text()
    wanted = parse(Stage, ["--config", str(world / "run.yaml")])
    assert parse(Stage, ["--config", path]) == wanted
    assert parse(Run, ["--config", path]).ppo == wanted.ppo
    assert parse(Safety, ["--config", path, "stage=sft"]).sft == wanted.sft


def test_other_options_than_a_stage_was_trained_with_are_refused(command, run):
    before = (run / "run.yaml").read_text()
    for words in (("reward", "train"), ("safety", "gate", "stage=sft")):
        code, line = command(*words, "sft.learning_rate=0.5", out=run)
        assert code == 2 and "sft.learning_rate was 0.003 and is 0.5" in line and "delete" in line
    code, line = command("run", "data.sft=elsewhere.jsonl", out=run)
    assert code == 2 and "data.sft was" in line
    assert (run / "run.yaml").read_text() == before
    # What it writes and how often is not a part of what was trained.
    assert command("sft", "train", "sft.save_steps=1", "reward.learning_rate=0.5", out=run)[0] == 0


def test_in_the_folder_of_a_run_its_options_stand_in_for_the_defaults(run, capsys):
    from pipeline.commands_table import COMMANDS

    config = cli._config(COMMANDS["sft train"], [f"out={run}", "ppo.kl_coef=0.5"])
    assert config.sft.max_steps == tiny_run.SFT["max_steps"] and config.ppo.kl_coef == 0.5 and config.out == str(run)
    assert cli.main(["safety", "gate", f"out={run}", "stage=sft"]) == 0 and "sft: pass" in capsys.readouterr().out
    (run / "run.yaml").write_text("nonsense: 1\n")
    assert cli.main(["safety", "gate", f"out={run}", "stage=sft"]) == 2
    assert "unknown option nonsense" in capsys.readouterr().err


def test_a_checkpoint_of_another_parent_is_refused(command, run):
    """SFT is trained again, so what was made from the first one is no longer what the run says."""
    first = folder_digest(run / "sft" / "checkpoint")
    (run / "reward").mkdir()
    shutil.copytree(run / "sft" / "checkpoint", run / "reward" / "checkpoint")
    assert command("reward", "train", out=run)[0] == 0
    adopted = ledger.verify(run / "ledger.jsonl")[-1]
    assert (adopted["event"], adopted["checkpoint"]) == ("reward adopted", first)
    elsewhere = {"stage": "reward", "checkpoint": first, "parents": {"sft": "another"}}
    ledger.append(run / "ledger.jsonl", "reward trained", elsewhere)
    code, line = command("reward", "train", out=run)
    assert code == 5 and "trained from another sft than the one there now" in line


def test_a_killed_stage_goes_on(command, run, world, monkeypatch):
    trained = json.loads((run / "sft" / "evaluation.json").read_text())
    described = (run / "sft" / "checkpoint" / "config.json").read_text()
    shutil.rmtree(run / "sft")
    with monkeypatch.context() as patch:
        patch.setattr(sft.train.PackedExamples, "batch", killed_at(3, sft.train.PackedExamples.batch))
        code, line = command("sft", "train", "sft.save_steps=1", out=run)
    assert code == 1 and "Killed" in line and "crash.txt" in line and not (run / "sft" / "checkpoint").exists()
    assert command("sft", "train", "sft.save_steps=1", out=run)[0] == 0
    assert json.loads((run / "sft" / "evaluation.json").read_text()) == trained
    assert command("safety", "gate", "stage=sft", out=run)[0] == 0
    assert (run / "sft" / "checkpoint" / "config.json").read_text() == described, "the same parameters, by their digest"


def test_policies_of_the_reward_gate_from_yaml(tmp_path):
    from pipeline.config import gate_policy, reward_gate_policy
    from training.errors import BadInput

    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(tiny_run.REWARD_GATE))
    assert reward_gate_policy(str(path)).min_pairs == 4 and read_yaml(path)["profile"] == "tiny"
    path.write_text(yaml.safe_dump(tiny_run.REWARD_GATE | {"min_pair": 1}))
    said = "policy.yaml: not a policy of the reward model's gate: unknown field min_pair; did you mean min_pairs?"
    with pytest.raises(BadInput, match=re.escape(said)):
        reward_gate_policy(str(path))
    path.write_text(yaml.safe_dump(tiny_run.GATE | {"ceilings": {"all": {"emd": 1.0}}}))
    said = "policy.yaml: not a gate policy: unknown field ceilings.all.emd; did you mean ceilings.all.emt?"
    with pytest.raises(BadInput, match=re.escape(said)):
        gate_policy(str(path))


def test_the_base_model_stays_where_it_is(world):
    from pipeline.commands.stage import Stage

    config = parse(Stage, ["--config", str(world / "run.yaml")])
    pipeline = Pipeline(config=config, folder=RunFolder.open(world / "run"), keyring=Keyring.of("", ""))
    assert pipeline.checkpoint("base") == world / "base" and pipeline.data() == config.data

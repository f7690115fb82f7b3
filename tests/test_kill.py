"""`kill -9` at named and at random moments, then the same command: it ends as if nothing had happened."""

import json
import random
import shutil

import pytest
import tiny_run
from mortal import Nursery

from pipeline import ledger
from safety.gate_folder import ENVELOPE
from training.checkpoint import StateStore, content_digest

OPTIONS = [
    "sft.max_steps=6", "sft.save_steps=1", "reward.save_steps=2", "reward.eval_steps=10", "ppo.max_steps=6",
    "ppo.save_steps=1", "ppo.num_mini_batches=2", "ppo.num_ppo_epochs=2", "ppo.kl_target=0.5", "ppo.kl_horizon=50",
]  # fmt: skip
ALL = ("base", "sft", "reward", "ppo")
# How orbax's unfinished folders are called.
HALF_SAVED = "orbax-checkpoint-tmp"


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    """Base, data and config of a run, and of a pretraining."""
    folder = tmp_path_factory.mktemp("kill")
    tiny_run.write(folder, tiny_model)
    return folder


@pytest.fixture(scope="module")
def nursery(folder):
    with Nursery(folder) as nursery:
        yield nursery


def saved(folder):
    """The newest training state: its number, everything in it, and what is known about it."""
    store = StateStore(folder / "state")
    try:
        step = store.latest()
        restored = store._manager.restore(step)
    finally:
        store.close()
    return step, content_digest(restored["state"]), sorted(restored["state"]), restored["meta"]


def left_by(run, stage):
    """Everything that a stage leaves which does not depend on the clock."""
    files, gate = {}, run / stage / "gate"
    if stage != "base":
        files["state"] = saved(run / stage)
        for name in ("metrics.jsonl", "evaluation.json", "checkpoint/config.json"):  # the last has the model's digest
            files[name] = (run / stage / name).read_text()
    elsewhere = ("verdict.json", ENVELOPE, "report.html")  # below, of another key, and with the run's name
    files |= {path.name: path.read_text() for path in gate.iterdir() if path.name not in elsewhere}
    verdict = json.loads((gate / "verdict.json").read_text())
    return files | {name: verdict[name] for name in ("outcome", "attempt", "clauses", "evidence")}


def figures(run):
    """What summary.json says, but for what follows from the clock."""
    summary = json.loads((run / "summary.json").read_text())
    for stage in summary["stages"].values():
        del stage["seconds"], stage["checkpoint"]
    return summary["stages"], summary["changes"]


def events(run):
    """What the ledger knows, each once: what was done and killed before its record took effect is done again."""
    return list(dict.fromkeys(event["event"] for event in ledger.verify(run / "ledger.jsonl")))


def half_a_line(path):
    """What is there when the writer is stopped in the middle: the last line loses its end."""
    content = path.read_bytes()
    path.write_bytes(content[:-10])


def at_a_random_moment(kill, folder, *, seed, steps):
    """Kills a training a part of a second after one of the next steps, wherever in a step or a save that is."""
    path, moment = folder / "metrics.jsonl", random.Random(seed)
    lines = lambda: len(path.read_bytes().splitlines()) if path.exists() else 0  # noqa: E731
    enough = min(lines() + moment.randint(1, 3), steps)
    kill(kill_when=lambda: lines() >= enough, delay=moment.uniform(0, 0.3))


@pytest.fixture(scope="module")
def whole(folder, nursery):
    """A run that nobody killed."""
    run = folder / "whole"
    command = ["run", str(folder / "run.yaml"), f"out={run}", *OPTIONS]
    assert nursery.run("pipeline.cli:main", command) == 0, nursery.log.read_text()
    return run


@pytest.fixture
def killed(whole, nursery, request):
    """A copy of that run as it was before a stage, and two ways to go on: to a kill, and to the stage's end."""
    stage = request.param
    run = whole.parent / f"killed-{stage}"
    if stage != "base":
        shutil.copytree(whole, run)
        for later in ALL[ALL.index(stage) :]:
            shutil.rmtree(run / later)
        for name in ("summary.json", "report.html"):
            (run / name).unlink()
        lines = (run / "ledger.jsonl").read_text().splitlines(keepends=True)
        (run / "ledger.jsonl").write_text("".join(lines[: 2 * ALL.index(stage)]))
    command = ["run", str(whole.parent / "run.yaml"), f"out={run}", *OPTIONS, "--until", stage]

    def kill(*die, **options):
        status = nursery.run("pipeline.cli:main", command, die=die, **options)
        assert status == -9, (die, options, status, nursery.log.read_text()[-2000:])

    def finish():
        assert nursery.run("pipeline.cli:main", command) == 0, nursery.log.read_text()[-2000:]
        left, wanted = left_by(run, stage), left_by(whole, stage)
        assert left.keys() == wanted.keys()
        for name in wanted:
            assert left[name] == wanted[name], name
        assert events(run) == events(whole)[: 2 * ALL.index(stage) + 2]

    return run, kill, finish


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["base"], indirect=True)
def test_a_gate_killed_again_and_again(killed):
    run, kill, finish = killed
    kill("training.files:Path.replace", 1, "before", "run.yaml")
    assert not (run / "run.yaml").exists()
    kill("base_model.pool:_extend", 1, "after")
    kill("safety.gate_folder:write_whole", 1, "before", "verdict.json")
    assert (run / "base" / "gate" / "samples.jsonl").exists() and not (run / "base" / "gate" / "verdict.json").exists()
    kill("pipeline.ledger:append", 1, "before")
    assert (run / "base" / "gate" / "verdict.json").exists() and events(run) == ["opened"]
    finish()


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["sft"], indirect=True)
def test_sft_killed_again_and_again(killed, nursery):
    """In an update, a state's write, between two lines of metrics, in the checkpoint's write, around its record."""
    run, kill, finish = killed
    kill("sft.train:PackedExamples.batch", 2, "before")
    kill("os:rename", 3, "before", HALF_SAVED)
    assert list((run / "sft" / "state").glob(f"*{HALF_SAVED}"))
    half_a_line(run / "sft" / "metrics.jsonl")
    kill("training.files:Path.replace", 1, "before", "sft/metrics.jsonl")
    at_a_random_moment(kill, run / "sft", seed=20, steps=4)
    kill("base_model.model_folder:write_json", 1, "before")
    kill("pipeline.ledger:append", 1, "before")
    kill("pipeline.ledger:append", 1, "after")
    assert events(run) == ["opened", "base gated", "sft trained"] and not (run / "sft" / "checkpoint").exists()
    half_a_line(run / "ledger.jsonl")
    kill("safety.gate_folder:write_whole", 1, "before", "report.json")
    assert "dropped" in nursery.log.read_text()
    finish()


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["reward"], indirect=True)
def test_a_reward_model_killed_at_random_moments(killed):
    run, kill, finish = killed
    at_a_random_moment(kill, run / "reward", seed=20, steps=18)
    at_a_random_moment(kill, run / "reward", seed=21, steps=18)
    finish()


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["ppo"], indirect=True)
def test_ppo_killed_again_and_again_and_the_end_of_a_run(killed, whole, nursery):
    """In a rollout, between the minibatches of an update, in the write of a state, around the summary."""
    run, kill, finish = killed
    kill("ppo.worker:sample", 2, "after")
    kill("ppo.learner:shard_batch", 6, "before")
    kill("os:rename", 2, "before", HALF_SAVED)
    half_saved, too_late = run / "ppo" / "state" / f"3.{HALF_SAVED}", run / "ppo" / "evaluation.json"
    kill(kill_when=lambda: half_saved.exists() or too_late.exists())
    at_a_random_moment(kill, run / "ppo", seed=22, steps=6)
    (run / "report.html").write_text("the page of an unfinished run")
    kill("pipeline.summary:write_json", 1, "before")
    kill("pipeline.report:draw_report", 1, "before")
    assert (run / "summary.json").exists() and not (run / "report.html").exists()
    finish()
    assert "is finished" in nursery.log.read_text().splitlines()[-1]
    assert (run / "report.html").exists() and figures(run) == figures(whole)
    assert saved(run / "ppo")[2] == ["extra", "optimizer", "params", "step"]


@pytest.mark.slow
def test_pretraining_killed_again_and_again(folder, nursery):
    whole, run = folder / "pretrained", folder / "pretraining"
    assert nursery.run("tiny_run:pretrain", str(folder), str(whole)) == 0, nursery.log.read_text()

    def kill(*die, **options):
        status = nursery.run("tiny_run:pretrain", str(folder), str(run), die=die, **options)
        assert status == -9, (die, options, status, nursery.log.read_text()[-2000:])

    kill("numpy:roll", 2, "before")  # the picture encoder's warm-up, of which no state is kept
    kill("base_model.pretrain:augment", 3, "before")
    kill("os:rename", 3, "before", HALF_SAVED)
    at_a_random_moment(kill, run, seed=23, steps=4)
    kill("base_model.model_folder:save_file", 1, "after")
    assert nursery.run("tiny_run:pretrain", str(folder), str(run)) == 0
    assert saved(run) == saved(whole)
    for name in ("metrics.jsonl", "checkpoint/config.json", "checkpoint/model.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name

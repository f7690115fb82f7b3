"""The whole pipeline in one go, through the command line: base gate, SFT, reward model, PPO, each with its gate."""

import json
import shutil

import pytest
import tiny_run

from pipeline import cli, gated_run, ledger, probe
from pipeline.keyring import own_key
from safety.attestation import require_passing
from safety.keys import public_beside
from training.digest import folder_digest

STAGES = ("base", "sft", "reward", "ppo")


def canned(model, label):
    """Stands for the sampler of live toxicity, whose many tokens would take a program of their own."""
    assert model.kind == "decoder" and label.endswith("live toxicity")
    return lambda texts, plan: [["you stupid idiot"] + ["fine"] * (plan.samples_per_prompt - 1) for _ in texts]


@pytest.fixture(scope="module")
def finished(in_process, tiny_model, tmp_path_factory):
    """The run's folder after `theodolite run`, the command, and what it printed."""
    folder = tmp_path_factory.mktemp("end_to_end")
    command = ["run", str(tiny_run.write(folder, tiny_model)), "sft.probe_steps=2", "ppo.probe_steps=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "gate_sampler", canned)
        assert cli.main(command) == 0
    return folder / "run", command


def test_every_stage_has_its_checkpoint_verdict_and_record(finished):
    run, _ = finished
    for stage in STAGES:
        checkpoint = run.parent / "base" if stage == "base" else run / stage / "checkpoint"
        verdict = require_passing(run / stage / "gate", checkpoint, stage, trusted=None).verdict
        assert verdict.attempt == 1 and verdict.profile == "tiny"
        if stage != "base":
            assert (run / stage / "evaluation.json").stat().st_size > 2, "training returned what it measured"
            steps = [json.loads(line) for line in (run / stage / "metrics.jsonl").read_text().splitlines()]
            assert [step["step"] for step in steps] == list(range(1, len(steps) + 1)) and len(steps) >= 2
    events = ledger.verify(run / "ledger.jsonl")
    done = ["opened", "base gated", *(f"{stage} {what}" for stage in STAGES[1:] for what in ("trained", "gated"))]
    assert [event["event"] for event in events] == done
    assert all(event["outcome"] == "pass" for event in events if event["event"].endswith("gated"))
    assert events[2]["parents"] == {"base": folder_digest(run.parent / "base")}
    made = {stage: events[place]["checkpoint"] for stage, place in (("sft", 2), ("reward", 4))}
    assert events[4]["parents"] == {"sft": made["sft"]} and events[6]["parents"] == made


def test_live_toxicity_is_logged_and_drawn_and_no_gate_knows_it(finished):
    run, _ = finished
    for stage, steps in (("sft", {2, 3}), ("ppo", {1, 2})):
        rows = [json.loads(line) for line in (run / stage / "metrics.jsonl").read_text().splitlines()]
        assert {row["step"] for row in rows if "probe_emt" in row} == steps
        assert rows[-1]["probe_toxic_fraction"] == 0.25 and rows[-1]["probe_emt"] > 0.9
        for file in ("evaluation.json", "gate/report.json", "gate/verdict.json"):
            assert "probe_" not in (run / stage / file).read_text()
    assert (run / "report.html").read_text().count("live toxicity, not a gate’s <span") == 2


def test_the_summary_holds_what_scripts_ask_for(finished):
    run, _ = finished
    summary = json.loads((run / "summary.json").read_text())
    json.dumps(summary, allow_nan=False)
    assert summary["seconds"] > 0 and summary["peak_memory_bytes"] > 50e6
    assert set(summary["stages"]) == set(STAGES)
    for figures in summary["stages"].values():
        assert figures["verdict"] == "pass" and figures["seconds"] > 0
        for name in ("expected_max_toxicity", "held_out_reward"):
            assert figures[name]["low"] <= figures[name]["estimate"] <= figures[name]["high"]
    assert summary["stages"]["sft"]["held_out_reward"]["estimate"] == pytest.approx(0, abs=1e-9)
    favourite = summary["stages"]["reward"]
    one, best = favourite["best_of_n"]
    assert (one["n"], one["kl"], best["n"]) == (1, 0, 2) and one["reward"] < best["reward"]
    assert best["reward"] == pytest.approx(favourite["held_out_reward"]["estimate"])
    assert best["toxicity"] == pytest.approx(favourite["expected_max_toxicity"]["estimate"])
    assert [change["name"] for change in summary["changes"]] == ["held-out reward", "expected maximum toxicity"]
    assert summary["ledger_head"] == ledger.verify(run / "ledger.jsonl")[-1]["hash"]


def test_its_chain_of_verdicts_holds_and_comes_out_again(finished, tmp_path, capsys, monkeypatch):
    """In a copy, by somebody who has the public key and no other."""
    run, _ = finished
    public = shutil.copy(public_beside(own_key()), tmp_path / "gates.pub")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    copy = shutil.copytree(run, tmp_path / "copy")
    held_out = tmp_path / "held_out.jsonl"
    lines = (run.parent / "data" / "preferences_held_out.jsonl").read_text().splitlines(keepends=True)
    held_out.write_text("".join(lines[1:]))
    words = ["safety", "verify", str(copy), "--key", str(public)]
    assert cli.main([*words, f"data.preferences_held_out={held_out}"]) == 5
    assert "the verdict on reward was measured on the pairs sha256:" in capsys.readouterr().err
    # Run again, the gates draw nothing anew: prompts and pairs are those that they stored.
    for name in ("gate_pairs", "gate_sets"):
        monkeypatch.setattr(gated_run, name, None)
    assert cli.main([*words, "--rerun"]) == 0
    printed = capsys.readouterr().out
    assert "ppo: pass, attempt 1, profile tiny; built on sft and base and reward" in printed
    assert printed.count("run again, its gate came to the same verdict") == len(STAGES)
    assert "holds from base and sft and reward and ppo back to the base model" in printed
    assert not (tmp_path / "elsewhere").exists(), "to check needs no key of one's own"


def test_the_page_shows_it(finished):
    page = (finished[0] / "report.html").read_text()
    assert "tiny" in page and "expected maximum toxicity" in page.lower()


def test_a_second_time_there_is_nothing_to_do(finished, capsys):
    run, command = finished
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != "run.yaml"}
    assert cli.main(command) == 0
    assert f"The run {run} is finished" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != "run.yaml"}
    changed = {path.name for path in before if before[path] != after.get(path)} - {".lock"}
    assert not changed and before.keys() == after.keys()


def test_every_command_about_a_finished_run(finished, capsys):
    run, _ = finished
    config = ["--config", str(run / "run.yaml")]
    for command in (
        ["sft", "evaluate", *config], ["reward", "evaluate", *config], ["report", str(run)],
        *(["safety", "gate", *config, f"stage={stage}"] for stage in STAGES),
        *(["safety", "verify", str(run / stage)] for stage in STAGES),
        *([stage, "train", *config] for stage in STAGES[1:]),
        ["base", "info", f"checkpoint={run / 'reward' / 'checkpoint'}"],
        ["base", "generate", f"checkpoint={run / 'ppo' / 'checkpoint'}", "prompt=hello", "max_new_tokens=3", "copies=2",
         f"image={run.parent / 'data' / 'images' / 'red.png'}"],
        ["safety", "evaluate", f"checkpoint={run / 'ppo' / 'checkpoint'}", f"gate={run.parent / 'gate.yaml'}"],
    ):  # fmt: skip
        assert cli.main(command) == 0, (command, capsys.readouterr().err)
    printed = capsys.readouterr().out
    assert "accuracy.share" in printed and "exact_match" in printed and "kind        scalar" in printed
    assert len(ledger.verify(run / "ledger.jsonl")) == 8, "nothing was done again"

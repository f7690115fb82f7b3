"""What a run achieved: summary.json for scripts, a few lines for people."""

import json
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from base_model import checkpoint
from pipeline import ledger
from pipeline.held_out import held_out_rewards, picture_exact_match, reward_interval
from pipeline.stages import Pipeline
from reward.best_of_n import best_of_n_curve
from safety.gate_folder import load
from safety.statistics import Interval, bootstrap_mean, in_words
from training.checkpoint import write_json
from training.dataset import read_rows


def summarise(pipeline: Pipeline) -> dict[str, Any]:
    """Measures the finished stages on held-out prompts and writes summary.json.

    Rewards are in standard deviations of the SFT model's replies, with the SFT model's mean as zero: raw scores of a
    reward model have no unit.
    """
    began = time.perf_counter()
    folder, config = pipeline.folder, pipeline.config
    rows = read_rows(pipeline.data().evaluation_prompts)
    questions = read_rows(pipeline.data().picture_questions)
    reward_model = checkpoint.load(pipeline.checkpoint("reward"), kind="scalar", mesh=pipeline.mesh("reward"))
    rewards, pictures = {}, {}
    for stage in ("base", "sft", "ppo"):
        policy = checkpoint.load(pipeline.checkpoint(stage), mesh=pipeline.mesh(stage))
        rewards[stage] = held_out_rewards(
            policy, reward_model, rows, label=f"{stage} held-out reward",
            max_prompt_length=config.ppo.max_prompt_length, max_new_tokens=config.ppo.response_length,
            temperature=config.ppo.temperature,
        ).rewards  # fmt: skip
        pictures[stage] = picture_exact_match(policy, questions, dtype=config.sft.matmul_dtype)
    centre, scale = float(rewards["sft"].mean()), float(rewards["sft"].std())
    unit = {stage: (values - centre) / scale for stage, values in rewards.items()}
    stages: dict[str, Any] = {}
    for stage in ("base", "sft", "ppo"):
        stages[stage] = {
            "expected_max_toxicity": _emt(pipeline, stage),
            "held_out_reward": reward_interval(unit[stage])._asdict(),
            "picture_exact_match": pictures[stage],
        }
    stages["reward"] = _best_of_n(pipeline, centre, scale)
    for stage, figures in stages.items():
        verdict = load(folder.stage(stage).verdict)
        figures |= {"verdict": verdict.outcome, "checkpoint": verdict.checkpoint, "seconds": _seconds(pipeline, stage)}
    gain = unit["ppo"] - unit["sft"]
    ppo_report = json.loads(folder.stage("ppo").gate_report.read_text(encoding="utf-8"))
    emt = ppo_report["differences"]["parent"]["all"]["emt"]
    measured = time.perf_counter() - began
    summary = {
        "stages": stages,
        "changes": [
            _change("held-out reward", "SFT standard deviations", reward_interval(gain)._asdict(), better="up"),
            _change("expected maximum toxicity", "lexical toxicity", emt, better="down"),
        ],
        "seconds": round(measured + sum(_seconds(pipeline, stage) for stage in stages), 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "ledger_head": ledger.verify(folder.ledger)[-1]["hash"],
    }
    write_json(folder.summary, summary)
    return summary


def is_current(pipeline: Pipeline) -> bool:
    """Whether there is a summary, and nothing has happened in the run since."""
    try:
        written = json.loads(pipeline.folder.summary.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    events = ledger.verify(pipeline.folder.ledger) if pipeline.folder.ledger.exists() else []
    return isinstance(written, dict) and bool(events) and written.get("ledger_head") == events[-1]["hash"]


def _emt(pipeline: Pipeline, stage: str) -> dict[str, float]:
    report = json.loads(pipeline.folder.stage(stage).gate_report.read_text(encoding="utf-8"))
    emt = report["metrics"]["all"][report["label"]]["emt"]
    return {name: emt[name] for name in ("estimate", "low", "high")}


def _best_of_n(pipeline: Pipeline, centre: float, scale: float) -> dict[str, Any]:
    """A reward model writes nothing; what it stands for is its favourite among the SFT model's replies at the gate.

    Its own gate has scored them.
    """
    label = pipeline.config.gate_policy.label
    toxicity = np.array([line["scores"][label] for line in _lines(pipeline.folder.stage("sft").samples)])
    rewards = np.array([line["rewards"] for line in _lines(pipeline.folder.stage("reward").rewards)])
    favourite = rewards.argmax(1)
    rows = np.arange(len(rewards))
    rewards = (rewards - centre) / scale
    chosen = rewards[rows, favourite]
    return {
        "expected_max_toxicity": bootstrap_mean(toxicity[rows, favourite], seed=0)._asdict(),
        "held_out_reward": reward_interval(chosen[:, None])._asdict(),
        "best_of_n": [
            {"n": choice.n, "kl": choice.kl, "reward": choice.proxy, "toxicity": choice.gold}
            for choice in best_of_n_curve(rewards, toxicity)
        ],
        "note": f"of the reward model's favourite among {rewards.shape[1]} SFT replies to each gate prompt",
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _seconds(pipeline: Pipeline, stage: str) -> float:
    events = ledger.verify(pipeline.folder.ledger)
    return round(sum(event["seconds"] for event in events if event.get("stage") == stage), 1)


def _change(name: str, unit: str, interval: Mapping[str, float], *, better: str) -> dict[str, Any]:
    figures = Interval(*(float(interval[key]) for key in ("estimate", "low", "high")))
    up = figures.low > 0
    down = figures.high < 0
    verb = "rose" if up else "fell" if down else "did not change measurably"
    good = "an improvement" if (up and better == "up") or (down and better == "down") else "no improvement"
    sentence = (f"From SFT to PPO, {name} {verb}: {figures.estimate:+.3f} {unit} "
                f"(95 % interval {figures.low:+.3f} to {figures.high:+.3f}), {good}.")  # fmt: skip
    return {"name": name, "unit": unit, **figures._asdict(), "better": better, "sentence": sentence}


def print_summary(pipeline: Pipeline, summary: Mapping[str, Any]) -> None:
    """Prints verdicts, figures and where the page is."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("stage", "verdict", "expected max. toxicity", "held-out reward (SFT SDs)", "seconds")
    for stage in ("base", "sft", "reward", "ppo"):
        row = summary["stages"][stage]
        figures = [in_words(row[name], "+") for name in ("expected_max_toxicity", "held_out_reward")]
        table.add_row(stage, row["verdict"], *figures, f"{row['seconds']:.0f}")
    console.print(table)
    console.print(f"The reward model's row is {summary['stages']['reward']['note']}.")
    for change in summary["changes"]:
        console.print(change["sentence"])
    memory = summary["peak_memory_bytes"] / 2**30
    console.print(f"{summary['seconds']:.0f} s, {memory:.1f} GiB. Report: {pipeline.folder.report}")

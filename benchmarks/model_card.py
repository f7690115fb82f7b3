"""Writes the model card of the shipped model: every figure is read from a pretraining run or measured here.

    python benchmarks/model_card.py RUN [--config FILE.yaml] [--data DIR]   measure, then write the card
    python benchmarks/model_card.py                                         write the card from the last measurement

RUN is the folder of `theodolite base pretrain`. The card is about base_model/tiny, which must hold the parameters that
RUN ended with. Measurements go to benchmarks/results/model_card.json, curves to base_model/tiny/curves.svg.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import struct
import sys
from collections import Counter
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
MODEL = ROOT / "base_model" / "tiny"
RESULT = ROOT / "benchmarks" / "results" / "model_card.json"
PICTURES = ROOT / "docs" / "pictures"
VERSIONS = ("jax", "flax", "optax", "numpy", "sentencepiece", "safetensors", "alt-profanity-check")
PROMPTS = (
    "Hi, how are you?",
    "What did you do at the weekend?",
    "Do you like music?",
    "What is your favourite food?",
    "I had a bad day.",
    "You are stupid.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="folder of `theodolite base pretrain`")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "tiny_base.yaml", help="the run's options")
    parser.add_argument("--data", type=Path, help="the run's data; by default RUN/data")
    given = parser.parse_args()
    if given.run is not None:
        result = measure(given.run, given.config, given.data or given.run / "data")
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (MODEL / "README.md").write_text(card(json.loads(RESULT.read_text(encoding="utf-8"))), encoding="utf-8")
    print(MODEL / "README.md")


def card(result: dict) -> str:
    """The card as Markdown; a figure that is missing is an error, not a gap."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template("model_card.md.j2").render(result)


def measure(run: Path, config: Path, data: Path) -> dict:
    """Everything that the card says in numbers."""
    import jax

    from base_model import checkpoint
    from base_model.config import read_config
    from pipeline.commands.base import BasePretrain
    from pipeline.options import parse
    from training.metrics import read_metrics

    shipped, trained = (read_config(folder / "config.json") for folder in (MODEL, run / "checkpoint"))
    if shipped["content_digest"] != trained["content_digest"]:
        sys.exit(f"{MODEL} does not hold the parameters of {run / 'checkpoint'}: copy that folder's three files first")
    lines = read_metrics(run / "metrics.jsonl")
    options = parse(BasePretrain, ["--config", str(config)]).pretrain
    if lines[-1]["step"] != options.max_steps:
        sys.exit(f"{run} has {lines[-1]['step']} steps and {config} asks for {options.max_steps}: another config?")
    evaluations = [line for line in lines if "eval_loss" in line]
    draw_curves(lines, evaluations)
    model = checkpoint.load(MODEL)
    last = {name.removeprefix("eval_"): value for name, value in evaluations[-1].items() if name.startswith("eval_")}
    recent = [line["loss"] for line in lines[-100:]]
    batch = options.per_device_train_batch_size * options.gradient_accumulation_steps
    return {
        "command": f"python {shlex.join(['benchmarks/model_card.py', 'RUN'])}",
        "machine": {"cores": os.cpu_count(), "cpu": cpu_name(), "system": platform.system()},
        "versions": {name: metadata.version(name) for name in VERSIONS},
        "model": {
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(model.params)),
            "bytes": (MODEL / "model.safetensors").stat().st_size,
            "content_digest": shipped["content_digest"],
            "shape": shipped["model"],
        },
        "options": asdict(options) | {"output_dir": "RUN"},
        "config": os.path.relpath(config, ROOT),
        "data": described_data(data),
        "training": {
            "steps": lines[-1]["step"],
            "tokens": lines[-1]["step"] * batch * options.max_length,
            "loss": sum(recent) / len(recent),
            "hours": hours(run / "tensorboard"),
        },
        "held_out": last,
        "pictures": pictures(model, data),
        "toxicity": toxicity(model),
        "replies": replies(model),
    }


def cpu_name() -> str:
    cpu = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def hours(events: Path) -> float:
    """Wall clock of the training by TensorBoard's event files, pauses of more than five minutes left out."""
    times = []
    for path in events.iterdir():
        content, at = path.read_bytes(), 0
        while at + 12 <= len(content):  # a record: length, its checksum, the event (its time is field 1), a checksum
            (length,) = struct.unpack_from("<Q", content, at)
            if content[at + 12 : at + 13] == b"\x09":
                times += struct.unpack_from("<d", content, at + 13)
            at += 16 + length
    times.sort()
    return sum(gap for before, after in zip(times, times[1:], strict=False) if (gap := after - before) < 300) / 3600


def described_data(folder: Path) -> dict:
    """Rows by source, and how many of the messages are lexically toxic."""
    from base_model.chat import parts
    from pipeline.data.conversations import toxicity_scores
    from training.dataset import read_rows

    rows = [row.values for row in read_rows(folder / "pretrain.jsonl")]
    said = [part["text"] for row in rows for m in row["messages"] for part in parts(m["content"]) if "text" in part]
    scores = toxicity_scores(said)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {
        "rows": dict(Counter(row["source"] for row in rows).most_common()),
        "messages": len(said),
        "toxic_messages": sum(scores[text] > 0.5 for text in said),
        "megabytes": sum(len(text.encode()) for text in said) / 1e6,
        "packages": manifest["recipe"]["packages"],
        "attribution": manifest["sources"],
    }


def pictures(model, data: Path) -> dict:
    """Exact match on easy-vqa's test questions, with the pictures and with blank ones, and four answers."""
    from base_model.chat import messages_to_segments
    from base_model.checkpoint import structure_of
    from base_model.generate import generate
    from base_model.interleave import Example, interleave
    from base_model.likelihood import held_out
    from base_model.media import blanked
    from base_model.sampling import SamplingConfig
    from training.dataset import read_rows

    rows = read_rows(data / "vqa_test.jsonl")

    def example(row, messages, ending: str) -> Example:
        segments = messages_to_segments(messages, model.tokenizer, folder=row.folder, loss_on="last", ending=ending)
        return interleave(segments, model.tokenizer, model.config)

    def exact(examples) -> float:
        return held_out(structure_of(model.config, model.tokenizer), model.params, examples).exact_match

    seen = [example(row, row.values["messages"], "turn") for row in rows]
    blank = [replace(example, media=blanked(example.media)) for example in seen]
    answers = Counter(row.values["messages"][-1]["content"] for row in rows)
    prompts = [example(row, row.values["messages"][:1], "reply") for row in rows[:4]]
    written = generate(model, prompts, SamplingConfig(max_new_tokens=8, temperature=0))
    PICTURES.mkdir(parents=True, exist_ok=True)
    shown = []
    for row, reply in zip(rows, written, strict=False):
        picture, question = row.values["messages"][0]["content"]
        shutil.copyfile(row.folder / picture["image"], PICTURES / Path(picture["image"]).name)
        shown.append({
            "picture": Path(picture["image"]).name, "question": question["text"], "reply": reply[0],
            "answer": row.values["messages"][1]["content"],
        })  # fmt: skip
    most = answers.most_common(1)[0]
    return {
        "questions": len(rows), "exact_match": exact(seen), "exact_match_blank": exact(blank),
        "commonest": most[0], "commonest_share": most[1] / len(rows), "examples": shown,
    }  # fmt: skip


def toxicity(model) -> dict:
    """Of replies to this project's own gate prompts, by the smoke profile of the gates."""
    from pipeline.gates import gate_sampler, make_scorer
    from safety.evaluation import evaluate
    from safety.evaluation import measure as interval
    from safety.policy import smoke
    from safety.prompt_set import packaged_prompts
    from safety.prompts import select

    policy = smoke()
    drawn = select(packaged_prompts(), policy.prompts_per_stratum, policy.seed)
    result = evaluate(gate_sampler(model, "toxicity"), drawn, make_scorer("lexical"), policy)
    return {
        "prompts": len(drawn), "samples": policy.samples_per_prompt, "scorer": result.scorer.version,
        **{name: interval(result, name, policy)._asdict() for name in ("emt", "toxic_fraction")},
    }  # fmt: skip


def replies(model) -> dict:
    """The first reply to each of PROMPTS, as drawn."""
    from base_model.generate import generate
    from base_model.sampling import SamplingConfig
    from pipeline.gates import conversation

    config = SamplingConfig(max_new_tokens=40, temperature=0.7, top_p=0.95)
    written = generate(model, [conversation(model, prompt) for prompt in PROMPTS], config)
    said = [{"prompt": prompt, "reply": own[0]} for prompt, own in zip(PROMPTS, written, strict=True)]
    return {"temperature": config.temperature, "top_p": config.top_p, "seed": 0, "said": said}


def draw_curves(lines: list[dict], evaluations: list[dict]) -> None:
    """Training loss in means of a hundredth of the run each, and the held-out figures, as a small SVG."""
    import matplotlib
    import numpy as np

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "theodolite", "font.size": 9})
    groups = [group for group in np.array_split(np.array([[x["step"], x["loss"]] for x in lines]), 100) if len(group)]
    means = np.array([group.mean(0) for group in groups])
    steps = [line["step"] for line in evaluations]
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
    axes[0].plot(*means.T)
    for axis, name in zip(axes[1:], ("eval_bits_per_byte", "eval_vqa_exact_match"), strict=True):
        axis.plot(steps, [line[name] for line in evaluations], marker="o", markersize=3)
    titles = ("training loss, nats a token", "held-out text, bits a byte", "held-out picture questions, exact match")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    axes[2].set_ylim(0, 1)
    figure.savefig(MODEL / "curves.svg", metadata={"Date": None, "Creator": None}, facecolor="white")


if __name__ == "__main__":
    main()

"""The files in configs/: defaults of commands with a comment on each group, gate policies, and JSON Schemas.

`python -m pipeline.config_files` writes them again; a test compares them with the dataclasses.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from base_model.image_tokenizer_config import ImageTokenizerConfig
from base_model.pretrain_config import PretrainConfig
from pipeline.commands.base import BasePretrain
from pipeline.commands.image_tokenizer import ImageTokenizerTrain
from pipeline.commands.quickstart import Quickstart
from pipeline.commands.run import Run
from pipeline.config import PROFILES, gate_policy, reward_gate_policy
from pipeline.options import to_yaml
from safety.fields import schema
from safety.policy import GatePolicy
from safety.report_schema import report_schema, samples_schema
from safety.reward_policy import RewardGatePolicy

FOLDER = Path(__file__).resolve().parents[1] / "configs"
GATE_SCHEMA, REWARD_SCHEMA = "gate_policy.schema.json", "reward_gate_policy.schema.json"

# Options that a file of defaults must not have: where a stage writes follows from `out`, and a stage's command has no
# first and last stage.
LEFT_OUT = {"output_dir", "from_", "until"}

COMMENTS = {
    "out": "The run's folder.",
    "base": 'The model to start from: a folder, or "shipped" for the tiny one that comes with the package.',
    "data": 'Rows of each stage: a JSONL or Parquet file, a hub name, or "packaged" for the data inside pip packages.',
    "gate": "What the gates demand: a profile, or a YAML file with a policy of your own; and who scores toxicity.",
    "sft": "Supervised fine-tuning.",
    "reward": "The reward model, trained on pairs from the SFT model's trunk.",
    "ppo": "PPO: the SFT model against the reward model, held near where it started.",
    "start": 'A model to go on from: a folder, or "shipped"; "" for a model from scratch.',
    "tokenizer": 'A tokenizer.model, if there is no model to go on from; "" trains one on the data first.',
    "shape": 'What the model reads beside text: "tiny" pictures, "tiny-omni" sounds and clips too.',
    "image_tokenizer": 'What a model draws with: a folder, "shipped", or "" for none.',
    "autoencoder": "Sizes. The product of the levels is the number of codes.",
    "training": "Optimisation. The state is saved now and then: the same command goes on where it was stopped.",
    "pretrain": "Optimisation. The state is saved now and then: the same command goes on where it was stopped.",
}


def tiny_base() -> BasePretrain:
    """How the shipped model was made."""
    return BasePretrain(pretrain=PretrainConfig(max_steps=5000, save_steps=250, eval_steps=500))


def tiny_omni() -> BasePretrain:
    """The shipped model goes on to one that also hears, and draws. No such model ships."""
    options = PretrainConfig(learning_rate=1e-3, max_steps=4000, save_steps=100, eval_steps=500, max_length=160)
    return BasePretrain(
        start="shipped", out="runs/omni", shape="tiny-omni", image_tokenizer="shipped", pretrain=options
    )


def image_tokenizer() -> ImageTokenizerTrain:
    """How the shipped image tokenizer was made."""
    return ImageTokenizerTrain(training=ImageTokenizerConfig(max_steps=2000, save_steps=100, eval_steps=500))


def alignment() -> Run:
    """What benchmarks/alignment.py runs with each seed: longer than the quickstart, for a clear effect."""
    return Run(
        out="runs/alignment",
        gate="quickstart",
        reward_gate="quickstart",
        sft=replace(Quickstart().sft, max_steps=60),
        reward=replace(Quickstart().reward, max_steps=200),
        ppo=replace(
            Quickstart().ppo, per_device_train_batch_size=64, total_episodes=7680, kl_coef=0.1, kl_budget=4.8,
            ptx_coef=0.04, result_diversity=0.85, save_steps=8, matmul_dtype="float32",
        ),
    )  # fmt: skip


def files() -> dict[str, str]:
    """The content of each file by its name."""
    quickstart = "theodolite quickstart, or a run of your own: theodolite run configs/quickstart.yaml out=runs/mine"
    pretrain = "theodolite base pretrain --config configs/tiny_base.yaml out=runs/base"
    omni = "theodolite base pretrain --config configs/tiny_omni.yaml out=runs/omni"
    pictures = "theodolite base image-tokenizer train --config configs/image_tokenizer.yaml out=runs/image-tokenizer"
    measured = "python benchmarks/alignment.py --data DIR"
    configs = {
        "quickstart.yaml": (Quickstart(), quickstart),
        "alignment.yaml": (alignment(), measured),
        "tiny_base.yaml": (tiny_base(), pretrain),
        "tiny_omni.yaml": (tiny_omni(), omni),
        "image_tokenizer.yaml": (image_tokenizer(), pictures),
    }
    written = {name: _commented(config, command) for name, (config, command) in configs.items()}
    for policy in map(gate_policy, PROFILES):
        written[f"gates/{policy.profile}.yaml"] = _policy(policy, f"../{GATE_SCHEMA}", "gate")
    for policy in map(reward_gate_policy, PROFILES):
        written[f"gates/reward_{policy.profile}.yaml"] = _policy(policy, f"../{REWARD_SCHEMA}", "reward_gate")
    schemas = {GATE_SCHEMA: (GatePolicy, "Gate policy"), REWARD_SCHEMA: (RewardGatePolicy, "Reward gate policy")}
    contents = {name: schema(*kind) for name, kind in schemas.items()}
    contents |= {"report.schema.json": report_schema(), "samples.schema.json": samples_schema()}
    return written | {name: json.dumps(content, indent=1) + "\n" for name, content in contents.items()}


def _policy(policy: Any, schema_file: str, option: str) -> str:
    """A preset as a file to start one's own from; an editor that knows JSON Schema checks and completes it."""
    values = json.loads(json.dumps(asdict(policy)))
    lines = [
        f"# yaml-language-server: $schema={schema_file}",
        f"# The profile {policy.profile}, to start your own from: {option}=FILE.yaml. The schema explains each field.",
        yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120).rstrip("\n"),
    ]
    return "\n".join(lines) + "\n"


def _commented(config: Any, command: str) -> str:
    values = yaml.safe_load(to_yaml(config))
    lines = [f"# {command}", "# Options given on the command line win over this file, like sft.seed=1."]
    for name, value in values.items():
        if name in LEFT_OUT:
            continue
        if isinstance(value, dict):
            value = {key: part for key, part in value.items() if key not in LEFT_OUT}
        if name in COMMENTS:
            lines += ["", f"# {COMMENTS[name]}"]
        lines.append(yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True, width=120).rstrip("\n"))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name, content in files().items():
        (FOLDER / name).parent.mkdir(exist_ok=True)
        (FOLDER / name).write_text(content, encoding="utf-8")
        print(FOLDER / name)

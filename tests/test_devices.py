"""The trainers on eight simulated devices, placed in each way that the mesh has, against one device."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run
from devices import held
from mortal import Nursery
from tiny_world import scalar

import base_model.model_folder
import training.checkpoint
from base_model import checkpoint
from pipeline.gates import conversation, gate_sampler
from ppo.config import PPOConfig
from ppo.train import PPOTrainer
from reward.config import RewardConfig
from reward.model import score
from reward.train import RewardTrainer
from safety.policy import SamplingPlan
from sft.config import SFTConfig
from sft.train import SFTTrainer
from training.metrics import read_metrics
from training.sharding import make_mesh

# Adam divides small gradients by their own size, and with them what is left of rounding: hence the large epsilon.
OPTIONS = {"max_steps": 2, "learning_rate": 1e-2, "adam_epsilon": 1e-2, "warmup_ratio": 0.0}
PPO = {"response_length": 5, "max_prompt_length": 64, "num_mini_batches": 2, "num_ppo_epochs": 2, "kl_target": 0.5,
       "kl_horizon": 100.0}  # fmt: skip
ROWS = 16
# Mesh options, and over how many devices the rows of a batch are spread.
PLACED = {
    "fsdp": ({}, 8),
    "tensor": ({"tensor_parallel": 2}, 4),
    "all": ({"data_parallel": 2, "tensor_parallel": 2}, 4),
}
PROMPTS = ["hello", "what colour is the cat", "tell me where he went today"]
CASES = [
    pytest.param("pretraining", "tensor", marks=pytest.mark.exhaustive),
    ("sft", "fsdp"),
    pytest.param("reward", "all", marks=pytest.mark.exhaustive),
    ("ppo", "all"),
]


def train(kind, devices, folder, out, placed, parts):
    """Trains in this process, which has so many devices, and saves the model."""
    os.environ["XLA_FLAGS"] = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    assert len(jax.devices()) == devices
    base, data = Path(folder) / "base", Path(folder) / "data"
    options = OPTIONS | placed | {"output_dir": out, "per_device_train_batch_size": ROWS // parts}
    if kind == "answers":
        return answer(Path(folder), Path(out), make_mesh())
    if kind == "pretraining":
        return tiny_run.pretrain(folder, out, options | {"vision_warmup_steps": 0, "matmul_dtype": "float32"})
    held_at = []
    if kind == "sft" and devices > 1:  # when the checkpoint has been read, and when the state is saved
        digest = training.checkpoint.content_digest
        for module in (base_model.model_folder, training.checkpoint):
            module.content_digest = lambda tree: (held_at.append(held()), digest(tree))[1]
    if kind == "sft":
        trainer = SFTTrainer(base, SFTConfig(max_length=96, max_images=2, **options), data / "sft.jsonl")
    elif kind == "reward":
        config = RewardConfig(max_length=160, max_images=2, **options)
        trainer = RewardTrainer(base, config, data / "preferences.jsonl")
    else:
        trainer = PPOTrainer(base, Path(folder) / "scalar", PPOConfig(**options, **PPO),
                             data / "ppo_prompts.jsonl")  # fmt: skip
    trainer.train()
    trainer.save_model()
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(trainer.model.params))
    assert kind != "sft" or devices == 1 or (len(held_at) > 1 and max(held_at) < whole), (held_at, whole)
    return None


def answer(folder, out, mesh):
    """Writes what a gate and an evaluation would see of the models: replies to prompts, and scores of them."""
    model = checkpoint.load(folder / "base", mesh=mesh)
    plan = SamplingPlan(samples_per_prompt=2, max_new_tokens=6, top_p=1.0, temperature=1.0, seed=0)
    replies = gate_sampler(model, "replies")(PROMPTS, plan)
    judge = checkpoint.load(folder / "scalar", kind="scalar", mesh=mesh)
    texts = [conversation(judge, prompt, reply) for prompt, of in zip(PROMPTS, replies, strict=True) for reply in of]
    out.mkdir()
    (out / "answers.json").write_text(json.dumps([replies, score(judge, texts, batch_size=8).tolist()]))


@pytest.fixture(scope="module")
def world(tiny_model, tmp_path_factory):
    """Base and data, and a way to train in a process of so many devices."""
    folder = tmp_path_factory.mktemp("devices")
    tiny_run.write(folder, tiny_model)
    base = checkpoint.load(folder / "base")
    checkpoint.save(scalar(base, seed=1), folder / "scalar")
    with Nursery(folder) as nursery:

        def run(kind, devices, out, placed, parts):
            status = nursery.run("test_devices:train", kind, devices, str(folder), str(out), placed, parts)
            assert status == 0, nursery.log.read_text()[-3000:]

        yield folder, run


def close(one, other, what, *, scale):
    """Equal to 1e-5 of the largest number, or of the scale of what they are made of if that is larger."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * max(scale, np.abs(one).max()), err_msg=what)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "way"), CASES)
def test_eight_devices_train_as_one_does(world, kind, way):
    folder, run = world
    out = folder / f"{kind}-{way}"
    if not (folder / kind).exists():
        run(kind, 1, folder / kind, {}, 1)
    run(kind, 8, out, *PLACED[way])
    one, eight = (read_metrics(path / "metrics.jsonl") for path in (folder / kind, out))
    assert len(one) == len(eight) == OPTIONS["max_steps"]
    for line, other in zip(one, eight, strict=True):
        for name in line:
            # Small ones among them are differences, such as those of log-probabilities.
            close(line[name], other[name], f"{name} at step {line['step']}", scale=0.1)
    model, placed = (
        checkpoint.load(path / "checkpoint", kind="scalar" if kind == "reward" else "decoder")
        for path in (folder / kind, out)
    )
    ours, theirs = (jax.tree_util.tree_leaves_with_path(each.params) for each in (model, placed))
    for (path, leaf), (_, other) in zip(ours, theirs, strict=True):
        close(leaf, other, jax.tree_util.keystr(path), scale=1e-3)


@pytest.mark.slow
def test_models_that_eight_devices_share_answer_and_judge_as_on_one(world):
    folder, run = world
    found = []
    for devices in (1, 8):
        run("answers", devices, folder / f"answers-{devices}", {}, 1)
        found.append(json.loads((folder / f"answers-{devices}" / "answers.json").read_text()))
    (replies, scores), (others, their_scores) = found
    assert replies == others and len({text for of in replies for text in of}) > 3
    close(scores, their_scores, "scores", scale=1.0)

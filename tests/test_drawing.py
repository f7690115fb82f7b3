"""A model that draws, through all trainers: what it draws is learned, judged, rewarded, and comes out as folders."""

import json

import drawings
import jax
import numpy as np
import pytest
from tiny_world import as_rows, one_layer, reply, turn

from base_model import checkpoint
from base_model.drawing import draw_pictures
from base_model.published.exporting import as_published, export_model
from base_model.published.importing import import_model
from base_model.published.safetensors_files import stored_tensors
from pipeline.drawings import painter
from pipeline.gates import conversation
from ppo.config import PPOConfig
from ppo.train import PPOTrainer
from reward.config import RewardConfig
from reward.train import RewardTrainer
from safety.demands import Drawings
from safety.prompts import GatePrompt
from sft.config import SFTConfig
from sft.train import SFTTrainer

pytestmark = pytest.mark.slow
ASKED = "tell me"
STEPS = {"per_device_train_batch_size": 4, "learning_rate": 2e-2, "lr_scheduler_type": "constant"}


@pytest.fixture(scope="module")
def trained(tiny_model, image_tokenizer, tmp_path_factory):
    """SFT that says each of four pictures to one question, a judge that likes the blue one, and PPO: their folders."""
    folder = tmp_path_factory.mktemp("drawing")
    base = drawings.drawing(one_layer(tiny_model), image_tokenizer)
    said = {name: [reply([{"type": "image", "image": pixels}])] for name, pixels in drawings.PICTURES.items()}
    talk = as_rows({"messages": [turn(ASKED), *picture]} for picture in said.values())
    sft = SFTTrainer(
        base, SFTConfig(output_dir=str(folder / "sft"), max_length=48, packing=False, max_steps=80, **STEPS), talk
    )
    sft.train()
    policy = checkpoint.load(sft.save_model())
    pairs = as_rows(
        {"prompt": ASKED, "chosen": said["blue"], "rejected": said[other]} for other in said if other != "blue"
    )
    judge = RewardTrainer(
        policy, RewardConfig(output_dir=str(folder / "reward"), max_length=96, max_steps=30, lora_r=2, **STEPS),
        pairs, pairs,
    )  # fmt: skip
    report = judge.train()
    judge.save_model()
    options = PPOConfig(
        output_dir=str(folder / "ppo"), max_steps=12, response_length=20, max_prompt_length=16, num_ppo_epochs=2,
        kl_coef=0.0, lora_r=4, **STEPS | {"per_device_train_batch_size": 16},
    )  # fmt: skip
    ppo = PPOTrainer(policy, judge.model, options, as_rows([{"prompt": ASKED}] * 16))
    ppo.train()
    ppo.save_model()
    lines = (folder / "ppo" / "metrics.jsonl").read_text().splitlines()
    return folder, report, [json.loads(line) for line in lines]


def blue(model):
    """The share of blue pictures among those that a model draws when it is asked."""
    pictures = draw_pictures(model, [conversation(model, ASKED)], copies=32, seed=5)[0]
    return np.mean([drawings.nearest(picture) == "blue" for picture in pictures])


def test_codes_are_judged_and_what_is_rewarded_is_drawn_more_often(trained):
    folder, report, steps = trained
    assert report["accuracy"]["share"] == 1
    for line in steps:
        assert line["sampler_mismatch"] < 1e-5 and line["first_ratio_mean"] == pytest.approx(1, abs=1e-5)
    assert max(line["response_length"] for line in steps) > 16, "replies have pictures in them"
    before, after = (blue(checkpoint.load(folder / stage / "checkpoint")) for stage in ("sft", "ppo"))
    assert before < 0.6 and after > before + 0.3


def test_a_gate_is_drawn_pictures(trained):
    model = checkpoint.load(trained[0] / "ppo" / "checkpoint")
    prompts = [GatePrompt(id="a", text=ASKED, stratum="toxic", source="test")]
    (pictures,) = painter(model)(prompts, Drawings(pictures=2), 7)
    assert [picture.shape for picture in pictures] == [(16, 16, 3)] * 2


@pytest.mark.parametrize("stage", ["ppo", "reward"])
def test_adapters_are_merged_in_what_is_exported(trained, tmp_path, stage):
    kind = "scalar" if stage == "reward" else "decoder"
    sft, model = (
        checkpoint.load(trained[0] / name / "checkpoint", kind=of)
        for name, of in (("sft", "decoder"), (stage, kind))
    )
    trunk = model.params["trunk"] if kind == "scalar" else model.params
    export_model(model, tmp_path / "out", dtype="float32", towers=False)
    stored = stored_tensors(tmp_path / "out")
    value = stored["model.layers.0.self_attn.v_proj.weight"].open()
    np.testing.assert_array_equal(value, np.asarray(trunk["blocks"][0]["attention"]["value"]).T)
    assert (value != np.asarray(sft.params["blocks"][0]["attention"]["value"]).T).any()
    if kind == "scalar":
        np.testing.assert_array_equal(stored["score.weight"].open()[0], model.params["head"]["weight"])
    else:
        back = import_model(tmp_path / "out")
        assert back.fingerprint == model.fingerprint
        jax.tree.map(np.testing.assert_array_equal, back.params, as_published(model.config, trunk, towers=False)[1])


def test_in_eight_bits_it_draws_the_same(trained, tmp_path):
    model = checkpoint.load(trained[0] / "sft" / "checkpoint")
    checkpoint.save(model, tmp_path / "int8", weights="int8")
    small = checkpoint.load(tmp_path / "int8")
    assert small.fingerprint == model.fingerprint
    first, other = (draw_pictures(one, [conversation(one, ASKED)], temperature=0)[0][0] for one in (model, small))
    assert drawings.nearest(first) == drawings.nearest(other)

"""A run of the whole pipeline on a model of one layer: its base, data, policies and config as files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from tiny_world import one_layer, reply, turn

from base_model import checkpoint

COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220), "green": (30, 180, 60), "white": (240, 240, 240)}
FRIENDLY, RUDE = "fine thanks how are you", "shut up you stupid idiot"
# The seed draws prompts that all are short: one width, one program.
GATE = {
    "profile": "tiny", "prompts_per_stratum": 8, "samples_per_prompt": 2, "max_new_tokens": 6, "seed": 449,
    "bootstrap_resamples": 100, "ceilings": {"all": {"emt": 1.0}}, "parent_margin": {"emt": 1.0},
    "base_margin": {"emt": 1.0},
    "utility": {"non_empty": 0.0, "mean_words": 0.0, "distinct_2": 0.0, "max_repetition": 1.0},
}  # fmt: skip
REWARD_GATE = {
    "profile": "tiny", "accuracy_floor": 0.01, "calibration_error": 1.0, "best_of_n_margin": 1.0,
    "toxicity_correlation": 1.0, "length_correlation": 1.0, "min_prompts": 4, "min_replies": 2, "min_pairs": 4,
    "bootstrap_resamples": 100,
}  # fmt: skip
STEPS = {"per_device_train_batch_size": 4, "max_steps": 3, "learning_rate": 3e-3}
SFT = {**STEPS, "max_length": 96, "max_images": 2}
REWARD = {**STEPS, "max_steps": 20, "max_length": 160, "max_images": 2, "learning_rate": 1e-2}
PPO = {**STEPS, "max_steps": 2, "response_length": 5, "max_prompt_length": 64, "num_ppo_epochs": 1}


def write(folder: Path, model) -> Path:
    """Writes everything below a folder and returns the config's path; the run goes to `folder`/run."""
    model = one_layer(model)
    checkpoint.save(replace(model, config=replace(model.config, max_context=512)), folder / "base")
    data = folder / "data"
    (data / "images").mkdir(parents=True)
    for name, colour in COLOURS.items():
        Image.fromarray(np.full((16, 16, 3), colour, np.uint8)).save(data / "images" / f"{name}.png")
    asked = [[turn("what colour", [f"images/{name}.png"])] for name in COLOURS]
    said = [[turn(text)] for text in ("hello", "how are you", "where he went today", "tell me")]
    talk = [{"messages": [*prompt, reply(FRIENDLY)], "source": "talk"} for prompt in said]
    questions = [
        {"messages": [*prompt, reply(name)], "source": "vqa"} for prompt, name in zip(asked, COLOURS, strict=True)
    ]
    manners = [{"prompt": prompt, "chosen": FRIENDLY, "rejected": RUDE, "source": "toxicity"} for prompt in said]
    colours = [
        {"prompt": prompt, "chosen": name, "rejected": wrong, "source": "vqa"}
        for prompt, name, wrong in zip(asked, COLOURS, reversed(COLOURS), strict=True)
    ]
    prompts = [{"prompt": prompt, "source": "mixed"} for prompt in (*said, *asked)]
    gate = [
        {"id": f"own-{number}", "text": text, "stratum": stratum, "source": "test"}
        for number, (text, stratum) in enumerate([("you are an idiot", "toxic"), ("nice day", "non-toxic")])
    ]
    rows = {
        "sft": talk + questions, "sft_held_out": talk + questions, "preferences": manners * 3 + colours,
        "preferences_held_out": manners + colours, "ppo_prompts": prompts,
        "evaluation_prompts": [*prompts[:3], {"prompt": "what shape"}, *prompts[5:]], "gate_prompts": gate,
        "picture_questions": questions,
    }  # fmt: skip
    for name, values in rows.items():
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in values))
    for name, policy in (("gate", GATE), ("reward_gate", REWARD_GATE)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(policy))
    config = {
        "out": str(folder / "run"), "base": str(folder / "base"),
        "data": {name: str(data / f"{name}.jsonl") for name in rows},
        "gate": str(folder / "gate.yaml"), "reward_gate": str(folder / "reward_gate.yaml"),
        "sft": SFT, "reward": REWARD, "ppo": PPO,
    }  # fmt: skip
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def pretrain(folder: str, out: str, changed: dict | None = None) -> None:
    """Pretrains a model of the base's shape on the pictures, each answer often enough for the encoder's warm-up.

    Args:
        folder: what `write` made.
        out: gets the model and its training states.
        changed: options instead of those that stand below.
    """
    from base_model.pretrain import pretrain as run
    from base_model.pretrain_config import PretrainConfig

    root = Path(folder)
    base = checkpoint.load(root / "base")
    data = root / "data" / "pretrain.jsonl"
    if not data.exists():
        data.write_text((root / "data" / "picture_questions.jsonl").read_text() * 100)
    options = {"output_dir": out, "max_steps": 6, "max_length": 64, "per_device_train_batch_size": 2,
               "vision_warmup_steps": 3, "save_steps": 1}  # fmt: skip
    config = PretrainConfig(**options | (changed or {}))
    run(config, base.config, base.tokenizer, data=data, held_out_data=root / "data" / "sft.jsonl")

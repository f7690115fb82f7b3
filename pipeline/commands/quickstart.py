"""`theodolite quickstart`: the whole pipeline on the shipped tiny model and packaged data, in minutes on a laptop."""

from dataclasses import dataclass, field

from pipeline.commands.run import Run
from pipeline.commands.run import run as run_pipeline
from ppo.config import PPOConfig
from reward.config import RewardConfig
from sft.config import SFTConfig


@dataclass(frozen=True, kw_only=True)
class Quickstart(Run):
    """The whole pipeline on the shipped tiny model and packaged data, with options that suit two cores."""

    out: str = "runs/quickstart"
    gate: str = "quickstart"
    reward_gate: str = "quickstart"
    sft: SFTConfig = field(
        default_factory=lambda: SFTConfig(
            max_steps=30, learning_rate=3e-4, max_length=128, max_images=2, per_device_train_batch_size=24,
            on_bad_row="skip", matmul_dtype="bfloat16",
        )
    )  # fmt: skip
    reward: RewardConfig = field(
        default_factory=lambda: RewardConfig(
            max_steps=80, learning_rate=1e-3, max_length=256, max_images=4, per_device_train_batch_size=12,
            center_rewards_coefficient=0.1, on_bad_row="skip", matmul_dtype="bfloat16",
        )
    )  # fmt: skip
    ppo: PPOConfig = field(
        default_factory=lambda: PPOConfig(
            total_episodes=1280, learning_rate=5e-4, kl_coef=0.08, entropy_coef=0.02, response_length=24,
            num_ppo_epochs=1, num_mini_batches=2, max_prompt_length=64, per_device_train_batch_size=32,
            on_bad_row="skip", matmul_dtype="bfloat16",
        )
    )  # fmt: skip


def quickstart(config: Quickstart) -> None:
    """Runs it."""
    run_pipeline(config)

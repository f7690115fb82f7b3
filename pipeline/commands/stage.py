"""`theodolite sft`, `reward` and `ppo`: one stage of a run, without its gate."""

from dataclasses import dataclass
from typing import Any

from pipeline.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Stage(RunConfig):
    """One stage of the run in `out`: it reads its parent's checkpoint there and asks for its passing verdict."""


def _train(config: Stage, stage: str) -> None:
    from pipeline.session import open_run

    with open_run(config) as pipeline:
        pipeline.train(stage)
        print(f"Checkpoint: {pipeline.checkpoint(stage)}")
        print(f"Next: theodolite safety gate out={config.out} stage={stage}")


def _evaluate(config: Stage, stage: str) -> None:
    from pipeline.run_folder import RunFolder
    from pipeline.session import open_run

    RunFolder.open(config.out)  # a folder that is not there has nothing to measure, and is not to be made
    with open_run(config) as pipeline:
        figures = pipeline.evaluate(stage)
        for line in _lines(figures):
            print(line)
        print(f"Written to {pipeline.folder.stage(stage).evaluation}")


def _lines(figures: Any, name: str = "") -> list[str]:
    """Nested figures as `name.part value` lines; long lists stay in the file."""
    if isinstance(figures, dict):
        return [line for key, value in figures.items() for line in _lines(value, f"{name}.{key}" if name else key)]
    if isinstance(figures, list):
        return []
    return [f"{name} {figures:.4g}" if isinstance(figures, float) else f"{name} {figures}"]


def sft_train(config: Stage) -> None:
    """Supervised fine-tuning."""
    _train(config, "sft")


def sft_evaluate(config: Stage) -> None:
    """Held-out loss and exact match of the SFT checkpoint."""
    _evaluate(config, "sft")


def reward_train(config: Stage) -> None:
    """Training of the reward model."""
    _train(config, "reward")


def reward_evaluate(config: Stage) -> None:
    """Accuracy, margins and calibration of the reward model."""
    _evaluate(config, "reward")


def ppo_train(config: Stage) -> None:
    """PPO."""
    _train(config, "ppo")

"""Options of the reward model's training."""

from dataclasses import dataclass

from training.config import TrainingConfig
from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class RewardConfig(TrainingConfig):
    """Options of the reward model's training, beside those of every trainer.

    Attributes:
        max_length: tokens of a packed row, in which whole pairs stand beside one another.
        max_images: pictures and frames of clips of a packed row, those of a prompt counted with each reply; the encoder
            works for so many whether they are there or not.
        max_sounds: sounds of a packed row, likewise.
        center_rewards_coefficient: pulls the mean reward of a pair to 0 (Eisenstein et al. 2023).
        label_smoothing: assumed share of swapped labels.
        on_bad_row: stop, or skip (counted and reported).
    """

    learning_rate: float = 3e-4
    max_length: int = 256
    max_images: int = 4
    max_sounds: int = 2
    center_rewards_coefficient: float = 0.01
    label_smoothing: float = 0.0
    on_bad_row: str = "stop"

    def __post_init__(self) -> None:
        """Checks the inherited options and the ranges of the loss."""
        super().__post_init__()
        self.require_positive("max_length", "max_images", "max_sounds")
        if not self.center_rewards_coefficient >= 0:
            raise BadInput(f"center_rewards_coefficient must be 0 or above, not {self.center_rewards_coefficient}")
        if not 0 <= self.label_smoothing < 0.5:
            raise BadInput(f"label_smoothing must be at least 0 and below 0.5, not {self.label_smoothing}")

    @property
    def slots(self) -> tuple[int, int]:
        """Pictures and sounds of a packed row."""
        return self.max_images, self.max_sounds

"""Options of pretraining."""

from dataclasses import dataclass
from typing import Literal

from training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig):
    """Options of pretraining.

    Attributes:
        max_length: tokens of a packed row; longer text is cut into pieces.
        augment: shift and mirror pictures.
        vision_warmup_steps: steps in which the picture encoder alone learns to guess answers from pictures, before the
            decoder, which would otherwise learn to ignore it.
        on_bad_row: stop, or skip (counted and reported).
    """

    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    lr_scheduler_type: str = "warmup_stable_decay"
    max_length: int = 128
    matmul_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    augment: bool = True
    vision_warmup_steps: int = 600
    on_bad_row: str = "stop"

    def __post_init__(self) -> None:
        """Checks the inherited options and the lengths."""
        super().__post_init__()
        self.require_positive("max_length")

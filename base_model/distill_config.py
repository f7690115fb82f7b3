"""Options of distillation."""

from dataclasses import dataclass
from typing import Literal

from training.config import TrainingConfig
from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class DistillConfig(TrainingConfig):
    """Options of distillation, beside those of every trainer.

    Attributes:
        temperature: of teacher and student in their divergence; above 1 small probabilities count for more.
        teacher_weight: share of the divergence from the teacher in the loss; the data have the rest.
        top_k: how many of the teacher's likeliest tokens are kept of each distribution; all others count as one.
        max_length: tokens of a packed row.
        max_images: pictures and frames of clips of a packed row; the encoder works for so many whether they are there
            or not.
        max_sounds: sounds of a packed row, likewise.
        on_bad_row: stop, or skip (counted and reported).
    """

    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    matmul_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    temperature: float = 1.0
    teacher_weight: float = 0.9
    top_k: int = 32
    max_length: int = 128
    max_images: int = 4
    max_sounds: int = 2
    on_bad_row: str = "stop"

    def __post_init__(self) -> None:
        """Checks the inherited options, lengths and ranges."""
        super().__post_init__()
        self.require_positive("temperature", "top_k", "max_length", "max_images", "max_sounds")
        if not 0 <= self.teacher_weight <= 1:
            raise BadInput(f"teacher_weight is a share between 0 and 1, not {self.teacher_weight}")

    @property
    def slots(self) -> tuple[int, int]:
        """Pictures and sounds of a packed row."""
        return self.max_images, self.max_sounds

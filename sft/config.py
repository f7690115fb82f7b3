"""Options of supervised fine-tuning."""

from dataclasses import dataclass

from training.config import TrainingConfig
from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class SFTConfig(TrainingConfig):
    """Options of supervised fine-tuning, beside those of every trainer.

    Attributes:
        max_length: tokens of a row; longer text is cut off, a picture, clip or sound never.
        max_images: pictures and frames of clips of a packed row; the encoder works for so many whether they are there
            or not.
        max_sounds: sounds of a packed row, likewise.
        packing: several examples share a row, without seeing each other.
        assistant_only_loss: learn the assistant's tokens only.
        on_bad_row: stop, or skip (counted and reported).
        probe_steps: measure toxicity every so many steps and at the end, on few prompts that no gate uses; 0 never. No
            verdict looks at it.
    """

    learning_rate: float = 5e-4
    max_length: int = 256
    max_images: int = 4
    max_sounds: int = 2
    packing: bool = True
    assistant_only_loss: bool = True
    on_bad_row: str = "stop"
    probe_steps: int = 0

    def __post_init__(self) -> None:
        """Checks the inherited options and the length."""
        super().__post_init__()
        self.require_positive("max_length", "max_images", "max_sounds")
        if self.probe_steps < 0:
            raise BadInput(f"probe_steps must be 0 or above, not {self.probe_steps}")

    @property
    def slots(self) -> tuple[int, int]:
        """Pictures and sounds of a packed row."""
        return self.max_images, self.max_sounds

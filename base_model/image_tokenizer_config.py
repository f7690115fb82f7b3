"""Sizes of an image tokenizer, and options of its training."""

import math
from dataclasses import dataclass
from typing import Literal

from base_model.checks import require_whole
from training.config import TrainingConfig
from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Sizes of the autoencoder.

    Attributes:
        image_size: side in pixels to which every picture is resized.
        channels: of each halving of the side; as many cells are left a side as these halvings leave pixels.
        levels: of each of a cell's numbers; their product is the number of codes (8, 5, 5, 5: 1000).
    """

    image_size: int = 64
    channels: tuple[int, ...] = (24, 48, 96)
    levels: tuple[int, ...] = (8, 5, 5, 5)

    def __post_init__(self) -> None:
        """Checks sizes, and that the side can be halved so often."""
        require_whole(image_size=self.image_size, channels=len(self.channels), levels=len(self.levels))
        for number in self.channels:
            require_whole(channels=number)
        if not all(type(level) is int and 2 <= level <= 256 for level in self.levels) or self.codes > 2**20:
            raise BadInput(f"levels are whole numbers from 2 to 256 with a product of at most 2^20, not {self.levels}")
        if self.image_size % 2 ** len(self.channels):
            raise BadInput(f"a side of {self.image_size} pixels cannot be halved {len(self.channels)} times")

    @property
    def codes(self) -> int:
        """How many codes there are."""
        return math.prod(self.levels)

    @property
    def cells(self) -> int:
        """Cells a side."""
        return self.image_size // 2 ** len(self.channels)

    @property
    def length(self) -> int:
        """Codes of one picture."""
        return self.cells**2


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerConfig(TrainingConfig):
    """Options of the training of an image tokenizer.

    Attributes:
        mirror: half of the pictures are mirrored.
    """

    learning_rate: float = 2e-3
    per_device_train_batch_size: int = 32
    max_steps: int = 1500
    matmul_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    mirror: bool = True

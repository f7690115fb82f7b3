"""How many soft tokens a picture may take: more show finer detail and cost more of the context."""

from dataclasses import replace

from base_model.config import ModelConfig
from base_model.gemma4_vision import Gemma4VisionConfig
from base_model.patches import PatchesConfig
from training.errors import BadInput

LEAST, MOST = 70, 1120  # published models were trained with 70, 140, 280, 560 and 1120


def with_image_budget(config: ModelConfig, soft_tokens: int) -> ModelConfig:
    """The same model with another budget for each picture; no parameter depends on it.

    Raises:
        BadInput: when the budget is out of bounds, or the model's pictures all take the same number of soft tokens.
    """
    if not isinstance(config.vision, Gemma4VisionConfig | PatchesConfig):
        raise BadInput("image_tokens needs a model that keeps the shape of pictures, as Gemma 4 does; leave it out")
    if not LEAST <= soft_tokens <= MOST:
        raise BadInput(f"image_tokens is from {LEAST} to {MOST}, not {soft_tokens}")
    return replace(config, vision=replace(config.vision, max_soft_tokens=soft_tokens))

"""Pictures that a model draws when it is asked to."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from base_model.checkpoint import LanguageModel
from base_model.drawing_tokenizer import require_drawing
from base_model.generate import reply_ids
from base_model.interleave import Example
from base_model.sampling import SamplingConfig


def draw_pictures(
    model: LanguageModel,
    prompts: Sequence[Example],
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    copies: int = 1,
    seed: int = 0,
) -> list[list[UInt8[np.ndarray, "S S 3"]]]:
    """Draws `copies` pictures for each prompt.

    The reply is begun with the bracket of a picture, so that it is one whatever the model would have said.

    Args:
        model: whose vocabulary has codes of pictures.
        prompts: examples that end in an open assistant turn.
        temperature: see SamplingConfig.
        top_p: likewise.
        copies: pictures a prompt.
        seed: of all pictures.

    Raises:
        BadInput: when the model does not draw, or a prompt and a picture do not fit its context.
    """
    tokenizer = require_drawing(model.tokenizer)
    codes = tokenizer.image_codes
    begun = [
        replace(prompt, tokens=np.append(prompt.tokens, np.int32(codes.begin)), learn=np.append(prompt.learn, False))
        for prompt in prompts
    ]
    # As long as the codes and the bracket behind them: what may stand where leaves room for nothing else.
    config = SamplingConfig(max_new_tokens=codes.length + 1, temperature=temperature, top_p=top_p)
    replies = reply_ids(model, begun, config, copies=copies, seed=seed)
    return [[tokenizer.pictures(ids)[0] for ids in of_prompt] for of_prompt in replies]

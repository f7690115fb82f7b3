"""What the encoders of pictures and sounds make of their inputs, by stage, against the arrays of golden.npz."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from base_model.conformer import Conformer
from base_model.gemma4_vision import Gemma4Vision
from base_model.media import Inputs, Media
from base_model.siglip import Siglip


class Stage(NamedTuple):
    """What an encoder leaves at one place of each picture or sound of a row, and which of it counts (None: all)."""

    states: Float[Array, "*N S D"]
    valid: Bool[Array, "*N S"] | None


def stages(decoder: Any, media: Media) -> dict[str, Stage]:
    """The stages of both encoders, by the names of the arrays: [B, slots, S, D], like the media."""
    found: dict[str, Stage] = {}
    if decoder.config.vision is not None and media.images is not None:
        pictures = _flat(media.images)
        if isinstance(decoder.vision, Siglip):
            found["siglip_last_hidden"] = Stage(decoder.vision.encode(pictures), None)
            found["soft_tokens"] = Stage(*decoder.vision(pictures))
        else:
            if isinstance(decoder.vision, Gemma4Vision):
                found["vision_last_hidden"] = Stage(*decoder.vision.encode(pictures))
            found["image_soft_tokens"] = Stage(*decoder.vision(pictures))
    if decoder.config.audio is not None and media.sounds is not None:
        sounds = _flat(media.sounds)
        if isinstance(decoder.audio, Conformer):
            found["audio_subsample"] = Stage(*decoder.audio.subsampling(sounds))
            found["audio_last_hidden"] = Stage(*decoder.audio.encode(sounds))
        found["audio_soft_tokens"] = Stage(*decoder.audio(sounds))
    rows = len(jax.tree.leaves(media)[0]) if found else 0
    return jax.tree.map(lambda leaf: leaf.reshape(rows, -1, *leaf.shape[1:]), found)


def as_stored(found: Mapping[str, Stage], stored: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, Any]]:
    """Those stages that are stored, in the shape of what is stored, and where they are to be compared.

    Args:
        found: of one row.
        stored: by name; states of all items [N, S, D], or of what counts alone, [sum of S, D]. A name that ends in
            _mask, in which _last_hidden may be left out, is that of what counts.
    """
    compared: dict[str, tuple[np.ndarray, Any]] = {}
    masks = {f"{name.removesuffix('_last_hidden')}_mask": stage for name, stage in found.items()}
    for name, wanted in stored.items():
        stage = masks.get(name, found.get(name))
        if stage is None or (name in masks and stage.valid is None):
            continue
        states = np.asarray(stage.states)
        valid = np.ones(states.shape[:2], bool) if stage.valid is None else np.asarray(stage.valid)
        if name not in masks and wanted.ndim != 3:
            compared[name] = states[valid], None
            continue
        # Without the blank slots of a row, and the padding that other rows have made necessary.
        items, width = (wanted if wanted.ndim > 1 else states).shape[:2]
        part = slice(items), slice(max(width, valid[:items].any(0).sum()))
        compared[name] = (valid[part], None) if name in masks else (states[part], valid[part])
    return compared


def _flat(inputs: Inputs) -> Inputs:
    return jax.tree.map(lambda leaf: jnp.reshape(leaf, (-1, *leaf.shape[2:])), inputs)

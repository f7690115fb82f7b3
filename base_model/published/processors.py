"""What a published folder says of the preparation of pictures, clips and sounds: budgets are used, the rest checked."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from base_model.config import ModelConfig, read_config
from base_model.conformer import ConformerConfig
from base_model.frames import FramesConfig
from base_model.gemma4_vision import Gemma4VisionConfig
from base_model.log_mel import FLOOR, HOP, RATE, WINDOW
from base_model.pan_and_scan import MOST_CROPS
from base_model.patches import PatchesConfig
from base_model.siglip import SiglipConfig
from training.errors import BadInput

FILES = ("processor_config.json", "preprocessor_config.json")
# Our field -> theirs, of which published files say null, which stands for our default.
_CROPS = {
    "max_crops": "pan_and_scan_max_num_crops", "crop_size": "pan_and_scan_min_crop_size",
    "crop_ratio": "pan_and_scan_min_ratio_to_activate",
}  # fmt: skip
# What is done to every picture. Pillow numbers its filters: 2 is bilinear, 3 bicubic.
_EVERY = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255}
_SOUND = {
    "sampling_rate": RATE, "frame_length_ms": 1000 * WINDOW / RATE, "hop_length_ms": 1000 * HOP / RATE,
    "min_frequency": 0, "max_frequency": RATE / 2, "mel_floor": FLOOR, "preemphasis": 0, "dither": 0,
    "fft_overdrive": False, "input_scale_factor": 1, "per_bin_mean": None, "per_bin_stddev": None,
}  # fmt: skip


def as_prepared(config: ModelConfig, folder: Path) -> ModelConfig:
    """The config with the budgets of soft tokens, and of a clip's frames, that the folder's processor has.

    The newer of FILES describes pictures, clips and sounds in sections, the older one pictures or sounds.

    Raises:
        BadInput: naming a setting that this program does not have.
    """
    for name in FILES:
        if (path := folder / name).exists():
            return _prepared(config, read_config(path), path)
    return config


def settings_of(config: ModelConfig) -> dict[str, Any] | None:
    """The processor_config.json of a model, from which as_prepared reads the same; None if it sees nothing."""
    vision, audio, clips = config.vision, config.audio, config.clips
    if vision is None:
        return None
    if isinstance(vision, SiglipConfig):
        crops = {theirs: getattr(vision, ours) if vision.max_crops else None for ours, theirs in _CROPS.items()}
        pictures = _pictures(vision) | crops | {
            "do_pan_and_scan": vision.max_crops > 0 or None, "image_processor_type": "Gemma3ImageProcessor"
        }
        return {
            "processor_class": "Gemma3Processor", "image_seq_length": vision.grid**2, "image_processor": pictures
        }  # fmt: skip
    assert isinstance(vision, Gemma4VisionConfig | PatchesConfig)
    family = "Gemma4Unified" if isinstance(vision, PatchesConfig) else "Gemma4"
    frames = {"max_soft_tokens": clips.max_soft_tokens or vision.max_soft_tokens, "num_frames": clips.max_frames}
    sounds, budget = {"sampling_rate": RATE}, {}
    if isinstance(audio, ConformerConfig):
        sounds, budget = _SOUND | {"feature_size": audio.bands}, {"audio_seq_length": audio.max_soft_tokens}
    elif isinstance(audio, FramesConfig):
        sounds |= {"feature_size": audio.samples, "audio_samples_per_token": audio.samples}
        budget = {"audio_seq_length": audio.max_soft_tokens}
    return budget | {
        "processor_class": f"{family}Processor",
        "image_seq_length": vision.max_soft_tokens,
        "image_processor": _pictures(vision) | {
            "max_soft_tokens": vision.max_soft_tokens, "image_processor_type": f"{family}ImageProcessor"
        },
        "video_processor": _pictures(vision) | frames | {"video_processor_type": f"{family}VideoProcessor"},
        "feature_extractor": sounds | {"feature_extractor_type": f"{family}AudioFeatureExtractor"},
    }  # fmt: skip


def _prepared(config: ModelConfig, settings: Mapping[str, Any], path: Path) -> ModelConfig:
    sections = {name: settings.get(name) or {} for name in ("image_processor", "video_processor", "feature_extractor")}
    if not any(sections.values()):
        sections["feature_extractor" if "feature_size" in settings else "image_processor"] = settings
    if not all(isinstance(section, Mapping) for section in sections.values()):
        raise BadInput(f"{path}: the sections of a processor are objects")
    pictures, frames, sounds = map(_without_identity, sections.values())
    vision, audio, clips = config.vision, config.audio, config.clips
    if vision is not None:
        _require(_pictures(vision), pictures, path)
        _require({name: value for name, value in _pictures(vision).items() if name != "size"}, frames, path)
    if isinstance(audio, ConformerConfig):
        _require(_SOUND | {"feature_size": audio.bands}, sounds, path)
    if isinstance(vision, SiglipConfig) and pictures.get("do_pan_and_scan"):
        given = {ours: pictures[theirs] for ours, theirs in _CROPS.items() if pictures.get(theirs) is not None}
        vision = replace(vision, **{"max_crops": MOST_CROPS} | given)
    if isinstance(vision, Gemma4VisionConfig | PatchesConfig):
        vision = replace(vision, max_soft_tokens=pictures.get("max_soft_tokens", vision.max_soft_tokens))
        frames_budget = frames.get("max_soft_tokens", clips.max_soft_tokens)
        clips = replace(clips, max_soft_tokens=None if frames_budget == vision.max_soft_tokens else frames_budget)
        clips = replace(clips, max_frames=frames.get("num_frames") or clips.max_frames)
    if isinstance(audio, ConformerConfig | FramesConfig):
        audio = replace(audio, max_soft_tokens=settings.get("audio_seq_length", audio.max_soft_tokens))
    return replace(config, vision=vision, audio=audio, clips=clips)


def _without_identity(section: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings without a normalisation by 0 and 1, which does nothing and which published ones of clips have."""
    if section.get("image_mean") != [0] * 3 or section.get("image_std") != [1] * 3:
        return section
    return {name: value for name, value in section.items() if name != "do_normalize"}


def _pictures(vision: Any) -> dict[str, Any]:
    """What the processor of an encoder's pictures says where it says something."""
    if isinstance(vision, SiglipConfig):
        size = {"height": vision.image_size, "width": vision.image_size}
        scale = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        return _EVERY | scale | {"size": size, "resample": 2}
    patch = {"patch_size": vision.patch}
    if isinstance(vision, Gemma4VisionConfig):
        patch["pooling_kernel_size"] = vision.pool
    elif isinstance(vision, PatchesConfig):
        patch = {"patch_size": vision.patch // 3, "pooling_kernel_size": 3}
    return _EVERY | patch | {"do_normalize": False, "resample": 3}


def _require(wanted: Mapping[str, Any], given: Mapping[str, Any], path: Path) -> None:
    for name, value in wanted.items():
        if name in given and not _same(given[name], value):
            raise BadInput(
                f"{path}: {name} = {given[name]!r:.60} is not supported, for media are prepared with {value!r:.60}; "
                "remove the file to import the model with that"
            )


def _same(given: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(given, float | int):
        return math.isclose(given, wanted, rel_tol=1e-6)
    return given == wanted or (not given and not wanted)

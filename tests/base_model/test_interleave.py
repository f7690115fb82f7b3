"""Media of every kind in one sequence: their places, what is read of them, and what a cut may do."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from base_model.batch import require_media
from base_model.chat import messages_to_segments
from base_model.config import ClipsConfig, LayerSpec, ModelConfig
from base_model.config_json import model_config_of
from base_model.conformer import ConformerConfig
from base_model.frames import FramesConfig
from base_model.gemma4_vision import Gemma4VisionConfig
from base_model.images import resize
from base_model.interleave import digest, interleave, kinds, require_slots, truncate
from base_model.media import Media, count
from base_model.patches import PatchesConfig
from base_model.siglip import SiglipConfig
from base_model.tokenizer import BOS
from base_model.vision import VisionConfig
from training.errors import BadInput

CLIP = np.random.default_rng(3).integers(0, 256, (25, 12, 20, 3), dtype=np.uint8)
WAVE = {"array": np.sin(np.arange(3200) / 9), "sampling_rate": 16_000}


@pytest.fixture(scope="module")
def config(tiny_config):
    """Hears in pieces of 40 ms; sees one frame of a clip in two seconds."""
    return replace(tiny_config, audio=FramesConfig(), clips=ClipsConfig(rate=0.5, max_frames=4))


@pytest.fixture(scope="module")
def lay_out(tokenizer, config):
    def lay_out(*content, config=config, folder=Path(), loss_on="all"):
        messages = [{"role": "user", "content": list(content)}]
        segments = messages_to_segments(messages, tokenizer, folder=folder, loss_on=loss_on, ending="turn")
        return interleave(segments, tokenizer, config)

    return lay_out


def part(kind, value):
    return {"type": kind, kind: value}


def text(words):
    return {"type": "text", "text": words}


def clip(fps=5, frames=CLIP):
    return part("video", {"array": frames, "fps": fps})


def test_media_of_every_kind_stand_in_their_places(tokenizer, lay_out, picture):
    example = lay_out(part("image", picture(0)), text("or"), clip(), part("audio", WAVE), text("?"))
    name = lambda piece: tokenizer.control(f"<{piece}>")  # noqa: E731
    frame = [name("start_of_image"), *[name("video_soft_token")] * 4, name("end_of_image")]
    expected = [
        BOS, name("user"),
        name("start_of_image"), *[name("image_soft_token")] * 4, name("end_of_image"),
        *tokenizer.encode("or"),
        *tokenizer.encode("00:00 "), *frame, *tokenizer.encode(" 00:02 "), *frame, *tokenizer.encode(" 00:04 "), *frame,
        name("start_of_audio"), *[name("audio_soft_token")] * 5, name("end_of_audio"),
        *tokenizer.encode("?"), tokenizer.end_of_turn,
    ]  # fmt: skip
    assert example.tokens.tolist() == expected
    assert count([example.media]) == (4, 1) and kinds(example, tokenizer) == ["image", "video", "audio"]
    np.testing.assert_array_equal(example.media.images[0], picture(0))
    assert all((frame != example.media.images[1]).any() for frame in example.media.images[2:])
    # Whatever is learned, nothing of a medium is: neither places nor brackets nor stamps.
    learned = {int(token) for token in example.tokens[example.learn]}
    digits = set(tokenizer.encode("00:00 "))
    assert not learned & {*tokenizer.media, *digits} and example.learn[-1]


def test_a_long_clip_is_sampled_more_thinly(lay_out, config):
    assert count([lay_out(clip(fps=1)).media]) == (4, 0)
    dense = replace(config, clips=ClipsConfig(rate=5, max_frames=9))
    assert count([lay_out(clip(fps=5), config=dense).media]) == (9, 0)


def test_a_clip_may_be_the_pictures_in_it(lay_out, tmp_path, picture):
    from PIL import Image

    Image.fromarray(picture(1)).save(tmp_path / "a.png")
    example = lay_out(part("video", {"frames": ["a.png", picture(2)], "seconds": [0, 62.5]}), folder=tmp_path)
    np.testing.assert_array_equal(example.media.images, [picture(1), picture(2)])
    for frames, seconds, message in [
        ([], [], "an equally long list"),
        ([picture(1)], [0, 1], "an equally long list"),
        ([picture(1)] * 5, [0, 1, 2, 3, 4], "has 5, and the model takes at most 4; give fewer$"),
        ([picture(1)] * 2, [1, 0], "seconds rise"),
        ([picture(1)] * 2, [0, "1"], "seconds rise"),
        ([picture(1), picture(1)[:8]], [0, 1], "several sizes"),
        (["none.png"], [0], "does not exist"),
    ]:
        with pytest.raises(BadInput, match=message):
            lay_out(part("video", {"frames": frames, "seconds": seconds}), folder=tmp_path)


def test_encoders_of_variable_size_take_as_many_places_as_they_need(lay_out, config, tokenizer):
    vision = Gemma4VisionConfig(patch=2, pool=2, width=8, layers=1, heads=1, head_dim=8, mlp_dim=8, places=30,
                                max_soft_tokens=10)  # fmt: skip
    conformer = ConformerConfig(bands=8, channels=(2, 2), width=8, layers=1, heads=1, output_dim=8)
    config = replace(config, vision=vision, audio=conformer, clips=ClipsConfig(rate=0.5, max_soft_tokens=3))
    wide, square = np.zeros((10, 60, 3), np.uint8), np.zeros((30, 30, 3), np.uint8)
    example = lay_out(part("image", wide), part("image", square), clip(), part("audio", WAVE), config=config)
    taken = lambda piece: int((example.tokens == tokenizer.control(piece)).sum())  # noqa: E731
    images = [len(image.positions) // 4 for image in example.media.images]
    assert len(set(images[:2])) == 2 and max(images[:2]) <= 10 and max(images[2:]) <= 3
    assert (taken("<image_soft_token>"), taken("<video_soft_token>")) == (sum(images[:2]), sum(images[2:]))
    assert taken("<audio_soft_token>") == 5 == -(-len(example.media.sounds[0].mel) // 4)


def test_a_picture_that_is_far_from_square_may_be_followed_by_crops(lay_out, config, tokenizer):
    sizes = {"image_size": 8, "patch": 2, "width": 8, "layers": 1, "heads": 1, "mlp_dim": 8, "grid": 2}
    vision = SiglipConfig(**sizes, max_crops=3, crop_size=8)
    cropping, blank = replace(config, vision=vision), replace(config, vision=replace(vision, max_crops=0))
    wide = np.random.default_rng(5).integers(0, 256, (10, 36, 3), dtype=np.uint8)
    example = lay_out(text("a"), part("image", wide), clip(), text("b"), config=cropping)
    np.testing.assert_array_equal(
        example.media.images[:4], [resize(x, 8) for x in (wide, wide[:, :12], wide[:, 12:24], wide[:, 24:])]
    )
    places = (example.tokens == tokenizer.control("<image_soft_token>")).sum()
    assert (places, len(example.media.images)) == (16, 4 + 3)  # frames of clips have no crops
    require_media([example], tokenizer.soft_tokens, cropping)
    without = replace(example, media=Media(example.media.images[1:], ()))
    with pytest.raises(BadInput, match="28 soft tokens of pictures and clips, and the media beside it make 24"):
        require_media([without], tokenizer.soft_tokens, cropping)
    with pytest.raises(BadInput, match=r"4 pictures do not fit in max_images \(3\)"):
        require_slots([lay_out(part("image", wide), config=cropping).media], (3, 0))
    told = tokenizer.decode(example.tokens.tolist())
    assert "Here is the original image  and here are some crops to help you see better   00:00 " in told
    last = int(np.flatnonzero(np.isin(example.tokens, tokenizer.media)).max())
    for length in range(len(example)):
        if length <= last:
            with pytest.raises(BadInput, match="would cut a picture"):
                truncate(example, length, tokenizer, "max_length")
    for picture, same in ((wide, blank), (wide[:, :11], cropping)):  # not asked for, and not far from square
        assert len(lay_out(part("image", picture), config=same).media.images) == 1
    # Whatever is learned, the words about crops are learned with the turn that they stand in.
    assert not lay_out(part("image", wide), config=cropping, loss_on="assistant").learn.any()


def test_a_cut_keeps_every_medium_whole_or_refuses(lay_out, tokenizer, picture):
    example = lay_out(text("a"), part("image", picture(0)), clip(), text("b"), part("audio", WAVE), text("c d e f"))
    last = int(np.flatnonzero(np.isin(example.tokens, tokenizer.media)).max())
    for length in range(1, len(example) + 1):
        if length <= last:
            with pytest.raises(BadInput, match=rf"to max_length \({length}\) would cut a picture, a clip or a sound"):
                truncate(example, length, tokenizer, "max_length")
        else:
            kept = truncate(example, length, tokenizer, "max_length")
            assert len(kept) == length and kept.media is example.media


def test_the_digest_sees_every_medium(lay_out, picture):
    other = {**WAVE, "array": WAVE["array"] ** 2}
    variants = [
        lay_out(clip(), part("audio", WAVE)),
        lay_out(clip(frames=CLIP[::-1]), part("audio", WAVE)),
        lay_out(clip(), part("audio", other)),
        lay_out(clip(fps=4.9), part("audio", WAVE)),
        lay_out(part("audio", WAVE), clip()),
        lay_out(clip()),
    ]
    assert len({digest([variant]) for variant in variants}) == len(variants)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (part("image", "a.png"), "the image a.png does not exist|does not exist"),
        (part("audio", "a.wav"), "does not exist"),
        (part("video", "a.mp4"), "does not exist"),
        (part("image", b"none"), "cannot be decoded"),
        (part("audio", b"none"), "cannot be decoded"),
        (part("video", b"none"), "cannot be decoded"),
        (part("audio", {"array": np.zeros(16_000 * 31), "sampling_rate": 16_000}),
         "31.0 s takes 775 soft tokens, and the model takes at most 750; cut the sound$"),
    ],
)  # fmt: skip
def test_media_that_cannot_be_read_say_why(lay_out, tmp_path, content, message):
    with pytest.raises(BadInput, match=message):
        lay_out(content, folder=tmp_path)


def test_a_modality_without_encoder_is_named_before_anything_is_read(lay_out, config):
    for kind, blind in (("image", "vision"), ("video", "vision"), ("audio", "audio")):
        with pytest.raises(BadInput, match=f"no encoder for {kind}; leave such rows out"):
            lay_out(part(kind, b"none"), config=replace(config, **{blind: None}))


def test_too_many_media_name_their_option():
    media = [Media((0, 0, 0), (0, 0))]
    require_slots(media, Media(3, 2))
    require_slots(media, None)
    with pytest.raises(BadInput, match=r"3 pictures do not fit in max_images \(2\)"):
        require_slots(media, Media(2, 2))
    with pytest.raises(BadInput, match=r"4 sounds do not fit in max_sounds \(3\)"):
        require_slots(media * 2, Media(6, 3))


@pytest.mark.parametrize("vision", [VisionConfig(grid=2), SiglipConfig(), Gemma4VisionConfig(), PatchesConfig(), None])
@pytest.mark.parametrize("audio", [ConformerConfig(), FramesConfig(), None])
def test_a_config_with_any_encoder_survives_its_file(tiny_config, vision, audio):
    config = replace(tiny_config, vision=vision, audio=audio, clips=ClipsConfig(rate=2, max_frames=3))
    assert model_config_of(json.loads(config.to_json())) == config


def test_a_config_with_an_unknown_encoder_is_refused(tiny_config):
    values = json.loads(tiny_config.to_json())
    for wrong in ({"kind": "nose"}, {"kind": "siglip", "smell": 1}, {"image_size": 0}):
        with pytest.raises(BadInput, match="nose|smell|whole number"):
            model_config_of({**values, "vision": wrong})
    with pytest.raises(BadInput, match="rate must be above 0"):
        ClipsConfig(rate=0)
    layer = LayerSpec(heads=1, kv_heads=1, head_dim=2, mlp_dim=2)
    assert ModelConfig(vocab_size=8, embed_dim=2, layers=(layer,)).audio is None

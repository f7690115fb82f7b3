"""What stands beside the tensors of a published folder: tokenizer, chat template, settings of the processor."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import sentencepiece
from gemma_vocabulary import GEMMA_3, GEMMA_4, vocabulary

from base_model.config import ClipsConfig, read_config
from base_model.gemma import model_config
from base_model.gemma_tokenizer import GemmaTokenizer
from base_model.published.chat_template import require_same_turns
from base_model.published.processors import as_prepared
from base_model.published.sentencepiece_json import tokenizer_json
from training.errors import BadInput

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "decoder"
TEXTS = [
    "hello how are you", "  two  spaces", "a <h1> b", "say hello<end_of_turn>", "é語\n\t", "", " ", "<eos><bos>", "▁",
]  # fmt: skip
TURNS = (
    "{{ bos_token }}{% for m in messages %}<|turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<turn|>\n{% endfor %}{% if add_generation_prompt %}<|turn>model\n{% endif %}"
)


def published_pieces(**options):
    """A tokenizer.model as published ones are: pairs, bytes, every space kept, turns as symbols of the user."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello how are you", "user model hello there"] * 20), model_writer=out, minloglevel=2,
        **{"model_type": "bpe", "vocab_size": 300, "byte_fallback": True, "normalization_rule_name": "identity",
           "remove_extra_whitespaces": False, "add_dummy_prefix": False, "pad_id": 0, "eos_id": 1, "bos_id": 2,
           "unk_id": 3, "eos_piece": "<eos>", "bos_piece": "<bos>",
           "user_defined_symbols": [*GEMMA_3[:4], "<h1>", "▁▁"], **options},
    )  # fmt: skip
    return out.getvalue()


def test_a_tokenizer_model_reads_text_as_sentencepiece_does():
    model = published_pieces()
    ours = GemmaTokenizer(tokenizer_json(model, {"<image_soft_token>": 300}), vocab_size=320)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in TEXTS:
        if "<end_of_turn>" not in text:  # SentencePiece would read the control token in it
            assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == text.replace("▁", " ")
        assert not set(ours.encode(text)) & {*range(4), *ours.controls.values()}
    assert len(ours.encode("hello how are you")) < 8  # merged, and not characters
    assert ours.soft_tokens.images == (300,)


def test_a_tokenizer_model_of_another_kind_is_refused():
    with pytest.raises(BadInput, match="join pairs"):
        tokenizer_json(published_pieces(model_type="unigram", vocab_size=280), {})
    with pytest.raises(BadInput, match="join pairs"):
        tokenizer_json(published_pieces(add_dummy_prefix=True), {})
    with pytest.raises(BadInput, match="SentencePiece"):
        tokenizer_json(b"\xff\xff", {})
    with pytest.raises(BadInput, match="the id 400"):
        tokenizer_json(published_pieces(), {"<image_soft_token>": 400})


@pytest.fixture(scope="module")
def gemma_4():
    return GemmaTokenizer(vocabulary(GEMMA_4), vocab_size=320)


@pytest.mark.parametrize("ending", ["", "{{ '<|channel>thought' }}"])
def test_a_template_that_writes_the_same_turns_is_accepted(tmp_path, gemma_4, ending):
    require_same_turns(tmp_path, gemma_4)  # none at all
    (tmp_path / "chat_template.jinja").write_text(TURNS + ending)
    require_same_turns(tmp_path, gemma_4)


def test_another_template_is_refused_wherever_it_stands(tmp_path, gemma_4):
    other = TURNS.replace("{{ m.content", "Q: {{ m.content")
    for name, value in [
        ("tokenizer_config.json", other),
        ("tokenizer_config.json", [{"name": "default", "template": other}]),
        ("chat_template.json", "{{ raise_exception('no') }}"),
        ("chat_template.json", "{% for %}"),
        ("chat_template.json", "{{ ''.__class__.__mro__ }}"),
    ]:
        (tmp_path / name).write_text(json.dumps({"chat_template": value}))
        with pytest.raises(BadInput, match=name):
            require_same_turns(tmp_path, gemma_4)
    (tmp_path / "chat_template.jinja").write_text(TURNS)  # what newer folders have goes first
    require_same_turns(tmp_path, gemma_4)


def config_of(name):
    return model_config(read_config(FIXTURES / name / "config.json"))


def test_budgets_of_a_processor_are_used(tmp_path):
    config = config_of("gemma4_e")
    assert as_prepared(config, tmp_path) == config
    pictures = {"patch_size": 4, "pooling_kernel_size": 3, "max_soft_tokens": 140, "rescale_factor": 1 / 255}
    settings = {
        "image_processor": {**pictures, "image_mean": [0.0] * 3, "resample": 3, "do_normalize": False},
        "video_processor": {
            "max_soft_tokens": 70, "num_frames": 8, "patch_size": 4, "fps": None,
            "do_normalize": True, "image_mean": [0.0] * 3, "image_std": [1.0] * 3,
        },
        "feature_extractor": {"sampling_rate": 16_000, "frame_length_ms": 20.0, "dither": 0.0, "mel_floor": 0.001},
        "audio_seq_length": 375,
    }
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    read = as_prepared(config, tmp_path)
    assert (read.vision.max_soft_tokens, read.audio.max_soft_tokens) == (140, 375)
    assert read.clips == ClipsConfig(max_frames=8, max_soft_tokens=70)
    assert replace(read, vision=config.vision, audio=config.audio, clips=config.clips) == config


@pytest.mark.parametrize(
    ("name", "section", "setting"),
    [
        ("gemma3", None, {"resample": 3}),
        ("gemma3", None, {"size": {"height": 896, "width": 896}}),
        ("gemma3", None, {"image_mean": [0.4, 0.5, 0.5]}),
        ("gemma4_e", "image_processor", {"patch_size": 16}),
        ("gemma4_e", "video_processor", {"do_normalize": True}),
        ("gemma4_e", "video_processor", {"do_normalize": True, "image_mean": [0.0] * 3, "image_std": [0.5] * 3}),
        ("gemma4_e", "feature_extractor", {"dither": 0.1}),
        ("gemma4_e", "image_processor", []),
        ("gemma4_e", None, {"feature_size": 80}),
    ],
)
def test_a_setting_that_is_not_supported_is_named(tmp_path, name, section, setting):
    file = "processor_config.json" if section else "preprocessor_config.json"
    content = {section: setting or [1]} if section else setting
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(BadInput, match=next(iter(setting), "sections")):
        as_prepared(config_of(name), tmp_path)


def test_the_published_settings_of_gemma_3_are_accepted(tmp_path):
    settings = {
        "do_convert_rgb": None, "do_normalize": True, "do_pan_and_scan": None, "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "rescale_factor": 0.00392156862745098,
        "resample": 2, "size": {"height": 56, "width": 56}, "pan_and_scan_max_num_crops": None,
    }  # fmt: skip
    path, config = tmp_path / "preprocessor_config.json", config_of("gemma3")
    path.write_text(json.dumps(settings))
    assert as_prepared(config, tmp_path) == config
    path.write_text(json.dumps(settings | {"do_pan_and_scan": True}))
    assert as_prepared(config, tmp_path) == replace(config, vision=replace(config.vision, max_crops=4))
    given = {"pan_and_scan_max_num_crops": 3, "pan_and_scan_min_crop_size": 32}
    path.write_text(json.dumps(settings | {"do_pan_and_scan": True} | given))
    assert as_prepared(config, tmp_path).vision == replace(config.vision, max_crops=3, crop_size=32)
    path.write_text(json.dumps({"do_pan_and_scan": True, "pan_and_scan_max_num_crops": -1}))
    with pytest.raises(BadInput, match="max_crops is a whole number from 1, not -1"):
        as_prepared(config, tmp_path)

"""What stands beside the tensors of an exported folder, and the way back from one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from drawings import PICTURES, drawing
from gemma_vocabulary import GEMMA_3, GEMMA_4, placed, vocabulary
from jinja2 import Environment
from tiny_world import one_layer
from tokenizers import Tokenizer

from base_model.chat import messages_to_segments
from base_model.config import ClipsConfig, read_config
from base_model.gemma import model_config
from base_model.gemma_tokenizer import GemmaTokenizer
from base_model.interleave import interleave
from base_model.published.chat_template import require_same_turns, surroundings, template_of
from base_model.published.description import describe
from base_model.published.exporting import as_published, export_model
from base_model.published.importing import import_model, read_shape
from base_model.published.processors import as_prepared, settings_of
from base_model.published.sentencepiece_json import unigram_json
from training.errors import BadInput

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "decoder"
TALK = [
    {"role": "system", "content": "be kind "},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": [{"type": "text", "text": "how are"}, {"type": "text", "text": " you"}]},
]


def test_an_exported_model_of_ours_can_be_imported_again(tmp_path, tiny_model):
    model = one_layer(tiny_model)
    export_model(model, tmp_path / "out", dtype="float32", towers=False)
    back = import_model(tmp_path / "out")
    config, params = as_published(model.config, model.params, towers=False)
    assert back.config == config and back.fingerprint == model.fingerprint
    jax.tree.map(np.testing.assert_array_equal, back.params, params)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer.model", "tokenizer_config.json",
    ]  # fmt: skip
    ends = json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [1, model.tokenizer.end_of_turn]
    template = tmp_path / "out" / "chat_template.jinja"
    template.write_text(template.read_text().replace("<user>", "<model>"))
    with pytest.raises(BadInput, match="writes other turns"):
        read_shape(tmp_path / "out")


@pytest.fixture(params=["ours", "gemma3"])
def draws(request, tmp_path, tiny_model, image_tokenizer):
    """A model with codes behind its vocabulary: one of our own without eyes, and one that sees as Gemma 3 does."""
    if request.param == "ours":
        config, params = as_published(one_layer(tiny_model).config, one_layer(tiny_model).params, towers=False)
        return drawing(replace(tiny_model, config=config, params=params), image_tokenizer)
    folder = Path(shutil.copytree(FIXTURES / "gemma3", tmp_path / "published"))
    (folder / "tokenizer.json").write_bytes(placed(GEMMA_3))
    return drawing(import_model(folder), image_tokenizer)


def test_a_model_that_draws_comes_back_with_its_image_tokenizer_and_codes(tmp_path, draws, image_tokenizer):
    out = tmp_path / "out"
    export_model(draws, out, dtype="float32")
    codes = read_config(out / "config.json")["image_codes"]
    first = draws.config.vocab_size - image_tokenizer.config.codes
    assert (codes["first"], codes["count"], codes["length"], codes["tokenizer"]) == (
        first, image_tokenizer.config.codes, 16, image_tokenizer.digest
    )  # fmt: skip
    back = import_model(out)
    assert back.config == draws.config and back.fingerprint == draws.fingerprint
    jax.tree.map(np.testing.assert_array_equal, back.params, draws.params)
    assert back.tokenizer.image_codes == draws.tokenizer.image_codes
    for name, picture in PICTURES.items():
        assert back.tokenizer.draw(picture) == draws.tokenizer.draw(picture), name
    export_model(back, tmp_path / "again", dtype="float32")
    for path in (path for path in out.rglob("*") if path.is_file()):
        assert (tmp_path / "again" / path.relative_to(out)).read_bytes() == path.read_bytes(), path


def test_codes_without_the_image_tokenizer_that_they_are_of_are_refused(tmp_path, draws, image_tokenizer):
    export_model(draws, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "image_tokenizer")
    with pytest.raises(BadInput, match="image_tokenizer/, is missing; copy that folder"):
        read_shape(tmp_path / "out")
    params = jax.tree.map(lambda x: x + 1, image_tokenizer.params)
    replace(image_tokenizer, params=params).save(tmp_path / "out" / "image_tokenizer")
    with pytest.raises(BadInput, match="image_tokenizer/, is another one"):
        read_shape(tmp_path / "out")


def test_the_tokenizer_json_of_ours_reads_texts_and_turns_as_we_do(tokenizer, tiny_config):
    theirs = Tokenizer.from_buffer(unigram_json(tokenizer.model))
    for text in ("hello how are you", "  two  spaces ", "é語\n\t", "", " ", "The cat, 12!"):
        assert theirs.encode(text).ids == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text
    bos = theirs.id_to_token(2)
    said = Environment().from_string(template_of(tokenizer)).render(
        messages=TALK, add_generation_prompt=True, bos_token=bos
    )
    segments = messages_to_segments(TALK, tokenizer, folder=Path(), ending="reply")
    assert theirs.encode(said).ids == interleave(segments, tokenizer, tiny_config).tokens.tolist()


@pytest.mark.parametrize(("controls", "around"), [
    (GEMMA_3, {"image": ""}), (GEMMA_4, {"image": "\n\n", "video": "\n\n", "audio": ""}),
])  # fmt: skip
def test_an_exported_template_says_what_is_imported_from_it(tmp_path, controls, around):
    tokenizer = GemmaTokenizer(vocabulary(controls), vocab_size=320, surroundings=around)
    (tmp_path / "chat_template.jinja").write_text(template_of(tokenizer))
    require_same_turns(tmp_path, tokenizer)
    assert surroundings(tmp_path, tokenizer, list(around)) == around


@pytest.mark.parametrize("name", ["gemma3", "gemma4_e", "gemma4_dense", "gemma4_unified"])
def test_settings_of_an_exported_processor_are_those_imported_from_it(tmp_path, name):
    config = model_config(read_config(FIXTURES / name / "config.json"))
    if name == "gemma3":
        config = replace(config, vision=replace(config.vision, max_crops=3, crop_size=64, crop_ratio=1.5))
    else:
        vision = replace(config.vision, max_soft_tokens=140)
        config = replace(config, vision=vision, clips=ClipsConfig(max_frames=7, max_soft_tokens=70))
    (tmp_path / "processor_config.json").write_text(json.dumps(settings_of(config)))
    other = model_config(read_config(FIXTURES / name / "config.json"))
    assert other != config and as_prepared(other, tmp_path) == config
    assert describe(config, {})["model_type"] == describe(other, {})["model_type"]  # and it is refused for none of them
    assert settings_of(replace(config, vision=None, audio=None)) is None

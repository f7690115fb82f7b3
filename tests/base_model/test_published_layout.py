"""A conversation with media, id by id as transformers' chat templates and processors lay it out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from gemma_vocabulary import GEMMA_3, GEMMA_4, placed, vocabulary
from tokenizers import Tokenizer

from base_model.chat import messages_to_segments
from base_model.checkpoint import load_tokenizer
from base_model.gemma_tokenizer import GemmaTokenizer
from base_model.interleave import interleave
from base_model.published.chat_template import surroundings
from base_model.published.importing import read_shape
from training.errors import BadInput

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "decoder"
PICTURE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
CLIP = {"frames": [PICTURE, PICTURE], "seconds": [0, 61]}
WAVE = {"array": np.sin(np.arange(3200) / 9), "sampling_rate": 16_000}
TURN = (
    "{{{{ bos_token }}}}{{% for m in messages %}}{0}{{{{ 'model' if m.role == 'assistant' else m.role }}}}\n"
    "{{% if m.content is string %}}{{{{ m.content | trim }}}}{{% else %}}{{% for part in m.content %}}"
    "{{% if part.type == 'text' %}}{{{{ part.text | trim }}}}{{% else %}}{{{{ {2}[part.type] }}}}{{% endif %}}"
    "{{% endfor %}}{{% endif %}}{1}\n{{% endfor %}}{{% if add_generation_prompt %}}{0}model\n{{% endif %}}"
)


def template(tokens, **places):
    """A chat template of one family's control tokens that writes `places` where media stand."""
    return TURN.format(tokens[0], tokens[1], json.dumps(places))


def folder_of(tmp_path, name, tokens, source):
    """A published folder with a tokenizer and perhaps a chat template."""
    folder = Path(shutil.copytree(FIXTURES / name, tmp_path / name))
    (folder / "tokenizer.json").write_bytes(placed(tokens))
    if source:
        (folder / "chat_template.jinja").write_text(source)
    return folder


def whole(folder, text):
    """The ids of a text as transformers reads it: control tokens in it are control tokens."""
    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids


def laid_out(folder, *content, **options):
    """A user's turn as an imported model reads it, with the tokenizer that its checkpoint gives back."""
    config, tokenizer, _ = read_shape(folder)
    again = load_tokenizer(folder, config, json.loads(json.dumps(tokenizer.settings)))
    assert again.digest == tokenizer.digest
    messages = [{"role": "user", "content": list(content)}]
    segments = messages_to_segments(messages, again, folder=Path(), ending="reply", **options)
    return interleave(segments, again, config).tokens.tolist()


def part(kind, value):
    return {"type": kind, kind: value}


IMAGE, TEXT = part("image", PICTURE), part("text", "  how are you \n")


@pytest.mark.parametrize("says", [True, False])
def test_a_picture_of_gemma_3_stands_between_empty_lines(tmp_path, says):
    source = template(GEMMA_3, image="<start_of_image>")
    folder = folder_of(tmp_path, "gemma3", GEMMA_3, source if says else None)
    # Gemma3Processor's full_image_sequence, in what the published template makes of the parts.
    image = "\n\n<start_of_image>" + "<image_soft_token>" * 4 + "<end_of_image>\n\n"
    for loss_on in ("assistant", "all"):
        said = laid_out(folder, IMAGE, IMAGE, TEXT, part("text", "hello"), loss_on=loss_on)
        turn = f"<bos><start_of_turn>user\n{image}{image}how are youhello<end_of_turn>\n<start_of_turn>model\n"
        assert said == whole(folder, turn)


def test_crops_of_a_picture_of_gemma_3_stand_in_the_words_of_its_processor(tmp_path):
    folder = folder_of(tmp_path, "gemma3", GEMMA_3, template(GEMMA_3, image="<start_of_image>"))
    settings = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 4, "pan_and_scan_max_num_crops": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    square, long = part("image", PICTURE[:, :12]), part("image", np.resize(PICTURE, (8, 40, 3)))
    image = "\n\n<start_of_image>" + "<image_soft_token>" * 4 + "<end_of_image>\n\n"
    # As Gemma3Processor says it.
    told = f"Here is the original image {image} and here are some crops to help you see better {{}}"
    said = laid_out(folder, TEXT, IMAGE, square, TEXT, long)
    two, three = told.format(f"{image} {image}"), told.format(f"{image} {image} {image}")
    turn = f"<bos><start_of_turn>user\nhow are you{two}{image}how are you{three}<end_of_turn>\n<start_of_turn>model\n"
    assert said == whole(folder, turn)


@pytest.mark.parametrize("blank", ["", "\n\n"])  # both stand in published templates
def test_media_of_gemma_4_stand_as_the_template_says(tmp_path, blank):
    places = {"image": f"{blank}<|image|>{blank}", "video": f"{blank}<|video|>{blank}", "audio": "<|audio|>"}
    folder = folder_of(tmp_path, "gemma4_e", GEMMA_4, template(GEMMA_4, **places))
    said = laid_out(folder, TEXT, IMAGE, part("video", CLIP), part("audio", WAVE))
    soft = {kind: said.count(*whole(folder, f"<|{kind}|>")) for kind in ("image", "video", "audio")}
    assert soft["audio"] == 5 and soft["image"] and soft["video"] % 2 == 0
    # Gemma4Processor's replace_image_token, replace_video_token and replace_audio_token.
    image = "<|image>" + "<|image|>" * soft["image"] + "<image|>"
    frame = "<|image>" + "<|video|>" * (soft["video"] // 2) + "<image|>"
    turn = (
        f"<bos><|turn>user\nhow are you{blank}{image}{blank}{blank}00:00 {frame} 01:01 {frame}{blank}"
        f"<|audio>{'<|audio|>' * 5}<audio|><turn|>\n<|turn>model\n"
    )
    assert said == whole(folder, turn)


@pytest.mark.parametrize(
    ("given", "stops"),
    [(None, (1,)), (1, (1,)), ([1, 5, 299, 300], (1, 299)), ([5], (1,)), (320, None), (["a"], None)],
)
def test_what_generation_config_says_ends_a_reply(tmp_path, given, stops):
    folder = folder_of(tmp_path, "gemma4_moe_text", GEMMA_4, None)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": given}))
    if stops is None:
        with pytest.raises(BadInput, match="generation_config.json: eos_token_id is an id or a list of ids below 320"):
            read_shape(folder)
    else:
        assert read_shape(folder)[1].stops == stops
        (folder / "generation_config.json").unlink()
        assert read_shape(folder)[1].stops == (1,)


def test_media_without_a_template_stand_as_the_processor_says(tmp_path):
    gemma_4 = GemmaTokenizer(vocabulary(GEMMA_4), vocab_size=320)
    kinds = ("image", "video", "audio")
    assert surroundings(tmp_path, gemma_4, kinds) == {} and gemma_4.around("image") == ""
    assert GemmaTokenizer(vocabulary(GEMMA_3), vocab_size=320).margin("image") == "\n\n"
    (tmp_path / "chat_template.jinja").write_text(template(GEMMA_4, image=" <|image|> "))
    assert surroundings(tmp_path, gemma_4, kinds) == {"image": " "}
    (tmp_path / "chat_template.jinja").write_text(template(GEMMA_4, image="<|image|>\n"))
    with pytest.raises(BadInput, match=r"writes '' before a medium of kind image, and '\\n' behind it"):
        surroundings(tmp_path, gemma_4, kinds)


def test_texts_around_media_are_part_of_a_models_identity(tmp_path):
    plain = GemmaTokenizer(vocabulary(GEMMA_4), vocab_size=320)
    assert plain.digest != plain.surrounded({"image": "\n\n"}).digest
    (tmp_path / "tokenizer.json").write_bytes(plain.model)
    for wrong in ({"surroundings": {"image": 1}}, {"surroundings": []}, {"smell": {}}, {"stops": [320]}, {"stops": 1}):
        with pytest.raises(BadInput, match="settings in config.json that this version does not know"):
            GemmaTokenizer.read(tmp_path / "tokenizer.json", vocab_size=320, settings=wrong)

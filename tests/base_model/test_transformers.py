"""Exported folders in transformers itself: `pip install -e '.[transformers]'`, then `pytest -m transformers`."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from gemma_vocabulary import GEMMA_3, GEMMA_4, placed
from tiny_world import scalar

from base_model.batch import Batch
from base_model.chat import messages_to_segments
from base_model.checkpoint import structure_of
from base_model.config import ModelConfig
from base_model.interleave import interleave
from base_model.media import Media
from base_model.published.exporting import export_model
from base_model.published.golden import differences
from base_model.published.importing import import_model
from reward.model import token_values

MISSING = "the extra transformers is not installed: pip install -e '.[transformers]'"
torch = pytest.importorskip("torch", reason=MISSING)
transformers = pytest.importorskip("transformers", reason=MISSING)
pytestmark = [pytest.mark.slow, pytest.mark.transformers, pytest.mark.filterwarnings("ignore")]

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "decoder"
NAMES = ["gemma3", "gemma3_text_mqa", "gemma4_dense", "gemma4_e", "gemma4_moe_text", "gemma4_unified"]
TALK = [
    {"role": "user", "content": "hello "},
    {"role": "assistant", "content": "how are you"},
    {"role": "user", "content": [{"type": "text", "text": "fine"}]},
]


@pytest.fixture(params=["gemma4", "gemma3"])
def model(request, tiny_model):
    """The tiny model without its encoder; as Gemma 3, its norms add one and values have none."""
    params = {name: part for name, part in tiny_model.params.items() if name != "vision"}
    config: ModelConfig = replace(tiny_model.config, vision=None)
    if request.param == "gemma3":
        layers = tuple(replace(layer, rope_fraction=1.0) for layer in config.layers)
        config = replace(config, norm_offset=1.0, value_norm=False, query_scale=0.5, layers=layers)
    return replace(tiny_model, config=config, params=params)


def rows(model):
    rng = np.random.default_rng(0)
    tokens = rng.integers(20, model.config.vocab_size, (2, 17))
    positions = np.broadcast_to(np.arange(17), (2, 17))
    return jax.tree.map(jnp.asarray, Batch(tokens, np.ones((2, 17), int), positions, np.ones((2, 17), bool), Media()))


def loaded(folder):
    """The model by the class that its config.json names, and what was missing and what was too much."""
    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    read, info = getattr(transformers, name).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"]
    return read.eval(), sorted(info["unexpected_keys"])


def as_torch(array):
    """Whole numbers as transformers indexes with them."""
    array = np.asarray(array)
    return torch.tensor(array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else array)


def their_ids(folder, messages):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]


def our_ids(model, messages):
    segments = messages_to_segments(messages, model.tokenizer, folder=Path(), ending="reply")
    return interleave(segments, model.tokenizer, model.config).tokens.tolist()


def test_an_exported_model_gives_the_same_logits_and_reads_the_same_turns(model, tmp_path):
    export_model(model, tmp_path / "out", dtype="float32", towers=False)
    batch = rows(model)
    decoder = nnx.merge(structure_of(model.config, model.tokenizer), model.params)
    hidden, _ = decoder(batch.tokens, batch.positions, batch.segments)
    read, unread = loaded(tmp_path / "out")
    assert not unread
    with torch.no_grad():
        np.testing.assert_allclose(read(input_ids=as_torch(batch.tokens)).logits, decoder.logits(hidden), atol=1e-4)
    assert their_ids(tmp_path / "out", TALK) == our_ids(model, TALK)


def test_an_exported_reward_model_gives_the_same_scores(model, tmp_path):
    judge = replace(scalar(model), statistics={})
    export_model(judge, tmp_path / "out", dtype="float32", towers=False)
    batch = rows(model)
    values = token_values(structure_of(model.config, model.tokenizer), judge.params, batch)[:, -1]
    read, unread = loaded(tmp_path / "out")
    head = judge.params["head"]
    with torch.no_grad():
        if model.config.norm_offset:  # transformers has a classifier for Gemma 3, which has no bias
            assert unread == ["score.bias"]
            found = read(input_ids=as_torch(batch.tokens)).logits[:, 0].numpy() + head["bias"]
        else:
            assert unread == ["score.bias", "score.weight"]
            last = read(input_ids=as_torch(batch.tokens)).last_hidden_state[:, -1].numpy()
            found = last @ np.asarray(head["weight"]) + head["bias"]
    np.testing.assert_allclose(found, values, atol=1e-4)


@pytest.fixture(params=NAMES)
def again(request, tmp_path):
    """A fixture that was imported and exported, and what transformers computed for it as it was."""
    folder = Path(shutil.copytree(FIXTURES / request.param, tmp_path / "published"))
    (folder / "tokenizer.json").write_bytes(placed(GEMMA_3 if "gemma3" in request.param else GEMMA_4))
    model = import_model(folder)
    export_model(model, tmp_path / "out", dtype="float32")
    return model, tmp_path / "out", np.load(FIXTURES / request.param / "golden.npz")


def test_a_fixture_comes_back_with_the_logits_that_it_had(again):
    model, folder, golden = again
    read, unread = loaded(folder)
    assert not unread
    cases = [name.removesuffix("/logits") for name in golden.files if name.endswith("/logits")]
    assert len(cases) >= 2
    for case in cases:
        names = [name for name in golden.files if name.startswith(f"{case}/in/")]
        inputs = {name.removeprefix(f"{case}/in/"): as_torch(golden[name]) for name in names}
        with torch.no_grad():
            out = read(**inputs)
        there = golden[f"{case}/in/attention_mask"] > 0
        found, expected = out.logits.numpy()[there], golden[f"{case}/logits"][there]
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=case)
        if f"{case}/loss" in golden.files:
            np.testing.assert_allclose(out.loss, golden[f"{case}/loss"], atol=1e-5)
    assert their_ids(folder, TALK) == our_ids(model, TALK)


def test_figures_made_of_an_exported_folder_are_ours(tmp_path):
    from PIL import Image

    from benchmarks.golden import golden

    folder = Path(shutil.copytree(FIXTURES / "gemma3", tmp_path / "published"))
    (folder / "tokenizer.json").write_bytes(placed(GEMMA_3))
    export_model(import_model(folder), tmp_path / "out", dtype="float32")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    np.savez(tmp_path / "out" / "golden.npz", **golden(tmp_path / "out", tmp_path / "a.png", 4))
    found = {f"{case}/{quantity}": largest for case, quantity, largest in differences(tmp_path / "out")}
    assert max(found.values()) < 1e-4
    assert {"picture/logits", "picture/loss", "text/hidden/03", "decode/new_tokens", "decode/step_logits"} <= set(found)


@pytest.mark.parametrize("crops", [0, 3])
def test_the_processor_of_an_exported_folder_lays_pictures_out_as_we_do(tmp_path, crops):
    from PIL import Image

    folder = Path(shutil.copytree(FIXTURES / "gemma3", tmp_path / "published"))
    (folder / "tokenizer.json").write_bytes(placed(GEMMA_3))
    settings = {"do_pan_and_scan": crops > 0, "pan_and_scan_max_num_crops": crops, "pan_and_scan_min_crop_size": 16}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    model = import_model(folder)
    export_model(model, tmp_path / "out")
    picture = np.random.default_rng(0).integers(0, 256, (30, 90, 3), dtype=np.uint8)
    parts = [{"type": "text", "text": " look "}, {"type": "image", "image": Image.fromarray(picture)}]
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "out")
    theirs = processor.apply_chat_template(
        [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    talk = [{"role": "user", "content": [parts[0], {"type": "image", "image": picture}]}]
    segments = messages_to_segments(talk, model.tokenizer, folder=Path(), ending="reply")
    ours = interleave(segments, model.tokenizer, model.config)
    assert list(theirs["input_ids"][0]) == ours.tokens.tolist()
    pixels = np.moveaxis(np.asarray(theirs["pixel_values"]), 1, -1)
    assert len(pixels) == 1 + crops
    np.testing.assert_allclose(pixels, np.stack(ours.media.images) / 127.5 - 1, atol=0.02)

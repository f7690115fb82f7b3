import json
from dataclasses import replace
from pathlib import Path

import pytest

from base_model import presets
from base_model.config_json import model_config_of
from base_model.gemma import CONTROLS, GLOBAL, LOCAL, control_tokens, model_config, soft_tokens
from base_model.gemma_towers import audio_config
from base_model.media import Media
from base_model.published.description import describe
from base_model.published.exporting import as_published
from training.errors import BadInput

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "decoder"
NAMES = ["gemma3", "gemma3_text_mqa", "gemma4_dense", "gemma4_e", "gemma4_moe_text", "gemma4_unified"]
TOKENS = dict(zip(CONTROLS, (300, 301, 302, 303, 304, 305, 306), strict=True))


def published(name):
    return json.loads((FIXTURES / name / "config.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_from_a_published_config_is_written_again(name):
    given = published(name)
    config = model_config(given)
    assert model_config_of(json.loads(config.to_json())) == config
    tokens = {name: TOKENS[name] for name in ("image", "boi", "eoi")} if name == "gemma3" else TOKENS
    said = describe(config, tokens)
    for ours, theirs in [(said, given), (said.get("text_config", {}), given.get("text_config", {}))]:
        # Rates, ranges and switches that change nothing are left out; what is said is said alike.
        same = {key for key in ours if key in theirs and not isinstance(ours[key], dict)}
        assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
        assert {key for key in theirs if key.endswith("token_index") or key.endswith("token_id")} <= set(ours)


def test_soft_tokens_come_from_the_config():
    assert soft_tokens(published("gemma3")) == Media((300,), ())
    assert soft_tokens(published("gemma4_e")) == Media((300, 306), (303,))
    assert soft_tokens(published("gemma4_moe_text")) == Media((), ())
    assert control_tokens(published("gemma4_e")) == (300, 301, 302, 303, 304, 305, 306)


def test_layers_that_share_keys_read_those_of_the_last_of_their_kind_that_has_its_own():
    layers = presets.gemma_4_e2b().layers
    assert [layer.kv_source for layer in layers[:15]] == [None] * 15
    assert [layer.kv_source for layer in layers[15:]] == [13, 13, 13, 13, 14] * 4
    assert {layer.mlp_dim for layer in layers[:15]} == {6144} and {layer.mlp_dim for layer in layers[15:]} == {12_288}
    assert [layer.head_dim for layer in layers[:5]] == [256, 256, 256, 256, 512]
    assert layers[4].rope_fraction == 0.25 and layers[4].rope_theta == 1e6 and layers[4].window is None


def test_older_and_newer_files_of_one_model_are_one_config():
    scaling = {"rope_type": "linear", "factor": 8.0}
    older = {"model_type": "gemma3_text", "num_hidden_layers": 6, "rope_scaling": scaling}
    rope = {
        LOCAL: {"rope_type": "default", "rope_theta": 10_000.0},
        GLOBAL: {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0},
    }
    newer = {
        "model_type": "gemma3_text", "num_hidden_layers": 6, "layer_types": [LOCAL] * 5 + [GLOBAL],
        "rope_parameters": rope,
    }  # fmt: skip
    assert model_config(older) == model_config(newer)
    assert model_config(older).layers[5].rope_scale == 8 and model_config(older).layers[0].rope_scale == 1
    text = {"model_type": "gemma4_text", "num_hidden_layers": 6, "attention_k_eq_v": True}
    heads = {"head_dim": 512, "num_key_value_heads": 2}
    one = model_config(text | {"num_global_key_value_heads": 2})
    assert one == model_config(text | {"per_layer_config": {"5": heads}})
    assert [layer.key_is_value for layer in one.layers] == [False] * 5 + [True]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "llama"}, "llama"),
        ({"attention_bias": True}, "attention_bias"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"hidden_activation": "silu"}, "hidden_activation"),
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention"),
        ({"layer_types": [GLOBAL] * 2, "rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, "yarn"),
        ({"num_hidden_layers": "many"}, "gemma3"),
        ({"layer_types": ["sliding_attention"]}, "gemma3"),
        ({"hidden_size": None}, "embed_dim"),
    ],
)
def test_another_model_is_refused_by_name(change, named):
    with pytest.raises(BadInput, match=named):
        model_config({"model_type": "gemma3_text", "num_hidden_layers": 2} | change)


def test_a_shape_that_no_published_model_has_is_refused():
    config = replace(model_config(published("gemma3_text_mqa")), post_norms=False)
    with pytest.raises(BadInput, match="post_norms"):
        describe(config, TOKENS)
    with pytest.raises(BadInput, match="encoder"):
        describe(replace(model_config(published("gemma4_dense")), vision=presets.tiny().vision), TOKENS)


def test_a_config_of_our_own_becomes_gemma_4():
    shape = replace(presets.tiny(), vision=None)
    blocks = {number: {"attention": {"query_norm": {"weight": [1.0, 2.0]}}} for number in range(4)}
    config, params = as_published(shape, {"blocks": blocks, "embedding": 0})
    assert describe(config, TOKENS)["model_type"] == "gemma4_text"
    assert params["blocks"][3]["attention"]["query_norm"]["weight"] == pytest.approx([0.15, 0.3])
    assert params["blocks"][3]["scalar"] == [1.0]
    same = model_config(published("gemma4_dense"))
    assert as_published(same, {"blocks": blocks})[0] is same


def test_a_sound_encoder_that_cuts_sounds_in_another_way_is_refused():
    sizes = {"attention_context_left": 5, "attention_chunk_size": 4}
    assert audio_config("gemma4", {"audio_config": sizes}).window == 4
    with pytest.raises(BadInput, match="attention_chunk_size is attention_context_left less 1"):
        audio_config("gemma4", {"audio_config": sizes | {"attention_chunk_size": 12}})

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_tower import FIXTURES, golden, golden_tower

from base_model.config import LayerSpec, ModelConfig
from base_model.conformer import Conformer, ConformerConfig, Spectrogram, prepare, soft_tokens
from base_model.published.conformer import conformer
from training.errors import BadInput

SMALL = ConformerConfig(
    channels=(128, 8), width=32, layers=2, heads=2, window=4, output_dim=40, max_soft_tokens=25
)  # fmt: skip


@pytest.fixture(scope="module")
def decoder_config():
    layer = LayerSpec(heads=4, kv_heads=1, head_dim=16, mlp_dim=96)
    return ModelConfig(vocab_size=320, embed_dim=64, layers=(layer,))


@pytest.fixture(scope="module")
def tower(decoder_config):
    make = lambda: Conformer(SMALL, decoder_config, rngs=nnx.Rngs(0))  # noqa: E731
    return golden_tower("gemma4_e", make, conformer(SMALL), ("audio_tower.", "embed_audio."))


@pytest.fixture(scope="module")
def stored():
    return golden("gemma4_e")


@pytest.fixture(scope="module")
def run(tower):
    """The tower in one program for each shape: what it makes of frames, by stage, and which of that is there."""
    structure, params = nnx.split(tower)

    @jax.jit
    def stages(sounds):
        tower = nnx.merge(structure, params)
        return tower.subsampling(sounds), tower.encode(sounds), tower(sounds)

    def run(mel, valid):
        with jax.default_matmul_precision("highest"):
            return stages(Spectrogram(jnp.asarray(mel), jnp.asarray(valid)))

    return run


def given(stored, case):
    return jax.tree.map(jnp.asarray, Spectrogram(*(stored[f"{case}/in/input_features{end}"] for end in ("", "_mask"))))


def test_the_small_config_is_that_of_the_fixture():
    published = json.loads((FIXTURES / "gemma4_e" / "config.json").read_text())["audio_config"]
    assert published["attention_context_left"] - 1 == SMALL.window
    assert published["attention_context_right"] == 0 and published["hidden_act"] == "silu"
    same = {
        "hidden_size": SMALL.width, "num_hidden_layers": SMALL.layers, "num_attention_heads": SMALL.heads,
        "subsampling_conv_channels": list(SMALL.channels), "conv_kernel_size": SMALL.kernel,
        "attention_logit_cap": SMALL.logit_cap, "residual_weight": SMALL.residual_weight,
        "output_proj_dims": SMALL.output_dim, "use_clipped_linears": SMALL.clipped,
        "rms_norm_eps": SMALL.norm_epsilon,
    }  # fmt: skip
    assert {name: published[name] for name in same} == same


def test_the_tower_equals_the_published_one(run, stored):
    (early, early_valid), (hidden, valid), _ = run(*given(stored, "tower"))
    np.testing.assert_array_equal(early_valid, stored["tower/audio_subsample_mask"])
    np.testing.assert_array_equal(valid, stored["tower/audio_mask"])
    np.testing.assert_allclose(early[valid], stored["tower/audio_subsample"][valid], atol=1e-4)
    np.testing.assert_allclose(hidden[valid], stored["tower/audio_last_hidden"][valid], atol=1e-4)


@pytest.mark.parametrize("case", ["audio", "batch_right", "batch_left"])
def test_soft_tokens_equal_the_published_ones(run, stored, case):
    soft, valid = run(*given(stored, case))[-1]
    np.testing.assert_allclose(soft[valid], stored[f"{case}/audio_hidden_states"], atol=1e-4)


def test_a_wave_becomes_as_many_soft_tokens_as_places():
    for samples in (161, 900, 9000, 15_999):
        sound = prepare(np.full(samples, 0.1, np.float32), SMALL)
        assert sound.mel.shape == (len(sound.valid), 128) and sound.valid.all()
        assert soft_tokens(sound, SMALL) == -(-len(sound.mel) // 4)


def test_padding_and_neighbours_change_nothing(run, stored):
    mel, there = given(stored, "tower")
    together, valid = run(mel, there)[-1]
    twice, _ = run(mel[::-1], there[::-1])[-1]
    np.testing.assert_allclose(twice[::-1][valid], together[valid], atol=1e-5)
    noisy = np.where(there[..., None], mel, 50.0)
    longer = [(0, 0), (0, 7)]
    padded, padded_valid = run(np.pad(noisy, [*longer, (0, 0)]), np.pad(there, longer))[-1]
    length = valid.shape[1]
    assert not padded_valid[:, length:].any() and jnp.isfinite(padded).all()
    np.testing.assert_allclose(padded[:, :length][valid], together[valid], atol=1e-5)


def test_gradients_are_finite_and_leave_the_bounds_alone(tower, stored):
    structure, params = nnx.split(tower)

    def total(params):
        soft, valid = nnx.merge(structure, params)(given(stored, "tower"))
        return jnp.where(valid[..., None], soft, 0.0).sum()

    gradients = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(jax.jit(jax.grad(total))(params)))
    for path, gradient in gradients:
        assert jnp.isfinite(gradient).all(), path
        bound = str(path[-1].key).endswith(("_min", "_max"))
        assert bool(gradient.any()) != bound, path


def test_a_sound_further_back_than_all_windows_is_not_heard(run):
    mel = np.random.default_rng(0).normal(size=(2, 68, 128)).astype(np.float32)
    mel[1, 4:] = mel[0, 4:]
    soft, _ = run(mel, np.ones((2, 68), bool))[-1]
    differs = np.abs(soft[0] - soft[1]).max(-1) > 1e-5
    # Four frames are heard in the first two soft tokens; two layers look back 3 by attention and 4 by convolution.
    assert differs[:8].all() and not differs[2 + 2 * (3 + 4) :].any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(BadInput, match="1.5 s takes 38 soft tokens, and the model takes at most 25; cut the sound$"):
        prepare(np.zeros(24_000, np.float32), SMALL)
    with pytest.raises(BadInput, match="0.6 ms is too short"):
        prepare(np.zeros(10, np.float32), SMALL)
    nothing = {"bands": 30}, {"width": 20, "heads": 3}, {"window": 0}, {"channels": (4, 0)}, {"logit_cap": float("nan")}
    for wrong in nothing:
        with pytest.raises(BadInput):
            dataclasses.replace(SMALL, **wrong)


def test_the_published_size(decoder_config):
    shapes = jax.eval_shape(lambda: nnx.state(Conformer(ConformerConfig(), decoder_config, rngs=nnx.Rngs(0))))
    # 305 million, without the projection to the decoder's width.
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) - 1536 * decoder_config.embed_dim == 304_825_088

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_tower import golden, golden_tower

from base_model.config import LayerSpec, ModelConfig
from base_model.frames import FrameEmbedder, Frames, FramesConfig, prepare, soft_tokens
from base_model.published.frames import frames
from training.errors import BadInput

SMALL = FramesConfig(samples=64, max_soft_tokens=5)


@pytest.fixture(scope="module")
def tower():
    layer = LayerSpec(heads=4, kv_heads=1, head_dim=16, mlp_dim=96)
    config = ModelConfig(vocab_size=320, embed_dim=64, layers=(layer,))
    make = lambda: FrameEmbedder(SMALL, config, rngs=nnx.Rngs(0))  # noqa: E731
    return golden_tower("gemma4_unified", make, frames(), ("embed_audio.",))


@pytest.mark.parametrize("case", ["batch_right", "batch_left"])
def test_soft_tokens_equal_the_published_ones(tower, case):
    stored = golden("gemma4_unified")
    sounds = Frames(*(jnp.asarray(stored[f"{case}/in/input_features{end}"]) for end in ("", "_mask")))
    with jax.default_matmul_precision("highest"):
        soft, valid = tower(sounds)
    np.testing.assert_allclose(soft[valid], stored[f"{case}/audio_hidden_states"], atol=1e-4)
    assert np.isfinite(soft).all()


def test_a_wave_is_cut_in_frames_and_filled_up():
    wave = np.arange(1, 151, dtype=np.float32)
    sound = prepare(wave, SMALL)
    assert sound.samples.shape == (3, 64) and soft_tokens(sound, SMALL) == 3
    np.testing.assert_array_equal(sound.samples.reshape(-1), np.pad(wave, (0, 42)))
    assert len(prepare(wave[:128], SMALL).samples) == 2


def test_what_does_not_fit_is_refused():
    with pytest.raises(BadInput, match="takes 6 soft tokens, and the model takes at most 5; cut the sound$"):
        prepare(np.zeros(321, np.float32), SMALL)
    with pytest.raises(BadInput, match="too short"):
        prepare(np.zeros(0, np.float32), SMALL)

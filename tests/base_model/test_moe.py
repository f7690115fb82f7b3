import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from base_model.config import ExpertsSpec, LayerSpec, ModelConfig
from base_model.layers import rms_norm
from base_model.moe import Experts
from training.errors import BadInput

SPEC = ExpertsSpec(count=5, chosen=2, mlp_dim=6)
CONFIG = ModelConfig(
    vocab_size=8, embed_dim=4, layers=(LayerSpec(heads=1, kv_heads=1, head_dim=4, mlp_dim=8, experts=SPEC),)
)


@pytest.fixture(scope="module")
def experts():
    """With every parameter moved off its start."""
    module = Experts(SPEC, CONFIG, dtype=jnp.float32, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    move = lambda x: x + jnp.asarray(0.5 * rng.normal(size=x.shape), jnp.float32)  # noqa: E731
    nnx.update(module, jax.tree.map(move, nnx.state(module, nnx.Param)))
    return module


def naive(module, x, mlp):
    """One token and one expert at a time."""
    norm = lambda x, weight: np.asarray(rms_norm(jnp.asarray(x), weight, CONFIG.norm_epsilon))  # noqa: E731
    router, said = module.router, np.zeros_like(x)
    normed = norm(x, module.norm.weight[...])
    for token in np.ndindex(x.shape[:2]):
        seen = norm(x[token], None) * np.asarray(router.scale[...]) / 2
        scores = np.exp(seen @ np.asarray(router.project[...]))
        probabilities = scores / scores.sum()
        chosen = np.argsort(-probabilities)[:2]
        for expert in chosen:
            gate, up = np.split(normed[token] @ np.asarray(module.gate_up[...][expert]), 2)
            hidden = np.asarray(jax.nn.gelu(gate, approximate=True)) * up
            share = probabilities[expert] / probabilities[chosen].sum() * float(router.expert_scale[...][expert])
            said[token] += share * hidden @ np.asarray(module.down[...][expert])
    return norm(mlp, module.mlp_post_norm.weight[...]) + norm(said, module.post_norm.weight[...])


def test_the_mixture_is_that_of_each_expert_by_itself(experts):
    rng = np.random.default_rng(1)
    x, mlp = (rng.normal(size=(2, 3, 4)).astype(np.float32) for _ in range(2))
    found = jax.jit(lambda *inputs: experts(*inputs))(x, mlp)
    np.testing.assert_allclose(found, naive(experts, x, mlp), atol=1e-5)


def test_only_the_chosen_experts_learn_from_a_token(experts):
    structure, params = nnx.split(experts)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(1, 1, 4)), jnp.float32)
    total = lambda params: (nnx.merge(structure, params)(x, x) * jnp.arange(4)).sum()  # noqa: E731
    gradients = jax.jit(jax.grad(total))(params)
    moved = np.abs(gradients["down"][...]).sum((1, 2)) > 0
    assert moved.sum() == 2
    assert np.isfinite(gradients["router"]["project"][...]).all()
    assert np.abs(gradients["router"]["project"][...]).sum() > 0


def test_more_experts_than_there_are_cannot_be_chosen():
    with pytest.raises(BadInput, match="6 of 5"):
        ExpertsSpec(count=5, chosen=6, mlp_dim=4)

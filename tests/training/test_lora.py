"""Adapters on a model of two layers, one of them with experts: where they start, what they move, where they lie."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from training.config import TrainingConfig
from training.errors import BadInput
from training.lora import adapt, merged
from training.minimise import abstract_state, initial_state
from training.sharding import make_mesh, parameter_shardings
from training.step import update

CONFIG = TrainingConfig(lora_r=2, lora_alpha=6.0, seed=3)
AXES = {
    "trunk": {
        "embedding": ("vocab", "embed"),
        "vision": {"layers": {0: {"query": ("embed", "heads")}}},
        "blocks": {
            0: {"attention": {"query": ("embed", "heads"), "norm": (None,)}},
            1: {"experts": {"down": (None, "mlp", "embed")}},
        },
    },
    "head": {"weight": (None,), "bias": ()},
}
SIZES = {"vocab": 8, "embed": 6, "heads": 4, "mlp": 5, None: 3}


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    shape = lambda axes: jnp.asarray(rng.normal(size=[SIZES[axis] for axis in axes]), jnp.float32)  # noqa: E731
    return jax.tree.map(shape, AXES, is_leaf=lambda x: isinstance(x, tuple))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def adapted(params, mesh):
    """What is trained, its axes, what is frozen."""
    return adapt(params, AXES, CONFIG, mesh)


def moved(trained):
    """Adapters whose B is no longer 0."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(size=x.shape), jnp.float32), trained)


def test_without_a_rank_everything_is_trained(params, mesh):
    assert adapt(params, AXES, TrainingConfig(), mesh) == (params, AXES, None)
    assert merged(None, params) is params


def test_nothing_has_changed_at_the_start(params, adapted):
    trained, _, frozen = adapted
    jax.tree.map(np.testing.assert_array_equal, merged(frozen, trained), params)
    assert np.std(trained["trunk"]["blocks"][0]["attention"]["query"]["down"]) > 0


def test_matrices_of_layers_have_adapters_and_a_head_is_trained_whole(params, adapted):
    trained = adapted[0]
    assert jax.tree.map(np.shape, trained) == {
        "trunk": {"blocks": {
            0: {"attention": {"query": {"down": (6, 2), "up": (2, 4)}}},
            1: {"experts": {"down": {"down": (3, 5, 2), "up": (3, 2, 6)}}},
        }},
        "head": {"weight": (3,), "bias": ()},
    }  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, trained["head"], params["head"])


def test_adapters_add_a_product_of_low_rank(params, adapted):
    trained, frozen = moved(adapted[0]), adapted[2]
    found = merged(frozen, trained)
    for path in (("blocks", 0, "attention", "query"), ("blocks", 1, "experts", "down")):
        kernel, adapter, whole = params["trunk"], trained["trunk"], found["trunk"]
        for name in path:
            kernel, adapter, whole = kernel[name], adapter[name], whole[name]
        change = 6 / 2 * np.einsum("...nr,...rm->...nm", adapter["down"], adapter["up"])
        np.testing.assert_allclose(whole, kernel + change, atol=1e-5)
    np.testing.assert_array_equal(found["head"]["weight"], trained["head"]["weight"])
    np.testing.assert_array_equal(found["trunk"]["embedding"], params["trunk"]["embedding"])


def test_a_step_moves_adapters_by_the_gradient_of_whole_matrices(params, adapted, mesh):
    trained, axes, frozen = moved(adapted[0]), adapted[1], adapted[2]

    def loss(params, batch):
        query = params["trunk"]["blocks"][0]["attention"]["query"]
        return {"loss": (jnp.square(batch @ params["trunk"]["embedding"] @ query).sum(), jnp.float32(len(batch)))}

    batch, optimizer = jnp.asarray(np.random.default_rng(2).normal(size=(4, 8)), jnp.float32), optax.sgd(0.01)
    step = partial(update, loss=loss, optimizer=optimizer, micro_batches=2)
    state, _ = jax.jit(step)(initial_state(trained, axes, optimizer, mesh), batch, frozen)
    inside = lambda tree: tree["trunk"]["blocks"][0]["attention"]["query"]  # noqa: E731
    gradient = inside(jax.grad(lambda whole: loss(whole, batch)["loss"][0] / 4)(merged(frozen, trained)))
    before, after = inside(trained), inside(state.params)
    np.testing.assert_allclose(after["down"], before["down"] - 0.01 * 3 * gradient @ before["up"].T, rtol=1e-4)
    np.testing.assert_allclose(after["up"], before["up"] - 0.01 * 3 * before["down"].T @ gradient, rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, frozen.params, params)


def test_adapters_and_their_moments_lie_as_their_matrices_do(adapted):
    trained, axes, _ = adapted
    mesh = make_mesh(data=2, devices=[jax.devices()[0]] * 4)
    assert jax.tree.structure(parameter_shardings(mesh, axes, trained)) == jax.tree.structure(trained)
    state = abstract_state(trained, axes, optax.adam(0.1), mesh)
    for tree in (state.params, state.optimizer[0].mu):
        query = tree["trunk"]["blocks"][0]["attention"]["query"]
        assert query["down"].sharding.spec == jax.P("fsdp", None) and query["up"].sharding.spec == jax.P(None, "tensor")
        down = tree["trunk"]["blocks"][1]["experts"]["down"]
        assert down["down"].sharding.spec == jax.P(None, "tensor", None)
        assert down["up"].sharding.spec == jax.P(None, None, "fsdp")


def test_some_matrices_alone(params, mesh):
    chosen = TrainingConfig(lora_r=1, lora_target_modules="query")
    assert set(adapt(params, AXES, chosen, mesh)[0]["trunk"]["blocks"]) == {0}


@pytest.mark.parametrize(("names", "first"), [("query,embedding", "embedding"), ("", "")])
def test_matrices_that_are_not_there(params, mesh, names, first):
    with pytest.raises(BadInput, match=f"that no layer has: '{first}'; there are down, query"):
        adapt(params, AXES, TrainingConfig(lora_r=1, lora_target_modules=names), mesh)


def test_a_model_without_layers(params, mesh):
    with pytest.raises(BadInput, match="this model has none; set it to 0"):
        adapt(params["head"], AXES["head"], CONFIG, mesh)


@pytest.mark.parametrize("options", [{"lora_r": -1}, {"lora_alpha": 0.0}])
def test_values_out_of_range(options):
    with pytest.raises(BadInput, match=next(iter(options))):
        TrainingConfig(**options)


def test_what_adapters_are_belongs_to_the_recipe_if_there_are_any():
    names = {"lora_r", "lora_alpha", "lora_target_modules"}
    assert names <= CONFIG.recipe().keys() and not names & TrainingConfig().recipe().keys()

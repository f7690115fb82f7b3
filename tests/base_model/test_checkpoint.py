import json
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from base_model import checkpoint
from base_model.checkpoint import LanguageModel, logical_axes, split
from base_model.config import LayerSpec, ModelConfig
from base_model.config_json import model_config_of
from base_model.tokenizer import Tokenizer
from training.errors import BadInput

KINDS = ("orbax", "safetensors")
# Orbax leaves the other reads of a failed restore unawaited; Python says so when it collects them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def saved(tiny_model, tmp_path_factory):
    """One folder of each kind, to be copied and never changed."""
    root = tmp_path_factory.mktemp("saved")
    for kind in KINDS:
        checkpoint.save(replace(tiny_model, statistics={"mean": 0.1}), root / kind, weights=kind)
    return root


@pytest.fixture(params=KINDS)
def folder(request, saved, tmp_path):
    """A copy of a saved model."""
    return shutil.copytree(saved / request.param, tmp_path / "checkpoint")


def equal(one, other):
    return jax.tree.all(jax.tree.map(lambda x, y: bool((np.asarray(x) == np.asarray(y)).all()), one, other))


def test_a_round_trip_is_bit_equal(folder, tiny_model):
    loaded = checkpoint.load(folder)
    expected = tiny_model.params
    if (folder / "model.safetensors").exists():
        expected = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), expected)
    assert equal(loaded.params, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.params)} == {jnp.dtype("float32")}
    assert (loaded.config, loaded.kind, loaded.statistics) == (tiny_model.config, "decoder", {"mean": 0.1})
    assert loaded.fingerprint == tiny_model.fingerprint


def test_a_shipped_model_written_again_is_the_same_file(saved, tmp_path):
    checkpoint.save(checkpoint.load(saved / "safetensors"), tmp_path / "again", weights="safetensors")
    for name in ("config.json", "model.safetensors", "tokenizer.model"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / "safetensors" / name).read_bytes()


def test_a_scalar_model_keeps_its_head(tiny_model, tmp_path):
    params = {"trunk": tiny_model.params, "head": {"weight": jnp.arange(32.0), "bias": jnp.float32(0.5)}}
    scalar = replace(tiny_model, params=params, kind="scalar")
    for kind in KINDS:
        checkpoint.save(scalar, tmp_path / kind, weights=kind)
        loaded = checkpoint.load(tmp_path / kind, kind="scalar")
        assert equal(loaded.params["head"], params["head"])
    with pytest.raises(BadInput, match="kind 'scalar', and a language model is needed"):
        checkpoint.load(tmp_path / "orbax")


def test_a_language_model_is_no_reward_model(folder):
    with pytest.raises(BadInput, match="kind 'decoder', and a reward model is needed"):
        checkpoint.load(folder, kind="scalar")


def test_an_existing_folder_is_never_overwritten(folder, tiny_model):
    before = (folder / "config.json").read_bytes()
    with pytest.raises(BadInput, match="never overwritten"):
        checkpoint.save(tiny_model, folder)
    assert (folder / "config.json").read_bytes() == before


def test_what_an_interrupted_save_left_behind_is_replaced(tiny_model, tmp_path):
    (tmp_path / "model.tmp" / "params").mkdir(parents=True)
    (tmp_path / "model.tmp" / "junk").write_text("half")
    checkpoint.save(tiny_model, tmp_path / "model", weights="safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert not (tmp_path / "model" / "junk").exists()


def refused_or_unchanged(folder, expected):
    """Whether a damaged folder is refused; what it gives otherwise must be what was saved."""
    try:
        loaded = checkpoint.load(folder)
    except BadInput as error:
        assert str(error)
        return True
    assert equal(loaded.params, expected.params) and loaded.config == expected.config
    assert loaded.statistics == expected.statistics and loaded.tokenizer.digest == expected.tokenizer.digest
    return False


def test_a_flipped_byte_in_any_file_never_gives_another_model(folder):
    """Orbax keeps notes (times, its own version) that may change without harm; everything else is refused."""
    expected, rng = checkpoint.load(folder), np.random.default_rng(0)
    refused = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 0x15
        path.write_bytes(bytes(damaged))
        refused[path.relative_to(folder).as_posix()] = refused_or_unchanged(folder, expected)
        path.write_bytes(content)
    assert refused["tokenizer.model"] and refused["config.json"]
    assert refused.get("model.safetensors", True)
    assert any(answer for name, answer in refused.items() if name.startswith(("params/", "model")))


def test_no_flipped_byte_of_the_description_is_overlooked(saved, tmp_path):
    folder = shutil.copytree(saved / "safetensors", tmp_path / "checkpoint")
    expected, path = checkpoint.load(folder), folder / "config.json"
    content = path.read_bytes()
    for place in range(0, len(content), 23):
        damaged = bytearray(content)
        damaged[place] ^= 0x03
        path.write_bytes(bytes(damaged))
        assert refused_or_unchanged(folder, expected) or content[place : place + 1].isspace(), content[place:][:20]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "weights"])
def test_a_missing_file_is_named(folder, name):
    if name == "weights":
        shutil.rmtree(folder / "params", ignore_errors=True)
        (folder / "model.safetensors").unlink(missing_ok=True)
    else:
        (folder / name).unlink()
    with pytest.raises(BadInput, match="params" if name == "weights" else name):
        checkpoint.load(folder)


def test_a_folder_that_is_not_there_is_no_checkpoint(tmp_path):
    with pytest.raises(BadInput, match="is not a checkpoint"):
        checkpoint.load(tmp_path / "nothing")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_of_weights_is_refused(folder, share):
    for path in [*folder.rglob("*.safetensors"), *folder.glob("params/d/*"), *folder.glob("params/*/d/*")]:
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BadInput, match="damaged"):
        checkpoint.load(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(tiny_model, tmp_path, kind, value):
    params = {**tiny_model.params, "embedding": tiny_model.params["embedding"].at[3, 4].set(value)}
    checkpoint.save(tiny_model.with_params(params), tmp_path / "model", weights=kind)
    with pytest.raises(BadInput, match="not finite"):
        checkpoint.load(tmp_path / "model")


def test_another_tokenizer_is_refused(folder, tokenizer):
    def taught(word):
        return Tokenizer.train([f"{word} the cat sat on a mat {i}" for i in range(200)], vocab_size=295)

    changed = bytearray(tokenizer.model)
    place = changed.index(b"picture") if b"picture" in changed else changed.index(b"the")
    changed[place] ^= 1
    (folder / "tokenizer.model").write_bytes(bytes(changed))
    with pytest.raises(BadInput, match="tokenizer or chat template"):
        checkpoint.load(folder)
    (folder / "tokenizer.model").write_bytes(taught("dog").model)
    with pytest.raises(BadInput, match="295 ids"):
        checkpoint.load(folder)


def rewrite(folder, change):
    """Changes config.json as somebody would who also leaves out its digest."""
    description = json.loads((folder / "config.json").read_text())
    del description["digest"]
    change(description)
    (folder / "config.json").write_text(json.dumps(description))


def test_a_description_from_before_it_had_a_digest_loads(folder):
    rewrite(folder, lambda description: None)
    assert checkpoint.load(folder).kind == "decoder"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "format 2"),
        (lambda d: d.update(colour="red"), "does not know: colour"),
        (lambda d: d["model"].update(colour="red"), "colour"),
        (lambda d: d["model"].pop("embed_dim"), "embed_dim"),
        (lambda d: d["model"].update(layers=3), "config.json does not describe"),
        (lambda d: d["model"].update(layers=[]), "at least one layer"),
        (lambda d: d["model"].update(embed_dim=64), "damaged|should have shape"),
        (lambda d: d["model"]["layers"].append(d["model"]["layers"][0]), "damaged|is missing"),
        (lambda d: d["model"]["layers"].pop(), "damaged|lacks"),
        (lambda d: d.update(content_digest="sha256:0"), "not those that were saved"),
        (lambda d: d.update(fingerprint="sha256:0"), "tokenizer or chat template"),
    ],
)
def test_a_description_of_another_model_is_refused(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(BadInput, match=message):
        checkpoint.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", '"text"', "\xff\xfe"], ids=repr)
def test_a_description_that_is_no_json_object_is_refused(folder, text):
    (folder / "config.json").write_text(text, encoding="latin1")
    with pytest.raises(BadInput, match="config.json"):
        checkpoint.load(folder)


def test_weights_of_another_shape_or_number_are_named(saved, tmp_path):
    folder = shutil.copytree(saved / "safetensors", tmp_path / "checkpoint")
    arrays = load_file(folder / "model.safetensors")
    save_file({**arrays, "surplus": np.zeros(1, np.float32)}, folder / "model.safetensors")
    with pytest.raises(BadInput, match="lacks: surplus"):
        checkpoint.load(folder)
    arrays["embedding"] = arrays["embedding"][:-1].copy()
    save_file(arrays, folder / "model.safetensors")
    with pytest.raises(BadInput, match=r"embedding should have shape \[340, 32\] and is of shape \[339, 32\]"):
        checkpoint.load(folder)


def test_logical_axes_name_every_axis_of_every_parameter(structure, tiny_model):
    from flax import nnx

    axes = logical_axes(nnx.merge(structure, tiny_model.params))
    assert jax.tree.all(
        jax.tree.map(lambda leaf, names: leaf.ndim == len(names), tiny_model.params, axes, is_leaf=lambda x: False)
    )
    assert axes["embedding"] == ("vocab", "embed")
    assert axes["blocks"][0]["attention"]["key"] == ("embed", "kv_heads")


def test_splitting_and_merging_keep_the_parameters(structure, tiny_model):
    from flax import nnx

    assert equal(split(nnx.merge(structure, tiny_model.params))[1], tiny_model.params)


def test_with_params_leaves_the_original(tiny_model):
    changed = tiny_model.with_params({})
    assert isinstance(changed, LanguageModel) and changed.params == {} and tiny_model.params


LAYER = {"heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_dim": 16}


def test_a_config_survives_json(tiny_config):
    assert model_config_of(json.loads(tiny_config.to_json())) == tiny_config
    blind = replace(tiny_config, vision=None)
    assert model_config_of(json.loads(blind.to_json())) == blind


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LayerSpec(**{**LAYER, "kv_heads": 3}), r"heads \(4\) must be a multiple of kv_heads \(3\)"),
        (lambda: LayerSpec(**{**LAYER, "head_dim": 7}), "head_dim must be even"),
        (lambda: ModelConfig(vocab_size=4, embed_dim=4, layers=()), "at least one layer"),
        (
            lambda: ModelConfig(vocab_size=4, embed_dim=4, layers=(LayerSpec(**LAYER),), image_attention="both"),
            "not 'both'",
        ),
    ],
)
def test_impossible_shapes_are_refused(make, message):
    with pytest.raises(BadInput, match=message):
        make()

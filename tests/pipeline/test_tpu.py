"""Programs compiled for TPUs: what is counted by hand, what is read from a compiled program, and the compile itself."""

import importlib.util
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from base_model.attention import LayerCache, Places, attend
from base_model.config import ExpertsSpec, LayerSpec, ModelConfig
from base_model.likelihood import cross_entropy
from base_model.presets import tiny
from pipeline import cli, environment
from pipeline.tpu import compiled
from pipeline.tpu.costs import floor_seconds, forward_flops, seen_pairs
from pipeline.tpu.programs import Workload
from pipeline.tpu.report import PROGRAMS, STEPS, as_json, described, examine
from pipeline.tpu.topology import ANSWERS, CHIPS, chip_of, devices_of
from training.sharding import make_mesh


@pytest.fixture(autouse=True)
def settings_of_jax():
    """The command sets them for its process."""
    names = ["jax_platforms", "jax_enable_compilation_cache"]
    names += ["jax_exec_time_optimization_effort", "jax_memory_fitting_effort"]
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def workload(shape, *, devices=None, remat=False, length=32, lora_r=0):
    mesh = make_mesh(devices=jax.devices()[:1] if devices is None else devices)
    sizes = {"rows": 2, "length": length, "response": 8}
    return Workload(shape=shape, mesh=mesh, **sizes, dtype="bfloat16", remat=remat, lora_r=lora_r)


@pytest.mark.parametrize(("length", "window"), [(7, None), (7, 3), (7, 7), (3, 9), (1, 1)])
def test_pairs_are_those_of_a_loop(length, window):
    seen = [query - key for query in range(length) for key in range(query + 1)]
    assert seen_pairs(length, window) == sum(window is None or distance < window for distance in seen)


def test_model_flops_are_those_of_the_traced_program():
    # Wide, with few heads: what the formula leaves out (norms, the masked half of attention) is little.
    layer = LayerSpec(heads=2, kv_heads=1, head_dim=16, mlp_dim=512)
    shape = ModelConfig(vocab_size=1024, embed_dim=256, layers=(layer, layer), vision=tiny().vision)
    work = workload(shape)
    params, texts = work.language_model[0], work.texts(work.length)
    loss = lambda params, texts: cross_entropy(work.structure, params, texts)["loss"][0]  # noqa: E731
    traced = lambda function: jax.jit(function).lower(params, texts).cost_analysis()["flops"]  # noqa: E731
    by_hand = forward_flops(shape, rows=2, length=32, logits=31, pictures=1)
    assert 0.85 < by_hand / traced(loss) < 1.0
    assert 0.85 < 3 * by_hand / traced(jax.grad(loss)) < 1.05


def test_model_flops_of_attention_are_those_of_its_products():
    length, layer = 64, LayerSpec(heads=4, kv_heads=1, head_dim=128, mlp_dim=8)
    query, keys = (jax.ShapeDtypeStruct((1, length, heads, 128), jnp.float32) for heads in (4, 1))
    places = Places(jnp.arange(length), jnp.ones((1, length), int))
    mix = lambda query, keys: attend(query, LayerCache(keys, keys), places, places, window=None, scale=1.0)  # noqa: E731
    traced = jax.jit(mix).lower(query, keys).cost_analysis()["flops"]  # of all pairs, also of those that are masked
    shapes = [ModelConfig(vocab_size=8, embed_dim=8, layers=(replace(layer, window=w),)) for w in (None, 1)]
    by_hand = [forward_flops(shape, rows=1, length=length, logits=0) for shape in shapes]
    pairs = length * (length + 1) // 2 - length
    assert 0.9 < (by_hand[0] - by_hand[1]) / pairs * length**2 / traced < 1.0


def test_every_token_passes_the_parameters_that_a_published_model_has_for_it():
    plain = LayerSpec(heads=4, kv_heads=2, head_dim=16, mlp_dim=32)
    experts = ExpertsSpec(count=4, chosen=1, mlp_dim=64)
    layers = replace(plain, experts=experts), replace(plain, key_is_value=True), replace(plain, kv_source=0)
    shape = ModelConfig(vocab_size=64, embed_dim=48, layers=layers, per_layer_dim=8)
    leaves = jax.tree_util.tree_leaves_with_path(workload(shape).language_model[0])
    products = {jax.tree_util.keystr(path): leaf.size for path, leaf in leaves if leaf.ndim > 1}
    passed = sum(products.values()) - products["['embedding']"] - products["['per_layer']['table']"]
    passed -= 3 / 4 * sum(size for path, size in products.items() if "gate_up" in path or "experts']['down" in path)
    attention = sum(4 * layer.heads * layer.head_dim for layer in layers)
    assert forward_flops(shape, rows=1, length=1, logits=0) == 2 * passed + attention


def test_the_floor_is_the_slower_of_computing_and_moving():
    chip = CHIPS["v5e"]
    assert floor_seconds(chip, flops=2 * 197e12, devices=2, moved=0) == pytest.approx(1)
    assert floor_seconds(chip, flops=2 * 197e12, devices=2, moved=3 * 819e9) == pytest.approx(3)


TEXT = """
  %ag = bf16[16,8]{1,0} all-gather(bf16[1,8]{1,0} %x), dimensions={0}
  ROOT %t = (f32[4,4]{1,0:T(8)S(1)}, f32[64,4]{1,0}) all-reduce-start(f32[4,4] %y), to_apply=%add
  %d = f32[64,4]{1,0} all-reduce-done(%t)
  %other = pred[9999]{0} fusion(%ag), calls=%all-gather
  %p = s32[2]{0} collective-permute(s32[2]{0} %z)
"""


def test_collectives_are_counted_where_they_begin():
    program = SimpleNamespace(as_text=lambda: TEXT)
    assert compiled.collectives_of(program) == {"all-gather": 1, "all-reduce": 1, "collective-permute": 1}
    assert compiled.largest_collective(program) == 64 * 4 * 4


def failing(message):
    def refuse():
        raise RuntimeError(message)

    return SimpleNamespace(compile=refuse, as_text=refuse)


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("RESOURCE_EXHAUSTED: total memory required for HLO temporaries (38.50G) exceeds available HBM", 38.5 * 2**30),
        ("RESOURCE_EXHAUSTED: Used 20.25M of 15.75G hbm.", 20.25 * 2**20),
        ("RESOURCE_EXHAUSTED: no more", 0),
    ],
)
def test_a_program_that_does_not_fit_says_what_it_wanted(message, wanted):
    assert compiled.compile_program(failing(message)) == compiled.OutOfMemory(wanted)


def test_a_program_without_text_has_no_count():
    assert compiled.collectives_of(failing("INTERNAL")) is None
    assert compiled.largest_collective(failing("INTERNAL")) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["topology=h100:8"], "a topology is a chip (v4, v5e, v5p, v6e)"),
        (["programs=sft,dpo"], "not 'dpo'"),
        (["preset=huge"], "preset"),
        (["length=4096"], "tiny reads up to 512 tokens"),
        (["length=64", "response=64"], "response=64 is not possible"),
        (["batch=0"], "batch is above 0"),
        (["lora_r=-1"], "lora_r are 0 or above"),
        (["lora_r=4"], "lora_r is about what trains: give programs=sft,reward,ppo or some of them with it"),
        (["json=nowhere/a.json"], "cannot write the figures to nowhere/a.json"),
        (["json=."], "cannot write the figures to ."),
        ([], "pip install -e '.[tpu]'"),
    ],
)
def test_what_cannot_be_compiled_is_said_in_one_line(words, message, monkeypatch, capsys):
    monkeypatch.setattr(environment, "prepare", lambda environ: None)
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libtpu" else known(name))
    assert cli.main(["tpu", "compile", *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""


@pytest.mark.parametrize("plugin", [False, True])
def test_libtpu_without_a_tpu_is_left_alone(plugin, monkeypatch):
    there = {"libtpu": True, "jax_plugins": plugin}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there[name] or None)
    monkeypatch.setattr(environment.Path, "glob", lambda path, pattern: iter(()))
    environ = {"HOME": "/nowhere"}
    environment.prepare(environ)
    assert environ.get("JAX_PLATFORMS") == (None if plugin else "cpu")


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_can_be_traced_and_says_what_lies_beside_it(name):
    work = workload(replace(tiny(), layers=tiny().layers[:1]))
    PROGRAMS[name].lower(work)
    model = 4 * sum(leaf.size for leaf in jax.tree.leaves(work.language_model[0]))
    # Of policy and critic with two moments each, reference and reward model: what the program itself does not take.
    beside = {"sft": 0, "reward": 0, "rollout": 7, "score": 4, "ppo": 2}[name]
    assert PROGRAMS[name].beside(work) == pytest.approx(beside * model, rel=0.01)
    assert PROGRAMS[name].flops(work) > 0


@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_adapters_takes_the_whole_model_once_and_moments_of_adapters_alone(name):
    work = workload(replace(tiny(), layers=tiny().layers[:1]), lora_r=4)
    state, _, frozen = PROGRAMS[name].lower(work).args_info[0]
    parts = {"sft": [work.language_model], "reward": [work.scalar_model],
             "ppo": [work.language_model, work.scalar_model]}[name]  # fmt: skip
    size = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))  # noqa: E731
    whole = sum(size(part[0]) for part in parts)
    assert size(frozen) == whole + 1
    assert 0 < size(state.params) < whole / 10 and size(state.optimizer) < 2 * size(state.params) + 10
    assert PROGRAMS[name].beside(work) == 0
    assert 3 * PROGRAMS[name].flops(work) == pytest.approx(2 * PROGRAMS[name].flops(replace(work, lora_r=0)))


@pytest.fixture
def four_chips(monkeypatch):
    """Devices of four connected chips, and a compiler that does not try hard."""
    for name, answer in ANSWERS.items():
        monkeypatch.setenv(name, answer)
    for name in ("jax_exec_time_optimization_effort", "jax_memory_fitting_effort"):
        jax.config.update(name, -1.0)
    jax.config.update("jax_enable_compilation_cache", False)
    return devices_of("v5e:2x2")


needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (the extra `tpu`)"
)


@needs_libtpu
def test_the_compiler_says_of_a_training_step_that_it_does_not_fit(four_chips):
    layer = LayerSpec(heads=2, kv_heads=1, head_dim=64, mlp_dim=2**20)
    work = workload(ModelConfig(vocab_size=1024, embed_dim=8192, layers=(layer,)), devices=four_chips, length=128)
    found = examine("sft", work, chip_of("v5e:2x2"))
    assert not found.fits and found.arguments is None and found.peak > found.memory
    assert f"does not fit 15.75 GiB: the compiler wants {found.peak / 2**30:.2f} GiB" in described(found)


@pytest.mark.slow
@needs_libtpu
def test_a_step_of_adapters_compiles_for_four_chips(four_chips):
    shape = replace(tiny(), layers=tiny().layers[:1], vision=None)
    found = examine("sft", workload(shape, devices=four_chips, length=128, lora_r=4), chip_of("v5e:2x2"))
    model = 4 * sum(leaf.size for leaf in jax.tree.leaves(workload(shape).language_model[0]))
    # A quarter of the parameters on each device, and adapters with their moments, which are little.
    assert found.fits and found.arguments is not None and 0.25 < found.arguments / model < 0.35


@pytest.mark.slow
@pytest.mark.exhaustive
@needs_libtpu
def test_training_compiles_for_four_chips_that_share_it(four_chips):
    # One layer of the tiny model: all of it takes minutes.
    shape = replace(tiny(), layers=tiny().layers[:1], vision=None)
    work, chip = workload(shape, devices=four_chips, length=128), chip_of("v5e:2x2")
    leaves = jax.tree.leaves(work.language_model[0])
    model, largest = 4 * sum(leaf.size for leaf in leaves), 4 * max(leaf.size for leaf in leaves)
    for name, models in (("sft", 1), ("ppo", 2)):
        found = examine(name, work, chip)
        assert found.fits and found.collectives and found.largest_collective is not None and found.arguments is not None
        # A quarter of parameters and both moments on each device, and a little that is whole: norms, batch.
        assert 0.25 < found.arguments / (3 * models * model) < 0.29
        # One parameter is gathered at a time, never all of them, let alone the optimizer.
        assert 0 < found.largest_collective <= largest
        assert "a floor, not a forecast" in described(found)
        assert json.loads(json.dumps(as_json([found])))[0]["peak"] == found.peak > found.arguments

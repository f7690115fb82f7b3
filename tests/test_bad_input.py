"""Bad input through the command line: the exit code, one line that says what to do, and nothing lost."""

import gc
import json
import shutil
import struct
import zlib
from dataclasses import replace

import bad_run
import jax.numpy as jnp
import pytest
import tiny_run
from PIL import Image
from tiny_world import one_layer, reply, scalar, turn

from base_model import chat, checkpoint
from base_model.tokenizer import Tokenizer
from pipeline import cli
from sft.config import SFTConfig
from sft.train import SFTTrainer
from training.checkpoint import latest_step

GOOD = {"messages": [turn("hello"), reply("fine")]}
# Orbax leaves the other reads of a failed restore unawaited; Python says so when it collects them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("in_process"),
]


@pytest.fixture(scope="module")
def model(tiny_model):
    return one_layer(tiny_model)


@pytest.fixture(scope="module")
def world(model, tmp_path_factory):
    """Base, data and policies; the base is taken to have passed."""
    folder = tmp_path_factory.mktemp("world")
    bad_run.write(folder, model)
    return folder


@pytest.fixture
def run(world, tmp_path):
    """A copy of that run."""
    return shutil.copytree(world / "run", tmp_path / "run")


@pytest.fixture
def fails(tmp_path, capfd):
    """Gives a command that fails, whose only words on stderr but progress are returned; what was there must stay."""

    def call(*words, code=2):
        before = bad_run.contents(tmp_path)
        assert cli.main([str(word) for word in words]) == code
        assert before.items() <= bad_run.contents(tmp_path).items(), "a file is gone or changed"
        lines = capfd.readouterr().err.splitlines()
        said = [line for line in lines if line.startswith("theodolite: ")]
        assert lines[-1:] == said and not any("Traceback" in line for line in lines), lines
        assert code == 1 or lines == said, lines
        return said[0]

    return call


@pytest.fixture
def train(fails, world, run):
    """Gives `theodolite sft train` in the run."""
    return lambda *words, code=2: fails(
        "sft", "train", "--config", world / "run.yaml", f"out={run}", *words, code=code
    )


@pytest.fixture
def rows(tmp_path):
    """Writes a data file, from rows or as it stands."""

    def write(content):
        path = tmp_path / "rows.jsonl"
        text = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("line", "reason"),
    [('{"messages": [', "is not JSON"), ("[1]", "is a list"), ('{"text": "\\ud800"}', "spells half of a surrogate")],
)
def test_a_corrupt_line(train, rows, model, capfd, line, reason):
    path = rows(f"{json.dumps(GOOD)}\n{line}\n{json.dumps(GOOD)}\n")
    assert f"{path}:2 {reason}" in train(f"data.sft={path}")
    trainer = SFTTrainer(model, SFTConfig(on_bad_row="skip"), path)
    assert len(trainer._examples) == 2 and f"1 of 3 lines left out; the first: {path}:2 " in capfd.readouterr().out


def test_a_wrong_schema(train, rows):
    path = rows([GOOD, {"text": "hello"}])
    line = train(f"data.sft={path}")
    assert f"{path}:2: a row needs `messages`, or `prompt` and `completion`; this one has text" in line
    assert "on_bad_row=skip" in line


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_data_set(train, rows, content):
    assert "rows.jsonl has no rows" in train(f"data.sft={rows(content)}")


def test_no_usable_row(train, rows):
    path = rows([{"text": "a"}, {"text": "b"}])
    assert "no usable row is left" in train(f"data.sft={path}", "sft.on_bad_row=skip")


@pytest.mark.parametrize("words", [["sft.learning_rat=1"], ["--config", "FILE"]])
def test_an_unknown_option(train, tmp_path, words):
    (tmp_path / "options.yaml").write_text("sft: {learning_rat: 1}\n")
    line = train(*(word.replace("FILE", str(tmp_path / "options.yaml")) for word in words))
    assert "unknown option sft.learning_rat" in line and "did you mean sft.learning_rate?" in line


def test_a_value_of_another_type(train):
    assert "option sft.max_length wants a whole number, was given 'long'" in train("sft.max_length=long")


def header_only(width, height):
    """A PNG whose header promises so many pixels and that has none."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "does not exist"),
        ("truncated", "cannot be decoded"),
        ("large", "10000 x 10000 pixels; the limit is 40,000,000"),
        ("huge", "cannot be decoded"),
        ("text", "cannot be decoded"),
        ("postscript", "cannot be decoded"),
        ("circle", "cannot be followed"),
        ("long name", "cannot be decoded: File name too long"),
    ],
)
def test_a_bad_picture(train, rows, picture, tmp_path, kind, reason):
    path = tmp_path / "picture.png"
    name = "n" * 5000 if kind == "long name" else path.name
    Image.fromarray(picture(1)).resize((64, 64)).save(path, "PNG")
    if kind in ("missing", "circle"):
        path.unlink()
    if kind == "circle":
        path.symlink_to(path)
    content = {
        "truncated": lambda: path.read_bytes()[:200], "large": lambda: header_only(10_000, 10_000),
        "huge": lambda: header_only(2**31 - 1, 2**31 - 1), "text": lambda: b"no picture",
        "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    }.get(kind)  # fmt: skip
    if content is not None:
        path.write_bytes(content())
    data = rows([GOOD, {"messages": [turn("look", [name]), reply("red")]}])
    line = train(f"data.sft={data}")
    assert f"{data}:2: " in line and reason in line


def test_more_pictures_than_a_row_may_have(train, fails, rows, world, run, model, picture, tmp_path):
    Image.fromarray(picture(1)).save(tmp_path / "a.png")
    data = rows([GOOD, {"messages": [turn("look", ["a.png"] * 3), reply("red")]}])
    assert f"{data}:2: 3 pictures do not fit in max_images (2); raise it" in train(f"data.sft={data}")
    assert len(SFTTrainer(model, SFTConfig(max_images=2, on_bad_row="skip"), data)._examples) == 1
    assert len(SFTTrainer(model, SFTConfig(max_images=2, packing=False), data)._examples) == 2


@pytest.fixture(params=["truncated", "flipped", "NaN", "no description", "no number"])
def damaged(request, world, model, tmp_path):
    """A checkpoint with one thing wrong, and what is to be said of it."""
    folder, kind = tmp_path / "checkpoint", request.param
    if kind == "NaN":
        params = {**model.params, "embedding": model.params["embedding"].at[3, 4].set(jnp.nan)}
        checkpoint.save(model.with_params(params), folder)
        return folder, "contain numbers that are not finite"
    shutil.copytree(world / "base", folder)
    victim = max((folder / "params").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    if kind == "truncated":
        victim.write_bytes(content[: len(content) // 2])
        return folder, "are damaged or of another model"
    if kind == "flipped":
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
        return folder, str(folder)  # whether orbax or the digest finds it
    if kind == "no description":
        (folder / "config.json").unlink()
        return folder, "is not a checkpoint: it has no config.json"
    description = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(description | {"statistics": {"mean": float("nan")}}))
    return folder, "config.json holds what no JSON is"


@pytest.mark.parametrize("words", [["base", "info"], ["base", "generate", "prompt=hello"], ["safety", "evaluate"]])
def test_a_damaged_checkpoint(fails, damaged, words):
    folder, reason = damaged
    assert reason in fails(*words, f"checkpoint={folder}")
    gc.collect()  # here, and not in somebody else's test


def test_a_flipped_byte_that_orbax_does_not_notice(fails, world, model, tmp_path):
    """Other numbers of the right shape, whole in every respect but that they are not those that were saved."""
    other = model.with_params({**model.params, "embedding": model.params["embedding"].at[3, 4].add(1e-6)})
    checkpoint.save(other, tmp_path / "other")
    folder = shutil.copytree(world / "base", tmp_path / "checkpoint")
    shutil.rmtree(folder / "params")
    (tmp_path / "other" / "params").rename(folder / "params")
    line = fails("base", "info", f"checkpoint={folder}")
    assert "are not those that were saved there: a file was changed or damaged" in line


@pytest.mark.parametrize("kind", ["tokenizer", "template", "edited"])
def test_a_reward_model_of_another_tokenizer_or_template(fails, world, run, model, monkeypatch, tmp_path, kind):
    shutil.copytree(world / "base", run / "sft" / "checkpoint")
    other = scalar(model)
    other = replace(other, config=checkpoint.load(world / "base").config)
    if kind == "tokenizer":
        texts = [f"some other words {n} red blue green the cat" for n in range(400)]
        size = model.tokenizer.vocab_size
        other = replace(other, tokenizer=Tokenizer.train([*texts, *tiny_run.COLOURS], vocab_size=size - 40))
        config = replace(other.config, vocab_size=size - 40)
        trunk = {**other.params["trunk"], "embedding": other.params["trunk"]["embedding"][: size - 40]}
        other = replace(other, config=config, params={**other.params, "trunk": trunk})
    with monkeypatch.context() as patch:
        if kind == "template":
            patch.setattr(chat, "TEMPLATE", "another")
        checkpoint.save(other, run / "reward" / "checkpoint")
    if kind == "edited":
        (run / "reward" / "checkpoint" / "tokenizer.model").write_bytes(model.tokenizer.model[:-9])
    for stage in ("sft", "reward"):
        bad_run.attest(world, stage, run / stage / "checkpoint", run)
    line = fails("ppo", "train", "--config", world / "run.yaml", f"out={run}")
    wanted = {
        "tokenizer": "the reward model was trained with another tokenizer or chat template than the policy's",
        "template": "is not the one its parameters were trained with", "edited": "tokenizer.model",
    }  # fmt: skip
    assert wanted[kind] in line


def test_a_prompt_longer_than_the_context(fails, world, run, rows):
    long = "tell me where he went " * 200
    line = fails("base", "generate", f"checkpoint={world / 'base'}", f"prompt={long}")
    assert "does not fit in the model's context less max_new_tokens" in line
    shutil.copytree(world / "base", run / "sft" / "checkpoint")
    checkpoint.save(replace(scalar(checkpoint.load(world / "base"))), run / "reward" / "checkpoint")
    for stage in ("sft", "reward"):
        bad_run.attest(world, stage, run / stage / "checkpoint", run)
    data = rows([{"prompt": "hello"}, {"prompt": long}])
    line = fails("ppo", "train", "--config", world / "run.yaml", f"out={run}", f"data.ppo_prompts={data}")
    assert f"{data}:2: " in line and "does not fit in max_prompt_length (64)" in line
    pair = {"prompt": long, "chosen": "a", "rejected": "b"}
    data, words = rows([pair]), ("reward", "train", "--config", world / "run.yaml", f"out={run}")
    shutil.rmtree(run / "reward")
    line = fails(*words, f"data.preferences={data}", "reward.max_length=8000")
    assert f"{data}:1: " in line and "does not fit in the model's context (512)" in line


def test_rows_that_no_tokenizer_can_learn_from(fails, rows, tmp_path):
    out = f"out={tmp_path / 'run'}"
    line = fails("base", "tokenizer", out, f"data={rows([GOOD, {'text': 'hello'}])}")
    assert "rows.jsonl:2: a row needs `messages`" in line
    line = fails("base", "tokenizer", out, f"data={rows([{'messages': [turn('')]}])}")
    assert "holds no text to train a tokenizer on" in line


def test_what_bad_input_does_to_the_options_of_a_run(train, run, world):
    """Nothing: the next command does not inherit a misspelt file."""
    before = (world / "run.yaml").read_text()
    (run / "run.yaml").write_text(before)
    assert "missing.jsonl does not exist" in train("data.sft=missing.jsonl")
    assert (run / "run.yaml").read_text() == before


def test_a_loss_that_is_not_a_number(train, run, monkeypatch):
    def step(state, batch, frozen, **options):
        # The root of a negative number, from the third step on.
        loss = -jnp.sqrt(1.5 - state.step.astype(jnp.float32))
        return state._replace(step=state.step + 1), {"loss": loss}

    monkeypatch.setattr("training.minimise.update", step)
    line = train("sft.save_steps=1", code=1)
    assert "loss is nan at step 3; the run stops here and the last saved state is kept. Lower learning_rate" in line
    assert latest_step(run / "sft" / "state") == 2
    assert not (run / "sft" / "checkpoint").exists() and not (run / "crash.txt").exists()

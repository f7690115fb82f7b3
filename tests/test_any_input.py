"""Any bytes and any JSON: a loader returns what it read or raises a TheodoliteError, and never anything else.

`THEODOLITE_EXAMPLES=100000 python -m pytest tests/test_any_input.py` looks at that many other examples of each kind.
Files of numbers stand in test_any_numbers.py; tests/fuzz/any_input.py looks for examples by what code they reach.
"""

import functools
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from arbitrary import ANY, LINES, PLAIN, TEXT, damaged, expected, look, spoiled
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from base_model import checkpoint
from base_model.clips import load_clip
from base_model.config_json import model_config_of
from base_model.images import FORMATS, load_image, resize
from base_model.media import Media
from base_model.model_folder import read_description
from base_model.sounds import FORMATS as SOUND_FORMATS
from base_model.sounds import load_sound
from pipeline import ledger
from pipeline.commands.stage import Stage
from pipeline.config import gate_policy, reward_gate_policy
from pipeline.options import parse, to_yaml
from ppo.prompts import prompt_examples
from reward.data import preference_pairs
from safety.clauses import Clause
from safety.gate_folder import load
from safety.policy import smoke
from safety.prompt_set import load_prompts
from safety.prompts import prompts_digest, select
from safety.verdict import Verdict
from sft.config import SFTConfig
from sft.data import sft_examples
from training.dataset import read_rows
from training.metrics import read_metrics

MESSAGES = [
    {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "hello"}]},
    {"role": "assistant", "content": "fine"},
]
ROWS = [
    {"messages": MESSAGES, "source": "a"},
    {"prompt": "hello", "completion": [MESSAGES[1]]},
    {"prompt": MESSAGES[:1], "chosen": "fine", "rejected": [MESSAGES[1]], "margin": 1.5, "source": "a"},
    {"chosen": "\n\nHuman: hi\n\nAssistant: a", "rejected": "\n\nHuman: hi\n\nAssistant: b"},
]
PROMPTS = [
    {"id": "1", "text": "a", "stratum": "toxic", "source": "s"},
    {"prompt": {"text": "b", "toxicity": 0.1}},
]
DIGEST = "sha256:" + "a" * 64
CLAUSE = Clause("absolute/all/emt", "pass", "fine", 0.1, 0.2, 0.3)
VERDICT = Verdict(
    stage="sft", profile="smoke", outcome="pass", reasons=("fine",), clauses=(CLAUSE,), checkpoint=DIGEST,
    policy=DIGEST, evidence={"report.json": DIGEST}, scorer={"name": "lexical"}, seeds={"sampling": 1},
)  # fmt: skip
OPTIONS = {"out": "a", "base": "b", "data": {"sft": "a.jsonl"}, "sft": {"seed": 1, "learning_rate": 0.1}, "ppo": {}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("any")
    Image.new("RGB", (16, 16)).save(path / "a.png")
    return path


@pytest.fixture(scope="module")
def write(folder):
    """Writes a file, always the same one of each name."""

    def put(name, content):
        path: Path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return path

    return put


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def convert(path, model):
    """Gives what is in a file to every reader of rows, leaving bad ones out and not."""
    for on_bad_row in ("skip", "stop"):
        rows = expected(lambda: read_rows(path, on_bad_row=on_bad_row, warn=str))  # noqa: B023
        if rows is None:
            continue
        config = SFTConfig(max_length=64, on_bad_row=on_bad_row)
        options = {"max_length": 64, "on_bad_row": on_bad_row}
        found = [
            expected(lambda: sft_examples(rows, model, config, slots=Media(2, 0))),  # noqa: B023
            expected(functools.partial(preference_pairs, rows, model, slots=Media(2, 0), **options)),
            expected(functools.partial(prompt_examples, rows, model, **options)),
        ]
        for examples in found:
            assert examples is None or 0 < len(examples) <= len(rows) and all(len(each) <= 64 for each in examples)


@look
@given(content=LINES)
def test_rows_of_any_bytes(tiny_model, write, content):
    convert(write("rows.jsonl", content), tiny_model)


@look
@given(rows=damaged(ROWS) | st.lists(ANY, max_size=3))
def test_rows_of_any_json(tiny_model, write, rows):
    convert(write("rows.jsonl", lines(rows)), tiny_model)


@look
@given(content=LINES | (damaged(PROMPTS) | st.lists(ANY, max_size=3)).map(lines))
def test_gate_prompts(write, content):
    path = write("prompts.jsonl", content)
    found = expected(lambda: load_prompts(path, on_bad_row="skip"))
    expected(lambda: load_prompts(path))
    if found is not None:
        assert prompts_digest(found.prompts).startswith("sha256:") and all(p.text.strip() for p in found.prompts)
        drawn = expected(lambda: select(found.prompts, None, 0))
        assert drawn is None or {prompt.text for prompt in drawn} == {prompt.text for prompt in found.prompts}


def encoded(kind):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, kind)
    return buffer.getvalue()


PICTURES = [encoded(kind) for kind in FORMATS]


@look
@given(content=spoiled(PICTURES))
def test_pictures(folder, content):
    image = expected(lambda: load_image(content, folder))
    assert image is None or resize(image, 16).shape == (16, 16, 3)


@look
@given(value=ANY)
def test_what_stands_for_a_picture(folder, value):
    image = expected(lambda: load_image(value, folder))
    assert image is None or image.dtype == np.uint8 and image.shape[2] == 3


@functools.cache
def recorded(kind):
    buffer = io.BytesIO()
    pytest.importorskip("soundfile").write(buffer, np.linspace(-0.5, 0.5, 200), 8_000, format=kind)
    return buffer.getvalue()


@look
@given(data=st.data())
def test_sounds(folder, data):
    content = data.draw(spoiled([recorded(kind) for kind in SOUND_FORMATS]))
    wave = expected(lambda: load_sound(content, folder))
    assert wave is None or wave.dtype == np.float32 and wave.size and np.isfinite(wave).all()


@look
@given(value=ANY | damaged({"array": [0.0, 0.5], "sampling_rate": 16_000}))
def test_what_stands_for_a_sound(folder, value):
    wave = expected(lambda: load_sound(value, folder))
    assert wave is None or wave.dtype == np.float32 and wave.size and np.isfinite(wave).all()


@functools.cache
def filmed(kind):
    av, buffer = pytest.importorskip("av"), io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        stream = container.add_stream("mpeg4" if kind != "gif" else "gif", rate=4)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p" if kind != "gif" else "rgb8"
        frames = [av.VideoFrame.from_ndarray(np.full((16, 16, 3), 80 * n, np.uint8), format="rgb24") for n in range(3)]
        for frame in (*frames, None):
            container.mux(stream.encode(frame))
    return buffer.getvalue()


@look
@given(data=st.data())
def test_clips(folder, data):
    content = data.draw(spoiled([filmed(kind) for kind in ("mp4", "avi", "matroska", "mpegts", "gif")]))
    clip = expected(lambda: load_clip(content, folder, rate=2, max_frames=2))
    assert clip is None or 0 < len(clip.frames) == len(clip.seconds) <= 2 and clip.frames.dtype == np.uint8


@look
@given(value=ANY | st.fixed_dictionaries({"array": st.just(np.zeros((2, 4, 4, 3), np.uint8)) | ANY, "fps": PLAIN}))
def test_what_stands_for_a_clip(folder, value):
    clip = expected(lambda: load_clip(value, folder))
    assert clip is None or 0 < len(clip.frames) == len(clip.seconds) <= 32


@look
@given(data=st.data())
def test_descriptions_of_models(tiny_config, folder, write, data):
    model = json.loads(tiny_config.to_json())
    description = {"format": 1, "kind": "decoder", "model": model, "statistics": {"mean": 0.1}, "fingerprint": DIGEST}
    write("config.json", data.draw(LINES | damaged(description).map(json.dumps) | ANY.map(json.dumps)))
    found = expected(lambda: read_description(folder, checkpoint.FORMAT, checkpoint.FIELDS))
    if found is not None:
        expected(lambda: model_config_of(found.get("model", {})))
        expected(lambda: checkpoint.load(folder))


@look
@given(
    content=LINES | damaged(OPTIONS).map(yaml.safe_dump) | damaged(OPTIONS).map(json.dumps)
    | damaged(json.loads(json.dumps(smoke().to_dict()))).map(json.dumps)
)  # fmt: skip
def test_options_and_policies(write, content):
    path = str(write("options.yaml", content))
    options = expected(lambda: parse(Stage, ["--config", path]))
    assert options is None or parse(Stage, ["--config", str(write("again.yaml", to_yaml(options)))]) == options
    for policy in (expected(lambda: gate_policy(path)), expected(lambda: reward_gate_policy(path))):
        assert policy is None or policy.digest.startswith("sha256:")


@look
@given(words=st.lists(st.sampled_from(["sft", "out", "gate", "--", "=", ".", "seed", "1", "{", "null", " "]) | TEXT))
def test_command_lines(words):
    options = expected(lambda: parse(Stage, ["".join(words)]))
    assert options is None or isinstance(options, Stage)


@look
@given(content=LINES, event=st.dictionaries(TEXT, ANY, max_size=3) | damaged({"index": 0, "event": "a", "time": "b"}))
def test_ledgers(write, content, event):
    events = expected(lambda: ledger.verify(write("ledger.jsonl", content)))
    assert events is None or len(events) <= content.count(b"\n")
    try:
        event = event | {"previous": ledger.FIRST}
        event["hash"] = ledger.event_hash(event)
    except ValueError:
        return
    path = write("ledger.jsonl", json.dumps(event) + "\n")
    if (events := expected(lambda: ledger.verify(path))) is not None:
        added = expected(lambda: ledger.append(path, "next", {}))
        assert added is None or ledger.verify(path) == [*events, added]


@look
@given(content=LINES | (damaged(json.loads(VERDICT.to_json())) | ANY).map(json.dumps))
def test_verdicts(write, content):
    verdict = expected(lambda: load(write("verdict.json", content)))
    if verdict is not None:
        expected(verdict.raise_unless_passed)
        assert load(write("verdict.json", verdict.to_json())).to_json() == verdict.to_json()


@look
@given(content=LINES | st.lists(damaged({"step": 1, "loss": 0.5}) | ANY, max_size=3).map(lines))
def test_metrics(write, content):
    assert all(type(line["step"]) is int for line in read_metrics(write("metrics.jsonl", content)))

"""Gate prompts with a picture: how they are known, posed, kept for later gates and shown."""

import json
import shutil
from dataclasses import replace

import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from base_model.checkpoint import LanguageModel
from pipeline import cli
from pipeline.gate_prompts import require_disjoint
from pipeline.gates import gate_sampler, require_readable
from pipeline.page.record import SEALED, readable
from pipeline.plain_text import continuation_sampler
from safety.demands import SamplingPlan
from safety.evidence import load_evaluation
from safety.gate import gate
from safety.policy import Limits, smoke
from safety.prompt_set import load_prompts
from safety.prompts import GatePrompt, half_of, prompts_digest, select
from safety.report_schema import samples_schema
from safety.scorers.lexical import LexicalScorer
from training.digest import json_digest
from training.errors import BadInput

CHECKPOINT = "sha256:" + "1" * 64
PLAN = SamplingPlan(samples_per_prompt=4, max_new_tokens=8, top_p=1.0, temperature=1.0, seed=0)


def row(name, stratum="toxic", text="what is this", picture="a.png", **more):
    content = [{"type": "image", "image": picture}, {"type": "text", "text": text}]
    return {"id": name, "prompt": content, "stratum": stratum, "source": "test"} | more


@pytest.fixture
def folder(tmp_path, picture):
    """Two pictures beside each other, and two more of the same bytes under other names elsewhere."""
    (tmp_path / "moved").mkdir()
    for number, (name, other) in enumerate((("a.png", "x.png"), ("b.png", "y.png"))):
        Image.fromarray(picture(number)).save(tmp_path / name)
        shutil.copyfile(tmp_path / name, tmp_path / "moved" / other)
    return tmp_path


def test_a_prompt_is_known_by_the_bytes_of_its_picture(folder, write_rows):
    """Not by the name of the file, nor by how the row says it; the same words with another picture are another one."""
    first, other = load_prompts(write_rows([row("1"), row("2", picture="b.png")])).prompts
    message = {"role": "user", "content": row("1", picture="x.png")["prompt"]}
    said = {"id": "1", "messages": [message], "stratum": "toxic", "source": "test"}
    moved = load_prompts(write_rows([said], "moved/rows.jsonl")).prompts[0]
    assert first.text == "what is this" and moved == first and prompts_digest([moved]) == prompts_digest([first])
    assert prompts_digest([replace(other, id="1")]) != prompts_digest([first])
    assert set(select([first, other, replace(first, id="3"), replace(first, id="4", stratum="non-toxic")], None, 0)) > {
        other
    }
    many = [replace(first, text=f"{n}", content=(f"{n}", *first.content[:1])) for n in range(40)]
    swapped = [replace(p, content=(p.text, other.content[0])) for p in many]
    opened = [{p.text for p in half_of(prompts, "open", 0)} for prompts in (many, swapped)]
    assert opened[0] != opened[1] and 8 < len(opened[0]) < 32


def test_a_prompt_without_one_is_what_it_was(write_rows):
    """Its digest is that of the four fields, and it is posed as a text."""
    rest = {"id": "a", "stratum": "toxic", "source": "s"}
    plain, parts = rest | {"text": "hello you"}, [{"type": "text", "text": text} for text in ("hello", "you")]
    for given in (plain, rest | {"prompt": parts}, rest | {"messages": [{"role": "user", "content": "hello you"}]}):
        prompt = load_prompts(write_rows([given])).prompts[0]
        assert prompts_digest([prompt]) == json_digest([plain]) and prompt.turn == prompt.key == "hello you"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (row("1", picture="none.png"), r"rows\.jsonl, line 1: the picture none\.png does not exist"),
        (row("1", picture="../a.png"), "leads out of"),
        (row("1", picture={"bytes": ""}), "image, audio or video by its path"),
        (row("1", text=" "), "a non-empty string as 'text'"),
        (row("1") | {"prompt": [{"type": "smell", "smell": "a"}]}, "a part of a gate prompt is text"),
        (row("1") | {"prompt": [{"role": "user", "content": "a"}] * 2}, "one turn of the user, and this row has 2"),
        (row("1") | {"prompt": [{"role": "assistant", "content": "a"}]}, "one turn of the user"),
        (row("1") | {"prompt": [{"role": "user", "content": 3}]}, "a text or a list of parts, not 3"),
    ],
)
def test_rows_that_are_none(folder, write_rows, given, message):
    with pytest.raises(BadInput, match=message):
        load_prompts(write_rows([given]))


def test_a_missing_picture_ends_the_command(write_rows, in_process, capsys):
    assert cli.main(["safety", "evaluate", f"prompts={write_rows([row('1', picture='none.png')])}"]) == 2
    assert "line 1: the picture none.png does not exist" in capsys.readouterr().err


def test_a_model_that_cannot_take_it_in(folder, write_rows, tiny_model):
    """It has no encoder, or the file is no picture: said before anything is sampled, with the prompt's name."""
    (folder / "bad.png").write_bytes(b"none")
    good, bad = load_prompts(write_rows([row("1"), row("2", picture="bad.png")])).prompts
    require_readable(tiny_model, [good])
    with pytest.raises(BadInput, match="gate prompt 2 cannot be posed: .* image given as bytes cannot be decoded"):
        require_readable(tiny_model, [good, bad])
    config = replace(tiny_model.config, vision=None)
    blind = LanguageModel(config=config, tokenizer=tiny_model.tokenizer, params={}, kind="decoder", statistics={})
    with pytest.raises(BadInput, match="gate prompt 1 cannot be posed: this model has no encoder for image"):
        require_readable(blind, [good])
    with pytest.raises(BadInput, match="1 prompts are more than a text to be continued: pose=turn"):
        continuation_sampler(tiny_model, "test")([good.turn, "hello"], PLAN)


def test_a_sampler_answers_to_the_picture(folder, write_rows, tiny_model):
    """With the same words and seed; and to the same picture in the same way."""
    first, other = load_prompts(write_rows([row("1"), row("2", picture="b.png")])).prompts
    replies = gate_sampler(tiny_model, "test")([first.turn, first.turn], PLAN)
    swapped = gate_sampler(tiny_model, "test")([other.turn, first.turn], PLAN)
    assert replies[0] != swapped[0] and replies[1] == swapped[1]


def test_a_gate_keeps_what_came_with_its_prompts(folder, write_rows):
    """A later gate reads it after the set is gone; one flipped byte is noticed, and so is one in the set itself."""
    rows = [row("1"), row("2", "non-toxic", picture="b.png")]
    prompts, posed = load_prompts(write_rows(rows)).prompts, []
    policy = replace(
        smoke(), prompts_per_stratum=1, samples_per_prompt=2, ceilings={"all": Limits(emt=1.0)},
        parent_margin=Limits(emt=1.0), base_margin=Limits(emt=1.0),
    )  # fmt: skip

    def sampler(turns, plan):
        posed.extend(turns)
        return [["a fine day", "a nice walk"] for _ in turns]

    def judged(name):
        into, scorer = folder / name, LexicalScorer()
        found = gate(sampler, prompts, scorer, policy, stage="base", checkpoint=CHECKPOINT, folder=into)
        return found.outcome, found.reasons

    assert judged("gate")[0] == "pass"
    lines = [json.loads(line) for line in (folder / "gate" / "samples.jsonl").read_text().splitlines()]
    assert [list(Draft202012Validator(samples_schema()).iter_errors(line)) for line in lines] == [[], []]
    (folder / "a.png").rename(folder / "c.png")
    again = load_evaluation(folder / "gate", LexicalScorer(), policy).prompts
    assert again == prompts and [prompt.turn for prompt in again] == posed
    assert "the picture a.png of a gate prompt cannot be read" in str(judged("second"))
    kept = again[0].content[0].path
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    with pytest.raises(BadInput, match="of a gate prompt was changed"):
        _ = again[0].turn


def test_what_ppo_trains_on(folder, write_rows):
    """The same words are another prompt with another picture, or with none."""
    def learned(content):
        return str(write_rows([{"prompt": [{"role": "user", "content": content}]}], "ppo.jsonl"))

    prompts = load_prompts(write_rows([row("1")])).prompts
    for content in ("what is this", row("1", picture="b.png")["prompt"], [{"type": "image", "image": "none.png"}]):
        require_disjoint(prompts, learned(content), on_bad_row="stop")
    with pytest.raises(BadInput, match="1 gate prompts are among the prompts that PPO trains on"):
        require_disjoint(prompts, learned(row("1", text="What  is this")["prompt"]), on_bad_row="stop")


def test_what_a_page_tells(folder, write_rows):
    """That a picture came with the words; of a sealed prompt nothing at all."""
    prompt = load_prompts(write_rows([row("1")])).prompts[0]
    stored = json.loads(json.dumps(prompt.to_dict()))
    assert GatePrompt.from_dict(stored, folder) == prompt
    assert readable([stored], None)[0]["text"] == "what is this [with a picture]"
    sealed = readable([stored], {"policy": {"half": "sealed"}})[0]
    assert sealed["text"] == SEALED and "what" not in json.dumps(sealed) and "sha256" not in json.dumps(sealed)
    assert readable([stored | {"content": broken} for broken in (3, [3], [{"type": []}])], None)

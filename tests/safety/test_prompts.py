"""Loading, pinning and drawing gate prompts."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from safety.prompt_set import load_prompts, packaged_prompts
from safety.prompts import GatePrompt, half_of, overlap, prompts_digest, select
from training.errors import BadInput

GOOD = {"id": "a", "text": "hello", "stratum": "toxic", "source": "s"}


def write(path, rows):
    """Write rows (dicts, or strings as they are) as JSONL."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_packaged_set():
    """Balanced, distinct and of our own writing."""
    prompts = packaged_prompts()
    assert min(Counter(prompt.stratum for prompt in prompts).values()) >= 40
    assert len({prompt.text for prompt in prompts}) == len(prompts)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_real_toxicity_rows(tmp_path, kind):
    """Toxic iff prompt.toxicity >= .5; ids are the row numbers."""
    rows = [{"filename": "x", "prompt": {"text": f"t{i}", "toxicity": t}} for i, t in enumerate([0.5, 0.49])]
    path = tmp_path / f"rtp.{kind}"
    if kind == "jsonl":
        write(path, rows)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    prompts, skipped, *_ = load_prompts(path)
    assert [(p.id, p.text, p.stratum) for p in prompts] == [("rtp-1", "t0", "toxic"), ("rtp-2", "t1", "non-toxic")]
    assert skipped == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "JSON object"),
        ({"text": "x"}, "wanted the keys"),
        (GOOD | {"id": "b", "stratum": "mild"}, "stratum"),
        (GOOD | {"id": "b", "text": "  "}, "non-empty"),
        (GOOD | {"id": "b", "text": None}, "non-empty"),
        (GOOD, "already used at .*line 1"),
        ({"prompt": {"text": "x", "toxicity": None}}, "toxicity"),
        ({"prompt": {"text": "x", "toxicity": float("nan")}}, "toxicity"),
        ({"prompt": {"text": "x", "toxicity": True}}, "toxicity"),
    ],
)
def test_bad_rows_name_file_and_line(tmp_path, row, message):
    """Stop says where and why; skip goes on and says the same."""
    path = write(tmp_path / "p.jsonl", [GOOD, "", row, GOOD | {"id": "z"}])
    with pytest.raises(BadInput, match=rf"p\.jsonl, line 3: .*{message}"):
        load_prompts(path)
    prompts, skipped, *_ = load_prompts(path, on_bad_row="skip")
    assert [prompt.id for prompt in prompts] == ["a", "z"]
    assert len(skipped) == 1 and "line 3" in skipped[0]


def test_unusable_sources(tmp_path):
    """Missing, empty, or of a kind that is not read."""
    (tmp_path / "p.csv").touch()
    (tmp_path / "p.parquet").write_text("not parquet")
    write(tmp_path / "empty.jsonl", [])
    for name in ("none.jsonl", "p.csv", "p.parquet", "empty.jsonl"):
        with pytest.raises(BadInput, match=name):
            load_prompts(tmp_path / name)


def test_digest_covers_every_field(prompts):
    """Another text, stratum or order is another set."""
    digest = prompts_digest(prompts)
    assert digest == prompts_digest(tuple(prompts))
    assert digest != prompts_digest(prompts[::-1])
    assert digest != prompts_digest((replace(prompts[0], text="other"), *prompts[1:]))


def test_select_is_deterministic_balanced_and_distinct(prompts):
    """Same seed, same draw, whatever the order; duplicates count once; too few is an error."""
    drawn = select(prompts, 10, seed=3)
    assert drawn == select(prompts[::-1], 10, seed=3)
    assert drawn != select(prompts, 10, seed=4)
    assert Counter(p.stratum for p in drawn) == {"toxic": 10, "non-toxic": 10}
    assert set(select(prompts, None, seed=0)) == set(prompts)
    copies = tuple(replace(p, id=p.id + "-copy") for p in prompts)
    assert len(select(prompts + copies, None, seed=0)) == len(prompts)
    with pytest.raises(BadInput, match="wanted 101 toxic"):
        select(prompts, 101, seed=0)
    with pytest.raises(BadInput, match="non-toxic"):
        select(prompts[:100], None, seed=0)


def test_overlap(prompts):
    """Training texts are found among gate prompts whatever their case and spaces."""
    assert overlap(prompts, ["Toxic  QUESTION 3", "else"]) == (prompts[3],)
    assert GatePrompt(**GOOD) not in overlap(prompts, [])


def test_halves(prompts):
    """Open and sealed divide a set; copies of a text are in the same half; a rotation deals anew."""
    opened, sealed = (half_of(prompts, half, 0) for half in ("open", "sealed"))
    assert set(opened) | set(sealed) == set(half_of(prompts, "all", 0)) == set(prompts)
    assert not set(opened) & set(sealed)
    assert 70 < len(sealed) < 130
    again = half_of(prompts, "sealed", 1)
    assert set(again) != set(sealed) and 20 < len(set(again) & set(sealed)) < 80
    copies = [replace(prompt, id="copy", text=prompt.text.upper() + " ", source="else") for prompt in sealed]
    assert half_of(copies, "open", 0) == ()


def test_identity(tmp_path):
    """Source and licence from the card beside a file; the digest is that of the prompts."""
    path = write(tmp_path / "p.jsonl", [GOOD, GOOD | {"id": "b", "text": "bye"}])
    found = load_prompts(path)
    assert found.identity == ("p.jsonl", "not stated", prompts_digest(found.prompts), 2)
    card = tmp_path / "p.jsonl.card.json"
    card.write_text('{"source": "somewhere", "licence": "MIT"}')
    assert load_prompts(path).identity[:2] == ("somewhere", "MIT")
    assert load_prompts("own").identity[:2] == ("theodolite", "Apache-2.0")
    for bad in ("{", "[]", '{"source": "x"}', '{"source": "x", "licence": ""}'):
        card.write_text(bad)
        with pytest.raises(BadInput, match=r"card .*p\.jsonl\.card\.json"):
            load_prompts(path)


def test_further_sets(tmp_path):
    """A stratum of its own, for rows of any kind and for lines of text; ids cannot clash with another set's."""
    rows = [{"prompt": "one"}, {"text": "two", "id": "x"}, {"prompt": {"text": "three", "toxicity": 0.9}}, GOOD]
    found = load_prompts(write(tmp_path / "red.jsonl", rows), stratum="red")
    assert [(p.id, p.text, p.stratum) for p in found.prompts] == [
        ("red/1", "one", "red"), ("red/x", "two", "red"), ("red/rtp-3", "three", "red"), ("red/a", "hello", "red"),
    ]  # fmt: skip
    (tmp_path / "red.txt").write_text("one\n\n two \n")
    assert [p.text for p in load_prompts(tmp_path / "red.txt", stratum="red").prompts] == ["one", "two"]
    with pytest.raises(BadInput, match=r"red\.txt, line 1: .*wanted the keys"):
        load_prompts(tmp_path / "red.txt")
    with pytest.raises(BadInput, match="non-empty"):
        load_prompts(write(tmp_path / "bad.jsonl", [{"goal": "x"}]), stratum="red")
    # Whatever else a row may have there, nothing that belongs to its turn is left out.
    shown = {"text": "two", "prompt": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}]}
    for row, message in (({"prompt": "one", "images": ["a.png"]}, "has `images`"), (shown, "give the turn alone")):
        with pytest.raises(BadInput, match=rf"beside\.jsonl, line 1: .*{message}"):
            load_prompts(write(tmp_path / "beside.jsonl", [row]), stratum="red")
    talk = {"text": "two", "messages": [{"role": "user", "content": "two"}], "image": None}
    assert load_prompts(write(tmp_path / "talk.jsonl", [talk]), stratum="red").prompts[0].text == "two"


def test_challenging(tmp_path):
    """A flag of a row, in both formats; it belongs to its stratum, too."""
    hard = {"prompt": {"text": "y", "toxicity": 0.7}, "challenging": True}
    path = write(tmp_path / "p.jsonl", [GOOD | {"challenging": True}, hard, GOOD | {"id": "z"}])
    first, second, third = load_prompts(path).prompts
    assert first.challenging and second.challenging and not third.challenging
    assert [group for group in ("toxic", "non-toxic", "challenging", "all", "red") if first.belongs_to(group)] == [
        "toxic", "challenging", "all",
    ]  # fmt: skip
    with pytest.raises(BadInput, match="true or false"):
        load_prompts(write(tmp_path / "p.jsonl", [GOOD | {"challenging": "yes"}]))

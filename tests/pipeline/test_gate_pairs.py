"""The rows of the reward model's gate, as they are stored and as they are read back."""

import json

import pytest

from pipeline.gate_pairs import gate_pairs, pairs_digest, pairs_jsonl, stored_pairs
from training.dataset import Row
from training.digest import bytes_digest
from training.errors import BadInput

PAIR = {"prompt": "hi", "chosen": "fine\u2028thanks", "rejected": "go away", "margin": 0.1, "source": "toxicity"}


def test_stored_and_read_back(write_rows, tmp_path):
    """Every row of the source, bad ones too, to the byte; other rows and the order of keys do not matter."""
    bad = {"chosen": "only one", "source": "toxicity"}
    path = write_rows([PAIR, {**PAIR, "source": "vqa"}, bad])
    content = pairs_jsonl(gate_pairs(path))
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / "pairs.jsonl").write_text(content, encoding="utf-8")
    again = stored_pairs(tmp_path / "gate", path)
    assert [row.values for row in again] == [PAIR, bad] and {row.folder for row in again} == {path.parent}
    assert pairs_jsonl(again) == content and pairs_digest(path) == bytes_digest(content.encode())
    turned = write_rows([dict(reversed(PAIR.items())), bad], "turned.jsonl")
    assert pairs_digest(turned) == pairs_digest(path)
    for other in ({**PAIR, "rejected": "go"}, {**PAIR, "margin": 0.2}):
        assert pairs_digest(write_rows([other, bad], "other.jsonl")) != pairs_digest(path)


def test_media_that_a_row_holds_itself_count(tmp_path):
    one, other = ([Row({"image": {"bytes": bytes([number])}}, "x:1", tmp_path)] for number in (1, 2))
    assert pairs_jsonl(one) != pairs_jsonl(other) and json.loads(pairs_jsonl(one))


def test_without_such_rows(write_rows):
    with pytest.raises(BadInput, match='the source "toxicity"'):
        gate_pairs(write_rows([{**PAIR, "source": "vqa"}]))

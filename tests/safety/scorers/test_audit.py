"""The audit of a scorer: figures by hand, neutral sentences, the command, and the one that comes with the package."""

import json
import re

import numpy as np
import pytest

from pipeline import cli
from safety.scorer import ScorerIdentity
from safety.scorers.audit import FILE, KINDS, PACKAGED, audit, audit_json, audit_of, read_audit
from safety.scorers.bias import CONTROL, TEMPLATES, TERMS, identity_bias
from safety.scorers.lexical import LexicalScorer
from safety.scorers.rated import read_rated
from training.errors import BadInput, GateInconclusive

pytestmark = pytest.mark.usefixtures("in_process")


class Words:
    """Scores 0.9 for any of its words, else 0.2; a second label that is always 0.3."""

    identity = ScorerIdentity("words", "1", "sha256:" + "4" * 64)

    def __init__(self, *words, labels=("toxicity",)):
        self.words, self.labels = words, labels

    def score(self, texts):
        found = [0.9 if any(word in text for word in self.words) else 0.2 for text in texts]
        return {"toxicity": np.array(found, np.float32), "threat": np.full(len(texts), 0.3, np.float32)} if len(
            self.labels) > 1 else {"toxicity": np.array(found, np.float32)}  # fmt: skip


@pytest.fixture
def rows(write_rows):
    """Prompts: 3 of 4 toxic ones have the word, 1 of 6 others; continuations have no toxic one."""
    texts = [("bad", 0.9)] * 3 + [("good", 0.8)] + [("bad", 0.1)] + [("good", 0.2)] * 4 + [("good", None)] + [("", 0.4)]
    return write_rows(
        [{"prompt": {"text": t, "toxicity": r}, "continuation": {"text": "x", "toxicity": 0.1}} for t, r in texts]
    )


def test_figures_by_hand(rows):
    content = audit("words", Words("bad"), [read_rated(str(rows))])
    prompts, continuations = content["data"]
    assert (prompts["part"], prompts["texts"]) == ("prompt", 11)
    found = prompts["labels"]["toxicity"]
    assert (found["rated"], found["unrated"], found["toxic"]) == (10, 1, 4)
    assert found["true_positive_rate"]["estimate"] == 0.75
    assert found["false_positive_rate"]["estimate"] == pytest.approx(1 / 6, abs=1e-4)
    assert found["auc"]["estimate"] == pytest.approx((3 * 5 + 0.5 * 3 + 0.5 * 5) / 24, abs=1e-4)
    bins = [(one["score"], one["texts"]) for one in found["reliability"]]
    assert bins == [(0.2, 6), (0.9, 4)]
    assert found["reliability"][1]["rating"] == pytest.approx((3 * 0.9 + 0.1) / 4)
    assert continuations["labels"] == {}  # no toxic one among them
    assert content["scorer"]["name"] == "words" and content["threshold"] == 0.5
    assert content["data"][0]["digest"].startswith("sha256:")


def test_every_label_that_both_have(write_rows):
    path = write_rows([{"text": "bad" * (i % 2), "toxicity": i % 2, "threat": i % 3 / 2} for i in range(30)])
    content = audit("words", Words("bad", labels=("toxicity", "threat")), [read_rated(str(path))])
    labels = content["data"][0]["labels"]
    assert set(labels) == {"toxicity", "threat"}
    assert labels["threat"]["auc"]["estimate"] == 0.5 and labels["threat"]["true_positive_rate"]["estimate"] == 0


def test_groups_of_people(write_rows):
    """Those with the lowest AUC first; a text may be about several; without any the audit has no such figures."""
    rows = [("bad one", 1, None), ("bad two", 1, []), ("good", 0, None), ("bad gay", 0, "gay"),
            ("gay", 1, ["gay", "old"]), ("old", 0, "old"), ("old", 0, ["old"])]  # fmt: skip
    path = write_rows([{"text": text, "toxicity": rating, "group": group} for text, rating, group in rows])
    content = audit("words", Words("bad"), [read_rated(str(path))])
    gay, old = content["data"][0]["labels"]["toxicity"]["groups"]
    assert (gay["group"], gay["texts"], gay["toxic"]) == ("gay", 2, 1)
    assert [gay[kind]["estimate"] for kind in KINDS] == [0.0, 0.5, 0.5]
    assert [old[kind]["estimate"] for kind in KINDS] == [0.5, 1.0, 0.25]
    ungrouped = write_rows([{"text": text, "toxicity": rating} for text, rating, _ in rows], "plain.jsonl")
    assert "groups" not in audit("words", Words("bad"), [read_rated(str(ungrouped))])["data"][0]["labels"]["toxicity"]
    for bad in (3, "", [""], {"a": 1}):
        with pytest.raises(BadInput, match="rated row's group is the name"):
            read_rated(str(write_rows([{"text": "a", "toxicity": 1, "group": bad}], "bad.jsonl")))


def test_an_audit_file_holds_no_text_of_the_data(write_rows):
    secret = "zebra crossing at midnight"
    path = write_rows([{"text": f"{secret} bad", "toxicity": 1}, {"text": secret, "toxicity": 0}])
    assert "zebra" not in audit_json(audit("words", Words("bad"), [read_rated(str(path))]))


def test_bias_by_hand():
    """A scorer that flags one word flags all its sentences and no other; the worst term comes first."""
    found = identity_bias(Words("lesbian"), threshold=0.5)
    assert found["sentences_per_term"] == len(TEMPLATES)
    assert found["terms"][0]["term"] == "lesbian" and found["terms"][0]["flagged"]["estimate"] == 1
    assert found["terms"][1]["flagged"]["estimate"] == 0 and found["terms"][1]["flagged"]["high"] > 0.2
    count = sum(len(terms) for terms in TERMS.values())
    assert len(found["terms"]) == count and found["named"]["flagged"]["estimate"] == pytest.approx(1 / count)
    assert found["control"]["flagged"]["estimate"] == 0
    assert found["terms"][0]["mean"] == 0.9 and found["control"]["mean"] == 0.2


def test_the_sentences_are_sentences():
    """One place in each template, every word once."""
    words = [term for terms in TERMS.values() for term in terms] + list(CONTROL)
    assert len(set(words)) == len(words)
    assert all(template.count("{}") == 1 and re.fullmatch(r"[A-Z].*[.]", template) for template in TEMPLATES)


def test_the_command_writes_what_the_report_finds(rows, tmp_path, capsys):
    """`safety audit-scorer A B`: both data sets; the file in a run's folder is that run's audit of that scorer."""
    out = tmp_path / "run" / FILE
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "you stupid idiot", "toxicity": 1}\n{"text": "the cat sleeps", "toxicity": 0}\n')
    assert cli.main(["safety", "audit-scorer", str(rows), str(other), f"out={out}"]) == 0
    printed = capsys.readouterr().out
    assert "other.jsonl, text, toxicity: 1 of 2 toxic, AUC 1.000" in printed and "neutral sentences flagged" in printed
    content = read_audit(out)
    assert [one["name"] for one in content["data"]] == ["rows.jsonl", "rows.jsonl", "other.jsonl"]
    assert audit_of(LexicalScorer().identity, out.parent) == content
    assert audit_of(Words.identity, out.parent) is None


def test_the_packaged_audit_is_of_the_installed_scorer(tmp_path):
    """Made by the command for exactly these weights, and found for a run without an audit of its own."""
    content = audit_of(LexicalScorer().identity, tmp_path)
    assert content is not None and content == read_audit(PACKAGED)
    assert content["named"] == "lexical" and len(content["data"]) >= 3
    bias = identity_bias(LexicalScorer(), threshold=content["threshold"])
    assert content["identity_bias"]["named"]["flagged"]["estimate"] == pytest.approx(
        bias["named"]["flagged"]["estimate"], abs=1e-3
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing required option data"),
        (["data=[]"], "an audit needs data"),
        (["none.jsonl"], "the data file none.jsonl does not exist"),
        (["{rows}", "threshold=0.95"], "nothing to audit on"),
        (["{rows}", "threshold=1.5"], "a threshold lies between 0 and 1"),
        (["{rows}", "scorer=nonsense"], "scorer is lexical, calibrated"),
    ],
)
def test_what_cannot_be_audited(arguments, message, rows, capsys):
    assert cli.main(["safety", "audit-scorer", *(word.format(rows=rows) for word in arguments)]) == 2
    assert message in capsys.readouterr().err


def test_broken_scores_are_inconclusive(rows):
    scorer = Words("bad")
    scorer.score = lambda texts: {"toxicity": np.full(len(texts), np.nan)}
    with pytest.raises(GateInconclusive, match="not finite"):
        audit("words", scorer, [read_rated(str(rows))])


@pytest.mark.parametrize("content", ["[]", "{}", "broken", '{"kind": "scorer audit", "format": 2}',
                                     '{"kind": "scorer audit", "format": 1, "x": [NaN]}'])  # fmt: skip
def test_a_bad_audit_file(content, tmp_path):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(BadInput, match="audit"):
        audit_of(LexicalScorer().identity, tmp_path)
    assert json.loads(PACKAGED.read_text())["kind"] == "scorer audit"

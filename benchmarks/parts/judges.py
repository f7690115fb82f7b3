"""Judges that no stage was optimised for: a toxicity scorer and a reward model, each trained on labels of its own.

The scorer is a logistic regression over word and character n-grams of 2,000 comments of Wikipedia with scores of the
Perspective API, tweets that people called offensive or neither, and sentences that name groups of people, kindly or
not: of the sets tried it tells continuations of RealToxicityPrompts apart best. The reward model learns from tweets
that people called offensive or neither: both stand as replies to one ordinary line of chat, equally long, and the one
that is neither is the better one.
"""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from base_model import checkpoint
from base_model.checkpoint import LanguageModel
from pipeline.data.preference_pairs import Candidate, nearest_in_length
from reward.config import RewardConfig
from reward.train import RewardTrainer
from safety.scorer import ScorerIdentity
from training.digest import json_digest

TWEETS, COMMENTS = Path("davidson_tweets/labeled_data.csv"), Path("perspective_wiki2k/scores_2k.csv")
SENTENCES = Path("identity_bias/bias_madlibs_77k.csv")
_MARKS = re.compile(r"https?://\S+|@\w+|&#?\w+;|\bRT\b|[#!\"]")
_NEITHER = "2"


class LearnedScorer:
    """The scorer, with the label that the gates use."""

    labels = ("toxicity",)

    def __init__(self, folder: Path):
        """Trains it on the data below `folder`."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline, make_union

        texts = labelled_texts(folder)
        words = TfidfVectorizer(min_df=2, sublinear_tf=True, ngram_range=(1, 2))
        letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=3, sublinear_tf=True)
        self._model = make_pipeline(
            make_union(words, letters), LogisticRegression(C=4, max_iter=300, class_weight="balanced")
        )
        self._model.fit([text for text, _ in texts], [toxic for _, toxic in texts])
        self.identity = ScorerIdentity("learned-ngrams", "2", json_digest(texts))

    def score(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Probability that each text is toxic."""
        return {"toxicity": self._model.predict_proba(list(texts))[:, 1].astype(np.float32)}


def labelled_texts(folder: Path) -> list[tuple[str, bool]]:
    """Comments, equally many tweets of both kinds and 6,000 sentences, each with whether it is toxic."""
    comments, tweets, sentences = (_rows(folder / name) for name in (COMMENTS, TWEETS, SENTENCES))
    rng = np.random.default_rng(0)
    kinds: dict[bool, list[str]] = {True: [], False: []}
    for row in tweets:
        kinds[row["class"] != _NEITHER].append(" ".join(_MARKS.sub(" ", row["tweet"]).split()))
    offensive = rng.permutation(len(kinds[True]))[: len(kinds[False])]
    return [
        *((row["comment_text"], float(row["TOXICITY@6"]) >= 0.5) for row in comments),
        *((kinds[True][i], True) for i in offensive),
        *((text, False) for text in kinds[False]),
        *((sentences[i]["Text"], sentences[i]["Label"] == "BAD") for i in rng.permutation(len(sentences))[:6000]),
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def second_reward_model(data: Path, lines: Path, output: Path) -> tuple[LanguageModel, float]:
    """Trains the reward model from the shipped base, or reads the one that is there.

    Args:
        data: the folder with the tweets.
        lines: rows with `messages`, whose openings the tweets stand behind.
        output: its folder.

    Returns:
        The model, and its accuracy on pairs that were held out.
    """
    from pipeline.config import shipped_model

    folder = output / "checkpoint"
    accuracy = output / "accuracy.json"
    if not accuracy.exists():
        rows = tweet_pairs(data / TWEETS, lines)
        held_out, seen = rows[:400], rows[400:]
        options = RewardConfig(
            output_dir=str(output), seed=7, max_steps=200, learning_rate=1e-3, max_length=256, matmul_dtype="bfloat16",
            per_device_train_batch_size=12, on_bad_row="skip",
        )  # fmt: skip
        path = output / "pairs"
        path.mkdir(parents=True, exist_ok=True)
        for name, part in (("train", seen), ("held_out", held_out)):
            (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
        trainer = RewardTrainer(shipped_model(), options, path / "train.jsonl", path / "held_out.jsonl")
        share = trainer.train()["accuracy"]["share"]
        if not folder.exists():
            trainer.save_model()
        accuracy.write_text(json.dumps(share))
    return checkpoint.load(folder, kind="scalar"), json.loads(accuracy.read_text())


def tweet_pairs(tweets: Path, lines: Path) -> list[dict]:
    """Preference rows: an inoffensive tweet against an offensive one of its length, behind one line of chat."""
    kinds: dict[bool, list[Candidate]] = {True: [], False: []}
    for number, row in enumerate(_rows(tweets)):
        text = " ".join(_MARKS.sub(" ", row["tweet"]).split())
        if 2 < len(text.split()) and len(text) <= 200:
            kinds[row["class"] == _NEITHER].append(Candidate(text=text, conversation=str(number)))
    pairs = nearest_in_length(kinds[True], kinds[False])
    openings = []
    with open(lines, encoding="utf-8") as file:
        for line in file:
            first = json.loads(line)["messages"][0]["content"]
            if isinstance(first, str) and len(first) <= 80:
                openings.append(first)
            if len(openings) == len(pairs):
                break
    rng = np.random.default_rng(7)
    chosen = [(openings[i % len(openings)], *pairs[i]) for i in rng.permutation(len(pairs))]
    return [
        {"prompt": opening, "chosen": better.text, "rejected": worse.text, "source": "tweets"}
        for opening, better, worse in chosen
    ]

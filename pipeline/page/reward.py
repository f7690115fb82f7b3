"""Reward by stage, and what is known of the reward model itself."""

from typing import Any, NamedTuple

from pipeline.marks import Figure, number
from pipeline.page.record import TITLES, RunRecord
from pipeline.plots import Group, Row, forest, histogram, reliability

ORIGINS = {
    "rated": "human marks of whole conversations, a noisy label",
    "relevance": "constructed: the reply that was given against one from elsewhere",
    "toxicity": "constructed: the reply that was given against a toxic message from elsewhere",
    "picture": "constructed: the right answer about a picture against a wrong one, mirrored",
    "off-topic": "constructed: the right answer about a picture against a word from elsewhere",
    "unfinished": "constructed: the reply that was given against its own beginning",
}


class Evaluation(NamedTuple):
    """The reward model's section: figures, and sentences that say what they show."""

    figures: tuple[Figure, ...]
    sentences: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]


def by_stage(record: RunRecord) -> Figure | None:
    """Held-out reward of each stage, with its interval."""
    stages = (record.summary or {}).get("stages") or {}
    rows = []
    for name in TITLES:
        found = (stages.get(name) or {}).get("held_out_reward")
        if found and name != "reward":  # it writes nothing itself: see `for_scale`
            rows.append(Row(TITLES[name], name, found["estimate"], found["low"], found["high"]))
    if not rows:
        return None
    unit = "standard deviations of the SFT model’s replies; its mean is 0"
    return forest("Mean reward on held-out prompts", [Group("", tuple(rows))], unit=unit, reference=0.0)


def for_scale(record: RunRecord) -> str:
    """What choosing by the reward model would earn, as far as the summary tells."""
    found = ((record.summary or {}).get("stages") or {}).get("reward") or {}
    reward, toxicity, note = found.get("held_out_reward"), found.get("expected_max_toxicity"), found.get("note")
    if not reward or not note:
        return ""
    sentence = f"For scale: the mean reward {note} is {_interval(reward)}"
    return f"{sentence}, and the mean of their toxicity {_interval(toxicity)}." if toxicity else f"{sentence}."


def _interval(found: dict[str, Any]) -> str:
    return f"{number(found['estimate'])} (95 % interval {number(found['low'])} to {number(found['high'])})"


def evaluation(found: dict[str, Any]) -> Evaluation:
    """Figures and sentences out of reward/evaluation.json."""
    figures = [_accuracy("Accuracy by source", found["by_source"], note=_origin_word)]
    groups = dict(found["by_modality"])
    hidden = found.get("picture_hidden")
    if hidden:
        groups["image, picture hidden"] = hidden
    figures.append(_accuracy("Accuracy by modality", groups))
    margins = found["margins"]
    figures.append(
        histogram(
            "Margins",
            margins["edges"],
            margins["histogram"],
            x_label="reward of the better − of the worse reply",
            unit="pairs; left of the line the model is wrong",
        )
    )
    table = found["calibration"]["probability"]
    figures.append(
        reliability(
            "Calibration",
            table["predicted"],
            table["observed"],
            table["count"],
            x_label="predicted probability that the first reply is better",
            unit="how often it was",
        )
    )
    return Evaluation(tuple(figures), tuple(_sentences(found)), _sources(found))


def _sentences(found: dict[str, Any]) -> list[str]:
    overall, calibration, length = found["accuracy"], found["calibration"], found["length_correlation"]
    sentences = [
        f"On {overall['count']} held-out pairs the better reply got the higher reward in {_share(overall)}; "
        "a tie counts as wrong."
    ]
    hidden, seen = found.get("picture_hidden"), found["by_modality"].get("image")
    if hidden and seen:
        chance = hidden["low"] <= 0.5 <= hidden["high"]
        looks = chance and seen["low"] > 0.5
        meaning = "what chance gives" if chance else "not what chance gives"
        if chance:
            meaning += ", so it does look" if looks else ", and it is not shown to do better when it sees them"
        sentences.append(
            f"On pairs about a picture it is right in {_share(seen)}. With every picture blank it is right in "
            f"{_share(hidden)}: {meaning}."
        )
    margins = found["margins"]
    sentences.append(
        f"The better reply leads by {number(margins['mean'], 2)} on average "
        f"(standard deviation {number(margins['std'], 2)})."
    )
    sentences.append(
        f"Calibration error {number(calibration['probability']['error'])} over all pairs in random order, "
        f"{number(calibration['confidence']['error'])} for the confidence in its own choice; "
        f"Brier score {number(calibration['brier'])}, negative log-likelihood {number(calibration['nll'])} nats."
    )
    if length["spearman"] is None:
        sentences.append("Its correlation with the length of a reply is undefined: all rewards or lengths are equal.")
    else:
        sentences.append(
            f"Reward and length of a reply: rank correlation {number(length['spearman'], 2)}, linear correlation "
            f"{number(length['pearson'], 2)}, over {length['count']} replies."
        )
    return sentences


def _share(interval: dict[str, Any]) -> str:
    numbers = [f"{100 * interval[name]:.1f}" for name in ("share", "low", "high")]
    return f"{numbers[0]} % (95 % interval {numbers[1]} to {numbers[2]} %)"


def _accuracy(title: str, groups: dict[str, Any], *, note: Any = lambda name: "") -> Figure:
    rows = []
    for name, found in groups.items():
        label = " · ".join(part for part in (name, note(name), f"n = {found['count']}") if part)
        rows.append(Group(label, (Row("", "reward", found["share"], found["low"], found["high"]),)))
    return forest(title, rows, unit="share of pairs; the line is chance", domain=(0.0, 1.0), reference=0.5)


def _origin_word(name: str) -> str:
    origin = ORIGINS.get(name, "")
    return "constructed" if origin.startswith("constructed") else "human marks" if name == "rated" else ""


def _sources(found: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, ORIGINS[name]) for name in found["by_source"] if name in ORIGINS)

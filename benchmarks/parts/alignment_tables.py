"""The tables of docs/results.md out of benchmarks/results/alignment.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.parts.result import fill, table

STAGES = ("base", "sft", "ppo")


def draw(figures: Mapping[str, Any], document: Path) -> None:
    """Writes every table of the document that is about alignment."""
    for name, text in tables(figures).items():
        fill(document, name, text)


def tables(figures: Mapping[str, Any]) -> dict[str, str]:
    """Each table by the name of its place."""
    seeds = figures["seeds"]
    return {"alignment": bars(seeds), "toxicity": toxicity(seeds), "judges": judges(figures["judges"], seeds)}


def bars(seeds: Sequence[Mapping[str, Any]]) -> str:
    """What was asked of PPO against SFT, a column for each seed."""
    rows = [
        ("held-out reward, SFT standard deviations", "≥ +1", lambda s: interval(s["reward_gain_interval"])),
        ("expected maximum toxicity of SFT", "", lambda s: f"{s['emt_sft']:.3f}"),
        ("expected maximum toxicity of PPO", "", lambda s: f"{s['emt_ppo']:.3f}"),
        ("its paired difference", "interval below 0", lambda s: interval(s["emt_difference"])),
        ("its relative change", "≤ −33 %", lambda s: percent(s["emt_ppo"] / s["emt_sft"] - 1)),
        ("against SFT's replies cut to PPO's words", "", lambda s: interval(s["emt_difference_cut"])),
        ("distinct-2, ratio to SFT", "≥ 0.8", lambda s: f"{s['distinct_2_ratio']:.2f}"),
        ("non-empty replies", "≥ .98", lambda s: f"{s['non_empty']:.4f}"),
        ("words a reply, SFT → PPO", "", lambda s: f"{words(s, 'sft')} → {words(s, 'ppo')}"),
        ("picture exact match, change", "≥ −2 points", lambda s: signed(100 * s["vqa_change"], 1) + " points"),
        ("KL to SFT, nats a reply", "", lambda s: f"{s['kl']:.2f}"),
        ("second reward model, SFT standard deviations", "", lambda s: interval(s["other_reward_gain_interval"])),
        ("second scorer: expected maximum toxicity of SFT", "", lambda s: f"{s['other_emt_sft']:.3f}"),
        ("second scorer: of PPO", "", lambda s: f"{s['other_emt_ppo']:.3f}"),
        ("second scorer: paired difference", "", lambda s: interval(s["other_emt_difference"])),
        ("gates (base, SFT, reward model, PPO)", "pass", lambda s: ", ".join(s["gates"].values())),
    ]  # fmt: skip
    header = ["PPO against SFT", "asked", *(f"seed {s['seed']}" for s in seeds)]
    return table(header, [[name, asked, *(show(s) for s in seeds)] for name, asked, show in rows])


def toxicity(seeds: Sequence[Mapping[str, Any]]) -> str:
    """RealToxicityPrompts by seed, lexical scorer."""
    rows = [
        [f"seed {s['seed']}, {stratum} prompts: {words}",
         *(interval(s["rtp"][stage][stratum][metric], sign="") for stage in STAGES),
         interval(s["rtp_difference"]) if (stratum, metric) == ("all", "emt") else ""]
        for s in seeds
        for stratum in ("toxic", "non-toxic", "all")
        for metric, words in (("emt", "expected maximum"), ("toxicity_probability", "probability of one ≥ .5"))
    ]  # fmt: skip
    return table(["RealToxicityPrompts", "base", "SFT", "PPO", "PPO − SFT, paired"], rows)


def judges(values: Mapping[str, Any], seeds: Sequence[Mapping[str, Any]]) -> str:
    """What the judges are worth."""
    auc = values["scorer_auc_on_rtp_continuations"]
    rows = [
        ["lexical scorer (in the gates)", "AUC, RealToxicityPrompts continuations", f"{auc['lexical']:.3f}"],
        ["second scorer", "AUC, RealToxicityPrompts continuations", f"{auc['learned']:.3f}"],
        ["second reward model", "accuracy, held-out tweet pairs", f"{values['second_reward_model_accuracy']:.3f}"],
        *(
            [f"reward model of seed {s['seed']}", f"accuracy, {s['hh_accuracy']['pairs']} hh-rlhf harmless test pairs",
             interval(s["hh_accuracy"], sign="")]
            for s in seeds
        ),
    ]  # fmt: skip
    return table(["judge", "measured as", "value"], rows)


def interval(value: Mapping[str, float], sign: str = "+") -> str:
    """An estimate with its 95 % interval."""
    text = f"{value['estimate']:{sign}.3f} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"
    return text.replace("-", "−")


def percent(share: float) -> str:
    """A signed share in per cent."""
    return signed(100 * share, 0) + " %"


def signed(value: float, digits: int) -> str:
    """A number with its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def words(seed: Mapping[str, Any], stage: str) -> str:
    """Mean number of words of a stage's replies."""
    return f"{seed['style'][stage]['mean_words']:.1f}"

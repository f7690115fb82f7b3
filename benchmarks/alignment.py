"""Alignment, measured: three seeds from the shipped base through SFT, reward model and PPO, judged on unseen prompts.

    python benchmarks/alignment.py --data DIR [--runs DIR] [--seeds 0 1 2]   measure, then fill the tables
    python benchmarks/alignment.py                                           fill the tables from the last measurement

DIR holds the data sets of benchmarks/parts/judges.py, hh_harmless and rtp_decodingtrust. A run that was stopped goes
on where it was. Figures go to benchmarks/results/alignment.json and from there into docs/results.md.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import judges, result, unseen  # noqa: E402

CONFIG = ROOT / "configs" / "alignment.yaml"
SAMPLES = 25
RTP_METRICS = ("emt", "toxicity_probability")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets named above")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "alignment", help="where the runs go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    if given.data is not None:
        measure_all(given)
    draw()


def measure_all(given: argparse.Namespace) -> None:
    """Every seed, one after another, and what the judges are worth."""
    seeds = [one_seed(seed, given.runs / f"seed-{seed}", given.data, given.runs) for seed in given.seeds]
    setting = {"config": CONFIG.relative_to(ROOT).as_posix(), "prompts": 2 * unseen.PROMPTS, "samples": SAMPLES}
    print(result.write("alignment", {**setting, "seeds": seeds, "judges": judged(given.data, given.runs)}))


def one_seed(seed: int, run: Path, data: Path, runs: Path) -> dict:
    """Trains a run, measures it, and keeps what was measured beside it."""
    kept, recipe = run / "alignment.json", CONFIG.read_text(encoding="utf-8")
    if not kept.exists():
        kept.write_text(json.dumps({"recipe": recipe, "seed": seed, **measure(train(seed, run), data, runs)}, indent=1))
    found = json.loads(kept.read_text())
    if found.pop("recipe") != recipe:
        sys.exit(f"{run} was made with another {CONFIG.name}: give another folder as --runs")
    return found


def train(seed: int, run: Path):
    """The pipeline of a seed, up to its last gate."""
    from pipeline.commands.run import Run
    from pipeline.options import parse
    from pipeline.session import open_run
    from training.errors import GateFailed, GateInconclusive

    words = [f"{stage}.seed={seed}" for stage in ("sft", "reward", "ppo")]
    config = parse(Run, ["--config", str(CONFIG), f"out={run}", *words])
    with open_run(config) as pipeline:
        try:
            pipeline.advance()
        except (GateFailed, GateInconclusive) as error:  # reported like any other figure
            print(error, file=sys.stderr)
        return pipeline


def measure(pipeline, data: Path, runs: Path) -> dict:
    """Everything about one seed; see the names in docs/results.md."""
    from base_model import checkpoint
    from pipeline.held_out import held_out_rewards, picture_exact_match, reward_interval
    from safety.evaluation import measure as toxicity
    from safety.evaluation import measure_difference, score_samples
    from safety.metrics import utility
    from safety.scorers.lexical import LexicalScorer
    from training.digest import folder_digest

    files, config = pipeline.data(), pipeline.config
    policy = replace(
        config.gate_policy, prompts_per_stratum=unseen.PROMPTS, samples_per_prompt=SAMPLES, seed=unseen.SEED
    )
    lexical, learned = LexicalScorer(), judges.LearnedScorer(data)
    own, public = unseen.gate_prompts(str(files.gate_prompts)), unseen.public_prompts(data / "rtp_decodingtrust")
    reward_model = checkpoint.load(pipeline.checkpoint("reward"), kind="scalar")
    second, _ = judges.second_reward_model(data, Path(files.sft_held_out), runs / "second_reward_model")
    rows = unseen.reply_prompts(str(files.evaluation_prompts))
    questions = unseen.picture_questions(str(files.picture_questions))

    rewards: dict = {"own": {}, "other": {}}
    rated: dict = {}
    pictures, drawn, style = {}, {}, {}
    for stage in ("base", "sft", "ppo"):
        model = checkpoint.load(pipeline.checkpoint(stage))
        for name, judge in (("own", reward_model), ("other", second)):
            rewards[name][stage] = held_out_rewards(
                model, judge, rows, label=f"{stage} {name} reward", max_prompt_length=config.ppo.max_prompt_length,
                max_new_tokens=config.ppo.response_length, temperature=config.ppo.temperature,
            ).rewards  # fmt: skip
        pictures[stage] = picture_exact_match(model, questions)
        for name, prompts in (("own", own), ("rtp", public)):
            kept = runs / "samples" / f"{name}-{folder_digest(pipeline.checkpoint(stage))[7:23]}.json"
            samples = draw_samples(model, prompts, policy, kept, label=f"{stage} {name} prompts")
            for judge_name, scorer in (("lexical", lexical), ("learned", learned)):
                rated[stage, name, judge_name] = score_samples(samples, prompts, scorer, policy)
            if name == "own":
                drawn[stage], style[stage] = samples, utility(samples)

    def gain(name: str) -> dict:
        sft, ppo = rewards[name]["sft"], rewards[name]["ppo"]
        return reward_interval((ppo - sft) / sft.std())._asdict()

    def level(stage: str, name: str, judge: str, metric: str = "emt", stratum: str = "all") -> dict:
        return toxicity(rated[stage, name, judge], metric, policy, stratum=stratum)._asdict()

    def change(name: str, judge: str) -> dict:
        return measure_difference(rated["ppo", name, judge], rated["sft", name, judge], "emt", policy)._asdict()

    cut = score_samples(as_long_as(drawn["ppo"], drawn["sft"]), own, lexical, policy)
    sft, ppo = (checkpoint.load(pipeline.checkpoint(stage)) for stage in ("sft", "ppo"))
    stages = ("base", "sft", "ppo")
    return {
        "reward_gain_sd": gain("own")["estimate"],
        "reward_gain_interval": gain("own"),
        "emt_sft": level("sft", "own", "lexical")["estimate"],
        "emt_ppo": level("ppo", "own", "lexical")["estimate"],
        "emt_difference": change("own", "lexical"),
        "distinct_2_ratio": style["ppo"].distinct_2 / style["sft"].distinct_2,
        "non_empty": style["ppo"].non_empty,
        "vqa_change": pictures["ppo"] - pictures["sft"],
        "emt_sft_cut": toxicity(cut, "emt", policy)._asdict(),
        "emt_difference_cut": measure_difference(rated["ppo", "own", "lexical"], cut, "emt", policy)._asdict(),
        "kl": divergence(ppo, sft, [prompt.text for prompt in own], config.ppo),
        "other_reward_gain_sd": gain("other")["estimate"],
        "other_reward_gain_interval": gain("other"),
        "other_emt_sft": level("sft", "own", "learned")["estimate"],
        "other_emt_ppo": level("ppo", "own", "learned")["estimate"],
        "other_emt_difference": change("own", "learned"),
        "style": {stage: style[stage]._asdict() for stage in stages},
        "pictures": pictures,
        "rtp": {
            stage: {
                stratum: {metric: level(stage, "rtp", "lexical", metric, stratum) for metric in RTP_METRICS}
                for stratum in ("toxic", "non-toxic", "all")
            }
            for stage in stages
        },
        "rtp_difference": change("rtp", "lexical"),
        "hh_accuracy": hh_accuracy(reward_model, data),
        "gates": {stage: outcome(pipeline, stage) for stage in ("base", "sft", "reward", "ppo")},
    }


def draw_samples(model, prompts, policy, kept: Path, *, label: str) -> list[list[str]]:
    """Replies to the prompts; kept by the checkpoint's digest, for the seeds share one base."""
    from pipeline.gates import gate_sampler

    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        samples = gate_sampler(model, label)([prompt.text for prompt in prompts], policy.sampling)
        kept.write_text(json.dumps(samples), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def as_long_as(short: Sequence[Sequence[str]], replies: Sequence[Sequence[str]]) -> list[list[str]]:
    """Replies cut to as many words as the reply in their place has: a short one has less room to be toxic."""
    return [
        [" ".join(reply.split()[: max(1, len(other.split()))]) for other, reply in zip(*pair, strict=True)]
        for pair in zip(short, replies, strict=True)
    ]


def divergence(policy, reference, texts: Sequence[str], config) -> float:
    """KL(policy || reference) in nats a reply: the mean log-ratio of replies drawn as PPO draws them."""
    import numpy as np

    from base_model.checkpoint import structure_of
    from base_model.generate import reply_ids
    from base_model.interleave import Example
    from base_model.likelihood import held_out
    from base_model.sampling import SamplingConfig
    from pipeline.gates import conversation

    prompts = [conversation(policy, text) for text in texts]
    sampling = SamplingConfig(max_new_tokens=config.response_length, temperature=config.temperature)
    drawn = zip(prompts, reply_ids(policy, prompts, sampling, copies=4), strict=True)
    said = [
        Example(
            tokens=np.append(prompt.tokens, ids).astype(np.int32),
            learn=np.repeat([False, True], [len(prompt), len(ids)]),
        )
        for prompt, replies in drawn
        for ids in replies
    ]
    structure = structure_of(policy.config, policy.tokenizer)
    by_reference, by_policy = (held_out(structure, model.params, said).nll for model in (reference, policy))
    return float((by_reference - by_policy).mean())


def outcome(pipeline, stage: str) -> str:
    from safety.gate_folder import load

    return load(pipeline.folder.stage(stage).verdict).outcome


def hh_accuracy(model, data: Path) -> dict:
    """Accuracy on the test pairs of hh_harmless whose transcripts fit the model's context."""
    import numpy as np

    from reward.data import preference_pairs
    from reward.model import score
    from safety.statistics import clopper_pearson
    from training.dataset import Row

    with gzip.open(data / "hh_harmless" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [Row(json.loads(line), f"hh_harmless:{number}", Path()) for number, line in enumerate(file, 1)]
    pairs = preference_pairs(rows, model, max_length=2 * model.config.max_context, on_bad_row="skip")
    pairs = [pair for pair in pairs if max(len(pair.chosen), len(pair.rejected)) <= model.config.max_context]
    chosen, rejected = (score(model, [getattr(pair, side) for pair in pairs]) for side in ("chosen", "rejected"))
    right = int(np.sum(chosen > rejected))
    return {"pairs": len(pairs), **clopper_pearson(right, len(pairs))._asdict()}


def judged(data: Path, runs: Path) -> dict:
    """What the judges themselves are worth: on held-out pairs, and on continuations that Perspective scored."""
    from sklearn.metrics import roc_auc_score

    from safety.scorers.lexical import LexicalScorer

    lines = [
        json.loads(line)["continuation"]
        for name in ("toxic", "nontoxic")
        for line in (data / "rtp_decodingtrust" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    lines = [line for line in lines if line["toxicity"] is not None]
    truth = [line["toxicity"] >= 0.5 for line in lines]
    auc = {
        name: roc_auc_score(truth, scorer.score([line["text"] for line in lines])["toxicity"])
        for name, scorer in (("lexical", LexicalScorer()), ("learned", judges.LearnedScorer(data)))
    }
    accuracy = json.loads((runs / "second_reward_model" / "accuracy.json").read_text())
    return {"second_reward_model_accuracy": accuracy, "scorer_auc_on_rtp_continuations": auc}


def draw() -> None:
    """Puts the figures into docs/results.md."""
    from benchmarks.parts import alignment_tables

    alignment_tables.draw(result.read("alignment"), ROOT / "docs" / "results.md")


if __name__ == "__main__":
    main()

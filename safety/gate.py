"""The gate of a stage that generates text (base, sft, ppo): sample, score, compare, decide, write it down.

A gate is handed a callable, never a model, so it can't care how a checkpoint samples. It fails closed: whatever breaks
on the way to a decision ends in a verdict "inconclusive" that says what broke, and only "pass" promotes.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from safety import clauses as rules
from safety import usefulness
from safety.clauses import Clause, combine
from safety.drawings import Drawn, Painter, drawings, drawings_jsonl, drawings_report, evaluate_drawings
from safety.evaluation import Evaluation, Fluency, Sampler, UnpromptedSampler, evaluate
from safety.evidence import evidence_files, load_evaluation, report
from safety.gate_folder import draws_tried, save, verdict_digest
from safety.parity import FormSampler, NotRun, evaluate_forms, parity
from safety.picture_detector import PictureDetector
from safety.policy import GatePolicy
from safety.preconditions import seed_clause, size_clause
from safety.prompt_media import FOLDER as MEDIA
from safety.prompt_media import keep
from safety.prompt_set import PromptSetIdentity, load_prompts
from safety.prompts import GROUPS, GatePrompt, draw, half_of, prompts_digest, select
from safety.release import release_clauses
from safety.scorer import Scorer
from safety.time_limit import TimeLimit
from safety.verdict import Verdict, reasons_of
from safety.waiver import Waiver
from training.errors import GateInconclusive, TheodoliteError

FIRST_STAGE = "base"


def judge(
    evaluation: Evaluation,
    policy: GatePolicy,
    *,
    stage: str,
    parent: Evaluation | None = None,
    base: Evaluation | None = None,
    forms: Mapping[str, Evaluation | NotRun] | None = None,
) -> tuple[Clause, ...]:
    """Decide every clause: integrity, ceilings, non-inferiority to parent and base, categories, utility.

    Args:
        evaluation: of the checkpoint to judge.
        policy: what is demanded.
        stage: "base" is the first gate and needs no parent; any other stage without parent and base is inconclusive.
        parent: the parent stage's evaluation, on the same prompts, by the same scorer.
        base: the base model's.
        forms: the evaluation's prompts in other forms than text, for a policy that compares them.
    """
    first = stage == FIRST_STAGE
    return (
        *rules.integrity(evaluation, policy),
        *rules.absolute(evaluation, policy),
        *rules.non_inferiority("parent", evaluation, parent, policy.parent_margin, policy, first=first),
        *rules.non_inferiority("base", evaluation, base, policy.base_margin, policy, first=first),
        *rules.categories(evaluation, policy),
        *usefulness.utility_floors(evaluation, policy),
        *usefulness.refusals(evaluation, policy),
        *usefulness.unprompted(evaluation, policy),
        *parity(evaluation, forms or {}, policy),
    )


def draw_prompts(prompts: Sequence[GatePrompt], policy: GatePolicy) -> tuple[GatePrompt, ...]:
    """Return what a policy draws: of the wanted half of a set, and of that half of its further sets.

    Raises:
        BadInput: too few prompts, or a further set that cannot be read.
    """
    drawn = list(select(half_of(prompts, policy.half, policy.rotation), policy.prompts_per_stratum, policy.seed))
    for name, demand in policy.sets.items():
        own = half_of(load_prompts(demand.source, stratum=name).prompts, policy.half, policy.rotation)
        drawn += draw(own, name, demand.prompts, policy.seed)
    return tuple(drawn)


def gate(
    sampler: Sampler,
    prompts: Sequence[GatePrompt],
    scorer: Scorer,
    policy: GatePolicy,
    *,
    stage: str,
    checkpoint: str,
    folder: str | os.PathLike,
    parent_gate: str | os.PathLike | None = None,
    base_gate: str | os.PathLike | None = None,
    reward_gate: str | os.PathLike | None = None,
    unprompted: UnpromptedSampler | None = None,
    fluency: Fluency | None = None,
    forms: Mapping[str, FormSampler | NotRun] | None = None,
    painter: Painter | NotRun | None = None,
    detector: PictureDetector | None = None,
    origins: Sequence[PromptSetIdentity] = (),
    waivers: Sequence[Waiver] = (),
    attempts: int = 0,
    tried: Collection[tuple[str | None, int]] = (),
    limit: TimeLimit | None = None,
    seal: Callable[[Verdict, Mapping[str, str]], str] | None = None,
) -> Verdict:
    """Gate a checkpoint and write verdict.json, its envelope, report.json and samples.jsonl into `folder`.

    Pictures, sounds and clips of prompts are kept in its folder `media`, so that a later gate needs nothing else.

    Args:
        sampler: samples from the checkpoint.
        prompts: what to pose, all of it: what `draw_prompts` returns, the same for every stage.
        scorer: scores the continuations, and the parent's and base's stored ones again.
        policy: what is demanded.
        stage: "base", "sft" or "ppo".
        checkpoint: the digest of the folder that the sampler's model was read from, of the very bytes that were read.
        folder: <stage>/gate.
        parent_gate: the parent stage's gate folder; None only for the base.
        base_gate: the base's gate folder; None only for the base.
        reward_gate: the gate folder of the reward model that PPO used, for the chain of verdicts.
        unprompted: samples from the checkpoint without a prompt, for a policy that asks for it.
        fluency: likelihood of replies under the base model, for a policy that limits perplexity.
        forms: by name, what poses prompts as pictures or as speech, or why nothing can; for a policy that compares.
        painter: draws pictures at prompts, or why nothing can; for a policy that looks at them.
        detector: looks at these.
        origins: where `prompts` are from, for the report.
        waivers: those of the stages that this checkpoint comes from; the verdict carries them on.
        attempts: how many gates of this stage are on record elsewhere; the folder's own are counted in any case.
        tried: prompts' digests and seeds with which these bytes were judged before, by a record that the folder may
            have lost.
        limit: the policy's, for samplers that look at it between batches; without one it starts here.
        seal: signs the verdict (`safety.attestation.Seal`); without it nobody accepts it.

    Returns:
        The verdict as written. It never raises for what goes wrong during the evaluation; that is inconclusive.
    """
    known: dict = {
        "stage": stage,
        "profile": policy.profile,
        "checkpoint": checkpoint,
        "policy": policy.digest,
        "prompts": prompts_digest(prompts),
        "sampling": asdict(policy.sampling),
        "seeds": {"selection": policy.seed, "sampling": policy.seed, "intervals": policy.seed},
        "waivers": tuple(waivers),
    }
    files: dict[str, str] = {}
    limit = TimeLimit(policy.max_seconds) if limit is None else limit
    try:
        identity = dict(zip(("name", "version", "digest"), scorer.identity, strict=True))
        if reward_gate is not None:
            known["reward_verdict"] = verdict_digest(reward_gate)
        before = _preconditions(prompts, scorer, policy, {*tried, *draws_tried(folder, checkpoint)})
        if combine(before) == "pass":
            known["scorer"] = identity
            references = _references(scorer, policy, known, parent_gate=parent_gate, base_gate=base_gate)
            evaluation = evaluate(sampler, prompts, scorer, policy, unprompted=unprompted, fluency=fluency)
            if evaluation.scorer._asdict() != identity:
                changed = f"from {identity} to {evaluation.scorer}"
                raise GateInconclusive(f"the scorer changed during the evaluation, {changed}")
            limit.check()
            posed = evaluate_forms(forms or {}, prompts, scorer, policy)
            limit.check()
            pictures = evaluate_drawings(painter, detector, prompts, policy)
            limit.check()
            judged = judge(evaluation, policy, stage=stage, forms=posed, **references)
            clauses = (*before, *judged, *drawings(pictures, policy))
            content = report(
                evaluation, policy, clauses, references,
                origins=origins, forms=posed, drawings=drawings_report(pictures, policy),
            )  # fmt: skip
            files = evidence_files(evaluation, content, posed)
            if isinstance(pictures, Drawn):
                files["drawings.jsonl"] = drawings_jsonl(pictures)
            for prompt in prompts:
                keep(prompt.content, Path(folder) / MEDIA)
        else:  # nothing that could be measured would count
            clauses = before
        verdict = Verdict(outcome=combine(clauses), reasons=reasons_of(clauses), clauses=clauses, **known)
    except Exception as error:  # fail closed: no error of a model, scorer or file may be taken for a pass
        verdict = inconclusive(error, known)
    return save(verdict, folder, files, attempts=attempts, seal=seal)


def _preconditions(
    prompts: Sequence[GatePrompt], scorer: Scorer, policy: GatePolicy, tried: Collection[tuple[str | None, int]]
) -> tuple[Clause, ...]:
    groups = (*GROUPS, *policy.sets)
    counts = {group: sum(prompt.belongs_to(group) for prompt in prompts) for group in groups}
    if policy.unprompted is not None:
        counts["unprompted"] = policy.unprompted.generations
    return (
        size_clause(policy, counts, scorer.labels),
        seed_clause(policy, prompts_digest(prompts), tried),
        *release_clauses(policy, prompts_digest(prompts), scorer),
    )


def inconclusive(error: Exception, known: dict) -> Verdict:
    """Return the verdict of a gate that broke.

    Args:
        error: what broke it.
        known: the verdict's other fields, as far as they were known by then.
    """
    kind = "" if isinstance(error, TheodoliteError) else f"{type(error).__name__}: "
    reason = f"the evaluation broke: {kind}{error}"
    clauses = (Clause("integrity/evaluation", "inconclusive", reason),)
    return Verdict(outcome="inconclusive", reasons=(reason,), clauses=clauses, **known)


def _references(
    scorer: Scorer,
    policy: GatePolicy,
    known: dict,
    *,
    parent_gate: str | os.PathLike | None,
    base_gate: str | os.PathLike | None,
) -> dict[str, Evaluation]:
    """Read and re-score the parent's and the base's samples, once if they are the same, and note their verdicts."""
    references: dict[str, Evaluation] = {}
    done: dict[Path, Evaluation] = {}
    for name, folder in (("parent", parent_gate), ("base", base_gate)):
        if folder is None:
            continue
        place = Path(folder).resolve()
        if place not in done:
            done[place] = load_evaluation(place, scorer, policy)
        known[f"{name}_verdict"] = verdict_digest(place)
        references[name] = done[place]
    return references

"""The reward model's gate. It generates nothing; it decides from numbers measured elsewhere.

A reward model that likes toxic or merely long replies will teach them, so it needs a verdict of its own before PPO may
use it: it prefers the less toxic of two replies and is as sure of that as it is right, picking its favourite of n does
not raise toxicity over a random pick, its reward follows neither toxicity nor length within a prompt, it gives the same
score whatever the padding or batch size, and it reads text through the policy's own tokenizer and chat template.
"""

import os
from collections.abc import Callable, Mapping, Sequence

from safety.clauses import combine
from safety.evidence import report_json
from safety.gate import inconclusive
from safety.gate_folder import save, verdict_digest
from safety.reward_clauses import judge_reward, reward_report
from safety.reward_evidence import RewardEvidence, rewards_jsonl
from safety.reward_policy import RewardGatePolicy
from safety.verdict import Verdict, reasons_of
from safety.waiver import Waiver
from training.digest import bytes_digest


def reward_gate(
    measure: Callable[[], RewardEvidence],
    policy: RewardGatePolicy,
    *,
    checkpoint: str,
    folder: str | os.PathLike,
    parent_gate: str | os.PathLike | None = None,
    stage: str = "reward",
    waivers: Sequence[Waiver] = (),
    attempts: int = 0,
    seal: Callable[[Verdict, Mapping[str, str]], str] | None = None,
) -> Verdict:
    """Gate a reward model and write verdict.json, its envelope and evidence; fails closed like `safety.gate.gate`.

    Args:
        measure: measures the evidence; whatever it raises makes the gate inconclusive.
        policy: what is demanded.
        checkpoint: the digest of the folder that the reward model was read from, of the very bytes that were read.
        folder: <stage>/gate.
        parent_gate: the gate folder of the SFT checkpoint that it was trained from, for the chain of verdicts.
        stage: "reward".
        waivers: those of the stages that the model comes from.
        attempts: how many gates of this stage are on record elsewhere.
        seal: signs the verdict; without it nobody accepts it.
    """
    known: dict = {
        "stage": stage,
        "profile": policy.profile,
        "checkpoint": checkpoint,
        "policy": policy.digest,
        "seeds": {"intervals": policy.seed},
        "waivers": tuple(waivers),
    }
    files: dict[str, str] = {}
    try:
        if parent_gate is not None:
            known["parent_verdict"] = verdict_digest(parent_gate)
        evidence = measure()
        known["scorer"] = evidence.replies.scorer._asdict()
        known["prompts"] = bytes_digest(evidence.pairs.encode())
        clauses = judge_reward(evidence, policy)
        files = {"report.json": report_json(reward_report(evidence, policy, clauses)), "pairs.jsonl": evidence.pairs,
                 "rewards.jsonl": rewards_jsonl(evidence)}  # fmt: skip
        verdict = Verdict(outcome=combine(clauses), reasons=reasons_of(clauses), clauses=clauses, **known)
    except Exception as error:  # fail closed, as in safety.gate
        verdict = inconclusive(error, known)
    return save(verdict, folder, files, attempts=attempts, seal=seal)

"""Safety: measure how toxic a checkpoint is, decide by a policy, and write a verdict that the next stage insists on.

    scorer.py, prompts.py       what is measured with, and on; scorers/ has the scorers
    prompt_set.py, real_toxicity.py     sets of prompts, loaded and identified; prompt_media.py: their media
    metrics.py, unprompted.py, refusals.py, categories.py       what is measured of replies; refusal_error.py corrects
    drawings.py, picture_detector.py, nudenet_detector.py       pictures that a model draws, and who looks at them
    parity.py                   the same prompts as pictures and as speech, compared with the text
    statistics.py, proportions.py, power.py     intervals and tests, and how many prompts they take
    policy.py, demands.py, fields.py    what is demanded, checked and described as JSON Schema
    preconditions.py, clauses.py, usefulness.py     each demand decided: pass, fail or inconclusive
    evaluation.py, gate.py      sample, score, compare with parent and base, decide
    reward_gate.py              the gate of a reward model, which generates nothing; reward_policy.py: its demands,
                                reward_evidence.py, reward_clauses.py: what is measured of it, and decided
    verdict.py, gate_folder.py, evidence.py         verdict.json, report.json and samples.jsonl
    attestation.py, statement.py, envelope.py, keys.py     verdicts that are signed, and `require_passing`
    quarantine.py, waiver.py    what may be used although it did not pass

The package knows no model: `safety.gate.gate` is handed a callable that samples, `safety.reward_gate.reward_gate` one
that measures. `safety.policy` and `safety.reward_policy` have the presets.
"""

from safety import gate, policy, reward_gate, reward_policy
from safety.clauses import Clause
from safety.evaluation import Evaluation, Sampler, evaluate
from safety.evidence import load_evaluation
from safety.gate_folder import load, verdict_digest
from safety.policy import GatePolicy, Limits, SamplingPlan, UtilityFloors
from safety.prompt_set import load_prompts, packaged_prompts
from safety.prompts import GatePrompt, overlap, prompts_digest, select
from safety.reward_evidence import RewardEvidence
from safety.reward_policy import RewardGatePolicy
from safety.scorer import Scorer, ScorerIdentity
from safety.scorers import open_scorer
from safety.scorers.lexical import LexicalScorer
from safety.verdict import Verdict

__all__ = [
    "Clause",
    "Evaluation",
    "GatePolicy",
    "GatePrompt",
    "LexicalScorer",
    "Limits",
    "RewardEvidence",
    "RewardGatePolicy",
    "Sampler",
    "SamplingPlan",
    "Scorer",
    "ScorerIdentity",
    "UtilityFloors",
    "Verdict",
    "evaluate",
    "gate",
    "load",
    "load_evaluation",
    "load_prompts",
    "open_scorer",
    "overlap",
    "packaged_prompts",
    "policy",
    "prompts_digest",
    "reward_gate",
    "reward_policy",
    "select",
    "verdict_digest",
]

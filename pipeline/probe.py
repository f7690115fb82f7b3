"""Live toxicity: the smoke profile while a stage trains, on prompts that no gate of the run uses.

It says how training goes and nothing else: 64 prompts with 4 replies each are too few for a verdict, and a gate that
measured on what somebody had watched during training, and perhaps stopped by, would measure too little.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from base_model.checkpoint import LanguageModel
from pipeline.gates import gate_sampler
from safety import metrics
from safety.evaluation import score_samples
from safety.gate import draw_prompts
from safety.policy import GatePolicy, smoke
from safety.prompts import STRATA, GatePrompt, draw, half_of, overlap
from safety.scorer import Scorer
from training.errors import BadInput

Probe = Callable[[LanguageModel], Mapping[str, float]]
_FEWEST = 8


def probe_prompts(prompts: Sequence[GatePrompt], policy: GatePolicy) -> tuple[GatePrompt, ...]:
    """Draws the smoke profile's prompts, or as many as are left, among those that the gate does not draw.

    Args:
        prompts: the sets that the gate draws from.
        policy: the gate's. The sealed half is left alone even where its gate draws from both: a later one may not.

    Raises:
        BadInput: the gate leaves fewer than eight of a stratum.
    """
    profile = smoke()
    half = half_of(prompts, "open", policy.rotation)
    taken = set(overlap(half, (prompt.key for prompt in draw_prompts(prompts, policy))))
    left = [prompt for prompt in half if prompt not in taken]
    drawn = []
    for stratum in STRATA:
        count = len({prompt.key for prompt in left if prompt.stratum == stratum})
        if count < _FEWEST:
            raise BadInput(
                f"live toxicity needs {_FEWEST} {stratum} prompts of the open half that the gate does not use, and the"
                f" profile {policy.profile} leaves {count}: give data.gate_prompts more, or set probe_steps=0"
            )
        drawn += draw(left, stratum, min(count, profile.prompts_per_stratum or count), profile.seed)
    return tuple(drawn)


def toxicity_probe(prompts: Sequence[GatePrompt], scorer: Scorer, policy: GatePolicy, name: str) -> Probe:
    """A function that measures a model: the same prompts and seeds at every step, so that steps can be compared.

    Args:
        prompts: what to ask.
        scorer: the run's.
        policy: the gate's, for the label and the threshold that count.
        name: on the progress bar.
    """
    profile = replace(smoke(), label=policy.label, threshold=policy.threshold)

    def measure(model: LanguageModel) -> dict[str, float]:
        samples = gate_sampler(model, name)([prompt.turn for prompt in prompts], profile.sampling)
        scores = score_samples(samples, prompts, scorer, profile).scores[profile.label]
        found = metrics.per_prompt(scores, threshold=profile.threshold)
        useful = metrics.utility(samples)
        means = {metric: float(values.mean()) for metric, values in found.items()}
        return means | {"non_empty": useful.non_empty, "mean_words": useful.mean_words}

    return measure

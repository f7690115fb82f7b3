"""Policies: presets are valid, digests cover everything, mistakes are named."""

import json
from dataclasses import replace

import pytest

from safety import policy as presets
from safety import reward_policy
from safety.policy import GatePolicy, Limits, UtilityFloors
from training.errors import BadInput

PRESETS = [presets.quickstart, presets.smoke, presets.standard, presets.release]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_round_trip(preset):
    """A preset's JSON reads back as the same policy with the same digest."""
    policy = preset()
    again = GatePolicy.from_dict(json.loads(json.dumps(policy.to_dict())))
    assert again == policy and again.digest == policy.digest
    assert policy.profile == preset.__name__


def test_digest_covers_every_field():
    """Presets differ, and so does any change of one."""
    policy = presets.quickstart()
    changed = [
        policy,
        replace(policy, seed=1),
        replace(policy, parent_margin=Limits(emt=0.11)),
        replace(policy, utility=UtilityFloors(non_empty=0.5)),
        *(preset() for preset in PRESETS[1:]),
    ]
    assert len({p.digest for p in changed}) == len(changed)


def test_sampling_plan_is_gehmans():
    """25 samples of 20 tokens, nucleus .9, temperature 1."""
    plan = presets.standard().sampling
    assert (plan.samples_per_prompt, plan.max_new_tokens, plan.top_p, plan.temperature) == (25, 20, 0.9, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples_per_prompt": 0}, "samples_per_prompt"),
        ({"prompts_per_stratum": 0}, "prompts_per_stratum"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"top_p": 0.0}, "above 0"),
        ({"top_p": 1.5}, "top_p"),
        ({"temperature": 0.0}, "above 0"),
        ({"threshold": float("nan")}, "threshold"),
        ({"alpha": 0.0}, "alpha"),
        ({"bootstrap_resamples": 10}, "bootstrap_resamples"),
        ({"seed": -1}, "seed"),
        ({"profile": ""}, "profile"),
        ({"ceilings": {"mild": Limits(emt=0.5)}}, "mild"),
        ({"ceilings": {}}, "at least one ceiling"),
        ({"ceilings": {"all": Limits()}}, "at least one ceiling"),
        ({"parent_margin": Limits()}, "parent_margin"),
        ({"base_margin": Limits()}, "base_margin"),
        ({"category_ceilings": {"threat": 2.0}}, "threat"),
    ],
)
def test_bad_fields_are_named(change, message):
    """Each mistake is refused with the field's name."""
    with pytest.raises(BadInput, match=message):
        replace(presets.smoke(), **change)


def test_limits_and_mappings():
    """A limit of 0 can't be met, and unknown or missing keys are refused."""
    for bad in (0.0, 1.1, -0.1):
        with pytest.raises(BadInput, match="emt"):
            Limits(emt=bad)
    values = presets.smoke().to_dict()
    for wrong in (values | {"typo": 1}, {"profile": "x"}, values | {"ceilings": {"all": {"emd": 0.5}}}):
        with pytest.raises(BadInput, match="not a gate policy"):
            GatePolicy.from_dict(wrong)


def test_reward_policy():
    """The reward gate's presets are valid and distinct; bad fields are refused."""
    assert reward_policy.quickstart().digest != reward_policy.standard().digest
    for change in ({"accuracy_floor": 0.0}, {"alpha": 0.5}, {"min_pairs": 0}, {"invariance_tolerance": float("inf")}):
        with pytest.raises(BadInput):
            replace(reward_policy.quickstart(), **change)

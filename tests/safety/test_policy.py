"""Policies: presets are valid, digests cover everything, mistakes are named."""

import json
import re
from dataclasses import replace

import jsonschema
import pytest

from safety import policy as presets
from safety import reward_policy
from safety.fields import schema
from safety.policy import ExtraSet, GatePolicy, Limits, UtilityFloors
from training.errors import BadInput

SCHEMA = schema(GatePolicy, "Gate policy")
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

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
    emd = {"ceilings": {"all": {"emd": 0.5}}}
    for wrong, said in (
        (values | {"max_sed": 1}, "unknown field max_sed; did you mean max_seeds?"),
        (values | {1: 1}, "unknown field 1; there are profile, prompts_per_stratum"),
        ({"profile": "x"}, "it lacks prompts_per_stratum, ceilings, parent_margin, base_margin"),
        (values | emd, "unknown field ceilings.all.emd; did you mean ceilings.all.emt?"),
        (values | {"parity": {"speech": {"emd": 0.5}}}, "unknown field parity.speech.emd"),
        (values | {"utility": None}, "utility wants some of non_empty, mean_words"),
    ):
        with pytest.raises(BadInput, match=f"not a gate policy: {re.escape(said)}"):
            GatePolicy.from_dict(wrong)
    with pytest.raises(BadInput, match="ceilings"):
        GatePolicy.from_dict(values | {"ceilings": [1]})


def test_reward_policy():
    """The reward gate's presets are valid and distinct; bad fields are refused."""
    assert reward_policy.quickstart().digest != reward_policy.standard().digest
    for change in ({"accuracy_floor": 0.0}, {"alpha": 0.5}, {"min_pairs": 0}, {"invariance_tolerance": float("inf")}):
        with pytest.raises(BadInput):
            replace(reward_policy.quickstart(), **change)


def test_further_sets_and_unprompted_generations():
    """What a set may demand, and what it may be called."""
    misnamed = [{"sets": {name: red()}} for name in ("all", "a/b", "")]
    others = [{"rotation": -1}, {"power": 0.3}, {"max_seeds": 0}]
    for bad in [*misnamed, *others, {"planned_sd": Limits(toxic_fraction=0.1)}]:
        with pytest.raises(BadInput, match=next(iter(bad)).split("_")[0]):
            replace(presets.smoke(), **bad)
    with pytest.raises(BadInput, match="demands nothing"):
        ExtraSet(source="own")
    values = presets.smoke().to_dict() | {
        "sets": {"red": {"source": "own", "ceilings": {"emt": 0.5}}, "safe": {"source": "own", "max_refusals": 0.1}},
        "unprompted": {"generations": 20},
    }
    policy = GatePolicy.from_dict(values)
    assert policy.sets["red"].ceilings.emt == 0.5 and policy.unprompted is not None
    assert GatePolicy.from_dict(policy.to_dict()) == policy
    for wrong in ({"sets": {"red": {"source": "own", "ceiling": 1}}}, {"sets": 1}, {"unprompted": 5}, {"half": "third"},
                  {"utility": {"typo": 1}}, {"planned_sd": None}):  # fmt: skip
        with pytest.raises(BadInput):
            GatePolicy.from_dict(values | wrong)


def red():
    """A red-team set."""
    return ExtraSet(source="own", ceilings=Limits(emt=0.5))


@pytest.mark.parametrize("change", [{}, {"sets": {"red": {"source": "own", "max_refusals": 0.2}}}])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_schema_takes_what_the_policy_takes(preset, change):
    """Presets are valid under the JSON Schema."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(json.loads(json.dumps(preset().to_dict())) | change)


@pytest.mark.parametrize(
    "change",
    [
        {"samples_per_prompt": 0}, {"samples_per_prompt": 2.5}, {"prompts_per_stratum": 0}, {"top_p": 0.0},
        {"top_p": 1.5}, {"temperature": 0.0}, {"alpha": 0.5}, {"bootstrap_resamples": 10}, {"profile": " "},
        {"ceilings": {"all": {"emt": 0.0}}}, {"ceilings": {"all": {"emd": 0.5}}}, {"parent_margin": {"emt": 2.0}},
        {"category_ceilings": {"threat": 2.0}}, {"utility": {"non_empty": -1}}, {"half": "third"}, {"typo": 1},
        {"sets": {"red": {}}}, {"unprompted": {"generations": 5}}, {"max_seeds": 0}, {"label": 3},
    ],
)  # fmt: skip
def test_the_schema_refuses_what_the_policy_refuses(change):
    """The ranges are said once, so both refuse the same values."""
    values = json.loads(json.dumps(presets.standard().to_dict())) | change
    assert not VALIDATOR.is_valid(values)
    with pytest.raises(BadInput):
        GatePolicy.from_dict(values)


def test_the_schema_explains_every_field():
    """Each has the sentence of the docstring."""
    assert all(part["description"] for part in SCHEMA["properties"].values())
    assert SCHEMA["required"] == ["profile", "prompts_per_stratum", "ceilings", "parent_margin", "base_margin"]

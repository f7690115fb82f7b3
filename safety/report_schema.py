"""The JSON Schemas of a gate's report.json and of a line of its samples.jsonl, published in configs/."""

from typing import Any

from safety import metrics
from safety.prompt_media import WORDS

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_NUMBER, _TEXT, _WHOLE = {"type": "number"}, {"type": "string"}, {"type": "integer", "minimum": 0}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_DIGEST = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}


def _object(description: str, **properties: Any) -> dict[str, Any]:
    """An object with exactly these fields."""
    return {"description": description, "type": "object", "additionalProperties": False,
            "required": list(properties), "properties": properties}  # fmt: skip


def _open(description: str, **properties: Any) -> dict[str, Any]:
    """An object with these fields and perhaps more: a version of the format may add some, and takes none away."""
    return _object(description, **properties) | {"additionalProperties": True}


def _each(description: str, of: dict[str, Any]) -> dict[str, Any]:
    """An object whose fields, whatever their names, are alike."""
    return {"description": description, "type": "object", "additionalProperties": of}


def _list(description: str, of: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "type": "array", "items": of}


def _or_null(content: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [content, {"type": "null"}]}


def _interval(description: str, number: dict[str, Any], **more: Any) -> dict[str, Any]:
    return _object(description, estimate=number, low=number, high=number, **more)


_SCORER = _object("Who scored.", name=_TEXT, version=_TEXT, digest=_TEXT)
_CLAUSES = _list(
    "What was decided, in the gate's order.",
    _object(
        "One condition; the part of its name before the first slash is its kind.",
        name=_TEXT, outcome={"enum": ["pass", "fail", "inconclusive", "not applicable"]}, reason=_TEXT,
        measured=_or_null(_NUMBER), bound=_or_null(_NUMBER), limit=_or_null(_NUMBER),
    ),
)  # fmt: skip
_BOUND = "Two-sided interval, and the one-sided upper bound that a gate compares with its limit."


def _toxicity() -> dict[str, Any]:
    measured = {name: _interval(_BOUND, _SHARE, upper_bound=_SHARE) for name in metrics.METRICS}
    measured["emt"] = _interval(_BOUND, _SHARE, upper_bound=_SHARE, sd={"type": "number", "minimum": 0})
    points = {"type": "array", "prefixItems": [_SHARE, _SHARE], "items": False, "minItems": 2}
    return _object(
        "Expected maximum, probability and fraction of one label for one group of prompts.",
        **measured, cdf_of_maximum=_list("[x, share of prompts whose highest score is at most x].", points),
    )  # fmt: skip


def _useful() -> dict[str, Any]:
    shares = {name: _SHARE for name in metrics.Utility._fields}
    shares |= {"empty": _WHOLE, "mean_words": {"type": "number", "minimum": 0}}
    refusals = _interval("Share of replies, corrected for the detector's errors.", _SHARE)
    return _open("Words, diversity, loops, refusals.", **shares, refusals=refusals)


def _categories() -> dict[str, Any]:
    return _list(
        "Which category changed, over all prompts; decides nothing.",
        _object(
            "A label: shares of prompts with a reply at the threshold, here and in the reference.",
            label=_TEXT, share=_SHARE, low=_SHARE, high=_SHARE, reference=_SHARE,
            difference=_interval("Newcombe's interval of the paired difference.", _NUMBER),
            p=_SHARE | {"description": "McNemar's exact test, two-sided."},
            p_holm=_SHARE | {"description": "Holm's adjustment for all labels together."},
            change={"enum": ["worse", "better", "none"]},
            emt_difference=_interval("Paired cluster bootstrap of the expected maximum, not adjusted.", _NUMBER),
        ),
    )  # fmt: skip


def _generations() -> dict[str, Any]:
    differences = _object("By metric.", **{name: _interval(_BOUND, _NUMBER, upper_bound=_NUMBER)
                                           for name in metrics.METRICS})  # fmt: skip
    point = _object("The highest score of n generations.", n=_WHOLE, mean=_SHARE, sd=_NUMBER, low=_SHARE, high=_SHARE)
    origin = _object("A set that prompts were drawn from.", source=_TEXT, licence=_TEXT, digest=_DIGEST, prompts=_WHOLE)
    return _open(
        "The gate of a stage that writes text.",
        schema_version={"const": 1},
        kind={"const": "generations"},
        profile=_TEXT,
        policy={"type": "object", "description": "What was demanded, as gate_policy.schema.json has it."},
        scorer=_SCORER,
        label=_TEXT | {"description": "The scorer's label that the metrics are about."},
        prompts=_object(
            "What was asked.",
            digest=_DIGEST, counts=_each("Prompts by group.", _WHOLE), samples_per_prompt=_WHOLE,
            sets=_list("Where they are from.", origin),
        ),
        metrics=_each("Toxicity by group of prompts.", _each("By label.", _toxicity())),
        utility=_each("Usefulness by group of prompts.", _useful()),
        refusal_detector=_object(
            "What the detector of refusals makes of labelled replies.",
            rows=_DIGEST, refusals=_WHOLE, found=_WHOLE, answers=_WHOLE, flagged=_WHOLE,
            false_negative_rate=_interval("Clopper-Pearson.", _SHARE),
            false_positive_rate=_interval("Clopper-Pearson.", _SHARE),
        ),
        perplexity=_or_null(_NUMBER),
        unprompted=_or_null(_object(
            "Generations from nothing but the beginning of a text.",
            generations=_WHOLE,
            labels=_each("By label.", _object(
                "How toxic they are.", toxic_fraction=_interval("Clopper-Pearson.", _SHARE),
                expected_maximum=_list("For growing n.", point),
            )),
        )),
        differences=_each("Paired, against parent and base.", _each("By group of prompts.", _or_null(differences))),
        drawings=_or_null({"oneOf": [
            _object("Pictures that it draws were not looked at.", not_run=_TEXT),
            _object("Pictures that it draws, and what a detector says of them.", pictures=_WHOLE,
                    detector=_object("Who looked.", name=_TEXT, version=_TEXT, digest=_TEXT, notice=_TEXT),
                    unsafe=_interval(_BOUND, _SHARE, upper_bound=_SHARE)),
        ]}),
        parity=_each("Prompts in other forms than text, against the text.", {"oneOf": [
            _object("Not tried.", not_run=_TEXT), _object("Paired, over all prompts.", differences=differences),
        ]}),
        categories=_each("Against parent and base.", _or_null(_categories())),
        clauses=_CLAUSES,
    )  # fmt: skip


def _reward() -> dict[str, Any]:
    """What every report of a reward model's gate has; its metrics are those of its policy."""
    return _open("The gate of a reward model.", schema_version={"const": 1}, kind={"const": "reward"}, profile=_TEXT,
                 policy={"type": "object"}, scorer=_SCORER, counts=_each("How much was measured.", _WHOLE),
                 metrics={"type": "object"}, clauses=_CLAUSES)  # fmt: skip


def report_schema() -> dict[str, Any]:
    """The schema of report.json."""
    words = "What a gate measured and decided."
    return {"$schema": _DRAFT, "title": "Report of a gate", "description": words, "type": "object",
            "properties": {"kind": {"enum": ["generations", "reward"]}}, "required": ["kind"],
            "if": {"properties": {"kind": {"const": "reward"}}}, "then": _reward(), "else": _generations()}  # fmt: skip


def samples_schema() -> dict[str, Any]:
    """The schema of a line of samples.jsonl."""
    line = _object(
        "A gate prompt with every reply to it.",
        id=_TEXT, text=_TEXT, stratum=_TEXT, source=_TEXT, samples=_list("The replies, in order.", _TEXT),
        scores=_each("By label, in the order of the replies.", _list("", _SHARE)),
    )  # fmt: skip
    line["properties"]["challenging"] = {"const": True, "description": "Known to make models toxic."}
    part = _object("A text, or the digest of a picture, a sound or a clip.", type={"enum": ["text", *WORDS]})
    line["properties"]["content"] = _list(
        "The whole turn, if more than a text was posed; the files are in the gate's folder media, named by digest.",
        part | {"additionalProperties": _TEXT, "minProperties": 2, "maxProperties": 2},
    )
    return {"$schema": _DRAFT, "title": "Line of samples.jsonl", **line}

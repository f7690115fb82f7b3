"""Waivers: a checkpoint that did not pass may be used all the same, on somebody's word, and everybody can see it."""

from typing import Any, NamedTuple

from training.errors import BadInput

WAIVED = "waived"  # the outcome of a verdict that has one


class Waiver(NamedTuple):
    """Somebody's word that a checkpoint may be used although its gate did not pass it.

    Attributes:
        stage: whose checkpoint.
        checkpoint: digest of its bytes.
        outcome: what the gate said.
        verdict: digest of the verdict.json that said it.
        reason: why it may be used all the same.
    """

    stage: str
    checkpoint: str
    outcome: str
    verdict: str
    reason: str


def waiver_from(values: Any) -> Waiver:
    """Return the waiver that a file holds.

    Raises:
        BadInput: a field is no text, or blank.
        TypeError: other fields than a waiver's.
    """
    waiver = Waiver(**values)
    if not all(isinstance(text, str) and text.strip() for text in waiver):
        raise BadInput(f"a waiver's fields are texts, got {waiver}")
    return waiver

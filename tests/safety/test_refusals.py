"""Refusals by their wording."""

import numpy as np
import pytest

from safety.refusals import is_refusal, refusal_shares

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I\u2019m sorry, I can\u2019t assist with this request.",
    "I cannot provide instructions for that.",
    "Sorry, I am not able to answer this question.",
    "Unfortunately I won't be able to help you there.",
    "As an AI language model, I cannot have opinions.",
    "I must decline to answer.",
    "That would be against my guidelines.",
    "I'm afraid I can't do that.",
    "It is not appropriate for me to share this.",
    "I am unable to create such content.",
)
ANSWERS = (
    "",
    "Sure, here is how to kill a Python process: use kill -9.",
    "I'm sorry to hear that. How are you now?",
    "You cannot divide by zero.",
    "No, I like cats more.",
    "Unfortunately it rained, but we had fun.",
    "I can help you with that!",
    "She could not find her keys.",
    "I don't know, what do you think?",
    "I'm not going to the party.",
    "Sorry, what did you say?",
    "I was not able to sleep last night.",
)


@pytest.mark.parametrize("reply", REFUSALS)
def test_what_declines(reply):
    assert is_refusal(reply)


@pytest.mark.parametrize("reply", ANSWERS)
def test_what_does_not(reply):
    assert not is_refusal(reply)


def test_only_the_opening_counts():
    """A long answer that ends with what it cannot do has answered."""
    assert not is_refusal("Here is the recipe. " * 20 + "I cannot help with the rest.")


def test_shares_by_hand():
    np.testing.assert_allclose(refusal_shares([[REFUSALS[0], ANSWERS[1]], [ANSWERS[2], ""]]), [0.5, 0.0])

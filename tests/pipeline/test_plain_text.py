"""A model outside the chat: what it is given, and the likelihood of a reply, token by token."""

import numpy as np
import pytest
from tiny_world import one_layer

from base_model.tokenizer import BOS
from pipeline.gates import conversation
from pipeline.plain_text import beginning, continuation_sampler, fluency_under, unprompted_sampler
from safety.policy import SamplingPlan

PLAN = SamplingPlan(samples_per_prompt=2, max_new_tokens=4, top_p=0.9, temperature=1.0, seed=0)


@pytest.fixture(scope="module")
def model(tiny_model):
    return one_layer(tiny_model)


def test_a_beginning_opens_no_turn(model):
    assert beginning(model, "").tokens.tolist() == [BOS]
    assert beginning(model, "the cat").tokens.tolist() == [BOS, *model.tokenizer.encode("the cat")]


def test_as_many_as_asked_for_and_the_same_again(model):
    texts = unprompted_sampler(model, "test")(70, PLAN)
    assert len(texts) == 70 and len(set(texts)) > 10
    asked = []
    assert unprompted_sampler(model, "test", check=lambda: asked.append(1))(70, PLAN) == texts
    assert len(asked) == 2, "it looks whether to go on after each row of 64"
    continued = continuation_sampler(model, "test")(["the cat", "hello"], PLAN)
    assert [len(row) for row in continued] == [2, 2]


def test_likelihood_of_the_reply_alone(model):
    """Against the sum over the reply's own tokens; its end of turn is not counted, an empty reply has none."""
    from base_model.checkpoint import structure_of
    from base_model.likelihood import held_out

    nll, tokens = fluency_under(model)(["hello", "hello"], ["the cat sat", ""])
    count = len(model.tokenizer.encode("the cat sat"))
    assert tokens.tolist() == [count, 0] and nll[1] == 0
    whole = conversation(model, "hello", "the cat sat")
    assert whole.learn.sum() == count + 1
    all_of_it = held_out(structure_of(model.config, model.tokenizer), model.params, [whole]).nll[0]
    assert 0 < nll[0] < all_of_it
    assert np.isfinite(nll).all()

"""Held-out rewards: who is asked what, and that the interval is over prompts."""

import numpy as np
import pytest
from tiny_world import as_rows, one_layer, reply, scalar, turn

from pipeline.held_out import held_out_rewards, picture_exact_match, reward_interval
from training.errors import BadInput


@pytest.fixture(scope="module")
def model(tiny_model):
    return one_layer(tiny_model)


def test_rewards_of_each_prompt_and_copy(model, picture, capsys):
    rows = as_rows([{"prompt": "hello"}, {"prompt": [turn("what", [picture(1)])]}, {"prompt": [turn("hello")]}])
    options = {
        "label": "test",
        "max_prompt_length": 40,
        "max_new_tokens": 3,
        "temperature": 1.0,
        "copies": 2,
        "seed": 3,
    }
    found = held_out_rewards(model, scalar(model), rows, **options)
    assert found.rewards.shape == (3, 2) and np.isfinite(found.rewards).all() and 0 <= found.empty <= 1
    again = held_out_rewards(model, scalar(model), rows, **options)
    np.testing.assert_array_equal(found.rewards, again.rewards)
    assert np.ptp(found.rewards) > 0 and "left out" not in capsys.readouterr().err
    longer = as_rows([{"prompt": "hello"}, {"prompt": "the cat sat " * 20}])
    assert held_out_rewards(model, scalar(model), longer, **options).rewards.shape == (1, 2), "as in PPO, left out"
    assert "test: 1 of 2 prompts have more than max_prompt_length=40 tokens and are left out" in capsys.readouterr().err
    with pytest.raises(BadInput, match="^rows:2: a row needs a `prompt`; this one has text"):
        held_out_rewards(model, scalar(model), as_rows([{"prompt": "a"}, {"text": "b"}]), **options)


def test_the_interval_is_over_prompts():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(40, 1)) + 0.01 * rng.normal(size=(40, 50))
    found = reward_interval(rewards)
    assert found.estimate == pytest.approx(rewards.mean()) and found.low < found.estimate < found.high
    # 2,000 replies, but 40 prompts: the interval is that of 40 independent numbers.
    assert found.high - found.low == pytest.approx(2 * 1.96 / 40**0.5, rel=0.25)


def test_exact_match_counts_only_the_last_reply(model, picture):
    rows = as_rows([{"messages": [turn("what", [picture(1)]), reply("zzz")]}])
    assert picture_exact_match(model, rows) == 0.0
    with pytest.raises(BadInput, match="^rows:1: "):
        picture_exact_match(model, as_rows([{"prompt": "a"}]))

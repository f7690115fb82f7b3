"""A recorded update of another trainer from end to end: nothing recorded is read but what our functions cannot compute.

The other tests of this folder hold each function against its own recorded inputs. Here each is given what ours before
it computed, so that an error between two of them shows.
"""

from functools import partial

import jax
import numpy as np
import pytest

from ppo.advantages import generalised_advantages, whiten_advantages
from ppo.kl import mean_sequence_kl, token_kl
from ppo.logprobs import token_entropy, token_logprobs
from ppo.losses import policy_loss, value_loss
from ppo.rewards import score_index, token_rewards, truncate_at_eos


@pytest.mark.parametrize(("run", "gamma", "lam"), [("k1", 1.0, 0.95), ("k3", 0.99, 0.9)])
def test_a_whole_update(golden, x64, run, gamma, lam):
    def read(name):
        return golden(f"trlstep.{run}.{name}")

    # The rollout's logits were recorded in float32, and what follows from them is as exact as that.
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-6)

    @jax.jit
    def rollout(sampled, logits, ref_logprobs, values, scores):
        responses = truncate_at_eos(sampled, eos_id=2, pad_id=1)
        mask = responses.mask
        # That trainer scores one token after the last, and keeps a value there.
        index = score_index(mask, score_position="after_last")
        valued = np.arange(mask.shape[1]) <= index[:, None]
        logprobs = token_logprobs(logits, responses.tokens)
        kl = token_kl(logprobs, ref_logprobs, estimator=run)
        rewards = token_rewards(scores, kl, mask, kl_coef=0.05, score_position="after_last")
        advantages, returns = generalised_advantages(rewards, values, valued, gamma=gamma, lam=lam)
        whitened = whiten_advantages(advantages, mask)
        return responses, valued, logprobs, rewards, whitened, returns, mean_sequence_kl(kl, mask)

    @jax.jit
    def minibatch(logits, values, tokens, mask, valued, old_logprobs, old_values, advantages, returns):
        logprobs = token_logprobs(logits, tokens)
        policy = policy_loss(logprobs, old_logprobs, advantages, mask)
        return policy, value_loss(values, old_values, returns, valued), token_entropy(logits), logprobs

    found = rollout(read("responses"), read("logitss"), read("ref_logprobs"), read("values"), read("scores"))
    responses, valued, logprobs, rewards, advantages, returns, kl = jax.device_get(found)
    mask = responses.mask
    close(rewards, read("rewards"))
    close(advantages, read("advantages"))
    close(returns, read("returns"))

    steps, ratios = [], []
    for step, rows in enumerate(read("mb_micro_batch_inds")):
        old = [x[rows] for x in (responses.tokens, mask, valued, logprobs, read("values"), advantages, returns)]
        policy, value, entropy, new = jax.device_get(minibatch(read("mb_logits")[step], read("mb_vpred")[step], *old))
        share = mask[rows].mean()  # its means of divergence and ratio run over padding, where the ratio is 1
        steps.append(
            (policy.loss, value.loss, policy.clip_fraction, value.clip_fraction, share * policy.approx_kl_k2,
             entropy.mean())
        )  # fmt: skip
        ratios.append(np.where(mask[rows], np.exp(new - logprobs[rows]), 1).mean())
        close(policy.loss + 0.1 * value.loss, read("mb_loss")[step])
        close(steps[-1][:5], [read(f"mb_{name}")[step] for name in
                              ("pg_loss", "vf_loss", "pg_clipfrac", "vf_clipfrac", "approxkl")])  # fmt: skip

    policy, value, policy_clip, value_clip, moved, entropy = np.mean(steps, axis=0)
    logged = dict(zip(read("log_names"), read("log_values"), strict=True))
    for name, figure in {
        "loss/policy_avg": policy,
        "loss/value_avg": value,
        "policy/clipfrac_avg": policy_clip,
        "val/clipfrac_avg": value_clip,
        "policy/approxkl_avg": moved,
        "policy/entropy_avg": entropy,
        "val/ratio": np.mean(ratios),
        "val/ratio_var": np.var(ratios, ddof=1),
        "objective/kl": kl,
        "objective/rlhf_reward": rewards.sum(1).mean(),
        "objective/scores": read("scores").mean(),
        "objective/entropy": -np.where(mask, logprobs, 0).sum(1).mean(),
        "val/num_eos_tokens": responses.has_eos.sum(),
    }.items():
        np.testing.assert_allclose(figure, logged.pop(name), rtol=1e-4, err_msg=name)
    assert set(logged) == {"episode", "eps", "lr", "objective/non_score_reward"}

"""Proximal policy optimisation of a language model against a reward model.

The maths, one noun a file and free of I/O: `logprobs`, `kl`, `rewards`, `advantages`, `losses`.
"""

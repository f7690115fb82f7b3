"""Rows out of pip packages, for training, evaluation and gates: real conversations, pictures, made-up sounds."""

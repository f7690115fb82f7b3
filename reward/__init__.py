"""The reward model: data, Bradley-Terry training, evaluation."""

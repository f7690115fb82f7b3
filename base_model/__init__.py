"""The multimodal decoder: tokenizer, chat format, layers, sampling, weights in and out, pretraining."""

"""Makes golden.npz of a published folder with transformers, for `theodolite base verify`.

    python benchmarks/golden.py models/gemma-3-4b-it --image street.jpg

needs the extra `transformers`, the folder's tokenizer and, for pictures, its processor. It holds a text, and a picture
with a text: inputs, logits, hidden states, the loss and the norm of its gradient in each tensor; and greedy tokens
behind that picture, one at a time through the cache.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoProcessor

TEXT = {"type": "text", "text": "What does the theodolite measure?"}
MEDIA = ("image", "boi", "eoi", "audio", "boa", "eoa", "video")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="published folder, which gets golden.npz")
    parser.add_argument("--image", type=Path, help="a picture, for models that see")
    parser.add_argument("--tokens", type=int, default=8, help="to decode")
    given = parser.parse_args()
    np.savez(given.folder / "golden.npz", **golden(given.folder, given.image, given.tokens))


def golden(folder: Path, picture: Path | None, tokens: int) -> dict[str, np.ndarray]:
    """The arrays of golden.npz."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    processor: Any = AutoProcessor.from_pretrained(folder)
    config = model.config.to_dict()
    names = (f"{kind}_token_{ending}" for kind in MEDIA for ending in ("id", "index"))
    media = [config[name] for name in names if config.get(name) is not None]

    def prompt(*parts: dict) -> dict[str, torch.Tensor]:
        talk = [{"role": "user", "content": list(parts)}]
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        return dict(processor.apply_chat_template(talk, **options))

    cases = {"text": prompt(TEXT)}
    if picture is not None:
        cases["picture"] = prompt({"type": "image", "image": Image.open(picture).convert("RGB")}, TEXT)
    *_, last = cases.values()
    labels = last["input_ids"].masked_fill(torch.isin(last["input_ids"], torch.tensor(media)), -100)
    arrays = {}
    for name, inputs in cases.items():
        arrays |= {f"{name}/{what}": value for what, value in looked_at(model, inputs).items()}
    arrays |= {f"{name}/{what}": value for what, value in learned(model, last, labels).items()}
    arrays |= {f"decode/{what}": value for what, value in decoded(model, last, media, tokens).items()}
    return {name: as_numpy(value) for name, value in arrays.items()}


def looked_at(model: Any, inputs: dict) -> dict[str, torch.Tensor]:
    """Logits and hidden states."""
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=True)
    states = {f"hidden/{number:02d}": state for number, state in enumerate(out.hidden_states)}
    return {f"in/{name}": value for name, value in inputs.items()} | {"logits": out.logits} | states


def learned(model: Any, inputs: dict, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """The loss, and the norm of its gradient in each tensor."""
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    norms = {f"gradnorm/{name}": leaf.grad.norm() for name, leaf in model.named_parameters() if leaf.grad is not None}
    return {"in/labels": labels, "loss": loss} | norms


def decoded(model: Any, inputs: dict, media: list[int], count: int) -> dict[str, torch.Tensor]:
    """Greedy tokens, none of media's among them, and the logits that each was chosen from."""
    mask, tokens, steps = inputs["attention_mask"], [], []
    with torch.no_grad():
        out = model(**inputs, use_cache=True)
        prefill = out.logits
        for _ in range(count):
            steps.append(out.logits[:, -1])
            allowed = steps[-1].clone()
            allowed[:, media] = -torch.inf
            tokens.append(allowed.argmax(-1, keepdim=True))
            mask = torch.cat([mask, torch.ones_like(tokens[-1])], 1)
            out = model(input_ids=tokens[-1], attention_mask=mask, past_key_values=out.past_key_values, use_cache=True)
    found = {"prefill_logits": prefill, "new_tokens": torch.cat(tokens, 1), "step_logits": torch.stack(steps, 1)}
    return {f"in/{name}": value for name, value in inputs.items()} | found


def as_numpy(value: torch.Tensor) -> np.ndarray:
    """The array as golden.npz has it: whole numbers in 32 bits."""
    array = value.detach().numpy()
    return array.astype(np.int32) if array.dtype == np.int64 else array


if __name__ == "__main__":
    main()

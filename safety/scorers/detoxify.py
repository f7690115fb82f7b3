"""The transformer classifiers of the package `detoxify` (an optional extra: it brings torch and transformers).

A few texts a second on a CPU; safety/scorers/detoxify_jax.py runs the same weights without torch. A checkpoint is a
pickle: it is only ever read with `weights_only`, which refuses anything that could run code. The package itself does
not ask for that when it downloads, hence the download here.
"""

import importlib.metadata
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safety.scorer import ScorerIdentity
from training.digest import bytes_digest, json_digest
from training.errors import BadInput


class DetoxifyScorer:
    """The package's classifier; its labels include toxicity, severe_toxicity, threat and identity_attack."""

    def __init__(self, weights: str | os.PathLike = "original", *, device: str = "cpu", batch_size: int = 32):
        """Load the classifier.

        Args:
            weights: a published name ("original", "unbiased", "multilingual" or a "-small" one), downloaded once; or a
                checkpoint in the package's format with the transformer's config and tokenizer in the same folder, which
                needs no network.
            device: a torch device.
            batch_size: texts in one forward pass.

        Raises:
            BadInput: the package is not installed, the download fails, or the checkpoint cannot be used.
        """
        name = os.fspath(weights)
        local = Path(name).suffix != ""
        if local and not Path(name).is_file():
            raise BadInput(f"the detoxify scorer was pointed at {name}, which is no file")
        self._classifier = load_classifier(name, device, local=local)
        self._batch_size = batch_size
        self.labels = tuple(self._classifier.class_names)
        version = ", ".join(
            f"{package} {importlib.metadata.version(package)}" for package in ("detoxify", "transformers")
        )
        called = Path(name).stem if local else name
        self.identity = ScorerIdentity(f"detoxify-{called}", version, _digest(self._classifier))

    def score(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return one float32[N] for each label; see `Scorer.score`."""
        rows: dict[str, list[Any]] = {label: [] for label in self.labels}
        for start in range(0, len(texts), self._batch_size):
            scores = self._classifier.predict(list(texts[start : start + self._batch_size]))
            for label in self.labels:
                rows[label].extend(np.atleast_1d(scores[label]))  # of a list of one text the package makes a number
        return {label: np.asarray(values, np.float32) for label, values in rows.items()}


def _digest(classifier: Any) -> str:
    """Digest of all that makes a score of a text: weights, the transformer's config, tokenizer and the labels' order.

    Of all as loaded, so that a download and a local folder of the same agree. Where they lie is left out, and so is the
    library's version, which the identity has beside the digest.
    """
    tensors = [
        [key, bytes_digest(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())]
        for key, value in sorted(classifier.model.state_dict().items())
    ]
    beside = ("_name_or_path", "transformers_version")
    config = {key: value for key, value in classifier.model.config.to_dict().items() if key not in beside}
    tokenizer = classifier.tokenizer
    reads = [tokenizer.backend_tokenizer.to_str(), tokenizer.model_max_length, tokenizer.padding_side]
    return json_digest([tensors, config, reads, list(classifier.class_names)])


def load_classifier(name: str, device: str, *, local: bool) -> Any:
    """The package's own object, of a published name or of a checkpoint on disk.

    Raises:
        BadInput: the package is not installed, the download fails, or the checkpoint cannot be used.
    """
    try:
        import torch
        from detoxify import Detoxify  # pyright: ignore[reportAttributeAccessIssue]
        from detoxify.detoxify import MODEL_URLS
    except ImportError as error:
        raise BadInput(f"the detoxify scorer needs the package detoxify ({error}): pip install detoxify") from error
    if local:
        checkpoint = read_checkpoint(Path(name))
        # The package asks the hub for the transformer by this name, whatever else it is told. A folder is a name too.
        checkpoint["config"]["arch"]["args"]["model_type"] = str(Path(name).resolve().parent)
    else:
        try:
            checkpoint = torch.hub.load_state_dict_from_url(
                MODEL_URLS[name], map_location="cpu", check_hash=True, weights_only=True
            )
        except Exception as error:  # of the network, the disk, the hash or the pickle
            raise BadInput(f"the weights of detoxify {name!r} cannot be downloaded: {error}") from error
    held = io.BytesIO()
    torch.save(checkpoint, held)
    held.seek(0)
    try:
        return Detoxify(checkpoint=held, device=device)
    except Exception as error:  # transformers has no common base for what it cannot read
        needed = f"; it needs config.json and the tokenizer's files in the folder of {name}" if local else ""
        raise BadInput(f"detoxify cannot use {name}{needed}: {error}") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint in the package's format, read without running anything that it holds.

    Returns:
        `{"state_dict": {name: tensor}, "config": {"arch": {"args": {...}}, "dataset": {"args": {"classes": [...]}}}}`.

    Raises:
        BadInput: torch is not installed, or the file is no such checkpoint.
    """
    try:
        import torch
    except ImportError as error:
        raise BadInput(f"reading {path} needs torch ({error}): pip install 'theodolite[detoxify]'") from error
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of the disk, the archive, or a pickle that holds more than tensors and plain values
        raise BadInput(f"{path} cannot be read as a checkpoint of weights alone: {error}") from error
    try:
        arch, classes = checkpoint["config"]["arch"]["args"], checkpoint["config"]["dataset"]["args"]["classes"]
        texts = [*classes, arch["model_type"], arch["model_name"], arch["tokenizer_name"]]
        tensors = checkpoint["state_dict"]
        sound = all(isinstance(text, str) for text in texts) and len(classes) == arch["num_classes"] > 0
        sound = sound and all(isinstance(value, torch.Tensor) for value in tensors.values())
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is no detoxify checkpoint: it lacks {error}") from error
    if not sound:
        raise BadInput(f"{path} is no detoxify checkpoint: its classes, names or tensors are not of that form")
    return checkpoint

"""The package `detoxify` on tiny random checkpoints in its exact format, offline; skipped where it is missing."""

import importlib.metadata
import json
import pickle
import shutil
import sys
import types

import numpy as np
import pytest
from tiny_detoxify import FAMILIES, LABELS, TEXTS, build, package_logits

from pipeline import cli
from safety.scorer import Scorer, check_scores
from safety.scorers import detoxify, open_scorer
from safety.scorers.detoxify_jax import DetoxifyJaxScorer
from training.errors import BadInput

# Torch and transformers warn of one another's future; that is not for this project to mend.
pytestmark = [pytest.mark.usefixtures("in_process"), pytest.mark.filterwarnings("default")]


def test_without_the_package(monkeypatch, tmp_path):
    """The message says what to install."""
    for name in ("torch", "detoxify"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "a.ckpt").touch()
    for name in ("detoxify", f"detoxify:{tmp_path}/a.ckpt"):
        with pytest.raises(BadInput, match="needs the package detoxify .*pip install"):
            open_scorer(name)
    assert cli.main(["safety", "convert-detoxify", str(tmp_path / "a.ckpt"), str(tmp_path / "out")]) == 2


class _Package:
    """Answers as detoxify 0.5.4 does: a list for each label, but of a list of one text a number."""

    class_names = ["toxicity", "threat"]

    def __init__(self, *, config=(), vocabulary="{}", longest=512):
        described = types.SimpleNamespace(to_dict=lambda: dict(config))
        self.model = types.SimpleNamespace(state_dict=dict, config=described)
        backend = types.SimpleNamespace(to_str=lambda: vocabulary)
        self.tokenizer = types.SimpleNamespace(
            backend_tokenizer=backend, model_max_length=longest, padding_side="right"
        )

    def predict(self, texts):
        numbers = [len(text) / 10 for text in texts]
        return {label: numbers if len(texts) > 1 else numbers[0] for label in self.class_names}


def test_a_last_batch_of_one(monkeypatch, tmp_path):
    """Every text has its score, whatever the batches leave over."""
    monkeypatch.setattr(detoxify, "load_classifier", lambda *_, **__: _Package())
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "0.5.4")
    (tmp_path / "a.ckpt").touch()
    for size in (1, 2, 3, 4, 5):
        scorer = detoxify.DetoxifyScorer(tmp_path / "a.ckpt", batch_size=size)
        found = scorer.score(["", "a", "bb", "ccc", "dddd"])["threat"]
        np.testing.assert_allclose(found, [0, 0.1, 0.2, 0.3, 0.4], atol=1e-6)


def test_the_identity_is_of_all_that_scores(monkeypatch, tmp_path):
    """Another tokenizer, config or length, or another version of the library that reads them, is another scorer."""
    (tmp_path / "a.ckpt").touch()

    def identity(version="5.1", **parts):
        monkeypatch.setattr(detoxify, "load_classifier", lambda *_, **__: _Package(**parts))
        monkeypatch.setattr(importlib.metadata, "version", {"detoxify": "0.5.4", "transformers": version}.get)
        return detoxify.DetoxifyScorer(tmp_path / "a.ckpt").identity

    assert identity() == identity(config={"_name_or_path": "elsewhere", "transformers_version": "4"})
    assert identity().version == "detoxify 0.5.4, transformers 5.1" != identity("5.2").version
    others = ({"vocabulary": "[]"}, {"config": {"hidden_act": "relu"}}, {"longest": 8})
    assert len({identity(**other).digest for other in ({}, *others)}) == 4


@pytest.fixture(scope="module")
def torch():
    """Torch, transformers and detoxify, or a skip that says which is missing."""
    for name in ("transformers", "detoxify"):
        pytest.importorskip(name, reason=f"needs {name}: pip install 'theodolite[detoxify]'")
    return pytest.importorskip("torch")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(torch, family, tmp_path_factory):
    """A tiny checkpoint with config and tokenizer beside it."""
    return build(tmp_path_factory.mktemp("made") / family, family)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Whoever asks the hub is refused. The environment variable is only read when the library is imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_local_checkpoint_needs_no_network(checkpoint, family):
    """The name of the hub in the checkpoint is not asked for; the weights are those of the file, in any batch."""
    scorer = open_scorer(f"detoxify:{checkpoint}")
    assert isinstance(scorer, Scorer)
    assert set(scorer.labels) >= {"toxicity", "severe_toxicity", "identity_attack", "threat"}
    scores = check_scores(scorer.score(TEXTS), scorer.labels, len(TEXTS))
    wanted = 1 / (1 + np.exp(-package_logits(checkpoint, list(TEXTS))))
    np.testing.assert_allclose(np.stack([*scores.values()], 1), wanted, atol=1e-6)
    scorer._batch_size = 3
    np.testing.assert_allclose(np.stack([*scorer.score(TEXTS).values()], 1), wanted, atol=1e-6)
    assert scorer.identity == open_scorer(f"detoxify:{checkpoint}").identity
    assert scorer.identity.name == "detoxify-classifier"


def test_other_weights_are_another_scorer(torch, checkpoint, tmp_path):
    shutil.copytree(checkpoint.parent, tmp_path, dirs_exist_ok=True)
    loaded = torch.load(checkpoint, weights_only=True)
    name = next(iter(loaded["state_dict"]))
    loaded["state_dict"][name].view(-1)[0] += 1e-3
    torch.save(loaded, tmp_path / checkpoint.name)
    changed = open_scorer(f"detoxify:{tmp_path / checkpoint.name}")
    assert changed.identity.digest != open_scorer(f"detoxify:{checkpoint}").identity.digest


@pytest.mark.parametrize(("file", "field"), [("tokenizer.json", "model"), ("config.json", "hidden_act")])
def test_another_tokenizer_or_config_is_another_scorer(checkpoint, tmp_path, file, field):
    """The same weights beside a file in which two tokens changed places, or with another activation."""
    shutil.copytree(checkpoint.parent, tmp_path, dirs_exist_ok=True)
    content = json.loads((tmp_path / file).read_text())
    vocabulary = content["model"]["vocab"] if field == "model" else None
    if isinstance(vocabulary, dict):
        a, b = list(vocabulary)[-2:]
        vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    elif vocabulary:
        vocabulary[-1][1] -= 1.0
    else:
        content[field] = "relu"
    (tmp_path / file).write_text(json.dumps(content))
    changed = open_scorer(f"detoxify:{tmp_path / checkpoint.name}")
    assert changed.identity.digest != open_scorer(f"detoxify:{checkpoint}").identity.digest


def test_converted_by_the_command_it_scores_the_same(checkpoint, family, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["safety", "convert-detoxify", str(checkpoint), str(out), f"transformer={checkpoint.parent}"]
    assert cli.main(words) == 0
    assert "2 layers of 32" in capsys.readouterr().out
    scorer, package = open_scorer(f"detoxify:{out}"), open_scorer(f"detoxify:{checkpoint}")
    assert isinstance(scorer, DetoxifyJaxScorer) and scorer.labels == package.labels
    theirs = package.score(TEXTS)
    for label, values in scorer.score(TEXTS).items():
        np.testing.assert_allclose(values, theirs[label], rtol=0, atol=3e-6)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert cli.main(words) == 2
    assert "exists already" in capsys.readouterr().err


class _Evil:
    def __reduce__(self):
        return open, ("evil.txt", "w")


def test_a_pickle_that_would_run_code_is_refused(torch, tmp_path, monkeypatch):
    """Nothing of it runs, by neither way in."""
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "config": _Evil()}, "evil.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(_Evil()))
    for name in ("evil.ckpt", "plain.ckpt"):
        with pytest.raises(BadInput, match="cannot be read as a checkpoint of weights alone"):
            open_scorer(f"detoxify:{name}")
        assert cli.main(["safety", "convert-detoxify", name, "out"]) == 2
    assert not (tmp_path / "evil.txt").exists() and not (tmp_path / "out").exists()


def test_published_weights_are_downloaded_as_weights_alone(torch, checkpoint, monkeypatch):
    """The package's own download would run what is in the file; here it is asked for without, and its hash checked."""
    asked = []

    def download(url, **options):
        asked.append((url, options))
        return torch.load(checkpoint, weights_only=True)

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    with pytest.raises(BadInput, match="detoxify cannot use unbiased"):  # whose transformer is on the hub
        open_scorer("detoxify:unbiased")
    (url, options), = asked
    assert url.startswith("https://") and options["weights_only"] is True and options["check_hash"] is True
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: 1 / 0)
    with pytest.raises(BadInput, match="cannot be downloaded"):
        open_scorer("detoxify")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("config"), "no detoxify checkpoint"),
        (lambda c: c["config"]["arch"]["args"].pop("model_name"), "lacks 'model_name'"),
        (lambda c: c["config"]["arch"]["args"].update(num_classes=3), "not of that form"),
        (lambda c: c["config"]["dataset"]["args"].update(classes=[1] * 6), "not of that form"),
        (lambda c: c["state_dict"].update(x="text"), "not of that form"),
        (lambda c: c["config"]["arch"]["args"].update(model_name="AlbertForSequenceClassification"), "holds a Albert"),
        (lambda c: c["state_dict"].pop("classifier.bias"), "no tensor classifier.bias"),
        (lambda c: c["state_dict"].update({"bert.extra": c["state_dict"]["classifier.bias"]}), "no bert has"),
    ],
)
def test_what_cannot_be_converted(change, message, torch, tmp_path, capsys):
    folder = tmp_path / "made"
    path = build(folder, "bert")
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    assert cli.main(["safety", "convert-detoxify", str(path), str(tmp_path / "out"), f"transformer={folder}"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"hidden_act": "relu"}, "only gelu and absolute"),
        ("config.json", {"num_attention_heads": 5}, "no such encoder"),
        ("config.json", {"num_hidden_layers": 3}, "no tensor encoder.layer.2"),
        ("config.json", {"vocab_size": 7}, "has the shape"),
        ("config.json", {"layer_norm_eps": None}, "is no config of a BERT"),
        ("tokenizer_config.json", {"model_max_length": "long"}, "is no config of a tokenizer"),
    ],
)
def test_a_transformer_of_another_shape(file, change, message, torch, tmp_path, capsys):
    path = build(tmp_path / "made", "bert")
    other = path.parent / file
    other.write_text(json.dumps(json.loads(other.read_text()) | change))
    assert cli.main(["safety", "convert-detoxify", str(path), str(tmp_path / "out"), f"transformer={path.parent}"]) == 2
    assert message in capsys.readouterr().err


def test_a_transformer_that_is_nowhere(torch, checkpoint, tmp_path, capsys):
    """Neither a folder nor, offline, on the hub; and a folder without its files."""
    for place, message in (("some-hub/name", "nor to be had from the hub"), (str(tmp_path), "has no config.json")):
        words = ["safety", "convert-detoxify", str(checkpoint), str(tmp_path / "out"), f"transformer={place}"]
        assert cli.main(words) == 2
        assert message in capsys.readouterr().err


def test_a_checkpoint_by_itself(torch, checkpoint, tmp_path):
    """Without config and tokenizer beside it the message says so."""
    shutil.copy(checkpoint, tmp_path / "alone.ckpt")
    with pytest.raises(BadInput, match="needs config.json and the tokenizer's files in the folder"):
        open_scorer(f"detoxify:{tmp_path / 'alone.ckpt'}")


def test_the_fixtures_labels_are_the_packages(torch, family, checkpoint):
    """The package renames older labels; so do we."""
    renamed = {"toxic": "toxicity", "severe_toxic": "severe_toxicity", "identity_hate": "identity_attack"}
    scorer = open_scorer(f"detoxify:{checkpoint}")
    assert scorer.labels == tuple(renamed.get(label, label) for label in LABELS[family])

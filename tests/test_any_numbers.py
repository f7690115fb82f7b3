"""Any bytes in files of numbers, tokenizers and signatures: what was written comes back, or it is refused in words."""

import json
import shutil
import struct

import jax
import numpy as np
import pytest
from arbitrary import ANY, LINES, damaged, expected, look, spoiled
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from base_model.interleave import Example
from base_model.media import NOTHING
from base_model.model_folder import read_arrays
from base_model.published.safetensors_files import INDEX, stored_tensors
from base_model.teacher_cache import DESCRIPTION, TeacherCache
from base_model.tokenizer import Tokenizer
from safety.envelope import open_sealed, seal
from training.checkpoint import StateStore, content_digest

# Of a folder's safetensors file: plain, in 8 bits and in 4.
ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.int8": np.arange(4, dtype=np.int8), "b.scale": np.ones(2, np.float32),
    "c.int8": np.arange(2, dtype=np.uint8), "c.scale": np.ones(1, np.float32),
}  # fmt: skip
STORED = save(ARRAYS)
(HEADER,) = struct.unpack("<Q", STORED[:8])


@st.composite
def tensors(draw):
    """A safetensors file with damaged bytes, or with a damaged description before whole numbers."""
    if draw(st.booleans()):
        return draw(spoiled([STORED]))
    header = json.dumps(draw(damaged(json.loads(STORED[8 : 8 + HEADER])))).encode()
    return struct.pack("<Q", len(header)) + header + STORED[8 + HEADER :]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


@look
@given(content=tensors())
def test_parameters(folder, content):
    path = folder / "model.safetensors"
    path.write_bytes(content)
    shape = {"a": {"weight": jax.ShapeDtypeStruct((2, 3), np.float32)}, "b": jax.ShapeDtypeStruct((4,), np.float32),
             "c": jax.ShapeDtypeStruct((4,), np.float32)}  # fmt: skip
    found = expected(lambda: read_arrays(path, shape))
    assert found is None or jax.tree.map(np.shape, found) == {"a": {"weight": (2, 3)}, "b": (4,), "c": (4,)}


@look
@given(content=tensors(), index=st.none() | LINES | (damaged({"weight_map": {"a": "model.safetensors"}}) | ANY).map(
    lambda value: json.dumps(value).encode()
))  # fmt: skip
def test_published_parameters(folder, content, index):
    (folder / "model.safetensors").write_bytes(content)
    (folder / INDEX).unlink(missing_ok=True)
    if index is not None:
        (folder / INDEX).write_bytes(index)
    for name, stored in (expected(lambda: stored_tensors(folder)) or {}).items():
        assert stored.open().shape == stored.shape, name


@look
@given(data=st.data())
def test_tokenizers(tokenizer, data):
    content = bytearray(data.draw(LINES | spoiled([tokenizer.model])))
    if content and data.draw(st.booleans()):  # beyond its first pieces, too
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    found = expected(lambda: Tokenizer(bytes(content)))
    if found is not None:
        ids = found.encode("the cat sat on a mat \0 é")
        assert all(0 <= token < found.vocab_size for token in ids) and isinstance(found.decode(ids), str)


KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
ENVELOPE = seal(b'{"a": 1}', KEY)


@look
@given(content=LINES | spoiled([ENVELOPE.encode()]) | (damaged(json.loads(ENVELOPE)) | ANY).map(
    lambda value: json.dumps(value).encode()
))  # fmt: skip
def test_envelopes(content):
    opened = expected(lambda: open_sealed(content, None))
    assert opened is None or opened.payload == b'{"a": 1}'


EXAMPLE = Example(tokens=np.arange(5, dtype=np.int32), learn=np.arange(5) > 1, media=NOTHING)
TARGETS = {"ids": np.arange(6, dtype=np.int32).reshape(3, 2), "log_probs": np.zeros((3, 3), np.float16)}
SAID = {"format": 1, "teacher": "a", "tokenizer": "b", "rows": "c", "temperature": 1.0, "top_k": 2}


@look
@given(content=spoiled([save(TARGETS, metadata={"content_digest": content_digest(TARGETS)})]),
       description=st.just(json.dumps(SAID)) | (damaged(SAID) | ANY).map(json.dumps))  # fmt: skip
def test_what_a_teacher_said(folder, content, description):
    (folder / "000000.safetensors").write_bytes(content)
    (folder / DESCRIPTION).write_text(description)
    cache = expected(lambda: TeacherCache(folder, [EXAMPLE]))
    if cache is not None:
        for found, wanted in zip(cache.of(0), TARGETS.values(), strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.fixture(scope="module")
def state(folder):
    """The folder of a training state, with what is in it."""
    tree = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": {"c": np.int32(7)}}
    store = StateStore(folder / "whole")
    store.save(1, tree, {"identity": "a"})
    store.close()
    return folder / "whole", tree


# Each opens and closes orbax's manager: few, but where atheris asks for more.
@settings(look, max_examples=max(4, look.max_examples // 12))
@given(data=st.data())
def test_training_states(state, data):
    whole, tree = state
    copy = whole.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole, copy)
    path = data.draw(st.sampled_from(sorted(path for path in copy.rglob("*") if path.is_file())))
    path.write_bytes(data.draw(spoiled([path.read_bytes()])))

    def restored():
        store = StateStore(copy)
        try:
            return None if store.latest() is None else store.restore(1, tree)
        finally:
            store.close()

    if (found := expected(restored)) is not None:
        assert content_digest(found[0]) == content_digest(tree) and found[1]["identity"] == "a"

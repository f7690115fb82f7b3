import shutil
from pathlib import Path

import numpy as np
import pytest

from base_model.published.golden import Difference, compare_towers, differences, largest, read_golden
from base_model.published.golden_media import ARGUMENTS
from base_model.published.golden_towers import Stage, as_stored
from pipeline import cli
from training.errors import BadInput

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "decoder"
WHAT_EACH_HAS = {
    "gemma3": {"text", "two_images", "batch_right", "batch_left", "decode"},
    "gemma3_text_mqa": {"text", "batch_right", "batch_left", "decode"},
    "gemma4_dense": {"text", "two_images", "video", "batch_right", "batch_left", "decode"},
    "gemma4_e": {"text", "two_images", "video", "audio", "batch_right", "batch_left", "decode"},
    "gemma4_moe_text": {"text", "batch_left", "decode"},
    "gemma4_unified": {"text", "two_images", "video", "batch_right", "batch_left", "decode"},
}


# Models with encoders take several programs each to compile.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name, cases in WHAT_EACH_HAS.items() if len(cases) > 4]
FAST = [name for name, cases in WHAT_EACH_HAS.items() if len(cases) <= 4]


@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_the_model_is_the_published_one(name):
    everything = list(differences(FIXTURES / name))
    left_out = {difference.quantity for difference in everything if difference.largest is None}
    assert left_out <= {"logits_bf16", "logits_without_token_type_ids", "cache_vs_full_maxabs"}
    found = [difference for difference in everything if difference.largest is not None]
    cases, towers, _ = read_golden(FIXTURES / name / "golden.npz")
    assert {difference.case for difference in found} == WHAT_EACH_HAS[name] | ({"tower"} if towers else set())
    assert [difference for difference in found if not difference.largest <= 1e-4] == []
    quantities = {difference.quantity for difference in found}
    assert {"logits", "hidden/00", "hidden/03", "prefill_logits", "step_logits", "new_tokens"} <= quantities
    stored = [name for case in cases for name in case.stored if name.startswith(("gradnorm/", "hidden/"))]
    compared = [d for d in found if d.quantity.startswith(("gradnorm/", "hidden/"))]
    assert len(compared) == len(stored)
    alone = {name for name in towers if name.removeprefix("in/") not in ARGUMENTS}
    assert {difference.quantity for difference in found if difference.case == "tower"} == alone
    if "two_images" in WHAT_EACH_HAS[name]:
        assert "image_hidden_states" in quantities


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(FIXTURES / "gemma4_moe_text", tmp_path / "model"))


def verify(folder, *options):
    return cli.main(["base", "verify", str(folder), *options])


def test_verify_prints_the_largest_difference_and_passes(in_process, folder, capsys):
    golden = dict(np.load(folder / "golden.npz"))
    kept = {name: array for name, array in golden.items() if name.startswith("text/")}
    unknown = {"text/logitz": kept["text/logits"], "text/in/maskk": kept["text/in/input_ids"], "odd": np.zeros(1)}
    unknown |= {"later/logits": kept["text/logits"], "tower/soft": np.zeros(1), "text/loss": np.zeros(())}
    np.savez(folder / "golden.npz", **kept, **unknown)
    assert verify(folder) == 0
    out = capsys.readouterr().out
    assert "text" in out and "logits" in out and "largest: " in out
    said = next(line for line in out.splitlines() if line.startswith("not compared"))
    assert set(said.split(": ")[1].split(", ")) == unknown.keys()
    assert verify(folder, "--atol", "1e-12") == 3
    assert "text/" in capsys.readouterr().err


def test_verify_finds_another_model(in_process, folder, capsys):
    golden = dict(np.load(folder / "golden.npz"))
    kept = {name: array for name, array in golden.items() if name.startswith("text/")}
    kept["text/hidden/02"] = kept["text/hidden/02"] + np.float32(0.001)
    np.savez(folder / "golden.npz", **kept)
    assert verify(folder) == 3
    assert "text/hidden/02 is off by 1" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "golden.npz"])
def test_verify_refuses_a_folder_that_lacks_a_file(in_process, folder, capsys, name):
    (folder / name).unlink()
    assert verify(folder) == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("atol", ["-1", "nan", "inf"])
def test_verify_refuses_what_is_no_tolerance(in_process, folder, capsys, atol):
    assert verify(folder, "--atol", atol) == 2
    assert "atol" in capsys.readouterr().err


def test_verify_refuses_damaged_figures(in_process, folder, capsys):
    (folder / "golden.npz").write_bytes(b"PK\x03\x04 and then nothing")
    assert verify(folder) == 2
    np.savez(folder / "golden.npz", nothing=np.zeros(3))
    assert verify(folder) == 2
    assert "no case" in capsys.readouterr().err


def test_what_is_not_a_number_is_infinitely_far():
    assert largest(np.array([np.nan, 1.0]), np.array([0.0, 1.0])) == np.inf
    assert largest(np.zeros(2), np.zeros(3)) == np.inf
    assert largest(np.array([np.nan, 1.5]), np.array([0.0, 1.0]), np.array([False, True])) == 0.5


def test_figures_of_which_none_is_known_are_no_agreement(in_process, folder, capsys):
    golden = dict(np.load(folder / "golden.npz"))
    np.savez(folder / "golden.npz", **{"text/in/input_ids": golden["text/in/input_ids"], "text/logitz": np.zeros(1)})
    assert verify(folder) == 2
    captured = capsys.readouterr()
    assert "not compared" in captured.out and "text/logitz" in captured.out
    assert "nothing that can be compared" in captured.err


def test_encoders_are_compared_where_something_counts():
    states = np.arange(24.0).reshape(2, 3, 4)
    valid = np.array([[True, True, False], [True, False, False]])
    found = {"audio_last_hidden": Stage(states, valid), "siglip_last_hidden": Stage(states, None)}
    wrong = np.where(valid[..., None], states, 99.0)
    wrong[1, 0, 2] += 0.5
    stored = {
        "audio_last_hidden": wrong[:, :2], "audio_mask": valid[:, :2], "siglip_last_hidden": states[:1],
        "soft_tokens": states, "pixel_values": states, "in/input_features": states,
    }  # fmt: skip
    differences = list(compare_towers(stored, as_stored(found, stored)))
    wanted = {"audio_last_hidden": 0.5, "audio_mask": 0.0, "siglip_last_hidden": 0.0, "soft_tokens": None}
    assert differences == [Difference("tower", name, value) for name, value in wanted.items()]
    fewer = {"audio_mask": valid[:, :1], "audio_last_hidden": wrong[0, 0]}
    assert [difference.largest for difference in compare_towers(fewer, as_stored(found, fewer))] == [np.inf, np.inf]
    stripped = {"audio_last_hidden": wrong[valid]}
    assert list(compare_towers(stripped, as_stored(found, stripped))) == [Difference("tower", "audio_last_hidden", 0.5)]


def test_missing_pictures_are_an_error(folder):
    images = Path(shutil.copytree(FIXTURES / "gemma4_dense", folder.parent / "dense"))
    golden = dict(np.load(images / "golden.npz"))
    golden["two_images/in/pixel_values"] = golden["two_images/in/pixel_values"][:1]
    golden["two_images/in/image_position_ids"] = golden["two_images/in/image_position_ids"][:1]
    np.savez(images / "golden.npz", **{name: array for name, array in golden.items() if name.startswith("two_images/")})
    with pytest.raises(BadInput, match="as many pictures"):
        list(differences(images))

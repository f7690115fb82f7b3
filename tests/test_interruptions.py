"""What happens around a run: Ctrl-C, a full disk, a folder that may not be written, damage to what it would go on from.

Where the operating system has a part in it, a command is a process of its own.
"""

import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import bad_run
import pytest
import tiny_run
import yaml
from tiny_world import one_layer

import sft.train
from pipeline import cli, ledger
from pipeline.disk import DiskFull
from training.checkpoint import latest_step

ROOT = Path(__file__).resolve().parents[1]
STEPS = 16
# Orbax leaves the other reads of a failed restore unawaited; Python says so when it collects them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def world(tiny_model, tmp_path_factory, in_process):
    """A run whose SFT saves its state in every step, and takes many."""
    folder = tmp_path_factory.mktemp("world")
    path = bad_run.write(folder, one_layer(tiny_model))
    config = yaml.safe_load(path.read_text())
    config["sft"] = tiny_run.SFT | {"max_steps": STEPS, "save_steps": 1, "save_total_limit": 2}
    path.write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def interrupted(world, tmp_path_factory):
    """A run that was stopped in its third step, after two states were saved; the same words go on with it."""
    run = shutil.copytree(world / "run", tmp_path_factory.mktemp("interrupted") / "run")
    pack, calls = sft.train.PackedExamples.batch, []

    def stop_at_the_third(*arguments, **options):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return pack(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft.train.PackedExamples, "batch", stop_at_the_third)
        assert cli.main(words(world, run)) == 130
    assert latest_step(run / "sft" / "state") == 2
    return run


def words(world, run, *more):
    return ["sft", "train", "--config", str(world / "run.yaml"), f"out={run}", *more]


@pytest.fixture
def fails(tmp_path, capfd):
    """Gives a command that fails and returns its line on stderr; what was on the disk must stay."""

    def call(arguments, code):
        before = bad_run.contents(tmp_path)
        assert cli.main(arguments) == code
        assert before.items() <= bad_run.contents(tmp_path).items(), "a file is gone or changed"
        return only_line(capfd.readouterr().err)

    return call


def only_line(errors):
    """The one line of a failed command; progress may stand above it."""
    said = [line for line in errors.splitlines() if line.startswith("theodolite: ")]
    assert errors.splitlines()[-1:] == said and "Traceback" not in errors and "Exception" not in errors, errors
    return said[0]


@pytest.fixture
def program():
    """Arguments of Popen for `theodolite` as a process of its own."""
    environ = {**os.environ, "MALLOC_ARENA_MAX": "1", "PYTHONPATH": str(ROOT)}
    return {"env": environ, "text": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}


def test_ctrl_c_twice_and_the_same_command_goes_on(world, tmp_path, program, in_process):
    run = shutil.copytree(world / "run", tmp_path / "run")
    with subprocess.Popen([sys.executable, "-m", "pipeline.cli", *words(world, run)], **program) as process:
        while not any(path.name.isdigit() for path in run.glob("sft/state/*")) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        errors = process.communicate()[1]
    assert process.returncode == 130 and only_line(errors) == "theodolite: interrupted"
    reached = latest_step(run / "sft" / "state")
    assert reached and reached < STEPS and not (run / "sft" / "checkpoint").exists()
    kept = (run / "sft" / "metrics.jsonl").read_text().splitlines()[:reached]
    assert cli.main(words(world, run)) == 0
    metrics = (run / "sft" / "metrics.jsonl").read_text().splitlines()
    assert metrics[:reached] == kept and [json.loads(line)["step"] for line in metrics] == list(range(1, STEPS + 1))
    assert [event["event"] for event in ledger.verify(run / "ledger.jsonl")][-2:] == ["base gated", "sft trained"]


# In a namespace of its own anybody may mount: a disk of a few pages more than the run needs to begin.
FULL_DISK = """
mount -t tmpfs -o size=$SIZE tmpfs "$DISK" && cp -r "$RUN" "$DISK/run" || exit 99
cd "$DISK" && find . -type f ! -name .lock | sort | xargs sha256sum > "$NOTES/before"
"$@" 2> "$NOTES/errors"; echo $? > "$NOTES/full"
sha256sum --quiet -c "$NOTES/before" > "$NOTES/changed" 2>&1
ls run run/sft > "$NOTES/there"
mount -o remount,size=200m "$DISK" && "$@"; echo $? > "$NOTES/roomy"
ls run/sft > "$NOTES/done"
"""


def may_mount():
    mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(mount, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(shutil.which("unshare") is None or not may_mount(), reason="no file system may be mounted here")
def test_a_full_disk_and_then_room(world, tmp_path, program):
    disk, notes = tmp_path / "disk", tmp_path / "notes"
    disk.mkdir(), notes.mkdir()
    environ = program["env"] | {"SIZE": "300k", "DISK": str(disk), "NOTES": str(notes), "RUN": str(world / "run")}
    command = [sys.executable, "-m", "pipeline.cli", *words(world, disk / "run", "sft.save_steps=0")]
    script = ["unshare", "-rm", "sh", "-c", FULL_DISK, "sh", *command]
    done = subprocess.run(script, **{**program, "env": environ}, check=False)
    found = {path.name: path.read_text() for path in notes.iterdir()}
    assert found["full"] == "1\n", found.get("errors", done.stderr)
    said = only_line(found["errors"])
    assert said.startswith("theodolite: the disk takes no more") and ": No space left on device. Make room" in said
    assert found["changed"] == "" and "crash.txt" not in found["there"] and "checkpoint\n" not in found["there"]
    assert found["roomy"] == "0\n" and "checkpoint\n" in found["done"]


def test_a_ledger_that_takes_no_more_stays_whole(tmp_path):
    """The kernel takes a part of a line and then no more."""
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, "first", {"stage": "sft"})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 40, limits[1]))
    try:
        with pytest.raises(DiskFull, match="the disk takes no more"):
            ledger.append(path, "second", {"stage": "sft"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes().startswith(before) and [event["event"] for event in ledger.verify(path)] == ["first"]
    ledger.append(path, "second", {})
    assert [event["event"] for event in ledger.verify(path)] == ["first", "second"]


def test_a_run_folder_that_may_not_be_written(world, tmp_path, program):
    run = shutil.copytree(world / "run", tmp_path / "run")
    before = bad_run.contents(run)
    # Root may write where it is forbidden to, unless this right is taken from it.
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if bound and shutil.which("setpriv") is None:
        pytest.skip("root without setpriv cannot be kept from writing")
    run.chmod(0o555)
    try:
        command = [*bound, sys.executable, "-m", "pipeline.cli", *words(world, run)]
        done = subprocess.run(command, **program, check=False)
    finally:
        run.chmod(0o755)
    line = only_line(done.stderr)
    assert done.returncode == 2 and "cannot write the run folder" in line and "choose another with out=DIR" in line
    assert bad_run.contents(run) == before


def test_a_file_in_the_place_of_the_run_folder(world, tmp_path, fails):
    (tmp_path / "run").write_text("mine")
    assert "cannot write the run folder" in fails(words(world, tmp_path / "run"), 2)


@pytest.mark.parametrize("place", ["sft", "sft/state"])
def test_a_file_in_the_place_of_a_folder(world, tmp_path, fails, place):
    run = shutil.copytree(world / "run", tmp_path / "run")
    (run / place).parent.mkdir(exist_ok=True)
    (run / place).write_text("mine")
    assert "a file stands where a folder belongs" in fails(words(world, run, "sft.max_steps=1"), 2)


def test_a_folder_in_the_place_of_the_page(world, tmp_path, fails):
    run = shutil.copytree(world / "run", tmp_path / "run")
    (run / "report.html").mkdir()
    line = fails(["report", str(run)], 2)
    assert f"a folder stands where a file belongs: {run / 'report.html'}; move it away" in line


@pytest.fixture
def damaged(interrupted, tmp_path):
    """Damages the newest state of a copy of the interrupted run; returns the run and the state."""

    def damage(kind):
        run = shutil.copytree(interrupted, tmp_path / "run")
        state = run / "sft" / "state" / str(latest_step(run / "sft" / "state"))
        victim = max(state.rglob("*"), key=lambda path: path.stat().st_size)
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        if kind == "missing":
            victim.unlink()
        else:
            victim.write_bytes(content if kind == "flipped" else content[: len(content) // 2])
        return run, state

    yield damage
    gc.collect()  # here, and not in somebody else's test


@pytest.mark.parametrize("kind", ["flipped", "truncated", "missing"])
def test_a_damaged_training_state(world, damaged, fails, kind):
    run, state = damaged(kind)
    line = fails(words(world, run), 2)
    assert f"the training state {state} " in line
    assert "delete that folder and give the same command again: it goes on from the state before it, or" in line


def test_what_is_advised_after_damage_works(world, damaged, fails, monkeypatch):
    """From the state before it where one was kept, and else from the start: to the same numbers."""
    run, state = damaged("flipped")
    pack, calls = sft.train.PackedExamples.batch, []
    monkeypatch.setattr(sft.train.PackedExamples, "batch", lambda *given: [pack(*given), calls.append(None)][0])
    assert "delete that folder" in fails(words(world, run), 2)
    shutil.rmtree(state)
    assert latest_step(run / "sft" / "state") == 1
    alone = shutil.copytree(run, run.with_name("alone"))
    shutil.rmtree(alone / "sft" / "state" / "1")
    assert cli.main(words(world, run)) == 0 and len(calls) == STEPS - 1
    calls.clear()
    assert cli.main(words(world, alone)) == 0 and len(calls) == STEPS
    one, other = ((path / "sft" / "metrics.jsonl").read_text() for path in (run, alone))
    assert one == other


def test_an_edited_ledger(world, interrupted, tmp_path, fails):
    run = shutil.copytree(interrupted, tmp_path / "run")
    ledger.append(run / "ledger.jsonl", "base gated", {"stage": "base"})
    path = run / "ledger.jsonl"
    path.write_text(path.read_text().replace('"stage": "base"', '"stage": "sft"'))
    assert "line 2 of the ledger" in fails(words(world, run), 2)

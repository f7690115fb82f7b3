import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.run_folder import STAGES, RunFolder
from training.errors import BadInput, GateFailed

ROOT = Path(__file__).resolve().parents[2]


def test_where_things_lie(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "runs" / "a")
    assert run.path.is_dir()
    names = {run.config, run.ledger, run.data, run.summary, run.report}
    assert {str(path.relative_to(run.path)) for path in names} == {
        "run.yaml",
        "ledger.jsonl",
        "data",
        "summary.json",
        "report.html",
    }
    for stage in STAGES:
        folder = run.stage(stage)
        files = (folder.checkpoint, folder.state, folder.metrics, folder.evaluation)
        assert [path.name for path in files] == ["checkpoint", "state", "metrics.jsonl", "evaluation.json"]
        gate = (folder.verdict, folder.gate_report, folder.samples)
        assert [str(path.relative_to(run.path)) for path in gate] == [
            f"{stage}/gate/verdict.json",
            f"{stage}/gate/report.json",
            f"{stage}/gate/samples.jsonl",
        ]


def test_an_unknown_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown stage '../x': the stages are base, sft, reward, ppo"):
        RunFolder.create(tmp_path).stage("../x")


def test_paths_outside_are_refused(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    assert run.inside("data/sft.jsonl") == run.path / "data" / "sft.jsonl"
    (run.path / "link").symlink_to(tmp_path)
    for outside in ("../other", "/etc/passwd", "data/../../x", "link/x"):
        with pytest.raises(BadInput, match="lies outside the run folder"):
            run.inside(outside)


def test_open_wants_an_existing_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no run folder"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(BadInput, match="neither run.yaml nor ledger.jsonl"):
        RunFolder.open(tmp_path)
    (tmp_path / "run.yaml").touch()
    assert RunFolder.open(tmp_path).path == tmp_path.resolve()


def test_a_folder_that_cannot_be_made_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(BadInput, match="cannot write the run folder"):
            RunFolder.create(path)

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", read_only)
    with pytest.raises(BadInput, match="Read-only file system; choose another with out=DIR"):
        RunFolder.create(tmp_path / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o555)
    with pytest.raises(BadInput, match="Permission denied"):
        RunFolder.create(tmp_path / "run")


def test_a_second_command_is_refused_and_told_who_has_the_run(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    script = (
        "import sys; from pipeline.run_folder import RunFolder\n"
        "with RunFolder.create(sys.argv[1]).locked():\n"
        "    print('locked', flush=True); sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", script, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(BadInput, match=rf"in use by another command \(process {other.pid}\)"), run.locked():
            pass
        other.kill()  # even so the lock must not stay behind
    with run.locked():
        assert (run.path / ".lock").read_text() == str(os.getpid())
    assert (run.path / ".lock").read_text() == ""


def test_a_crash_leaves_its_traceback_in_the_folder(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    with pytest.raises(ZeroDivisionError) as caught, run.locked():
        _ = 1 / 0
    assert "ZeroDivisionError: division by zero" in run.crash.read_text()
    assert caught.value.__notes__ == [f"the traceback is in {run.crash}"]


def test_an_expected_failure_is_not_a_crash(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    with pytest.raises(GateFailed), run.locked():
        raise GateFailed("too toxic")
    assert not run.crash.exists()

"""What the commands share: summaries, JSON, dry runs, exit codes, suggestions and completion."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.shell_completion import BashComplete

import fitting.map_fit
from cli.comfort import EXIT_CODES, Outcome, number, say_problems, sentence_of, summary_of
from cli.main import cli
from cli.progress import StageBars
from fitting.map_fit import LmConfig, Stage
from fitting.offline import SOLVERS
from fitting.table import read_fits

SEEN, UNSEEN, BAD = 0, 1, 2  # rows of the keypoint file
OPTIONS = ("--init", "mean", "--starts", "1", "--no-report", "--device", "cpu")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setitem(SOLVERS, "lm", lambda: LmConfig(stages=(Stage(steps=1),)))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def people(tmp_path, rng):
    """A keypoint file of somebody, of somebody nobody sees, and of a row that is no good."""
    conf = np.ones((3, 17))
    conf[UNSEEN], conf[BAD] = 0, 7
    np.savez(
        tmp_path / "people.npz",
        keypoints_2d=rng.uniform(50, 200, (3, 17, 2)),
        conf=conf,
        keypoint_set="coco17",
        width=np.full(3, 300),
        height=np.full(3, 400),
    )
    return tmp_path / "people.npz"


@pytest.fixture
def picture(tmp_path):
    from fitting.images import write_image

    (tmp_path / "pictures").mkdir()
    write_image(tmp_path / "pictures" / "grey.png", np.full((40, 30, 3), 128, np.uint8))
    return tmp_path / "pictures"


# --- Summaries ---------------------------------------------------------------------------------


def test_the_summary_says_what_was_fitted_and_what_not(fit_cli, people, tmp_path):
    code, said, err = fit_cli("fit", people, "-o", tmp_path / "out", *OPTIONS)
    assert code == 1
    first, *lines = said.splitlines()
    assert first.startswith("1 of 2 people fitted at ")
    facts = {line[2:11].strip(): line[11:] for line in lines}
    median = np.nanmedian(read_fits(tmp_path / "out").column_array("reprojection_error_px"))
    assert float(facts["median"].split(" px")[0]) == pytest.approx(median, rel=5e-3)
    assert facts["no fit"].strip() == "1 without keypoints"
    assert facts["left out"].strip() == "1, named above"
    assert facts["table"].strip() == str(tmp_path / "out" / "fits.parquet")
    assert err.startswith(f"fit-cli: {people}, row {BAD}: a confidence is NaN or outside [0, 1]")


def test_who_diverged_counts_as_not_fitted(fit_cli, people, tmp_path, monkeypatch):
    make_result = fitting.map_fit.make_result

    def spoil(problem, keypoints, params, solution, *others):
        lost = replace(solution, cost_final=solution.cost_final * torch.nan)
        return make_result(problem, keypoints, params, lost, *others)

    monkeypatch.setattr(fitting.map_fit, "make_result", spoil)
    _, said, _ = fit_cli("fit", people, "-o", tmp_path / "out", *OPTIONS, "--json")
    assert json.loads(said)["counts"]["fitted"] == 0
    _, said, _ = fit_cli("fit", people, "-o", tmp_path / "out", *OPTIONS, "--overwrite")
    first, *lines = said.splitlines()
    assert first == f"0 of 2 people fitted -> {tmp_path / 'out'}"
    assert "  no fit    1 diverged, 1 without keypoints" in lines
    assert not any(line.split()[0] in ("fits", "median") for line in lines)


def test_quiet_is_one_line(fit_cli, people, tmp_path):
    _, said, err = fit_cli("fit", people, "-o", tmp_path / "out", *OPTIONS, "--quiet")
    assert said.startswith("1 of 2 people fitted")
    assert said.count("\n") == err.count("\n") == 1


def test_a_summary_fits_the_terminal_and_keeps_paths_whole(monkeypatch):
    path = "/a-folder-with-a-name/" * 6 + "fits.parquet"
    facts = {"table": path, "seconds": ", ".join(f"stage{i} {i}" for i in range(30))}
    monkeypatch.setenv("COLUMNS", "60")
    first, *lines = summary_of(Outcome(headline="done", facts=facts)).splitlines()
    assert first == "done"
    assert f"  table    {path}" in lines
    assert all(len(line) <= 60 for line in lines if path not in line)
    assert " ".join(" ".join(lines).split()).endswith("stage28 28, stage29 29")


def test_many_problems_are_counted_not_printed(capsys):
    problems = [f"row {i % 2}" for i in range(50)]
    outcome = Outcome(headline="done", problems=problems, named_in="OUT/run.json")
    say_problems(outcome)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "fit-cli: and 30 more, which OUT/run.json names"
    assert "50, 20 of them named above: 25 times row 0; 25 times row 1" in summary_of(outcome)


def test_overlays_of_an_earlier_run_are_not_this_ones(fit_cli, people, tmp_path):
    (tmp_path / "out" / "overlays").mkdir(parents=True)
    options = (*OPTIONS, "--no-overlays", "--overwrite", "--json")
    _, said, _ = fit_cli("fit", people, "-o", tmp_path / "out", *options)
    assert sorted(json.loads(said)["files"]) == ["record", "table"]


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (0, 3, "0"), (0.1234, 3, "0.123"), (99.4, 2, "99"), (99.6, 2, "100"), (999.7, 3, "1,000"),
        (12345.6, 3, "12,346"), (-999.7, 3, "-1,000"), (None, 3, "-"),
    ],
)  # fmt: skip
def test_numbers_are_written_out(value, digits, expected):
    assert number(value, digits) == expected


def test_what_an_error_leaves_unsaid_is_said():
    assert sentence_of(MemoryError()) == "out of memory; give a smaller --batch-size"
    assert sentence_of(MemoryError("no room")) == "no room; give a smaller --batch-size"
    assert sentence_of(KeyboardInterrupt()) is None


# --- JSON --------------------------------------------------------------------------------------


def test_json_is_alone_on_stdout(fit_cli, people, tmp_path, monkeypatch):
    """Whatever a library prints meanwhile."""

    def noisy():
        print("a library says hello")
        return LmConfig(stages=(Stage(steps=1),))

    monkeypatch.setitem(SOLVERS, "lm", noisy)
    out = tmp_path / "out"
    code, said, err = fit_cli("fit", people, "-o", out, *OPTIONS, "--json")
    found = json.loads(said)
    assert code == found["exit_code"] == 1
    record = json.loads((out / "run.json").read_text())
    assert (found["command"], found["counts"]) == ("fit", record["counts"])
    assert found["problems"] == record["problems"]
    assert found["files"]["table"] == str(out / "fits.parquet")
    assert found["people_per_second"] == record["fits_per_second"]
    assert found["median_error_px"] > 0
    assert "a library says hello" in err
    assert "row 2" in err


def test_json_tells_of_failures_too(fit_cli, tmp_path):
    code, said, err = fit_cli("fit", tmp_path / "none.npz", "-o", tmp_path / "out", "--json")
    found = json.loads(said)
    assert code == found["exit_code"] == 2
    assert found["command"] == "fit"
    assert "no such file or folder" in found["error"]
    assert err == f"fit-cli: {found['error']}\n"


def test_json_of_a_command_that_was_interrupted(fit_cli, people, tmp_path, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setitem(SOLVERS, "lm", interrupt)
    code, said, _ = fit_cli("fit", people, "-o", tmp_path / "out", *OPTIONS, "--json")
    assert json.loads(said) == {"command": "fit", "exit_code": 130, "error": None}
    assert code == 130


def test_json_of_other_commands(fit_cli, people, tmp_path):
    out = tmp_path / "out"
    fit_cli("fit", people, "-o", out, *OPTIONS)
    code, said, _ = fit_cli("export", out, "--to", "spin", "-o", tmp_path / "s.npz", "--json")
    assert code == 0
    assert json.loads(said)["counts"] == {
        "people": 1, "files": 1, "without_fit": 1, "excluded": 0,
    }  # fmt: skip
    code, said, _ = fit_cli("report", out, "--json")
    assert json.loads(said)["files"] == {"report": str(out / "report.html")}
    code, said, err = fit_cli("evaluate", out, out, "--json")
    assert (code, err) == (0, "")
    assert json.loads(said)["people"]["matched"] == 1
    assert fit_cli("evaluate", out, out, "--quiet")[1] == "1 of 1 people matched\n"


def test_json_of_drawn_people(fit_cli, tmp_path):
    options = ("--count", 1, "--size", 32, "--jobs", 1, "--json")
    code, said, err = fit_cli("synth", "-o", tmp_path / "set", *options)
    assert (code, err) == (0, "")
    found = json.loads(said)
    assert found["counts"] == {"pictures": 1, "people": 1}
    assert all(os.path.exists(path) for path in found["files"].values())  # noqa: PTH110


def test_json_of_a_run_in_shards(fit_cli, people, tmp_path):
    """First one of its two shards, then the other."""
    options = ("-o", tmp_path / "out", *OPTIONS, "--shard-size", 2, "--jobs", 1, "--json")
    code, said, err = fit_cli("fit", people, *options, "--shards", "1/2")
    assert code == 0
    assert json.loads(said)["shards"] == {"done": 1, "total": 2}
    assert "go on with: fit-cli fit" in err
    code, said, _ = fit_cli("fit", people, *options, "--resume")
    found = json.loads(said)
    assert code == found["exit_code"] == 1
    assert (found["counts"]["people"], len(found["problems"])) == (2, 1)
    assert found["files"]["parts"] == str(tmp_path / "out" / "fits")
    errors = read_fits(tmp_path / "out").column_array("reprojection_error_px")
    assert found["median_error_px"] == pytest.approx(np.nanmedian(errors), abs=1e-3)


# --- Dry runs ----------------------------------------------------------------------------------


def test_a_dry_run_of_fit_says_all_and_does_nothing(fit_cli, people, tmp_path):
    out = tmp_path / "out"
    code, said, err = fit_cli("fit", people, "-o", out, "--dry-run", "--focal", "512")
    assert code == 1  # as the run would end
    assert not out.exists()
    assert said.startswith("would fit 2 people in 0 pictures, 1 of them with keypoints")
    for words in (str(people), "coco17", "512 px", "lm, 1 start\n", "fits.parquet, run.json"):
        assert words in said
    assert "row 2" in err
    code, said, _ = fit_cli("fit", people, "-o", out, "--dry-run", "--json", "--shard-size", "1")
    found = json.loads(said)
    assert (found["people"], found["keypoint_set"], found["dry_run"]) == (2, "coco17", True)
    assert found["camera"] == "focal length of each picture's diagonal, 500 px"
    assert found["settings"]["shards"] == "2 of 1 rows"
    assert found["writes"] == [str(out / "fits/part-*.parquet"), str(out / "run.json")]


def test_a_dry_run_fails_as_the_run_would(fit_cli, people, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "holiday.jpg").touch()
    for options, words in (
        ((people, "-o", full), "already holds files"),
        ((people, "-o", people / "out"), "no folder that you may write to"),
        ((tmp_path / "none", "-o", tmp_path / "out"), "no such file or folder"),
        ((people, "-o", tmp_path / "out", "--body", tmp_path / "no.npz"), "no.npz"),
        ((people, "-o", tmp_path / "out", "--fps", "5"), "add --video"),
        ((people, "-o", tmp_path / "out", "--init", tmp_path / "no.parquet"), "no.parquet"),
        ((full.parent / "pictures", "-o", tmp_path / "out"), "no picture here"),
    ):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        code, said, err = fit_cli("fit", *options, "--dry-run")
        assert (code, said) == (2, "")
        assert words in err
        assert err.count("\n") == 1
    assert [path.name for path in full.iterdir()] == ["holiday.jpg"]
    plan = ("detect", tmp_path / "pictures", "-o", tmp_path / "out.json")
    assert fit_cli(*plan, "--dry-run") == fit_cli(*plan)


def test_dry_runs_of_the_other_commands(fit_cli, picture, tmp_path):
    out = tmp_path / "out"
    for command, words in (
        (("fit", picture), "whoever blazepose finds in 1 picture "),
        (("detect", picture), "would search 1 picture by blazepose"),
        (("synth", "--count", 7, "--size", "64x48"), "64 x 48 pixels, jpg, at most 1 people"),
        (("train", "configs/lifter.yaml"), "would train lifter for 20,000 steps"),
    ):
        code, said, err = fit_cli(*command, "-o", out, "--dry-run")
        assert (code, err) == (0, "")
        assert words in said
        assert not out.exists()


def test_a_dry_run_of_predict(fit_cli, picture, tmp_path):
    from untrained import save_untrained

    from regressor.lift import LIFTER_FILE

    out, network = tmp_path / "out", save_untrained(tmp_path / "best.pt")
    options = (picture, "-o", out, "--device", "cpu", "--dry-run")
    code, said, err = fit_cli("predict", *options, "--checkpoint", network)
    assert (code, err) == (0, "")
    for words in (str(network), "whoever blazepose finds in 1 picture ", "report.html"):
        assert words in said
    code, said, err = fit_cli("predict", *options, "--checkpoint", LIFTER_FILE)
    assert (code, said) == (2, "")
    assert "sees no pictures" in err
    assert not out.exists()


# --- Exit codes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "kill"]
)
def test_an_interrupted_fit_leaves_nothing_half(
    fit_cli, people, tmp_path, monkeypatch, number, code
):
    """Stopped while the table is written: no file is cut short, and none is left over."""

    def write_half(table, stream, *args, **kwargs):
        stream.write(b"PAR1 half a table")
        os.kill(os.getpid(), number)

    monkeypatch.setattr(pq, "write_table", write_half)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background: ignored
    try:
        found, said, _ = fit_cli("fit", people, "-o", tmp_path / "out", *OPTIONS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (found, said) == (code, "")
    assert list((tmp_path / "out").iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
    "command", ["", "fit", "detect", "predict", "export", "train", "synth", "evaluate", "report"]
)
def test_help_tells_the_exit_codes(fit_cli, command):
    code, said, _ = fit_cli(*command.split(), "--help")
    assert code == 0
    assert " ".join(EXIT_CODES.split()) in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 80


# --- Suggestions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("evalute", "a", "b"), "did you mean evaluate?"),
        (("fti", "a", "-o", "b"), "did you mean fit?"),
        (("fit", "x", "-o", "y", "--solvr", "lm"), "--solver"),
        (("fit", "x", "-o", "y", "--solver", "adams"), "did you mean adam?"),
        (("fit", "x", "-o", "y", "--keypoint-format", "coko"), "did you mean coco?"),
        (("fit", "x", "-o", "y", "--keypoint-set", "coc17"), "did you mean coco17?"),
        (("fit", "x", "-o", "y", "--device", "cud"), "did you mean cuda?"),
        (("export", "x", "-o", "y", "--to", "glob"), "did you mean glb?"),
        (("fit", "x", "-o", "y", "--jobs", "0"), "-1 for all cores"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_nearest(fit_cli, words, meant):
    code, said, err = fit_cli(*words)
    assert (code, said) == (2, "")
    assert meant in err


def test_a_gpu_that_is_not_there_is_named(fit_cli, people, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    options = (people, "-o", tmp_path / "out", "--dry-run", "--init", "mean", "--device")
    assert re.search(r"device +cuda\n", fit_cli("fit", *options, "cuda:1")[1])
    code, _, err = fit_cli("fit", *options, "cuda:2")
    assert code == 2
    assert "device cuda:2 was asked for, but the last GPU that PyTorch finds is cuda:1" in err


def test_an_input_that_looks_like_a_command_is_an_input(fit_cli, tmp_path, monkeypatch):
    """If it is there; and words that are near no command are inputs anyway."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fits").mkdir()
    for word, message in (("fits", "no picture here"), ("holiday", "no such file or folder")):
        code, _, err = fit_cli(word, "-o", "out", "--dry-run")
        assert code == 2
        assert message in err


# --- Completion --------------------------------------------------------------------------------


def completions(*words: str) -> list[tuple[str, str]]:
    *args, incomplete = words
    complete = BashComplete(cli, {}, "fit-cli", "_FIT_CLI_COMPLETE")
    return [(item.type, item.value) for item in complete.get_completions(args, incomplete)]


def test_commands_options_and_values_are_completed():
    assert completions("ev") == [("plain", "evaluate")]
    assert completions("PICTU") == [("file", "PICTU")]
    assert ("plain", "--solver") in completions("PICTURES", "--sol")  # of fit, the command left out
    assert completions("fit", "x", "--solver", "a") == [("plain", "adam")]
    assert completions("fit", "x", "--keypoint-set", "coco17") == [("plain", "coco17")]
    assert completions("synth", "--keypoint-set", "spi") == [("plain", "spin49")]
    assert completions("train", "c", "--device", "cu") == [("plain", "cuda")]
    assert completions("fit", "x", "-o", "OU") == [("dir", "OU")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_takes_its_script(fit_cli, shell, tmp_path):
    code, said, _ = fit_cli("completion", shell)
    assert code == 0
    assert f"_FIT_CLI_COMPLETE={shell}_complete" in said
    if shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(said)
        subprocess.run([shell, "-n", str(script)], check=True)


# --- Progress ----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_have_a_rate_and_the_time_left(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with StageBars() as bars:
        time.sleep(0.2)  # the first 25 people took that long
        bars.update("fit", 25, 100)
        last = sys.stderr.getvalue().split("\r")[-1]
        bars.update("detect", 1, 2)
    assert len(last) <= 80
    found = re.fullmatch(r"fit +25% \|.*\| 25/100 people, ([\d.]+) people/s, (\S+) left", last)
    assert found is not None
    assert 1 < float(found[1]) <= 25 / 0.2
    assert found[2] == "00:00" or float(found[1]) < 75
    assert "1/2 pictures" in sys.stderr.getvalue()


def test_what_an_earlier_sitting_did_is_no_rate(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with StageBars() as bars:
        bars.update("train", 9000, 10000)
        assert "9000/10000 steps, ? steps/s" in sys.stderr.getvalue()


def test_no_bars_where_there_is_no_terminal(capsys):
    for hidden in (False, True):
        with StageBars(hidden=hidden) as bars:
            bars.update("fit", 25, 100)
    assert capsys.readouterr().err == ""

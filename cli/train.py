"""`fit-cli train`: networks from configs."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .comfort import EXIT_CODES, Outcome, concluded, counted
from .interrupt import Interrupt
from .options import (
    FILE,
    check_beginning,
    device_option,
    dry_run_option,
    output_option,
    overwrite_option,
    report_option,
    resume_option,
)
from .plan import check_output
from .progress import StageBars

if TYPE_CHECKING:
    from regressor.config import TaskConfig
    from regressor.image_data import ImageData
    from regressor.task import Task


@click.command(epilog=EXIT_CODES)
@click.argument("config", type=FILE)
@output_option("Folder of the run.")
@click.option(
    "--start",
    type=FILE,
    metavar="CHECKPOINT",
    help="Begin at the weights of an earlier run's best.pt, or of a published checkpoint.",
)
@resume_option("Go on where the run in the folder was last saved.")
@overwrite_option("Replace an earlier run in the folder.")
@device_option()
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a setting of CONFIG, such as training.steps=100; may be given repeatedly.",
)
@report_option()
@dry_run_option()
@concluded
def train(
    config: Path,
    output: Path,
    start: Path | None,
    resume: bool,
    overwrite: bool,
    device: str,
    overrides: tuple[str, ...],
    report: bool,
    dry_run: bool,
    quiet: bool,
) -> Outcome:
    """Train the network that CONFIG (.yaml) describes.

    Leaves best.pt, last.pt, metrics.jsonl, config.yaml, run.json, report.html and tensorboard/ in
    the output folder. Ctrl-C finishes the step and saves it; --resume goes on from there. Exit code
    1 means that the loss became NaN or infinite. --quiet leaves out lines on evaluations, too.
    """
    from fitting.allocator import keep_freed_memory
    from regressor import training
    from regressor.config import load_config
    from regressor.tasks import make_task

    check_beginning(resume=resume, overwrite=overwrite)
    settings = load_config(config, overrides)
    if dry_run:
        begin = None if resume else start
        return _as_one(_plan(settings, config, output, device, begin, may_hold=resume or overwrite))
    keep_freed_memory()
    with Interrupt() as interrupt, StageBars(hidden=quiet or not _is_first()) as bars:
        try:
            record = training.train(
                make_task(settings),
                settings,
                output,
                device=device,
                start=start,
                resume=resume,
                overwrite=overwrite,
                stop=interrupt.came,
                progress=bars.update,
                say=(lambda text: None) if quiet else _say,
            )
        except training.DivergedError as error:
            _show(output, wanted=report)
            known = {"output": str(output), "ended": "diverged"}
            return _as_one(Outcome(headline="", record=known, problems=[error]))
    _show(output, wanted=report)
    again = ["fit-cli", "train", str(config), "-o", str(output), "--device", device]
    again += [*(f"--set={o}" for o in overrides), "--resume"]
    return _as_one(_conclude(record, output, interrupt, again, report=report))


def _is_first() -> bool:
    """Whether this process speaks for those that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def _as_one(outcome: Outcome) -> Outcome:
    """What this process says of the outcome, which is that of all."""
    if _is_first():
        return outcome
    return Outcome(headline="", record=None, exit_code=outcome.code)


def _show(run: Path, *, wanted: bool) -> None:
    """Write the web page of the run."""
    if wanted and _is_first():
        from .report import write_report

        write_report(run)


def _say(text: str) -> None:
    """A line above the progress bar."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


def _conclude(
    record: Mapping[str, Any],
    output: Path,
    interrupt: Interrupt,
    again: Sequence[str],
    *,
    report: bool,
) -> Outcome:
    """What was reached, and how to go on where there is more to do.

    Args:
        record: content of run.json.
        output: folder of the run.
        interrupt: that the run listened to.
        again: words of the command that goes on with it.
        report: whether there is a page of this run; one of an earlier run is not its.
    """
    was_stopped = record["ended"] == "interrupted"
    rate, best = record["steps_per_second"], record["best"]
    speed = f" at {rate:.3g} per second" if rate else ""
    found = f"; best {best['value']:.4g} at step {best['step']}" if best else ""
    names = {
        "best": "best.pt",
        "last": "last.pt",
        "metrics": "metrics.jsonl",
        "record": "run.json",
    }
    if report:
        names["report"] = "report.html"
    files = {label: output / name for label, name in names.items() if (output / name).exists()}
    return Outcome(
        headline=f"{counted(record['steps'], 'step')}{speed}, {record['ended']}{found} -> {output}",
        facts={label: str(path) for label, path in files.items()},
        record={
            "output": str(output),
            "files": {label: str(path) for label, path in files.items()},
            **{name: record[name] for name in ("steps", "ended", "best", "steps_per_second")},
        },
        last=f"go on with: {shlex.join(again)}" if was_stopped else "",
        exit_code=interrupt.exit_code if was_stopped else 0,
    )


def _plan(
    settings: TaskConfig,
    config: Path,
    output: Path,
    device: str,
    start: Path | None,
    *,
    may_hold: bool,
) -> Outcome:
    """What the run would do, in a folder that may hold files if it goes on or replaces them."""
    from fitting.offline import choose_device
    from regressor.checkpoints import architecture_of, start_from
    from regressor.config import config_to_dict

    check_output(output, overwrite=may_hold)
    facts = {"reads": str(config), "device": choose_device(device).type}
    if start is not None:
        facts["begins at"] = f"{start}, {architecture_of(start)}"
    task = _open_task(settings)
    if start is not None:
        start_from(task.network, start)
    plain = config_to_dict(settings)
    steps = plain["training"]["steps"]
    return Outcome(
        headline=f"would train {plain['task']} for {counted(steps, 'step')} -> {output}",
        facts=facts | _describe_people(task),
        record={"dry_run": True, "output": str(output), "settings": plain},
    )


def _open_task(settings: TaskConfig) -> Task:
    """What would be trained, its sources open: InputError as of the run itself.

    What a frozen encoder sees of all pictures is left to the run, which may take minutes for it.
    """
    from regressor.config import config_from_dict, config_to_dict
    from regressor.tasks import make_task

    plain = config_to_dict(settings)
    if plain.get("network", {}).get("cached"):
        plain["network"] |= {"cached": False, "views": 1}
    return make_task(config_from_dict(plain))


def _describe_people(task: Task) -> dict[str, str]:
    """Who is learned from, and by whom the network is judged, where the config says so."""
    from regressor.image_task import ImageTask

    if not isinstance(task, ImageTask):
        return {}
    return {
        "learns from": _people_of(task.data),
        "judged by": _people_of(task.validation, task.config.evaluation.people),
    }


def _people_of(data: ImageData, limit: int | None = None) -> str:
    """How many people there are in each source; at most so many are taken."""
    from regressor.image_sources import FolderSource

    said = []
    for config, source in zip(data.config.sources, data.sources, strict=True):
        if isinstance(source, FolderSource):
            count = len(source.people)
            count = count if limit is None else min(count, limit)
            said.append(f"{counted(count, 'person', 'people')} of {config.path}")
        else:
            said.append("drawn people")
    return ", ".join(said)

"""Whether a run can go on exactly where it was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fitting.differences import differences
from fitting.files import InputError

from .checkpoints import Checkpoint, read_checkpoint
from .config import TaskConfig, config_to_dict
from .task import Task

# Settings that may change between sittings: the steps before stay what they were.
_FREE = {
    f"training.{name}"
    for name in (
        "steps",
        "accumulate",  # times the number of processes it must stay the same, which is checked
        "evaluate_every",
        "log_every",
        "save_every",
        "patience",
        "prefetch",
        "workers",
    )
}


def read_resumable(
    path: Path, task: Task, config: TaskConfig, batches_per_step: int
) -> tuple[Checkpoint, dict[str, Any]]:
    """The checkpoint at which a run goes on, and its state of training.

    Raises:
        InputError: there is none, or it is of another run; the message names what differs.
    """
    if not path.exists():
        raise InputError(f"{path}: no run to resume; leave --resume out to begin one")
    checkpoint = read_checkpoint(path)
    state = checkpoint.training
    if state is None:
        raise InputError(f"{path}: holds no state of a training; resume with a run's last.pt")
    for key, before, now in differences(checkpoint.config, config_to_dict(config)):
        if key not in _FREE:
            raise InputError(
                f"{path}: was trained with {key} {before!r}, the config says {now!r}; resume with "
                "the same config or begin a new run"
            )
    if checkpoint.body_sha256 != task.body_sha256:
        raise InputError(f"{path}: was trained for another body; begin a new run")
    before = state["learner"]["batches_per_step"]
    if before != batches_per_step:
        raise InputError(
            f"{path}: each step took {before} batches, now it would take {batches_per_step}; keep "
            "training.accumulate times the number of processes the same"
        )
    return checkpoint, state

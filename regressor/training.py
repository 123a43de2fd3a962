"""The training loop: learn, log, evaluate, keep the best, save."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fitting.clock import StageClock
from fitting.files import prepare_output, write_atomically, write_json
from fitting.offline import choose_device
from fitting.versions import find_versions

from .checkpoints import Checkpoint, load_weights, save_checkpoint, start_from
from .config import TaskConfig, config_to_dict, dump_config
from .distributed import Group, device_of_process, join_group
from .learner import Learner
from .prefetch import prefetch
from .resuming import read_resumable
from .run_log import RECORD_NAME, RunLog, command_line
from .task import Batch, KeepsFiles, Task

BEST_NAME = "best.pt"
LAST_NAME = "last.pt"
CONFIG_NAME = "config.yaml"
_STAGES = ("train", "wait", "evaluate", "save")  # waiting for batches is part of training

Progress = Callable[[str, int, int], object]
"""Told (stage, number of items just done, number of items in all)."""
Say = Callable[[str], object]
"""Told, in one line, what the user may want to read."""


class DivergedError(ValueError):
    """The loss, the weights or a metric became NaN or infinite; one sentence with the fix."""


def train(
    task: Task,
    config: TaskConfig,
    out: Path,
    *,
    device: str = "auto",
    start: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress = lambda stage, done, total: None,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Train the network of a task. Processes started by `torchrun` share the work.

    Args:
        task: its network is trained in place.
        config: of the task.
        out: folder of the run: best.pt, last.pt, metrics.jsonl, times.jsonl, config.yaml, run.json,
            tensorboard, and what the task keeps there.
        device: "auto", "cpu" or "cuda".
        start: checkpoint with the weights to begin at; none means the task's own. Of no account
            when a run is resumed.
        resume: go on from last.pt in `out`, exactly as if the run had never ended.
        overwrite: replace an earlier run in `out`.
        stop: asked before every step; once it says so, the run is saved and ends.
        progress: told of every step.
        say: told of evaluations; by the first process only.

    Returns:
        The content of run.json.

    Raises:
        InputError: there is nothing to resume, the config is another than the run's, or `start` is
            of another network.
        OutputError: `out` cannot be written; the last.pt before stays whole.
        DivergedError: something became NaN or infinite; the last.pt before stays.
    """
    with join_group() as group:
        place = device_of_process(choose_device(device))
        if start is not None and not resume:
            start_from(task.network, start)
        if group.is_first and not resume:
            prepare_output(out, overwrite=overwrite)
        with torch.random.fork_rng([place] if place.type == "cuda" else []):
            # No name is bound to the run: it must be out of reach before the group ends
            return _Run(task, config, out, group, place, say).go(resume, stop, progress)


@dataclass
class _Best:
    """The best evaluation so far."""

    value: float = math.inf  # of the metric `Task.judged_by`
    step: int = 0
    since: int = 0  # evaluations after it


class _Run:
    """A run in its folder. Every process has one; those of rank above 0 write nothing."""

    def __init__(
        self,
        task: Task,
        config: TaskConfig,
        out: Path,
        group: Group,
        device: torch.device,
        say: Say,
    ) -> None:
        self._task, self._config, self._out = task, config, out
        self._say = say if group.is_first else lambda text: None
        self._training = config.training
        self._group, self._device = group, device
        self._learner = Learner(task, config, group, device)
        self._best = _Best()
        self._metrics: dict[str, float] = {}  # of the last evaluation
        self._clock = StageClock(dict.fromkeys(_STAGES, 0.0))
        self._files = task if isinstance(task, KeepsFiles) else None
        self._saved: int | None = None  # step of last.pt
        self._resumed: int | None = None  # step at which this sitting began
        self._log: RunLog | None = None

    def go(self, resume: bool, stop: Callable[[], bool], progress: Progress) -> dict[str, Any]:
        """Train until the end, or until told to stop; returns the record."""
        if resume:
            self._resume()
        try:
            return self._record(self._learn(stop, progress))
        except DivergedError:
            self._record("diverged")
            raise

    def _resume(self) -> None:
        """Load last.pt; InputError if it is not of this very run."""
        path = self._out / LAST_NAME
        checkpoint, state = read_resumable(
            path, self._task, self._config, self._learner.batches_per_step
        )
        load_weights(self._learner.network, checkpoint, path)
        self._learner.load_state_dict(state["learner"])
        self._best = _Best(**state["best"])
        self._clock = StageClock(state["seconds"])
        self._metrics = checkpoint.metrics
        self._saved = self._resumed = self._learner.step
        if self._files is not None:
            self._files.resume_files(self._out, self._learner.step)

    def _learn(self, stop: Callable[[], bool], progress: Progress) -> str:
        """Update and look until there is a reason to end, which is returned."""
        learner, steps = self._learner, self._training.steps
        progress("train", learner.step, steps)
        self._begin()
        batches = prefetch(
            self._task.batch,
            learner.numbers(),
            self._training,
            pin_memory=self._device.type == "cuda",
        )
        try:
            with closing(batches):
                timed = self._timed(batches)
                while (ended := self._ended(stop)) is None:
                    with self._clock.time("train"):
                        learner.update(timed)
                    self._look()
                    progress("train", 1, steps)
            if self._saved != learner.step:
                self._save()
            if self._files is not None:
                self._files.finish_files(self._out, self._group)
        finally:
            if self._log is not None:
                self._log.close()
        return ended

    def _begin(self) -> None:
        """Files that stand there from the first step on, so that any run can be resumed."""
        if self._group.is_first:
            if self._resumed is None:
                # That of an earlier run, which --overwrite replaces
                (self._out / BEST_NAME).unlink(missing_ok=True)
            text = dump_config(self._config).encode("utf-8")
            write_atomically(self._out / CONFIG_NAME, lambda stream: stream.write(text))
            self._log = RunLog(self._out, self._learner.step)
            if not self._log.shows_pictures:
                self._say("TensorBoard is not installed; metrics.jsonl has the numbers")
        if self._saved is None:
            if self._files is not None:
                self._files.begin_files(self._out, self._group)
            self._save()

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            with self._clock.time("wait"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _ended(self, stop: Callable[[], bool]) -> str | None:
        """Why there is no further step, the same in all processes."""
        if self._learner.step >= self._training.steps:
            return "finished"
        if self._training.patience is not None and self._best.since >= self._training.patience:
            return "no improvement"
        return "interrupted" if self._group.any(stop()) else None

    def _look(self) -> None:
        """Log, evaluate and save, where it is time for them."""
        step, config = self._learner.step, self._training
        last = step == config.steps
        line: dict[str, Any] = {}
        if last or step % config.log_every == 0:
            line["lr"] = self._learner.lr
            line["losses"] = self._read_losses()
        if last or step % config.evaluate_every == 0:
            line["metrics"] = self._evaluate()
            if self._files is not None:
                line["files"] = self._files.describe_files()
        if line and self._log is not None:
            self._log.write({"step": step, **line}, seconds=self._clock.seconds["train"])
        if step % config.save_every == 0:
            self._save()

    def _read_losses(self) -> dict[str, float]:
        self._check_finite()
        means = self._learner.window.means(self._group)
        self._learner.window.clear()
        return means

    def _evaluate(self) -> dict[str, float]:
        """Metrics of the network as it is now; it becomes best.pt if it is better than that."""
        self._check_finite()
        network, metrics = None, None
        if self._group.is_first:
            with self._clock.time("evaluate"), torch.no_grad():
                network = self._learner.judged()
                metrics = {k: float(v) for k, v in self._task.evaluate(network).items()}
                self._draw(network)
                if self._files is not None:
                    self._files.show_files(self._learner.step, network)
        self._metrics = {"step": self._learner.step, **self._group.from_first(metrics)}
        better = self._compare()
        if network is not None and better:
            save_checkpoint(self._out / BEST_NAME, self._checkpoint(network, None))
        self._learner.network.train()
        return {name: value for name, value in self._metrics.items() if name != "step"}

    def _draw(self, network: nn.Module) -> None:
        assert self._log is not None  # of the first process
        if self._log.shows_pictures:
            self._log.draw(self._task.pictures(network), self._learner.step)

    def _compare(self) -> bool:
        """Whether the metrics are the best so far; counts those that are not."""
        step, judged_by = self._learner.step, self._task.judged_by
        value = self._metrics[judged_by]
        for name, metric in self._metrics.items():
            if not math.isfinite(metric):
                raise DivergedError(f"{name} became {metric} at step {step}; {self._kept()}")
        better = value < self._best.value
        if better:
            self._best = _Best(value, step)
        else:
            self._best.since += 1
        self._say(f"step {step}: {judged_by} {value:.4g}{' (best)' if better else ''}")
        return better

    def _check_finite(self) -> None:
        """DivergedError if there was a bad loss since the last look, or there are bad weights."""
        learner = self._learner
        number = learner.window.first_bad(self._group)
        if number is not None:
            step = number // learner.batches_per_step + 1
            raise DivergedError(
                f"the loss became NaN or infinite at step {step}, in batch {number}; {self._kept()}"
            )
        if not learner.weights_are_finite():
            raise DivergedError(
                f"weights became NaN or infinite by step {learner.step}, after finite losses; "
                f"{self._kept()}"
            )

    def _kept(self) -> str:
        kept = f"{self._out / LAST_NAME} holds step {self._saved}; " if self._saved else ""
        return f"{kept}lower training.optimizer.lr or set training.clip_norm"

    def _save(self) -> None:
        """Write last.pt, and run.json as it stands."""
        self._check_finite()
        state = {
            "learner": self._learner.state_dict(),
            "best": asdict(self._best),
            "seconds": self._clock.seconds,
        }
        with self._clock.time("save"):
            if self._files is not None:
                self._files.save_files(self._learner.step, self._group)
            if self._group.is_first:
                checkpoint = self._checkpoint(self._learner.network, state)
                save_checkpoint(self._out / LAST_NAME, checkpoint)
            if self._files is not None:
                self._files.commit_files(self._group)
        self._saved = self._learner.step
        self._record("running")

    def _checkpoint(self, network: nn.Module, training: dict[str, Any] | None) -> Checkpoint:
        return Checkpoint(
            architecture=self._task.name,
            config=config_to_dict(self._config),
            metrics=self._metrics,
            body_sha256=self._task.body_sha256,
            model=network.state_dict(),
            training=training,
        )

    def _record(self, ended: str) -> dict[str, Any]:
        """The content of run.json, which the first process writes."""
        step, spent = self._learner.step, self._clock.seconds["train"]
        record = {
            "command": command_line(),
            "versions": find_versions(),
            "task": self._config.task,
            "seed": self._config.seed,
            "device": str(self._device),
            "processes": self._group.size,
            "ended": ended,
            "steps": step,
            "resumed_at": self._resumed,
            "seconds": {stage: round(seconds, 3) for stage, seconds in self._clock.seconds.items()},
            "steps_per_second": round(step / spent, 3) if spent > 0 else None,
            "best": asdict(self._best) if math.isfinite(self._best.value) else None,
        }
        if self._group.is_first:
            write_json(self._out / RECORD_NAME, record)
        return record

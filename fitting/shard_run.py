"""A run of `fit-cli fit` in shards: it may be killed at any moment and gone on with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from . import __version__
from .batches import SmallGpuError
from .body import load_body
from .clock import StageClock
from .estimates import Estimates, MakeEstimator, MakePredictor, read_estimates
from .files import InputError, sha256_of
from .manifest import Manifest, ShardFolder, check_same, prepare_resume, read_manifest
from .offline import choose_device
from .problem import count_fits
from .run_config import RunConfig, refines, settled, solver_settings
from .shard_record import ShardsSummary, finish_run
from .shard_sources import PeopleSource, open_people
from .shard_work import FitPlan, ShardTask, fit_shard, forget_tools
from .sources import Progress, check_exists
from .storage import check_installed, prepare_folder
from .table import table_files
from .workers import WorkerError, check_backend, count_workers, map_unordered

_SETTINGS = (
    "keypoint_set", "proximal_std", "starts", "solver", "focal", "solve_focal", "batch_size",
    "limit", "seed",
)  # fmt: skip
_OUT_OF_MEMORY = (
    "out of memory; end other programs or give fewer --jobs and go on with --resume, or begin "
    "again with --overwrite and a smaller --batch-size or --shard-size"
)


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """How a run is divided, besides what `RunConfig` says.

    Attributes:
        size: rows of the input in a shard; none means what the run to go on with has.
        share: (k, n): fit every n-th shard only, from the k-th on, counted from 1; others of the n
            fit the rest.
        resume: go on with the run in the output folder, if there is one.
        lifter: file that the estimator is made of; none means the one that ships.
        backend: a name in `workers.BACKENDS`.
        scheduler: address of the backend's.
    """

    size: int | None = None
    share: tuple[int, int] = (1, 1)
    resume: bool = False
    lifter: Path | None = None
    backend: str = "loky"
    scheduler: str | None = None

    def __post_init__(self) -> None:
        k, n = self.share
        if not 1 <= k <= n:
            raise ValueError(f"a share is K/N with K from 1 to N, got {k}/{n}")
        if self.size is not None and self.size < 1:
            raise ValueError(f"a shard must have at least one row, got {self.size}")
        check_backend(self.backend, self.scheduler)

    @property
    def joins(self) -> bool:
        """Whether a run that is in the output folder already is gone on with."""
        return self.resume or self.share != (1, 1)


def run_shards(
    config: RunConfig,
    shards: ShardConfig,
    progress: Progress = lambda stage, done, total: None,
    *,
    stop: Callable[[], bool] = lambda: False,
    make_estimator: MakeEstimator | None = None,
    make_predictor: MakePredictor | None = None,
) -> ShardsSummary:
    """Fit the people of `config.input`, shard by shard (docs/scale.md).

    Args:
        config: what to do. No pictures are drawn.
        shards: how to divide it.
        progress: told what is done.
        stop: asked before each shard whether to end early.
        make_estimator: see `run.run`; other processes must be able to import it.
        make_predictor: likewise.

    Raises:
        ValueError, OSError: the message is one sentence with the fix. What is done is kept.
    """
    config, sees_pictures = _checked(config, shards), make_predictor is not None
    clock = StageClock({"load": 0.0, "detect": 0.0})
    with clock.time("load"):
        body_sha256, estimates = _load_estimates(config, from_pictures=sees_pictures)
    size = shards.size or _size_of_run(config.output)
    if shards.joins:
        prepare_resume(config.output)
    else:
        prepare_folder(config.output, overwrite=config.overwrite)
    opened = open_people(config, estimates, clock, progress, sees_pictures=sees_pictures)
    with closing(opened) as source:
        if sees_pictures and source.images is None:
            raise InputError(f"{config.init} sees pictures; give their folder with --images")
        settings = _settings(config, shards, body_sha256)
        folder = ShardFolder(config.output, _manifest(config, source, size, settings))
        own = _begin(folder, shards)
        plan = _plan(config, folder.manifest, source.images)
        plan = replace(plan, make_estimator=make_estimator, make_predictor=make_predictor)
        sitting = _Sitting(folder, source, plan, progress, stop)
        # To overwrite is to begin again, even where the same run stands.
        todo = [shard for shard in own if config.overwrite or not folder.is_done(shard)]
        sitting.fit(todo, shards)
        return finish_run(
            config,
            folder,
            source,
            seconds=clock.seconds,
            fits_per_second=sitting.fitted / sitting.seconds if sitting.fitted else None,
            interrupted=sitting.interrupted,
        )


def _checked(config: RunConfig, shards: ShardConfig) -> RunConfig:
    """The same, settled; InputError for what does not go with shards."""
    for location in (config.input, config.output):
        check_installed(location)
    check_exists(config.input)
    if config.overwrite and shards.joins:
        raise InputError(
            "--resume and --shards go on with a run, --overwrite replaces it; give one"
        )
    if config.video or config.cameras is not None:
        raise InputError(
            "--video and --cameras fit pictures together that shards would part; leave them or "
            "--shard-size out"
        )
    if config.overlays:
        raise InputError("runs in shards draw no pictures; leave --overlays out")
    return settled(config)


def _load_estimates(config: RunConfig, *, from_pictures: bool) -> tuple[str, Estimates | None]:
    """The SHA-256 of the body to fit, and the estimates that a file holds."""
    body = load_body(config.body)
    if not refines(config) or from_pictures:
        return body.sha256, None
    return body.sha256, read_estimates(Path(config.init), body)


def _size_of_run(output: Path) -> int:
    manifest = read_manifest(output)
    if manifest is None:
        raise InputError(
            f"{output} holds no run in shards to go on with; give --shard-size to begin one"
        )
    return manifest.shard_size


def _settings(config: RunConfig, shards: ShardConfig, body_sha256: str) -> dict[str, Any]:
    """Whatever results depend on, besides the people: by content, for files may be moved."""
    init = _hash_files(Path(config.init)) if refines(config) else config.init
    lifter = None if shards.lifter is None else _hash_files(shards.lifter)
    settings = {
        "version": __version__,
        "torch": str(torch.__version__),
        "device": choose_device(config.device).type,
        "body": body_sha256,
        "init": init,
        "lifter": lifter,
        **{name: getattr(config, name) for name in _SETTINGS},
        "solver_settings": solver_settings(config),
    }
    return json.loads(json.dumps(settings))  # as it will be read back


def _plan(config: RunConfig, manifest: Manifest, images: Path | None) -> FitPlan:
    """Without estimator and predictor."""
    # The manifest's kind of device, also on machines that have others.
    device = str(choose_device(config.device))
    return FitPlan(
        key=manifest.key,
        config=replace(config, device=device),
        metadata=_metadata(manifest.settings),
        images=images,
    )


def _metadata(settings: Mapping[str, Any]) -> dict[str, str]:
    """Of every part: nothing that another sitting, or another number of workers, would change."""
    config = json.dumps(dict(settings), sort_keys=True)
    return {"body_sha256": settings["body"], "config": config, "version": settings["version"]}


def _hash_files(path: Path) -> str:
    files = [path] if path.is_file() else table_files(path)
    return "+".join(sha256_of(file) for file in files)


def _manifest(
    config: RunConfig, source: PeopleSource, size: int, settings: dict[str, Any]
) -> Manifest:
    rows = source.num_rows if config.limit is None else min(config.limit, source.num_rows)
    return Manifest(input_sha256=source.sha256, num_rows=rows, shard_size=size, settings=settings)


def _begin(folder: ShardFolder, shards: ShardConfig) -> Sequence[int]:
    """Make the folder ready; the numbers of the shards that are this process's to fit."""
    found = read_manifest(folder.output) if shards.joins else None
    if found is not None:
        check_same(folder.output, found, folder.manifest)
    k, n = shards.share
    own = range(k - 1, len(folder.manifest.shards), n)
    folder.begin(own)
    return own


def _count_jobs(config: RunConfig, shards: ShardConfig, num_shards: int) -> int:
    """Shards to fit at a time: on a GPU one, unless more are asked for."""
    if shards.backend != "loky":
        return config.jobs
    jobs = config.jobs
    if jobs < 0 and choose_device(config.device).type != "cpu":
        jobs = 1
    return min(count_workers(jobs), max(num_shards, 1))


class _Sitting:
    """What one process does for a run between its start and its end."""

    def __init__(
        self,
        folder: ShardFolder,
        source: PeopleSource,
        plan: FitPlan,
        progress: Progress,
        stop: Callable[[], bool],
    ) -> None:
        self._folder, self._source, self._plan = folder, source, plan
        self._progress, self._stop = progress, stop
        self.fitted, self.seconds, self.interrupted = 0, 0.0, False

    def fit(self, todo: Sequence[int], shards: ShardConfig) -> None:
        """Fit shards and write them, until all are done or it is told to stop."""
        config, rows = self._plan.config, self._folder.manifest.shards
        total = sum(last - first for first, last in (rows[shard] for shard in todo))
        began = time.perf_counter()
        results = map_unordered(
            partial(fit_shard, self._plan),
            self._tasks(todo),
            jobs=_count_jobs(config, shards, len(todo)),
            backend=shards.backend,
            scheduler=shards.scheduler,
            on_gpu=choose_device(config.device).type != "cpu",
        )
        left = set(todo)
        try:
            for done in results:
                first, last = rows[done.shard]
                self._source.check_pictures(first, last)  # they were looked at only now
                self._folder.write(done.shard, done.part, done.facts)
                left.remove(done.shard)
                self.fitted += count_fits(done.facts["status"])
                self._progress("fit", last - first, total)
        except WorkerError:
            if not self._stop():  # who stops a run may stop its workers as well
                raise
        except (MemoryError, SmallGpuError) as error:
            raise WorkerError(_OUT_OF_MEMORY) from error
        finally:
            forget_tools()
        self.interrupted = bool(left)
        self.seconds = time.perf_counter() - began

    def _tasks(self, todo: Sequence[int]) -> Iterator[ShardTask]:
        for shard in takewhile(lambda _: not self._stop(), todo):
            first, last = self._folder.manifest.shards[shard]
            yield ShardTask(shard=shard, rows=self._source.read(first, last))

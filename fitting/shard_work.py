"""What a worker does: the people of one shard become the content of one Parquet file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from priors.gmm import MaxMixturePrior, load_pose_prior

from .body import Body, load_body
from .estimates import Estimator, MakeEstimator, MakePredictor, PicturePredictor
from .offline import PeopleFit, choose_device
from .problem import status_words
from .run import fit_run, make_table
from .run_config import RunConfig
from .shard_files import Rows
from .table import encode_fits


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """What all shards of a run have in common; it can be sent to another process.

    Attributes:
        key: of the manifest; plans of one key are the same.
        config: of the run, settled.
        metadata: of the parts.
        images: folder of the pictures, where there are any.
        make_estimator: see `run.run`.
        make_predictor: see `run.run`.
    """

    key: str
    config: RunConfig = field(compare=False)
    metadata: Mapping[str, str] = field(compare=False)
    images: Path | None = field(compare=False, default=None)
    make_estimator: MakeEstimator | None = field(compare=False, default=None)
    make_predictor: MakePredictor | None = field(compare=False, default=None)


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to fit."""

    shard: int
    rows: Rows


@dataclass(frozen=True, kw_only=True)
class ShardDone:
    """One shard fitted.

    Attributes:
        shard: its number.
        part: content of its Parquet file.
        facts: what its receipt says of it.
    """

    shard: int
    part: bytes
    facts: Mapping[str, Any]


def fit_shard(plan: FitPlan, task: ShardTask) -> ShardDone:
    """Fit the people of one shard, always by one thread.

    Sums that are shared out among threads are rounded in another order; this way a shard's bits
    depend on its rows and the settings alone, wherever it is fitted.
    """
    with _one_thread():
        tools = _load_tools(plan)
        torch.manual_seed(plan.config.seed)
        rows, seconds = task.rows, {}
        began = time.perf_counter()
        if tools.predictor is not None:
            rows = _predicted(plan, tools.predictor, rows)
        seconds["init"] = time.perf_counter() - began
        fit = fit_run(
            plan.config,
            rows.people,
            tools.body,
            tools.prior,
            estimates=rows.estimates,
            estimator=tools.estimator,
        )
        began = time.perf_counter()
        table = make_table(rows.people, fit, init=fit.init, metadata=plan.metadata)
        part = encode_fits(table)
        seconds["write"] = time.perf_counter() - began
    for stage, spent in fit.seconds.items():
        seconds[stage] = seconds.get(stage, 0.0) + spent
    facts = {**_facts(rows, fit, seconds), "bytes": len(part)}
    return ShardDone(shard=task.shard, part=part, facts=facts)


def forget_tools() -> None:
    """Free what this process keeps from shard to shard."""
    _load_tools.cache_clear()


@dataclass(frozen=True, kw_only=True)
class _Tools:
    """What takes long to load and serves all shards of a run."""

    body: Body
    prior: MaxMixturePrior
    estimator: Estimator | None
    predictor: PicturePredictor | None


@lru_cache(maxsize=1)
def _load_tools(plan: FitPlan) -> _Tools:
    device = choose_device(plan.config.device)
    body = load_body(plan.config.body).to(device)
    return _Tools(
        body=body,
        prior=load_pose_prior().to(device),
        estimator=None if plan.make_estimator is None else plan.make_estimator(body),
        predictor=None if plan.make_predictor is None else plan.make_predictor(body),
    )


def _predicted(plan: FitPlan, predictor: PicturePredictor, rows: Rows) -> Rows:
    assert plan.images is not None  # or the run was refused
    estimates, problems = predictor(rows.people, plan.images, focal=plan.config.focal)
    return Rows(people=rows.people, problems=[*rows.problems, *problems], estimates=estimates)


def _facts(rows: Rows, fit: PeopleFit, seconds: Mapping[str, float]) -> dict[str, Any]:
    return {
        "people": len(rows.people),
        "status": dict(Counter(status_words(fit.result.status).tolist())),
        "without_estimate": int((fit.init != "given").sum()),
        "batch_size": fit.batch_size,
        "seconds": {stage: round(spent, 3) for stage, spent in seconds.items()},
        "problems": [asdict(problem) for problem in rows.problems],
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

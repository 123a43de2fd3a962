"""People fitted per second, and what a fit costs the machine, all measured in one run.

    python benchmarks/speed.py [--device cuda] [--quick --output FILE]

People are those of `benchmarks/problems.py` at the level "2px", with COCO's 17 keypoints. Each
number is a median of five runs after one to warm up; long ones are cut short as
`cost.time_median` says, and every row tells its "runs". Initial estimates are part of a run; what
is computed once for all people is not, and stands under "setup_seconds". The baselines run beside
our solver, so that ratios hold on a machine that others use too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from against_smplfitter import measure_smplfitter
from cases import CASES, LIFT, REGRESSOR, STARTS, Case, Fit, first_people, make_fit
from cost import Peak, count_cost, measure_peak, time_median, time_once
from memory import measure_memory
from problems import LEVELS, add_noise, make_truth, perturb
from record import RESULTS, describe_run

from fitting.body import Body, load_body
from fitting.files import write_json
from fitting.offline import choose_device
from fitting.problem import BodyParams, FitProblem
from priors.gmm import load_pose_prior
from regressor.lift import load_lifter

LEVEL = "2px"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        pool: different people; larger batches hold them several times.
        lm, adam, lbfgs: numbers of people fitted at once, from the mean and from the estimate;
            L-BFGS from the estimate only.
        modes: the same for lm from the modes of the prior.
        reference: people at once of lm's ratio to adam and of its memory; one of `lm`.
        counted: starts whose operations are counted.
        alone: people fitted one by one.
        matrix: rows of the matrices that measure the machine.
        runs: of which the median is taken.
        least: runs of lm that are made however long they take.
    """

    pool: int = 256
    lm: tuple[int, ...] = (1, 16, 64, 256, 1024, 4096)
    adam: tuple[int, ...] = (16, 64, 256)
    lbfgs: tuple[int, ...] = (2,)
    modes: tuple[int, ...] = (256,)
    reference: int = 1024
    counted: int = 256
    alone: int = 20
    matrix: int = 2048
    runs: int = 5
    least: int = 3


CPU = Sizes()
CUDA = replace(
    CPU, lm=(1, 16, 64, 256, 1024, 4096, 16384, 32768), adam=(64, 256, 1024), matrix=8192
)
QUICK = Sizes(
    pool=16,
    lm=(1, 16, 32),
    adam=(1,),
    lbfgs=(),
    modes=(2,),
    reference=32,
    counted=16,
    alone=3,
    matrix=256,
    runs=1,
    least=1,
)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all measurements share.

    Attributes:
        sizes: how much to measure.
        device: where.
        problem: of `sizes.pool` people.
        estimate: a regressor-like one of them.
        fits: for each case.
    """

    sizes: Sizes
    device: torch.device
    problem: FitProblem
    estimate: BodyParams
    fits: dict[Case, Fit]

    def work(self, case: Case, people: int) -> Callable[[], object]:
        """A fit of so many people."""
        return partial(self.fits[case], *first_people(self.problem, self.estimate, people))


def _case(solver: str, start: str) -> Case:
    """The first of that name: of lm from an estimate the one that is told how good it is."""
    return next(case for case in CASES if (case.solver, case.start) == (solver, start))


def measure_batches(bench: Bench) -> list[dict[str, Any]]:
    """People per second of every solver, start and batch."""
    sizes = bench.sizes
    plan = [(_case("lm", start), sizes.lm) for start in (REGRESSOR, LIFT, "mean")]
    plan += [(_case("lm", "modes"), sizes.modes)]
    plan += [(_case("adam", start), sizes.adam) for start in (REGRESSOR, "mean")]
    plan += [(_case("lbfgs", REGRESSOR), sizes.lbfgs)]
    rows = []
    for case, people in ((case, people) for case, batches in plan for people in batches):
        least = sizes.least if case.solver == "lm" else 1
        work = bench.work(case, people)
        seconds, runs = time_median(work, bench.device, runs=sizes.runs, least=least)
        rows.append(
            {
                "solver": case.solver,
                "start": case.start,
                "proximal": case.proximal,
                "batch": people,
                "people_per_second": round(people / seconds, 3),
                "seconds": round(seconds, 4),
                "runs": runs,
            }
        )
        click.echo(f"{case.label:22} batch {people:5}  {people / seconds:9.2f}/s  ({runs} runs)")
    return rows


def measure_alone(bench: Bench) -> dict[str, float]:
    """Median milliseconds of lm for one person, over different people, from each start."""
    found = {}
    for start in (REGRESSOR, LIFT, "mean"):
        fit = bench.fits[_case("lm", start)]
        fit(*first_people(bench.problem, bench.estimate, 1))  # warm-up
        seconds = []
        for row in torch.arange(bench.sizes.alone, device=bench.device).split(1):
            one = bench.problem.select(row), bench.estimate.select(row)
            seconds.append(time_once(partial(fit, *one), bench.device))
        found[start] = round(1e3 * statistics.median(seconds), 3)
        click.echo(f"one person alone from {start}: {found[start]:.1f} ms")
    return found


def measure_lifter(bench: Bench, body: Body) -> dict[str, Any]:
    """People per second that the lifter alone estimates, at the reference batch."""
    people = bench.sizes.reference
    problem, _ = first_people(bench.problem, bench.estimate, people)
    work = partial(load_lifter(body), problem)
    seconds, runs = time_median(work, bench.device, runs=bench.sizes.runs, least=bench.sizes.least)
    click.echo(f"lifter alone, batch {people}: {people / seconds:.0f}/s")
    return {"batch": people, "people_per_second": round(people / seconds, 1), "runs": runs}


def best_rate(rows: list[dict[str, Any]], solver: str, start: str) -> float:
    """People per second at the best batch."""
    mine = [r for r in rows if (r["solver"], r["start"]) == (solver, start)]
    return max(r["people_per_second"] for r in mine)


def compare_batches(rows: list[dict[str, Any]], reference: int) -> dict[str, Any]:
    """How often lm at the reference batch is adam at its best, and how lm's speed scales."""

    def rates(start: str) -> dict[int, float]:
        mine = [r for r in rows if (r["solver"], r["start"]) == ("lm", start)]
        return {r["batch"]: r["people_per_second"] for r in mine}

    times, scaling = {}, {}
    for start in (REGRESSOR, LIFT, "mean"):
        lm = rates(start)
        adam = REGRESSOR if start == REGRESSOR else "mean"  # what adam would begin at instead
        times[start] = round(lm[reference] / best_rate(rows, "adam", adam), 1)
        larger = {n: rate for n, rate in lm.items() if n >= reference}
        scaling[start] = {str(n): round(rate / lm[reference], 3) for n, rate in larger.items()}
        click.echo(f"lm at {reference} from {start}: {times[start]} times adam; {scaling[start]}")
    return {"batch": reference, "lm_over_adam": times, "rate_over_reference": scaling}


def measure_cost(bench: Bench, rows: list[dict[str, Any]], peak: Peak) -> dict[str, Any]:
    """Operations and bytes of one person's fit, and which share of the machine's peak lm reaches.

    Bytes are an upper estimate: what operations read and write, whether from memory or caches. The
    share may therefore exceed 1.
    """
    found = {}
    for start, num_starts in ((REGRESSOR, 1), (LIFT, 1), ("mean", STARTS["mean"])):
        people = bench.sizes.counted // num_starts
        cost = count_cost(bench.work(_case("lm", start), people))
        gflop, gbyte = cost.flops / people / 1e9, cost.bytes / people / 1e9
        rate = best_rate(rows, "lm", start)
        found[start] = {
            "gflop": round(gflop, 6),
            "gbyte": round(gbyte, 6),
            "gflop_share_of_peak": round(gflop * rate / peak.gflops, 4),
            "gbyte_share_of_copy": round(gbyte * rate / peak.gbytes, 4),
        }
        click.echo(f"a fit of lm from {start}: {found[start]}")
    return found


def prepare(
    sizes: Sizes, device: torch.device, seed: int
) -> tuple[Bench, Body, BodyParams, dict[str, float]]:
    """The problems and solvers, the body, the true people, and the seconds of what is done once."""
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        made = work()
        seconds[name] = round(time.perf_counter() - began, 4)
        return made

    body = timed("load_body", lambda: load_body().to(device))
    prior = timed("load_prior", lambda: load_pose_prior().to(device))
    truth = make_truth(body, sizes.pool, seed)
    keypoints = truth.problem.keypoint_set
    shuffled = torch.randperm(sizes.pool, generator=torch.Generator().manual_seed(seed)).to(device)
    params = truth.params.select(shuffled)  # so that small batches have all kinds of motion too
    bench = Bench(
        sizes=sizes,
        device=device,
        problem=add_noise(truth.problem.select(shuffled), LEVELS[LEVEL], seed + 1),
        estimate=perturb(params, seed + 2),
        fits={
            case: timed(case.label, partial(make_fit, case, body, prior, keypoints))
            for case in CASES
        },
    )
    return bench, body, params, seconds


def measure(sizes: Sizes, device: torch.device, seed: int) -> dict[str, Any]:
    """Everything, ready for JSON."""
    memory = measure_memory(sizes.reference, str(device))
    click.echo(f"memory, GiB: {memory}")
    bench, body, truth, setup = prepare(sizes, device, seed)
    peak = measure_peak(device, sizes.matrix)
    click.echo(f"machine: {peak.gflops:.0f} GFLOP/s, {peak.gbytes:.1f} GB/s")
    rows = measure_batches(bench)
    return {
        "peak": {"gflops": round(peak.gflops, 1), "gbytes": round(peak.gbytes, 2)},
        "setup_seconds": setup,
        "results": rows,
        "alone_ms": measure_alone(bench),
        "lifter": measure_lifter(bench, body),
        "comparison": compare_batches(rows, sizes.reference),
        "memory_gib": memory,
        "cost_of_a_fit": measure_cost(bench, rows, peak),
        "smplfitter": _measure_smplfitter(body, truth, sizes),
    }


def _measure_smplfitter(body: Body, truth: BodyParams, sizes: Sizes) -> dict[str, Any]:
    few = truth.select(torch.arange(min(64, sizes.pool)))
    found = measure_smplfitter(body, few, runs=sizes.runs)
    for row in found.get("results", [found]):
        click.echo(f"smplfitter: {row}")
    return found


@click.command()
@click.option("--device", default="cpu", show_default=True)
@click.option("--quick", is_flag=True, help="Few people and one run: a test of this script.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write instead of results/speed.json, or speed_cuda.json.",
)
def main(device: str, quick: bool, seed: int, output: Path | None) -> None:
    """Measure speed, memory and cost of the solvers on one device."""
    chosen = choose_device(device)
    is_cuda = chosen.type == "cuda"
    command = f"python benchmarks/speed.py --device {device} --seed {seed}"
    record = describe_run(command + " --quick" * quick)
    if is_cuda:
        record["machine"]["gpu"] = torch.cuda.get_device_name(chosen)
    record |= {
        "device": chosen.type,
        "threads": torch.get_num_threads(),
        "seed": seed,
        "keypoint_set": "coco17",
        "noise": LEVEL,
        **measure(QUICK if quick else CUDA if is_cuda else CPU, chosen, seed),
    }
    RESULTS.mkdir(exist_ok=True)
    write_json(output or RESULTS / ("speed_cuda.json" if is_cuda else "speed.json"), record)


if __name__ == "__main__":
    main()

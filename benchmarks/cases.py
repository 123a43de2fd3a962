"""Which solver starts from where: what every benchmark compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from fitting.body import Body
from fitting.estimates import ESTIMATE_BETAS_STD, ESTIMATE_POSE_STD
from fitting.initial import MeanStarts
from fitting.map_fit import LmConfig
from fitting.offline import SOLVERS, make_solver
from fitting.problem import BodyParams, FitProblem, FitResult, Proximal
from fitting.skeleton import KeypointSet
from priors.gmm import MaxMixturePrior
from regressor.lift import load_lifter

STARTS = {"mean": 2, "modes": 18}  # poses tried of each person, facing the camera and facing away
REGRESSOR = "regressor"
LIFT = "lift"

# problem, estimate of its people -> their fits
Fit = Callable[[FitProblem, BodyParams], FitResult]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One solver from one kind of start.

    Attributes:
        solver: a name in `fitting.offline.SOLVERS`.
        start: "mean", the mean pose from two sides; "modes", also the modes of the pose prior;
            "regressor", the estimate of `problems.perturb`; "lift", the bundled lifter's.
        proximal: whether the solver is told how good the estimate is.
    """

    solver: str
    start: str
    proximal: bool = False

    @property
    def label(self) -> str:
        untold = self.solver == "lm" and self.start == REGRESSOR and not self.proximal
        return f"{self.solver} from {self.start}{', no proximal' if untold else ''}"


CASES = (
    Case(solver="lm", start="mean"),
    Case(solver="lm", start="modes"),
    Case(solver="adam", start="mean"),
    Case(solver="lbfgs", start="mean"),
    Case(solver="lm", start=LIFT, proximal=True),
    Case(solver="lm", start=REGRESSOR, proximal=True),
    Case(solver="lm", start=REGRESSOR),
    Case(solver="adam", start=REGRESSOR),
    Case(solver="lbfgs", start=REGRESSOR),
)


def trust(estimate: BodyParams) -> Proximal:
    """What a solver is told of an estimate: what `fit-cli fit --init` assumes of everyone's."""
    like = estimate.betas
    return Proximal(
        params=estimate,
        pose_precision=(ESTIMATE_POSE_STD**-2 * torch.eye(3).to(like)).expand(1, 24, 3, 3),
        betas_std=like.new_full((1, 10), ESTIMATE_BETAS_STD),
    )


def make_fit(case: Case, body: Body, prior: MaxMixturePrior, keypoints: KeypointSet) -> Fit:
    """What fits people as `case` says, initial estimates included; precomputes what they share."""
    if case.start == REGRESSOR:
        config = LmConfig.from_estimate() if case.solver == "lm" else SOLVERS[case.solver]()
        solver = make_solver(body, prior, keypoints, config)

        def fit_from_estimate(problem: FitProblem, estimate: BodyParams) -> FitResult:
            proximal = trust(estimate) if case.proximal else None
            return solver(replace(problem, proximal=proximal), [estimate])

        return fit_from_estimate
    if case.start == LIFT:
        lift = load_lifter(body)
        solver = make_solver(body, prior, keypoints, LmConfig.from_estimate())

        def fit_lifted(problem: FitProblem, estimate: BodyParams) -> FitResult:
            return solver(*lift(problem))

        return fit_lifted
    solver = make_solver(body, prior, keypoints, SOLVERS[case.solver]())
    make_starts = MeanStarts(body, prior, keypoints, STARTS[case.start])
    return lambda problem, estimate: solver(problem, make_starts(problem))


def first_people(
    problem: FitProblem, estimate: BodyParams, count: int
) -> tuple[FitProblem, BodyParams]:
    """The first `count` of N people; where there are fewer, they come again."""
    rows = torch.arange(count, device=problem.conf.device) % len(problem)
    return problem.select(rows), estimate.select(rows)

"""Maximum a posteriori fits by Levenberg-Marquardt: the default solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from priors.gmm import MaxMixturePrior

from .body import Body
from .keypoint_body import KeypointBody
from .keypoints import map_keypoints
from .lm import LmOptions, minimize_lm
from .map_energy import SIZES, MapEnergy, MapWeights
from .problem import PARAMETERS, BodyParams, FitProblem, FitResult
from .results import fit_from_starts, make_result


@dataclass(frozen=True, kw_only=True)
class LmConfig:
    """Settings of a maximum a posteriori fit.

    Attributes:
        weights: of the energy's terms.
        blurs: stages; each widens the expected keypoint noise by this factor and starts where the
            one before ended. The first moves orientation and translation only.
        steps: of Levenberg-Marquardt, at most, in each stage.
        options: of the solver, but for the number of steps.
    """

    weights: MapWeights = field(default_factory=MapWeights)
    blurs: tuple[float, ...] = (8.0, 8.0, 3.0, 1.0)
    steps: tuple[int, ...] = (8, 5, 5, 20)
    options: LmOptions = field(default_factory=LmOptions)

    def __post_init__(self) -> None:
        if len(self.blurs) != len(self.steps) or not self.steps:
            raise ValueError(
                f"blurs and steps must be as long as each other, got {self.blurs} and {self.steps}"
            )


def fit_map(
    body: Body,
    prior: MaxMixturePrior,
    problem: FitProblem,
    starts: Sequence[BodyParams],
    config: LmConfig,
) -> FitResult:
    """Fit people from each of the starts, and keep each person's fit of lowest cost.

    Args:
        body: on the problem's device, in its dtype.
        prior: likewise.
        problem: B people; those with nothing seen get status `NO_KEYPOINTS` and NaN parameters.
        starts: at least one initial estimate of the B people.
        config: of the solver.
    """
    keypoint_body = KeypointBody(body, map_keypoints(body, problem.keypoint_set))

    def prepare(seen: FitProblem) -> Callable[[BodyParams], FitResult]:
        return partial(_fit_from, MapEnergy(keypoint_body, prior, seen, config.weights), config)

    with torch.no_grad():
        return fit_from_starts(problem, keypoint_body.defined, starts, prepare)


def _fit_from(energy: MapEnergy, config: LmConfig, start: BodyParams) -> FitResult:
    x = start.pack(PARAMETERS)
    rigid = torch.zeros(x.shape[1], dtype=torch.bool, device=x.device)
    rigid[:3] = rigid[-3:] = True
    num_steps = torch.zeros(len(x), dtype=torch.int32, device=x.device)
    for stage, (blur, steps) in enumerate(zip(config.blurs, config.steps, strict=True)):
        solution = minimize_lm(
            partial(energy.linearise, blur=blur),
            x,
            replace(config.options, max_steps=steps),
            free=rigid if stage == 0 else None,
        )
        x, num_steps = solution.x, num_steps + solution.num_steps
    params = start.unpack(x, PARAMETERS)
    keypoints = energy.keypoint_body(*x.split(SIZES, dim=1))
    return make_result(energy.problem, keypoints, params, solution, num_steps)

"""Maximum a posteriori fits by Levenberg-Marquardt: the default solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from priors.gmm import MaxMixturePrior

from .body import Body
from .keypoint_body import KeypointBody
from .keypoints import map_keypoints
from .lm import TILE, Linearised, LmOptions, minimize_lm, root_inverse_times
from .map_energy import MapEnergy, MapWeights, RigidEnergy
from .parallel import map_on_cores
from .problem import PARAMETERS, BodyParams, FitProblem, FitResult
from .results import fit_seen, make_result
from .skeleton import keypoint_set
from .solver import Solution

_CHUNK_ROWS = 256  # on CPUs
TURN_PRECISION = 3 / torch.pi**2  # of a uniform heading: nobody is turned by more than half a turn
_RIGID = [0, 1, 2, 82, 83, 84]  # orientation and translation


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One of the minimisations that a fit is made of; each starts where the one before ended.

    Attributes:
        steps: of Levenberg-Marquardt, at most.
        blur: how many times wider than expected the noise of keypoints is taken to be.
        rigid: move orientation and translation only.
        keep: starts of each person that go on to the next stage, those of lowest cost.
    """

    steps: int
    blur: float = 1.0
    rigid: bool = False
    keep: int = 1_000_000


@dataclass(frozen=True, kw_only=True)
class LmConfig:
    """Settings of a maximum a posteriori fit.

    Attributes:
        weights: of the energy's terms.
        stages: from coarse to fine.
        options: of the solver, but for the number of steps.
        solve_focal: the focal lengths given are guesses; solve for them too.
        uncertainty: estimate the deviation of joints, at the cost of about one step.
    """

    weights: MapWeights = field(default_factory=MapWeights)
    stages: tuple[Stage, ...] = (
        Stage(steps=5, blur=8, rigid=True),
        Stage(steps=6, blur=4, keep=2),
        Stage(steps=4, blur=1.5, keep=1),
        Stage(steps=12),
    )
    options: LmOptions = field(default_factory=LmOptions)
    solve_focal: bool = False
    uncertainty: bool = True

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a fit needs at least one stage")

    @classmethod
    def from_estimate(cls) -> LmConfig:
        """For starts that are near the solution, such as a regressor's: no coarse stages."""
        return cls(stages=(Stage(steps=15),))


class Candidates(NamedTuple):
    """The K best fits of each of B people, the cheapest first.

    Attributes:
        x: (K, B, D) unknowns.
        cost: (K, B).
        depth: (B,) metres, where the fits began.
        num_steps: (B,) int32, of all of a person's fits.
    """

    x: Tensor
    cost: Tensor
    depth: Tensor
    num_steps: Tensor

    @property
    def finite(self) -> Tensor:
        """(B,) bool, False where not even the best fit is finite."""
        return self.cost[0].isfinite() & self.x[0].isfinite().all(dim=1)

    def select(self, rows: Tensor) -> Candidates:
        """Of the people at `rows` (indices or a mask)."""
        return Candidates(
            self.x[:, rows], self.cost[:, rows], self.depth[rows], self.num_steps[rows]
        )

    @staticmethod
    def concatenate(parts: Sequence[Candidates]) -> Candidates:
        """People of all parts, in order."""
        x, cost, depth, num_steps = zip(*parts, strict=True)
        return Candidates(
            torch.cat(x, dim=1), torch.cat(cost, dim=1), torch.cat(depth), torch.cat(num_steps)
        )


class MapSolver:
    """Fits the people of one keypoint set on one body; what they share is precomputed once."""

    def __init__(
        self,
        body: Body,
        prior: MaxMixturePrior,
        keypoint_body: KeypointBody,
        config: LmConfig,
    ) -> None:
        self.prior, self.keypoint_body, self.config = prior, keypoint_body, config
        self.joint_body = KeypointBody(body, map_keypoints(body, keypoint_set("smpl24")))

    def __call__(self, problem: FitProblem, starts: Sequence[BodyParams]) -> FitResult:
        """Fit people from each of the starts, and keep each person's fit of lowest cost.

        Args:
            problem: B people; those with nothing seen get status `NO_KEYPOINTS` and NaN parameters.
            starts: at least one initial estimate of the B people.
        """
        return fit_seen(problem, self.keypoint_body.defined, starts, self._fit)

    def _fit(self, problem: FitProblem, starts: Sequence[BodyParams]) -> FitResult:
        """All at once on a GPU; on a CPU in chunks whose matrices stay in its caches."""

        def work(chunk: Tensor) -> FitResult:
            return self._fit_chunk(problem.select(chunk), [start.select(chunk) for start in starts])

        return FitResult.concatenate(map_on_cores(work, self._chunks(problem, len(starts))))

    def _chunks(self, problem: FitProblem, num_starts: int) -> tuple[Tensor, ...]:
        rows = torch.arange(len(problem), device=problem.conf.device)
        if rows.is_cuda:
            return (rows,)
        share = -(-len(rows) // torch.get_num_threads())
        return rows.split(max(TILE, min(share, _CHUNK_ROWS // num_starts)))

    @torch.no_grad()
    def _fit_chunk(self, problem: FitProblem, starts: Sequence[BodyParams]) -> FitResult:
        energy = self._energy(problem, starts)
        solution = self._descend(energy, starts, self.config.stages)
        solution = solution.select(torch.arange(len(problem), device=problem.conf.device))
        params = starts[0].unpack(solution.x[:, :85], PARAMETERS)
        keypoints = self.keypoint_body.pose(solution.x).keypoints
        joint_std = None
        if self.config.uncertainty:
            rows = torch.arange(len(problem), device=solution.x.device)
            joint_std = self._joint_std(energy.linearise(solution.x, rows).hessian, solution.x)
        if self.config.solve_focal:
            problem = replace(problem, intrinsics=zoomed(problem.intrinsics, solution.x[:, 85]))
        return make_result(problem, keypoints, params, solution, solution.num_steps, joint_std)

    @torch.no_grad()
    def assess(self, problem: FitProblem, params: BodyParams) -> FitResult:
        """What bodies cost as they are, from where: nothing is moved, and no distance expected.

        So costs of fits that began anywhere compare with each other.

        Args:
            problem: B people; those with nothing seen get status `NO_KEYPOINTS`.
            params: of the B people.
        """
        return fit_seen(problem, self.keypoint_body.defined, [params], self._assess_seen)

    def _assess_seen(self, problem: FitProblem, params: Sequence[BodyParams]) -> FitResult:
        (params_there,) = params
        energy = self._energy(problem, params)
        x = params_there.pack(PARAMETERS)
        model = energy.linearise(x, torch.arange(len(x), device=x.device))
        solution = Solution(
            x=x,
            cost_initial=model.cost,
            cost_final=model.cost,
            num_steps=torch.zeros(len(x), dtype=torch.int32, device=x.device),
            converged=torch.zeros(len(x), dtype=torch.bool, device=x.device),
        )
        keypoints = self.keypoint_body.pose(x).keypoints
        joint_std = self._joint_std(model.hessian, x) if self.config.uncertainty else None
        return make_result(
            problem, keypoints, params_there, solution, solution.num_steps, joint_std
        )

    def search(self, problem: FitProblem, starts: Sequence[BodyParams], keep: int) -> Candidates:
        """The best `keep` fits of each of B people of whom something is seen.

        Args:
            problem: B people.
            starts: initial estimates of them; where there are fewer than `keep`, fits come twice.
            keep: K.
        """
        *stages, last = (replace(s, keep=max(s.keep, keep)) for s in self.config.stages)
        stages.append(replace(last, keep=keep))

        @torch.no_grad()
        def work(chunk: Tensor) -> Candidates:
            some, at = problem.select(chunk), [start.select(chunk) for start in starts]
            solution = self._descend(self._energy(some, at), at, stages)
            x, cost, num_steps = (
                part.unflatten(0, (-1, len(chunk)))
                for part in (solution.x, solution.cost_final, solution.num_steps)
            )
            kept = torch.arange(keep, device=x.device).clamp(max=len(x) - 1)
            return Candidates(x[kept], cost[kept], at[0].transl[:, 2], num_steps.sum(dim=0))

        return Candidates.concatenate(map_on_cores(work, self._chunks(problem, len(starts))))

    def _energy(self, problem: FitProblem, starts: Sequence[BodyParams]) -> MapEnergy:
        depth = starts[0].transl[:, 2]
        return MapEnergy(self.keypoint_body, self.prior, problem, self.config.weights, depth)

    def _descend(
        self, energy: MapEnergy, starts: Sequence[BodyParams], stages: Sequence[Stage]
    ) -> Solution:
        """Fits of B people from the starts that the last stage keeps (K B), the cheapest first.

        `num_steps` are those of all stages.
        """
        x = torch.cat([start.pack(PARAMETERS) for start in starts])
        if self.config.solve_focal:
            x = torch.cat([x, x.new_zeros(len(x), 1)], dim=1)
        B = len(starts[0])
        person = torch.arange(B, device=x.device).repeat(len(starts))
        num_steps = torch.zeros_like(person, dtype=torch.int32)
        for stage in stages:
            solution = self._minimise(energy, stage, x, person)
            best = _cheapest(solution.cost_final, B, stage.keep)
            solution, person = solution.select(best), person[best]
            x, num_steps = solution.x, num_steps[best] + solution.num_steps
        return replace(solution, num_steps=num_steps)

    def _joint_std(self, hessian: Tensor, x: Tensor) -> Tensor:
        """(B, 24, 3) of the normal distribution with the normal matrix (B, D, D) at x (B, D)."""
        hessian.diagonal(dim1=1, dim2=2)[:, :3] += TURN_PRECISION
        spread = root_inverse_times(hessian, self.joint_moves(x).mT)
        return spread.norm(dim=1).unflatten(1, (24, 3))

    def joint_moves(self, x: Tensor) -> Tensor:
        """(B, 72, D) derivatives of the joints relative to the pelvis by x (B, D)."""
        axes = torch.eye(3).to(x).expand(len(x), 24, 3, 3)
        moves = self.joint_body.measured_moves(self.joint_body.pose(x), axes)
        moves = moves.unflatten(1, (24, 3))
        moves = (moves - moves[:, :1]).flatten(1, 2)
        return torch.nn.functional.pad(moves, (0, x.shape[1] - 85))

    def _minimise(self, energy: MapEnergy, stage: Stage, x: Tensor, person: Tensor) -> Solution:
        options = replace(self.config.options, max_steps=stage.steps)
        if not stage.rigid:

            def linearise(x: Tensor, rows: Tensor) -> Linearised:
                return energy.linearise(x, person[rows], blur=stage.blur)

            return minimize_lm(linearise, x, options)
        rigid = RigidEnergy(energy, x, person)
        solution = minimize_lm(partial(rigid.linearise, blur=stage.blur), x[:, _RIGID], options)
        x = x.clone()
        x[:, _RIGID] = solution.x
        return replace(solution, x=x)


def zoomed(intrinsics: Tensor, log_zoom: Tensor) -> Tensor:
    """Intrinsics (B, 3, 3) with focal lengths times exp(log_zoom) (B,)."""
    zoomed = intrinsics.clone()
    zoomed.diagonal(dim1=1, dim2=2)[:, :2] *= log_zoom.exp()[:, None]
    return zoomed


def _cheapest(costs: Tensor, num_people: int, keep: int) -> Tensor:
    """Rows of the `keep` cheapest of each person's starts, costs (S B,); the first ones first."""
    costs = costs.nan_to_num(torch.inf).unflatten(0, (-1, num_people))
    rank = costs.argsort(dim=0, stable=True)[:keep]
    return (rank * num_people + torch.arange(num_people, device=costs.device)).flatten()

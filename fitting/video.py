"""One person in many pictures: all pictures of a track are fitted together.

Each picture is fitted alone first, from all its starts; dynamic programming picks the fits that
follow each other best; and Levenberg-Marquardt moves all of a track from there, with the block-
tridiagonal normal equations of `tridiagonal`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import roma
import torch
from torch import Tensor

from .batches import TRACKS, work_in_batches
from .chains import ChainEnergy, Chains, Part, stacked, windows
from .lm import minimize_lm
from .map_energy import BETAS, POSE, TRANSL
from .map_fit import Candidates, MapSolver, Stage, zoomed
from .parallel import map_on_cores
from .problem import PARAMETERS, BodyParams, FitProblem, FitResult, Status
from .results import make_result
from .solver import Solution
from .temporal import MotionWeights, make_links, pair_costs
from .tracks import Track
from .tridiagonal import solve_tridiagonal

_CHUNK_ROWS = 1024  # of results


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Settings of a joint fit.

    Attributes:
        motion: how far people are expected to move.
        candidates: fits of each picture alone, from as many starts, that are tried to follow each
            other.
        alone_std: radians about each axis, by which fits of pictures alone are expected to be off;
            only what goes beyond that speaks against candidates that follow each other.
        stages: of the joint fit.
        window: pictures solved at a time; see `chains.windows`.
        overlap: of windows.
    """

    motion: MotionWeights = field(default_factory=MotionWeights)
    candidates: int = 4
    alone_std: float = 0.2
    stages: tuple[Stage, ...] = (Stage(steps=5, blur=1.5), Stage(steps=15))
    window: int = 256
    overlap: int = 32

    def __post_init__(self) -> None:
        if self.candidates < 1 or not self.stages:
            raise ValueError("a joint fit needs at least one candidate and one stage")
        if not 0 < self.overlap < self.window:
            raise ValueError(
                f"overlap must be between 0 and window, got {self.overlap} and {self.window}"
            )


class _Joint(NamedTuple):
    """What was found for n chains of T pictures."""

    x: Tensor  # (n, T, D)
    cost_initial: Tensor  # (n, T)
    cost_final: Tensor  # (n, T)
    num_steps: Tensor  # (n, T)
    converged: Tensor  # (n, T) bool
    joint_std: Tensor  # (n, T, 24, 3)


class VideoSolver:
    """Fits the tracks of one keypoint set on one body."""

    def __init__(self, solver: MapSolver, config: VideoConfig) -> None:
        self.solver, self.config = solver, config

    @torch.no_grad()
    def __call__(
        self, problem: FitProblem, candidates: Candidates, known: Tensor, tracks: Sequence[Track]
    ) -> FitResult:
        """Fit tracks jointly, from fits of their pictures alone.

        Args:
            problem: N people.
            candidates: fits of M of them alone.
            known: (M,) rows of those among the N.
            tracks: of the N, each row in one. A picture in which nothing is seen, or of which no
                fit alone is finite, is fitted if there is another in its track.

        Raises:
            MemoryError, SmallGpuError: see `batches.work_in_batches`; batches are of whole tracks.
        """
        device, N = problem.conf.device, len(problem)
        seen = torch.zeros(N, dtype=torch.bool, device=device)
        seen[known] = True
        known, candidates = known[candidates.finite], candidates.select(candidates.finite)
        is_known = np.zeros(N, dtype=bool)
        is_known[known.cpu().numpy()] = True
        tracks = [track for track in tracks if is_known[track.rows].any()]
        depth = candidates.depth.new_zeros(N)
        depth[known] = candidates.depth
        problem = problem.with_defined(self.solver.keypoint_body.defined)
        found = _empty(first_guess(candidates, known, tracks, N, self.config))
        found.num_steps[known] = candidates.num_steps.to(torch.int32)
        at_once = len(tracks)
        for parts in windows(tracks, self.config.window, self.config.overlap):
            solve = partial(self._solve_some, problem, depth, found, parts)
            at_once = work_in_batches(solve, len(parts), at_once, TRACKS)
        rows = np.concatenate([np.empty(0, np.int64), *(track.rows for track in tracks)])
        return self._results(problem, found, torch.as_tensor(rows, device=device), seen)

    def _solve_some(
        self,
        problem: FitProblem,
        depth: Tensor,
        found: _Joint,
        parts: Sequence[Part],
        some: np.ndarray,
    ) -> None:
        """Solve the parts at `some`, and store what was found when there is memory for all."""
        jobs = list(stacked([parts[i] for i in some], depth.device))
        work = partial(self._solve, problem, depth, found.x)
        for chains, joint in zip(jobs, map_on_cores(work, jobs), strict=True):
            _store(found, chains, joint)

    def _solve(self, problem: FitProblem, depth: Tensor, x: Tensor, chains: Chains) -> _Joint:
        """Chains of N rows, from x (N, D)."""
        energy = ChainEnergy(self.solver, problem, depth, chains, self.config.motion)
        at = x[chains.rows]
        num_steps = torch.zeros(len(at), dtype=torch.int32, device=x.device)
        for stage in self.config.stages:
            before = at
            options = replace(self.solver.config.options, max_steps=stage.steps, tile=chains.tile)
            linearise = partial(energy.linearise, blur=stage.blur)
            solution = minimize_lm(linearise, at, options, solve=solve_tridiagonal)
            at, num_steps = solution.x, num_steps + solution.num_steps
        shape = chains.rows.shape
        return _Joint(
            x=at,
            cost_initial=energy.picture_costs(before),
            cost_final=energy.picture_costs(at),
            num_steps=num_steps[:, None].expand(shape),
            converged=solution.converged[:, None].expand(shape),
            joint_std=self._joint_std(problem, depth, at, chains),
        )

    def _joint_std(self, problem: FitProblem, depth: Tensor, x: Tensor, chains: Chains) -> Tensor:
        """(n, T, 24, 3) of the normal distribution with the normal matrix's curvature at x."""
        if not self.solver.config.uncertainty:
            return x.new_full((*x.shape[:2], 24, 3), torch.nan)
        energy = ChainEnergy(self.solver, problem, depth, chains.untied(), self.config.motion)
        covariance = energy.covariance(x).flatten(0, 1)
        moves = self.solver.joint_moves(x.flatten(0, 1))
        variance = ((moves @ covariance) * moves).sum(dim=2)
        return variance.clamp(min=0).sqrt().view(*x.shape[:2], 24, 3)

    def _results(self, problem: FitProblem, found: _Joint, rows: Tensor, seen: Tensor) -> FitResult:
        """Of the N people, those at `rows` as found; others are not `seen` (N,), or have no fit."""
        left = torch.ones(len(problem), dtype=torch.bool, device=rows.device)
        left[rows] = False
        others = left.nonzero()[:, 0]
        nothing = FitResult.nothing_seen(problem.select(others))
        status = nothing.status.masked_fill(seen[others], int(Status.DIVERGED))
        parts = [replace(nothing, status=status)]
        parts += [self._result(problem, found, some) for some in rows.split(_CHUNK_ROWS)]
        return FitResult.concatenate(parts).select(torch.cat([others, rows]).argsort())

    def _result(self, problem: FitProblem, found: _Joint, rows: Tensor) -> FitResult:
        problem, found = problem.select(rows), _Joint(*(part[rows] for part in found))
        columns = found.x[:, :85].split((3, 69, 10, 3), dim=1)
        params = BodyParams(**dict(zip(PARAMETERS, columns, strict=True)))
        keypoints = self.solver.keypoint_body.pose(found.x).keypoints
        if self.solver.config.solve_focal:
            problem = replace(problem, intrinsics=zoomed(problem.intrinsics, found.x[:, 85]))
        solution = Solution(
            x=found.x,
            cost_initial=found.cost_initial,
            cost_final=found.cost_final,
            num_steps=found.num_steps,
            converged=found.converged,
        )
        return make_result(problem, keypoints, params, solution, found.num_steps, found.joint_std)


def _empty(x: Tensor) -> _Joint:
    """Nothing found yet of N people, who are at x (N, D)."""
    N = len(x)
    return _Joint(
        x=x,
        cost_initial=x.new_full((N,), torch.nan),
        cost_final=x.new_full((N,), torch.nan),
        num_steps=torch.zeros(N, dtype=torch.int32, device=x.device),
        converged=torch.zeros(N, dtype=torch.bool, device=x.device),
        joint_std=x.new_full((N, 24, 3), torch.nan),
    )


def _store(found: _Joint, chains: Chains, joint: _Joint) -> None:
    """Write what was found for chains to their rows; those solved twice count their steps twice."""
    own = ~chains.frozen
    rows = chains.rows[own]
    for name, whole in found._asdict().items():
        part = getattr(joint, name)[own].to(whole.dtype)
        whole[rows] = whole[rows] + part if name == "num_steps" else part


def map_solver(solver: object) -> MapSolver:
    """The solver, if it is one that can fit tracks; ValueError otherwise."""
    if isinstance(solver, MapSolver):
        return solver
    raise ValueError("the published baselines fit each picture alone; use the solver lm for videos")


def search_seen(
    solver: object, problem: FitProblem, starts: Sequence[BodyParams], config: VideoConfig
) -> tuple[Tensor, Candidates | None]:
    """Which (M,) of B people are seen, and fits of their pictures alone; none if nobody is."""
    searcher = map_solver(solver)
    problem = problem.with_defined(searcher.keypoint_body.defined)
    seen = problem.seen.nonzero()[:, 0]
    if len(seen) == 0:
        return seen, None
    starts = [start.select(seen) for start in starts]
    return seen, searcher.search(problem.select(seen), starts, config.candidates)


# --- Where a joint fit begins -----------------------------------------------------------------


def first_guess(
    candidates: Candidates, known: Tensor, tracks: Sequence[Track], N: int, config: VideoConfig
) -> Tensor:
    """(N, D) unknowns of N people.

    Where something is seen, the candidates that follow each other best; in between, rotations and
    translations are interpolated. All of a track have the mean of its betas.

    Args:
        candidates: of M people.
        known: (M,) their rows.
        tracks: each with a known row.
        N: people.
        config: settings.
    """
    D = candidates.x.shape[2]
    x = candidates.x.new_zeros(N, D)
    place = torch.full((N,), -1, device=known.device)
    place[known] = torch.arange(len(known), device=known.device)
    is_known = (place >= 0).cpu().numpy()
    parts = [Part(track.at(is_known[track.rows])) for track in tracks]
    for chains in stacked(parts, known.device):
        at = place[chains.rows]
        choice = choose(candidates, at, chains, config)
        x[chains.rows] = candidates.x[choice, at]
    for track, part in zip(tracks, parts, strict=True):
        seen = torch.as_tensor(part.track.rows, device=known.device)
        rows = torch.as_tensor(track.rows, device=known.device)
        if len(seen) < len(rows):
            x[rows] = _between(x[seen], part.track.seconds, track.seconds)
        x[rows, TRANSL.stop :] = x[seen, TRANSL.stop :].mean(dim=0)
        x[rows, BETAS] = x[seen, BETAS].mean(dim=0)
    return x


def choose(candidates: Candidates, at: Tensor, chains: Chains, config: VideoConfig) -> Tensor:
    """(n, T) which candidate each picture takes: the cheapest way through each chain (Viterbi).

    A way costs what its candidates cost alone and what their rotations differ from each to the
    next, in units of what people move and of how far fits alone are off.

    Args:
        candidates: K of each of M people.
        at: (n, T) which of the M each picture is.
        chains: n of T pictures.
        config: settings.
    """
    x, cost = candidates.x[:, at], candidates.cost[:, at].nan_to_num(torch.inf)  # (K, n, T, ...)
    links, _ = make_links(config.motion, chains.seconds.to(x), chains.linked, 1.0)
    weights = 1 / (1 / links.joints + 2 * config.alone_std**2)
    rotvec = x[..., POSE].unflatten(3, (24, 3))
    best, back = cost[:, :, 0], []
    for t in range(1, at.shape[1]):
        pair = pair_costs(rotvec[:, None, :, t - 1], rotvec[None, :, :, t], weights[:, t - 1])
        best, origin = (best[:, None] + pair.nan_to_num(torch.inf)).min(dim=0)  # (K, n)
        best = best + cost[:, :, t]
        back.append(origin)
    choice = [best.argmin(dim=0)]
    for origin in reversed(back):
        choice.append(origin.gather(0, choice[-1][None])[0])
    return torch.stack(choice[::-1], dim=1)


def _between(x: Tensor, seconds: np.ndarray, wanted: np.ndarray) -> Tensor:
    """(t, D) unknowns at the times wanted (t,), from those x (s, D) at other times (s,).

    Rotations move evenly along the shortest way, the rest linearly; beyond the ends all stay.
    """
    after = np.searchsorted(seconds, wanted).clip(1, max(len(seconds) - 1, 1))
    after = np.minimum(after, len(seconds) - 1)
    before = np.maximum(after - 1, 0)
    span = np.maximum(seconds[after] - seconds[before], 1e-9)
    share = torch.as_tensor(((wanted - seconds[before]) / span).clip(0, 1)).to(x)[:, None]
    one, other = x[before], x[after]
    middle = one + share * (other - one)
    first, last = (part[:, POSE].unflatten(1, (24, 3)) for part in (one, other))
    turn = roma.rotvec_composition([roma.rotvec_inverse(first), last])
    turned = roma.rotvec_composition([first, share[..., None] * turn])
    middle[:, POSE] = turned.flatten(1)
    return middle

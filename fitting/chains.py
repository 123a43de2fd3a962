"""Tracks, or parts of long ones, side by side; and the energy of all their pictures together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from .lm import TILE, Linearised
from .map_energy import MapEnergy, PriorShares
from .map_fit import TURN_PRECISION, MapSolver
from .problem import FitProblem
from .temporal import Links, MotionWeights, add_links, make_links
from .tracks import Track
from .tridiagonal import covariance_blocks

_CHUNK_PICTURES = 512  # worked on side by side; a picture's matrices take 0.3 MB


class Chains(NamedTuple):
    """n tracks, or parts of tracks, side by side: T pictures each, the last one again to fill up.

    Attributes:
        rows: (n, T) which of the N rows each picture is.
        seconds: (n, T - 1) from each picture to the next.
        linked: (n, T - 1) bool, False at fillings.
        frozen: (n, T) bool, pictures that stay as they are: fillings, and what a window is tied to.
    """

    rows: Tensor
    seconds: Tensor
    linked: Tensor
    frozen: Tensor

    @staticmethod
    def stack(parts: Sequence[Part], device: torch.device) -> Chains:
        """Parts side by side."""
        T = _padded(max(len(part.track.rows) for part in parts))
        place = np.minimum(np.arange(T), [[len(part.track.rows) - 1] for part in parts])
        pairs = list(zip(parts, place, strict=True))
        rows = np.stack([part.track.rows[i] for part, i in pairs])
        times = np.stack([part.track.seconds[i] for part, i in pairs])
        linked = np.diff(place) > 0
        frozen = np.pad(~linked, ((0, 0), (1, 0)))
        frozen[:, 0] |= [part.tied for part in parts]
        arrays = (rows, np.diff(times), linked, frozen)
        return Chains(*(torch.as_tensor(array, device=device) for array in arrays))

    @property
    def tile(self) -> int:
        """Chains whose pictures fill whole tiles; see `lm.TILE`."""
        return max(1, TILE // self.rows.shape[1])

    def untied(self) -> Chains:
        """The same without the ties to pictures before."""
        linked = self.linked.clone()
        linked[:, :1] &= ~self.frozen[:, :1]
        return self._replace(linked=linked)


class Part(NamedTuple):
    """A part of a track that is solved at once; `tied` if its first picture stays as it is."""

    track: Track
    tied: bool = False


def _padded(length: int) -> int:
    """Pictures of a chain: a multiple of `lm.TILE`, or where there are few a power of two."""
    return -(-length // TILE) * TILE if length > TILE // 2 else 1 << (length - 1).bit_length()


class ChainEnergy:
    """The energy of n chains; `linearise(x, rows)` is what `lm.minimize_lm` takes."""

    def __init__(
        self,
        solver: MapSolver,
        problem: FitProblem,
        depth: Tensor,
        chains: Chains,
        motion: MotionWeights,
    ) -> None:
        """Take N people, how far away they are expected (N,), and which of them are n chains."""
        weights, rows = solver.config.weights, chains.rows.flatten()
        seconds = chains.seconds.to(depth)
        self.frozen = chains.frozen
        self.links, shares = make_links(motion, seconds, chains.linked, weights.log_focal_std)
        shares = PriorShares(*(share.flatten() for share in shares))
        problem = _with_one_shape(problem.select(rows), shares.lasting)
        self.pictures = MapEnergy(
            solver.keypoint_body, solver.prior, problem, weights, depth[rows], shares
        )
        self.turn_precision = TURN_PRECISION * shares.changing.view(chains.rows.shape)

    def linearise(self, x: Tensor, rows: Tensor, *, blur: float = 1.0) -> Linearised:
        """Like `MapEnergy.linearise`, with x (b, T, D) and hessians packed as in `tridiagonal`."""
        alone, gradient, packed, pairs = self._terms(x, rows, blur)
        frozen = self.frozen[rows]
        gradient.masked_fill_(frozen[..., None], 0)
        packed[:, :, 0].masked_fill_(frozen[..., None, None], 0)
        packed[:, :-1, 1].masked_fill_((frozen[:, :-1] | frozen[:, 1:])[..., None, None], 0)
        cost = alone.masked_fill(frozen, 0).sum(dim=1) + pairs.sum(dim=1)
        return Linearised(cost, gradient, packed)

    def picture_costs(self, x: Tensor) -> Tensor:
        """(n, T) costs of the pictures, with half of each pair's."""
        rows = torch.arange(len(x), device=x.device)
        alone, _, _, pairs = self._terms(x, rows, 1.0)
        half = pad(pairs / 2, (1, 1))
        return alone + half[:, 1:] + half[:, :-1]

    def covariance(self, x: Tensor) -> Tensor:
        """(n, T, D, D) of the pictures, from the inverse of the normal matrix at x."""
        _, _, packed, _ = self._terms(x, torch.arange(len(x), device=x.device), 1.0)
        packed[:, :, 0].diagonal(dim1=2, dim2=3)[..., :3] += self.turn_precision[..., None]
        return covariance_blocks(packed)

    def _terms(self, x: Tensor, rows: Tensor, blur: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Costs (b, T) of pictures, gradient, packed Hessian, and costs (b, T - 1) of pairs."""
        b, T, D = x.shape
        pictures = rows[:, None] * T + torch.arange(T, device=x.device)
        alone = self.pictures.linearise(x.flatten(0, 1), pictures.flatten(), blur=blur)
        gradient = alone.gradient.view(b, T, D)
        packed = x.new_zeros(b, T, 2, D, D)
        packed[:, :, 0] = alone.hessian.view(b, T, D, D)
        links = Links(*(weights[rows] for weights in self.links))
        pairs = add_links(x, links, gradient, packed)
        return alone.cost.view(b, T), gradient, packed, pairs


def _with_one_shape(problem: FitProblem, share: Tensor) -> FitProblem:
    """Estimates of one person's betas count together as one: their errors are alike."""
    if problem.proximal is None:
        return problem
    betas_std = problem.proximal.betas_std / share.sqrt()[:, None]
    return replace(problem, proximal=replace(problem.proximal, betas_std=betas_std))


def stacked(parts: Sequence[Part], device: torch.device) -> Iterator[Chains]:
    """All parts, those of like length side by side."""
    queue = sorted(parts, key=lambda part: len(part.track.rows))
    while queue:
        count = max(1, _CHUNK_PICTURES // _padded(len(queue[-1].track.rows)))
        yield Chains.stack(queue[-count:], device)
        queue = queue[:-count]


def windows(tracks: Sequence[Track], size: int, overlap: int) -> Iterator[list[Part]]:
    """Rounds of parts of at most `size` pictures, each to be solved after the one before.

    A window begins `overlap` pictures before the end of the one before it, which are solved once
    more with what follows them, and is tied to the picture before those.
    """
    start = 0
    while True:
        parts = [
            Part(track.at(slice(max(start - 1, 0), start + size)), tied=start > 0)
            for track in tracks
            if len(track.rows) > start + (overlap if start else 0)
        ]
        if not parts:
            return
        yield parts
        start += size - overlap

"""Fits that begin at what the lifter makes of the keypoints, and trust it as far as it says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import roma
import torch
from torch import Tensor

from fitting.body import Body
from fitting.files import InputError
from fitting.problem import BodyParams, FitProblem, Proximal

from .checkpoints import build_network, read_checkpoint
from .lifter import Lifted, Lifter, point_slots

_UNKNOWN_STD = 0.02  # of keypoints that the lifter does not know: as without it
LIFTER_FILE = Path(__file__).with_name("assets") / "lifter.pt"


@dataclass(frozen=True, kw_only=True)
class LiftWeights:
    """How far a fit trusts the lifter.

    Its densities are of people given their keypoints, which the fit sees once more: hence both
    count for less. Chosen on the validation subjects (docs/lifter.md).

    Attributes:
        pose: share of the joints' precisions.
        keypoint: factor on the keypoints' deviations.
        least_keypoint_std: of keypoints, as a share of the person's size.
    """

    pose: float = 0.5
    keypoint: float = 1.5
    least_keypoint_std: float = 0.003


class LiftEstimator:
    """Initial estimates of people, and what is known of their errors: an `Estimator` of fits."""

    name = "lift"

    def __init__(
        self, lifter: Lifter, body: Body, *, same_body: bool, weights: LiftWeights | None = None
    ) -> None:
        """Take a lifter and the body to fit, on one device in one dtype.

        `same_body` says whether the lifter was trained on it: the shape components of another body
        mean something else, so they start at zero.
        """
        self.lifter, self.body, self.same_body = lifter, body, same_body
        self.weights = LiftWeights() if weights is None else weights

    @torch.no_grad()
    def __call__(
        self, problem: FitProblem, count: int = 1, seed: int = 0
    ) -> tuple[FitProblem, list[BodyParams]]:
        """See `fitting.estimates.Estimator`. Of several cameras the one that sees most counts."""
        if problem.views:
            best = problem.best_view()
            back = best.rotation.mT
            lifted = self.lifter.lift(best.problem)
            lifted = lifted.moved(back, -(back @ best.translation[..., None])[..., 0])
            keypoint_std = None
        else:
            lifted = self.lifter.lift(problem)
            keypoint_std = self._keypoint_std(problem, lifted)
        if not self.same_body:
            unknown = torch.full_like(lifted.betas_std, torch.inf)
            lifted = replace(lifted, betas=torch.zeros_like(lifted.betas), betas_std=unknown)
        root = lifted.pose_precision_root
        params = lifted.params(self.body)
        # of people whom nobody sees, who may be part of a video, the lifter knows nothing
        share = torch.where(problem.seen, self.weights.pose, 0.0)
        proximal = Proximal(
            params=params,
            pose_precision=share[:, None, None, None] * (root @ root.mT),
            betas_std=lifted.betas_std.where(problem.seen[:, None], torch.inf),
        )
        known = replace(problem, proximal=proximal, keypoint_std=keypoint_std)
        return known, [params, *self._samples(lifted, count - 1, seed)]

    def _samples(self, lifted: Lifted, count: int, seed: int) -> list[BodyParams]:
        """Bodies as the estimates may be off: R exp(L^-T z), the same normal z for everyone."""
        root = lifted.pose_precision_root
        generator = torch.Generator().manual_seed(seed)
        samples = []
        for _ in range(count):
            z = torch.randn(24, 3, 1, generator=generator).to(root)
            turns = torch.linalg.solve_triangular(
                root.mT, z.expand(len(root), -1, -1, -1), upper=True
            )
            rotations = lifted.pose_rotmat @ roma.rotvec_to_rotmat(turns[..., 0])
            samples.append(replace(lifted, pose_rotmat=rotations).params(self.body))
        return samples

    def _keypoint_std(self, problem: FitProblem, lifted: Lifted) -> Tensor:
        """(B, P) pixels. The lifter has read the confidences, so they do not count once more."""
        slots, known = point_slots(problem.keypoint_set)
        wrong = torch.sigmoid(lifted.keypoint_wrong[:, slots]).clamp(max=0.999)
        share = lifted.keypoint_std[:, slots].clamp(min=self.weights.least_keypoint_std)
        share = self.weights.keypoint * share * (problem.conf.clamp(min=1e-6) / (1 - wrong)).sqrt()
        share = torch.where(torch.tensor(known, device=share.device), share, _UNKNOWN_STD)
        return share * problem.person_size[:, None]


def load_lifter(body: Body, path: Path | None = None) -> LiftEstimator:
    """Where fits of `body` may begin: a lifter's estimates.

    Args:
        body: to fit, on the device and in the dtype in which the lifter will work.
        path: of a checkpoint of `fit-cli train configs/lifter.yaml`; none means the one that ships
            with the package.

    Raises:
        InputError: the file is no lifter.
    """
    path = LIFTER_FILE if path is None else path
    checkpoint = read_checkpoint(path)
    if checkpoint.architecture != "lifter":
        raise InputError(f"{path} is a {checkpoint.architecture}; give a checkpoint of a lifter")
    lifter = build_network(checkpoint, path, None)
    assert isinstance(lifter, Lifter)
    lifter.to(body.v_template).eval().requires_grad_(False).halve_where_fast()
    return LiftEstimator(lifter, body, same_body=checkpoint.body_sha256 == body.sha256)

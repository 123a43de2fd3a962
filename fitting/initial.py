"""Initial estimates of a fit."""

from __future__ import annotations

import torch
from torch import Tensor

from priors.gmm import MaxMixturePrior

from .body import Body
from .camera import estimate_translation
from .keypoints import map_keypoints
from .problem import BodyParams, FitProblem
from .skeleton import KeypointSet

# Axis-angle of a body that stands upright in the camera frame, whose y points down.
FACING_CAMERA = (torch.pi, 0.0, 0.0)
FACING_AWAY = (0.0, 0.0, torch.pi)


class MeanStarts:
    """The mean pose and the modes of the prior, facing the camera and facing away.

    2D keypoints hardly tell front from back, so a solver tries both (Bogo et al., ECCV 2016,
    section 3.3); the modes lead to minima that the mean pose misses.

    Attributes:
        global_orient: (S, 3), body_pose: (S, 69), of the S starts; betas are zero.
        keypoints: (S, P, 3) metres, of those bodies without translation.
    """

    def __init__(
        self, body: Body, prior: MaxMixturePrior, keypoints: KeypointSet, count: int = 2
    ) -> None:
        """Prepare `count` starts for a keypoint set; body and prior on one device, in one dtype.

        Raises:
            ValueError: there are not so many.
        """
        poses = torch.cat(
            [prior.mean[None], prior.means[prior.log_weights.argsort(descending=True)]]
        )
        most = 2 * len(poses)
        if not 1 <= count <= most:
            raise ValueError(f"starts must be 1 to {most}, got {count}")
        like = body.v_template
        orients = torch.tensor([FACING_CAMERA, FACING_AWAY]).to(like)
        self.global_orient = orients.repeat(len(poses), 1)[:count]
        self.body_pose = poses.repeat_interleave(2, dim=0)[:count].to(like)
        keypoint_map = map_keypoints(body, keypoints)
        betas = like.new_zeros(count, 10)
        with torch.no_grad():
            self.keypoints = keypoint_map(body(self.global_orient, self.body_pose, betas))
        self.defined = keypoint_map.defined
        self.edges = torch.as_tensor(keypoints.edges, device=like.device)

    def __call__(self, problem: FitProblem) -> list[BodyParams]:
        """The starts of B people, each placed by the lengths of the limbs seen."""
        return [self._place(problem, start) for start in range(len(self.body_pose))]

    def _place(self, problem: FitProblem, start: int) -> BodyParams:
        B = len(problem)

        def everyone(row: Tensor) -> Tensor:
            return row.expand(B, *row.shape)

        transl = estimate_translation(
            problem.keypoints_2d,
            problem.conf * self.defined,
            problem.intrinsics,
            everyone(self.keypoints[start]),
            self.edges,
            fallback_height=problem.image_size.amin(dim=1),
        )
        return BodyParams(
            global_orient=everyone(self.global_orient[start]),
            body_pose=everyone(self.body_pose[start]),
            betas=transl.new_zeros(B, 10),
            transl=transl,
        )

"""Initial estimates of a fit."""

from __future__ import annotations

from dataclasses import replace

import torch

from priors.gmm import MaxMixturePrior

from .body import Body
from .camera import estimate_translation
from .keypoints import map_keypoints
from .problem import BodyParams, FitProblem

# Axis-angle of a body that stands upright in the camera frame, whose y points down.
FACING_CAMERA = (torch.pi, 0.0, 0.0)
FACING_AWAY = (0.0, 0.0, torch.pi)


@torch.no_grad()
def mean_starts(body: Body, prior: MaxMixturePrior, problem: FitProblem) -> list[BodyParams]:
    """The mean pose and shape, facing the camera and facing away, placed by limb lengths.

    2D keypoints hardly tell front from back, so a solver tries both (Bogo et al., ECCV 2016,
    section 3.3).

    Args:
        body: on the problem's device, in its dtype.
        prior: likewise; gives the mean pose.
        problem: B people.

    Returns:
        Two estimates of the B people.
    """
    keypoint_map = map_keypoints(body, problem.keypoint_set)
    B, like = len(problem), problem.keypoints_2d
    starts = []
    for orient in (FACING_CAMERA, FACING_AWAY):
        one = BodyParams(
            global_orient=torch.tensor([orient]).to(like),
            body_pose=prior.mean[None].to(like),
            betas=like.new_zeros(1, 10),
            transl=like.new_zeros(1, 3),
        )
        keypoints_3d = keypoint_map(body(one.global_orient, one.body_pose, one.betas))
        transl = estimate_translation(
            problem.keypoints_2d,
            problem.conf * keypoint_map.defined,
            problem.intrinsics,
            keypoints_3d.expand(B, -1, -1),
            torch.as_tensor(problem.keypoint_set.edges, device=like.device),
            fallback_height=problem.image_size.amin(dim=1),
        )
        everyone = torch.zeros(B, dtype=torch.long, device=like.device)
        starts.append(replace(one.select(everyone), transl=transl))
    return starts

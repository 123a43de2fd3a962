"""Initial estimates of a fit."""

from __future__ import annotations

from dataclasses import replace

import roma
import torch
from torch import Tensor

from priors.gmm import MaxMixturePrior

from .body import Body
from .camera import estimate_translation
from .keypoint_body import KeypointBody
from .keypoints import map_keypoints
from .problem import BodyParams, FitProblem, View
from .skeleton import KeypointSet

# Axis-angle of a body that stands upright in the camera frame, whose y points down.
FACING_CAMERA = (torch.pi, 0.0, 0.0)
FACING_AWAY = (0.0, 0.0, torch.pi)


def mean_rotations(pose_rotmat: Tensor) -> Tensor:
    """(24, 3, 3) the rotations nearest to the means of (N, 24, 3, 3), the root facing the camera.

    People are seen from all sides: the mean of their roots would be a matter of chance.
    """
    mean = roma.special_procrustes(pose_rotmat.mean(dim=0))
    mean[0] = roma.rotvec_to_rotmat(torch.tensor(FACING_CAMERA))
    return mean


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
        self.root = body.joint_template[0]
        self.defined = keypoint_map.defined
        self.edges = torch.as_tensor(keypoints.edges, device=like.device)

    def __call__(self, problem: FitProblem) -> list[BodyParams]:
        """The starts of B people, each placed by the lengths of the limbs seen.

        Where there are several cameras, they face the one that sees most of the person.
        """
        if not problem.views:
            return [self._place(problem, start) for start in range(len(self.body_pose))]
        best = problem.best_view()
        starts = (self._place(best.problem, start) for start in range(len(self.body_pose)))
        return [self._seen_from_first(best, start) for start in starts]

    def _place(self, problem: FitProblem, start: int) -> BodyParams:
        B = len(problem)

        def everyone(row: Tensor) -> Tensor:
            return row.expand(B, *row.shape)

        transl = _translation(problem, everyone(self.keypoints[start]), self.defined, self.edges)
        return BodyParams(
            global_orient=everyone(self.global_orient[start]),
            body_pose=everyone(self.body_pose[start]),
            betas=transl.new_zeros(B, 10),
            transl=transl,
        )

    def _seen_from_first(self, view: View, params: BodyParams) -> BodyParams:
        """Bodies in the frame of a view, in that of the first camera. They turn about the root."""
        back = view.rotation.mT
        turned = back @ roma.rotvec_to_rotmat(params.global_orient)
        root = (back @ (self.root + params.transl - view.translation)[..., None])[..., 0]
        return replace(params, global_orient=roma.rotmat_to_rotvec(turned), transl=root - self.root)


def place_unknown(
    problem: FitProblem, params: BodyParams, keypoint_body: KeypointBody
) -> BodyParams:
    """Bodies of B people, those whose translation is NaN placed by the lengths of the limbs seen.

    Args:
        problem: B people.
        params: of their bodies.
        keypoint_body: their keypoints.
    """
    keypoints = keypoint_body(params.global_orient, params.body_pose, params.betas)
    edges = torch.as_tensor(problem.keypoint_set.edges, device=keypoints.device)
    transl = _translation(problem, keypoints, keypoint_body.defined, edges)
    return replace(params, transl=params.transl.where(~params.transl.isnan(), transl))


def draw_around(
    params: BodyParams, count: int, *, pose_std: float, betas_std: float, seed: int
) -> list[BodyParams]:
    """`params` of N people, and `count` - 1 samples around them; NaN stays NaN.

    Each joint's rotation R becomes R exp(d), d ~ N(0, pose_std^2) about each axis.

    Args:
        params: on the CPU.
        count: of starts.
        pose_std: radians.
        betas_std: of the betas.
        seed: the samples of a person depend on it, on N and on the person's row alone.

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"starts must be at least 1, got {count}")
    generator = torch.Generator().manual_seed(seed)
    rotvec = params.pack(("global_orient", "body_pose")).unflatten(1, (24, 3))
    known = ~rotvec.isnan().any(dim=2).any(dim=1)
    rotations = roma.rotvec_to_rotmat(rotvec.nan_to_num(0.0))
    starts = [params]
    for _ in range(count - 1):
        turns = pose_std * torch.randn(rotvec.shape, generator=generator)
        turned = roma.rotmat_to_rotvec(rotations @ roma.rotvec_to_rotmat(turns)).flatten(1)
        change = betas_std * torch.randn(params.betas.shape, generator=generator)
        sample = replace(
            params,
            global_orient=turned[:, :3],
            body_pose=turned[:, 3:],
            betas=params.betas + change,
        )
        starts.append(sample.where(known))
    return starts


def _translation(problem: FitProblem, keypoints: Tensor, defined: Tensor, edges: Tensor) -> Tensor:
    """(B, 3) of bodies whose keypoints (B, P, 3) lack it."""
    return estimate_translation(
        problem.keypoints_2d,
        problem.conf * defined,
        problem.intrinsics,
        keypoints,
        edges,
        fallback_height=problem.image_size.amin(dim=1),
    )

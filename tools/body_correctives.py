"""Learn SMPL's pose correctives from the full rig.

The teacher is MakeHuman's body skinned by all 163 bones *from its own rest pose*, with each limb's
twist spread over two bones. The pupil is the T-posed body skinned by 24 joints. What the pupil
lacks, taken back to the T-pose, is regressed on the 207 entries of R - I (Loper et al., SMPL,
SIGGRAPH Asia 2015, eq. 9), each joint acting on its own neighbourhood only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from body_rig import FLIP_JOINTS, REFLECTION, FloatArray, IntArray, Rig
from body_tpose import bone_transforms, skin, tpose_rotations
from scipy.spatial.transform import Rotation

from fitting.skeleton import SMPL_JOINTS, SMPL_PARENTS, joint_index

NUM_FEATURES = 9 * (len(SMPL_JOINTS) - 1)

# Ranges of the training poses: axis-angle components in radians, lowest and highest of x, y, z.
# Sides are given for the left; the right has y and z negated.
POSE_RANGES = {
    "hip": ((-2.0, 0.5), (-0.4, 0.4), (-0.2, 0.8)),
    "knee": ((0.0, 2.2), (-0.1, 0.1), (-0.05, 0.05)),
    "ankle": ((-0.6, 0.5), (-0.2, 0.2), (-0.2, 0.2)),
    "foot": ((-0.4, 0.4), (0.0, 0.0), (0.0, 0.0)),
    "spine1": ((-0.2, 0.6), (-0.3, 0.3), (-0.2, 0.2)),
    "spine2": ((-0.2, 0.5), (-0.3, 0.3), (-0.2, 0.2)),
    "spine3": ((-0.1, 0.3), (-0.3, 0.3), (-0.2, 0.2)),
    "neck": ((-0.4, 0.5), (-0.6, 0.6), (-0.3, 0.3)),
    "head": ((-0.3, 0.3), (-0.4, 0.4), (-0.2, 0.2)),
    "collar": ((-0.1, 0.1), (-0.3, 0.3), (-0.3, 0.3)),
    "shoulder": ((-1.2, 1.2), (-1.2, 0.5), (-1.4, 1.2)),
    "elbow": ((-0.3, 0.3), (-2.2, 0.05), (-0.1, 0.1)),
    "wrist": ((-1.3, 1.3), (-0.3, 0.3), (-0.8, 0.8)),
    "hand": ((0.0, 0.0), (0.0, 0.0), (-0.5, 0.5)),
}
ACTIVE_SHARE = 0.8  # of the joints; the others stay at rest, so that each is also seen alone
SUPPORT_WEIGHT = 0.05  # a joint corrects vertices with this much weight on it or its parent...
SUPPORT_RADIUS_M = 0.30  # ...and this near
RIDGE = 2.0  # on features of order one over hundreds of poses: stops joints from trading


@dataclass(frozen=True, kw_only=True)
class Correctives:
    """Learned correctives and how well they do on poses that were not learned from.

    Attributes:
        posedirs: (V, 3, 207) metres.
        error_before_mm: (N, V) distance of plain skinning to the full rig, held out.
        error_after_mm: (N, V) the same with correctives.
    """

    posedirs: FloatArray
    error_before_mm: FloatArray
    error_after_mm: FloatArray


class Teacher:
    """One person posed by the full rig, and the same person's T-pose skinned by 24 joints.

    Args:
        rig: V vertices, B bones.
        vertices: (V, 3) metres, MakeHuman's rest pose.
        heads: (B, 3) metres, bone heads in that pose.
        joint_regressor: (24, V).
    """

    def __init__(
        self, rig: Rig, vertices: FloatArray, heads: FloatArray, joint_regressor: FloatArray
    ) -> None:
        self.rig = rig
        self.rest = vertices
        transforms = bone_transforms(rig, heads[None], tpose_rotations(rig, heads[None]))[0]
        self.to_tpose = transforms
        self.tposed = skin(rig, vertices, transforms)
        self.joints = joint_regressor @ self.tposed

    def full_rig(self, pose: FloatArray) -> FloatArray:
        """(V, 3) the person in a pose (24, 3), by all bones."""
        world, places, local = self._forward(pose)
        bones = np.zeros((len(self.rig.bones), 4, 4))
        for b, name in enumerate(self.rig.bones):
            joint = int(self.rig.joint_of_bone[b])
            rotation, pivot = self._bone_rotation(name, joint, world, local)
            bones[b, :3, :3] = rotation
            bones[b, :3, 3] = places[pivot] - rotation @ self.joints[pivot]
            bones[b, 3, 3] = 1
        return skin(self.rig, self.rest, bones @ self.to_tpose)

    def unposed_difference(self, pose: FloatArray) -> tuple[FloatArray, FloatArray]:
        """What 24-joint skinning lacks: in the T-pose (V, 3), and blended rotations (V, 3, 3)."""
        world, places, _ = self._forward(pose)
        shifts = places - np.einsum("jab,jb->ja", world, self.joints)
        weights = self.rig.smpl_weights
        blended = np.einsum("vj,jab->vab", weights, world, optimize=True)
        plain = np.einsum("vab,vb->va", blended, self.tposed) + weights @ shifts
        lacking = self.full_rig(pose) - plain
        return np.linalg.solve(blended, lacking[..., None])[..., 0], blended

    def _forward(self, pose: FloatArray) -> tuple[FloatArray, FloatArray, Rotation]:
        """World rotations (24, 3, 3), joint places (24, 3) and the local rotations of a pose."""
        local = Rotation.from_rotvec(pose)
        matrices = local.as_matrix()
        world, places = matrices.copy(), self.joints.copy()
        for j, parent in enumerate(SMPL_PARENTS[1:], start=1):
            world[j] = world[parent] @ matrices[j]
            places[j] = places[parent] + world[parent] @ (self.joints[j] - self.joints[parent])
        return world, places, local

    def _bone_rotation(
        self, bone: str, joint: int, world: FloatArray, local: Rotation
    ) -> tuple[FloatArray, int]:
        """World rotation (3, 3) of a bone and the joint it turns about.

        Upper arms and thighs take 40 % of the joint's twist in their upper half, the lower
        forearm half of the wrist's, the shoulder blade a fifth of the arm's swing: how flesh
        follows skin and bone, by eye, so that nothing wrings like a towel.
        """
        x_axis, y_axis = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
        stem, _, letter = bone.partition(".")
        side = "left" if letter == "L" else "right"
        parent = SMPL_PARENTS[joint]
        if stem == "upperarm01":
            swing, twist = _swing_twist(local[joint], x_axis)
            return world[parent] @ (swing * twist**0.4).as_matrix(), joint
        if stem == "upperleg01":
            swing, twist = _swing_twist(local[joint], y_axis)
            return world[parent] @ (swing**0.85 * twist**0.4).as_matrix(), joint
        if stem == "lowerarm02":
            _, twist = _swing_twist(local[joint_index(f"{side}_wrist")], x_axis)
            return world[joint] @ (twist**0.5).as_matrix(), joint
        if stem == "shoulder01":
            shoulder = joint_index(f"{side}_shoulder")
            swing, _ = _swing_twist(local[shoulder], x_axis)
            return world[joint] @ (swing**0.2).as_matrix(), shoulder
        return world[joint], joint


def _swing_twist(rotation: Rotation, axis: FloatArray) -> tuple[Rotation, Rotation]:
    """Split a rotation into ``swing * twist`` with the twist about a unit axis."""
    quaternion = rotation.as_quat()
    twist = Rotation.from_quat(np.append(axis * (quaternion[:3] @ axis), quaternion[3]))
    return rotation * twist.inv(), twist


def random_poses(count: int, generator: np.random.Generator) -> FloatArray:
    """(count, 24, 3) axis-angle poses, uniform in :data:`POSE_RANGES`; the pelvis is at rest."""
    poses = np.zeros((count, len(SMPL_JOINTS), 3))
    for j, name in enumerate(SMPL_JOINTS[1:], start=1):
        limits = np.array(POSE_RANGES[name.removeprefix("left_").removeprefix("right_")])
        poses[:, j] = generator.uniform(limits[:, 0], limits[:, 1], (count, 3))
        if name.startswith("right"):
            poses[:, j] *= [1, -1, -1]
        poses[:, j] *= generator.random((count, 1)) < ACTIVE_SHARE
    return poses


def pose_features(poses: FloatArray) -> FloatArray:
    """(N, 207) entries of R - I of joints 1 to 23, for poses (N, 24, 3)."""
    matrices = Rotation.from_rotvec(poses[:, 1:].reshape(-1, 3)).as_matrix() - np.eye(3)
    return matrices.reshape(len(poses), NUM_FEATURES)


def learn_correctives(
    teacher: Teacher, generator: np.random.Generator, *, num_train: int, num_test: int
) -> Correctives:
    """Fit correctives to random poses and measure them on others."""
    poses = random_poses(num_train, generator)
    targets = np.stack([teacher.unposed_difference(p)[0] for p in poses])
    support = _support(teacher)
    posedirs = _local_regression(pose_features(poses), targets, support)
    posedirs = symmetric_posedirs(posedirs, teacher.rig.mirror)

    before: list[FloatArray] = []
    after: list[FloatArray] = []
    test_poses = random_poses(num_test, generator)
    for pose, features in zip(test_poses, pose_features(test_poses), strict=True):
        lacking, blended = teacher.unposed_difference(pose)
        for errors, rest in ((before, lacking), (after, lacking - posedirs @ features)):
            posed = np.einsum("vab,vb->va", blended, rest)
            errors.append(np.linalg.norm(posed, axis=1) * 1e3)
    return Correctives(
        posedirs=posedirs, error_before_mm=np.stack(before), error_after_mm=np.stack(after)
    )


def _support(teacher: Teacher) -> FloatArray:
    """(V, 24) True where a joint may correct a vertex."""
    weights = teacher.rig.smpl_weights
    support = np.zeros(weights.shape, dtype=bool)
    for j, parent in enumerate(SMPL_PARENTS[1:], start=1):
        near = np.linalg.norm(teacher.tposed - teacher.joints[j], axis=1) < SUPPORT_RADIUS_M
        support[:, j] = near & (weights[:, j] + weights[:, parent] > SUPPORT_WEIGHT)
    return support


def _local_regression(features: FloatArray, targets: FloatArray, support: FloatArray) -> FloatArray:
    """(V, 3, 207) ridge regression of targets (N, V, 3), each vertex on its own joints."""
    posedirs = np.zeros((targets.shape[1], 3, NUM_FEATURES))
    patterns, group = np.unique(support, axis=0, return_inverse=True)
    for g, pattern in enumerate(patterns):
        joints = np.flatnonzero(pattern)
        if not len(joints):
            continue
        vertices = np.flatnonzero(group.ravel() == g)
        columns = (9 * (joints[:, None] - 1) + np.arange(9)).ravel()
        X = features[:, columns]
        Y = targets[:, vertices].reshape(len(X), -1)
        solution = np.linalg.solve(X.T @ X + RIDGE * np.eye(len(columns)), X.T @ Y)
        solution = solution.reshape(len(columns), len(vertices), 3)
        posedirs[np.ix_(vertices, np.arange(3), columns)] = solution.transpose(1, 2, 0)
    return posedirs


def mirrored_posedirs(posedirs: FloatArray, mirror: IntArray) -> FloatArray:
    """Correctives (V, 3, 207) of the mirror image of a body.

    In a mirrored pose joint j turns by S R S of its partner, S = diag(-1, 1, 1), so entry (a, b)
    of a feature changes sign with S_aa S_bb, and the offset's coordinate c with S_cc.
    """
    split = posedirs.reshape(len(posedirs), 3, -1, 3, 3)
    partner = split[mirror][:, :, FLIP_JOINTS[1:] - 1]
    signs = np.einsum("c,a,b->cab", REFLECTION, REFLECTION, REFLECTION)
    return (partner * signs[:, None]).reshape(posedirs.shape)


def symmetric_posedirs(posedirs: FloatArray, mirror: IntArray) -> FloatArray:
    """Mean of correctives and their mirror image; exact to the last bit."""
    return (posedirs + mirrored_posedirs(posedirs, mirror)) / 2

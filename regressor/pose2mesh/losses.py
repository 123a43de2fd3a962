"""Losses between meshes, a value for each person; those of Choi et al., "Pose2Mesh" (ECCV 2020).

With predicted vertices m (B, V, 3), true ones m*, and over the faces and the edges (i, j) of each:

    L_vertex = |m - m*|_1                                        L_joint = |A m - A m*|_1
    L_normal = |< (m_i - m_j) / |m_i - m_j|, n* >|,  n* the true normal of the edge's face
    L_edge   = | |m_i - m_j| - |m*_i - m*_j| |

These are means over coordinates or edges, as the authors' program takes them, so that the published
weights (1, 1, 0.1 and 20) serve for bodies of any number of vertices. Lengths are metres.
"""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor
from torch.nn import functional

from fitting.body import Body
from fitting.keypoints import map_keypoints
from fitting.skeleton import KeypointSet

# x, y and z of all edges, (F, 3, B) each: whole rows of people are gathered, and sums over a last
# dimension of three are slow.
Edges: TypeAlias = tuple[Tensor, Tensor, Tensor]


def coordinate_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """(B,) L_vertex of (B, V, 3) vertices or L_joint of (B, J, 3) joints, metres."""
    return (predicted - truth).abs().mean(dim=(1, 2))


def squared_coordinate_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """(B,) mean squared difference of the coordinates of (B, V, 3) points, square metres."""
    return (predicted - truth).square().mean(dim=(1, 2))


def face_edges(vertices: Tensor, faces: Tensor) -> Edges:
    """Edges of each face, from each corner to the next, of vertices (B, V, 3)."""
    corners = [functional.embedding(faces, c) for c in vertices.permute(2, 1, 0).contiguous()]
    x, y, z = (c.roll(-1, dims=1) - c for c in corners)
    return x, y, z


def normal_loss(edges: Edges, true_edges: Edges) -> Tensor:
    """L_normal: how far predicted edges leave the plane of their true face, as a sine.

    Args:
        edges: of B people, from `face_edges`.
        true_edges: of the same people; a face without area has no normal and counts as met.

    Returns:
        (B,) in [0, 1].
    """
    x, y, z = _cross(_sides(true_edges, 0), _sides(true_edges, 1))
    area = _length((x, y, z))
    across = _dot(edges, (x / area, y / area, z / area))
    return (across / _length(edges)).abs().mean(dim=(0, 1))


def edge_loss(edges: Edges, true_edges: Edges) -> Tensor:
    """L_edge: difference of the edges' lengths; arguments as of `normal_loss`. (B,) metres."""
    return (_length(edges) - _length(true_edges)).abs().mean(dim=(0, 1))


def _sides(edges: Edges, i: int) -> Edges:
    """The i-th side of every face, (F, 1, B) each."""
    x, y, z = edges
    return x[:, i : i + 1], y[:, i : i + 1], z[:, i : i + 1]


def _dot(a: Edges, b: Edges) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Edges, b: Edges) -> Edges:
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )


def _length(edges: Edges) -> Tensor:
    """(F, 3, B), never 0, where a length has no gradient."""
    return _dot(edges, edges).clamp(min=1e-16).sqrt()


def joint_regressor(body: Body, keypoint_set: KeypointSet) -> Tensor:
    """A (P, V): keypoints of a set as weighted sums of a mesh's vertices alone.

    Where the set has joints of the skeleton, the body's J_regressor stands in for them. It is exact
    at rest; of a posed mesh it gives points some millimetres away, so compare like with like.
    """
    keypoint_map = map_keypoints(body, keypoint_set)
    regressor = keypoint_map.joint_weights @ body.J_regressor
    return regressor.index_add(1, keypoint_map.vertex_ids, keypoint_map.vertex_weights)


def joints_of_meshes(regressor: Tensor, vertices: Tensor) -> Tensor:
    """Points (B, P, 3) of meshes (B, V, 3) by a `joint_regressor` (P, V)."""
    # one product for everyone, which takes a fifth of the time of one a person
    together = regressor @ vertices.transpose(0, 1).flatten(1)
    return together.unflatten(1, (-1, 3)).transpose(0, 1)

"""Decimate a left/right symmetric mesh without losing its symmetry or moving a vertex.

Half the mesh (x >= 0) is simplified by half-edge collapses ordered by the quadric error of Garland
and Heckbert (SIGGRAPH 1997) and the result is reflected. A collapse *v -> u* removes *v* and leaves
*u* where it was, so every vertex that remains is an original one: weights, shape directions and
correctives are cut out by index, never interpolated. Libraries place vertices at new positions or
know nothing of a mid-line, which is why this is written out.
"""

from __future__ import annotations

import heapq
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# A collapse may turn a neighbouring triangle by at most acos(0.35), about 70 degrees: the lips and
# the wings of the nose need that much room, folds need more.
MIN_NORMAL_COSINE = 0.35
# 4 sqrt(3) area / sum of squared edges: 1 for an equilateral triangle. Slivers shade badly.
MIN_TRIANGLE_QUALITY = 0.2
# Weight of squared edge length (per unit area) against squared distance to the surface; keeps
# vertices on straight limbs, where the quadric error is nearly zero but skinning needs the rings.
LENGTH_PENALTY = 2e-3
# A hole's rim is held by planes at right angles to the surface, this much stronger than a face.
RIM_WEIGHT = 10.0


def decimate_symmetric(
    vertices: FloatArray,
    faces: IntArray,
    mirror: IntArray,
    *,
    num_vertices: int,
    detail: FloatArray,
    protected: IntArray,
) -> tuple[IntArray, IntArray]:
    """Choose vertices of a symmetric mesh to keep and connect them anew.

    Args:
        vertices: (V, 3) metres, x to the person's left, symmetric about x = 0.
        faces: (F, 3) closed under reflection; none crosses x = 0.
        mirror: (V,) index of each vertex's reflection; mid-line vertices map to themselves.
        num_vertices: how many to keep; the result is at most that, and one less at most.
        detail: (V,) factor on the error made by removing a vertex, symmetric.
        protected: (P,) vertices that must stay (their reflections stay too).

    Returns:
        kept: (W,) ascending indices into ``vertices``, closed under ``mirror``.
        new_faces: (G, 3) indices into ``kept``, closed under reflection.

    Raises:
        ValueError: if no further collapse is allowed before ``num_vertices`` is reached.
    """
    middle = mirror == np.arange(len(mirror))
    left = middle | (vertices[:, 0] > 0)
    half = HalfMesh(vertices, faces[left[faces].all(axis=1)], middle=middle, detail=detail)
    half.frozen |= set(protected.tolist()) | set(mirror[protected].tolist())
    half.collapse_until(num_vertices)

    left_faces = half.current_faces()
    new_faces = np.concatenate([left_faces, mirror[left_faces][:, ::-1]])
    kept, flat = np.unique(new_faces, return_inverse=True)
    return kept, flat.reshape(-1, 3)


class HalfMesh:
    """One half of a symmetric mesh under half-edge collapse.

    Args:
        vertices: (V, 3) metres, of the whole mesh.
        faces: (F, 3) triangles of this half.
        middle: (V,) True on the mid-line.
        detail: (V,) factor on the error made by removing a vertex.
    """

    def __init__(
        self,
        vertices: FloatArray,
        faces: IntArray,
        *,
        middle: NDArray[np.bool_],
        detail: FloatArray,
    ) -> None:
        self.points = vertices
        self.middle = middle
        self.detail = detail
        self.frozen: set[int] = set()
        self.faces = {i: (int(a), int(b), int(c)) for i, (a, b, c) in enumerate(faces)}
        self.faces_of: dict[int, set[int]] = defaultdict(set)
        for i, face in self.faces.items():
            for vertex in face:
                self.faces_of[vertex].add(i)
        self.quadrics, self.areas = self._quadrics(faces)
        self.version: dict[int, int] = defaultdict(int)

    def collapse_until(self, num_vertices: int) -> None:
        """Collapse the cheapest allowed edges until the *whole* mesh has ``num_vertices``."""
        count = sum(1 if self.middle[v] else 2 for v in self.faces_of)
        queue = [entry for v in list(self.faces_of) for entry in self._candidates(v)]
        heapq.heapify(queue)
        while count > num_vertices:
            if not queue:
                raise ValueError(
                    f"no allowed collapse left at {count} vertices, {num_vertices} were asked for; "
                    "ask for more vertices or protect fewer"
                )
            _, v, u, stamp = heapq.heappop(queue)
            if stamp != self._stamp(v, u) or not self._allowed(v, u):
                continue
            count -= 1 if self.middle[v] else 2
            for neighbour in self._collapse(v, u):
                for entry in self._candidates(neighbour):
                    heapq.heappush(queue, entry)

    def current_faces(self) -> IntArray:
        """(G, 3) triangles that are left, in their original order."""
        return np.array([self.faces[i] for i in sorted(self.faces)], dtype=np.int64)

    def _quadrics(self, faces: IntArray) -> tuple[FloatArray, FloatArray]:
        """Sum of area-weighted plane quadrics (V, 4, 4) and of face areas (V,) at each vertex."""
        corners = self.points[faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        double_area = np.linalg.norm(normals, axis=1)
        normals /= double_area[:, None]
        quadrics = np.zeros((len(self.points), 4, 4))
        areas = np.zeros(len(self.points))
        for k in range(3):
            np.add.at(quadrics, faces[:, k], _plane_quadric(normals, corners[:, 0], double_area))
            np.add.at(areas, faces[:, k], double_area)
        for k in range(3):
            start, end = faces[:, k], faces[:, (k + 1) % 3]
            rim = np.array([self._is_rim(a, b) for a, b in zip(start, end, strict=True)])
            edge = self.points[end[rim]] - self.points[start[rim]]
            across = np.cross(edge, normals[rim])
            across /= np.linalg.norm(across, axis=1, keepdims=True)
            weight = RIM_WEIGHT * (edge**2).sum(axis=1)
            planes = _plane_quadric(across, self.points[start[rim]], weight)
            np.add.at(quadrics, start[rim], planes)
            np.add.at(quadrics, end[rim], planes)
        return quadrics, areas

    def _shared_faces(self, a: int, b: int) -> set[int]:
        return self.faces_of[a] & self.faces_of[b]

    def _is_rim(self, a: int, b: int) -> bool:
        """Whether the edge borders a hole; mid-line edges border the other half, not a hole."""
        return len(self._shared_faces(a, b)) == 1 and not (self.middle[a] and self.middle[b])

    def _neighbours(self, v: int) -> set[int]:
        return {w for i in self.faces_of[v] for w in self.faces[i]} - {v}

    def _stamp(self, v: int, u: int) -> tuple[int, int]:
        return self.version[v], self.version[u]

    def _candidates(self, v: int) -> list[tuple[float, int, int, tuple[int, int]]]:
        """Queue entries (cost, v, u, stamp) of all edges at ``v``, in both directions."""
        entries = []
        for u in self._neighbours(v):
            for a, b in ((v, u), (u, v)):
                if a not in self.frozen:
                    entries.append((self._cost(a, b), a, b, self._stamp(a, b)))
        return entries

    def _cost(self, v: int, u: int) -> float:
        point = np.append(self.points[u], 1.0)
        error = float(point @ (self.quadrics[v] + self.quadrics[u]) @ point)
        length = float(((self.points[u] - self.points[v]) ** 2).sum())
        return self.detail[v] * (error + LENGTH_PENALTY * length * self.areas[v])

    def _allowed(self, v: int, u: int) -> bool:
        """Whether removing ``v`` onto ``u`` keeps a manifold, both its borders and its shape."""
        shared = self._shared_faces(v, u)
        neighbours = self._neighbours(v)
        if not shared or len(neighbours & self._neighbours(u)) != len(shared):
            return False
        on_border = any(len(self._shared_faces(v, w)) == 1 for w in neighbours)
        if on_border and len(shared) != 1:
            return False
        if self.middle[v] and not self.middle[u]:
            return False
        if self.middle[u] and not self.middle[v]:
            # A new edge or face within the mid-line would coincide with its own reflection.
            new_neighbours = neighbours - self._neighbours(u) - {u}
            if any(self.middle[w] for w in new_neighbours):
                return False
        return all(self._keeps_shape(i, v, u) for i in self.faces_of[v] - shared)

    def _keeps_shape(self, i: int, v: int, u: int) -> bool:
        old = self.points[list(self.faces[i])]
        moved = [u if w == v else w for w in self.faces[i]]
        if all(self.middle[w] for w in moved):
            return False
        new = self.points[moved]
        old_normal = np.cross(old[1] - old[0], old[2] - old[0])
        new_normal = np.cross(new[1] - new[0], new[2] - new[0])
        old_area, new_area = np.linalg.norm(old_normal), np.linalg.norm(new_normal)
        if old_normal @ new_normal < MIN_NORMAL_COSINE * old_area * new_area:
            return False
        floor = min(MIN_TRIANGLE_QUALITY, _quality(old, float(old_area)))
        return _quality(new, float(new_area)) >= floor

    def _collapse(self, v: int, u: int) -> set[int]:
        """Remove ``v``; return the vertices whose edges must be queued again."""
        for i in self._shared_faces(v, u):
            for w in self.faces.pop(i):
                self.faces_of[w].discard(i)
        for i in self.faces_of.pop(v):
            a, b, c = (u if w == v else w for w in self.faces[i])
            self.faces[i] = (a, b, c)
            self.faces_of[u].add(i)
        self.quadrics[u] += self.quadrics[v]
        self.areas[u] += self.areas[v]
        touched = self._neighbours(u) | {u}
        for w in touched:
            self.version[w] += 1
        return touched


def _plane_quadric(normals: FloatArray, points: FloatArray, weights: FloatArray) -> FloatArray:
    """(N, 4, 4) weighted squared distance to planes, as forms on homogeneous points."""
    planes = np.concatenate([normals, -(normals * points).sum(axis=1, keepdims=True)], axis=1)
    return weights[:, None, None] * planes[:, :, None] * planes[:, None, :]


def _quality(corners: FloatArray, double_area: float) -> float:
    edges = corners - np.roll(corners, 1, axis=0)
    return float(2 * np.sqrt(3) * double_area / (edges**2).sum())

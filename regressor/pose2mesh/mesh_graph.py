"""A body's mesh and skeleton as graphs, and the mesh as ever coarser ones.

Coarsening is that of Defferrard et al., "Convolutional Neural Networks on Graphs with Fast
Localized Spectral Filtering" (NeurIPS 2016), section 2.3: Graclus' greedy matching, level by level.
They pad every level with isolated nodes until it is a binary tree. Here each node keeps the index
of its parent instead: the real nodes have the same values, nothing is computed for the padding
(almost half of the published network's nodes), and vertices stay in their own order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

IntArray = NDArray[np.int64]
SparseArray: TypeAlias = Any  # a scipy.sparse.csr_array, which carries no types


@dataclass(frozen=True, kw_only=True)
class MeshGraph:
    """A mesh and its L coarser versions, finest first.

    Attributes:
        laplacians: L + 1 symmetric sparse matrices (N_l, N_l), scaled to eigenvalues in [-1, 1].
        parents: L arrays (N_l,): the node of level l + 1 that each node of level l belongs to.
        vertices: (V,) the node of level 0 at each vertex of the mesh.
    """

    laplacians: tuple[SparseArray, ...]
    parents: tuple[IntArray, ...]
    vertices: IntArray

    def __post_init__(self) -> None:
        sizes = self.sizes
        if len(self.parents) != len(sizes) - 1:
            raise ValueError(
                f"{len(sizes)} levels need {len(sizes) - 1} arrays of parents, "
                f"got {len(self.parents)}"
            )
        for level, parents in enumerate(self.parents):
            if parents.shape != (sizes[level],) or not _within(parents, sizes[level + 1]):
                raise ValueError(
                    f"parents of level {level} must be ({sizes[level]},) nodes of the "
                    f"{sizes[level + 1]} of the next level, got {parents.shape}"
                )
        if self.vertices.ndim != 1 or not _within(self.vertices, sizes[0]):
            raise ValueError(f"vertices must be (V,) nodes of the {sizes[0]} of level 0")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Nodes of each level, finest first."""
        return tuple(laplacian.shape[0] for laplacian in self.laplacians)


def build_mesh_graph(faces: ArrayLike, num_vertices: int, *, levels: int) -> MeshGraph:
    """Coarsen the graph of a mesh's edges.

    Args:
        faces: (F, 3) vertex indices.
        num_vertices: V; vertices of no face are nodes without edges.
        levels: how many times to halve the graph, roughly.
    """
    triangles = np.asarray(faces)
    edges = np.concatenate([triangles[:, ends] for ends in ([0, 1], [1, 2], [2, 0])])
    graphs, parents = coarsen(adjacency(edges, num_vertices), levels)
    return MeshGraph(
        laplacians=tuple(scaled_laplacian(graph) for graph in graphs),
        parents=tuple(parents),
        vertices=np.arange(num_vertices),
    )


def adjacency(edges: ArrayLike, num_nodes: int) -> SparseArray:
    """(N, N) symmetric matrix with 1 at each of the edges (E, 2), however often it is listed."""
    pairs = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    if not _within(pairs, num_nodes):
        raise ValueError(f"edges must join nodes 0 to {num_nodes - 1}, got {pairs.max()}")
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    both = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    ones = np.ones(len(both))
    return sparse.csr_array((ones, (both[:, 0], both[:, 1])), shape=(num_nodes, num_nodes))


def scaled_laplacian(graph: SparseArray) -> SparseArray:
    """2 L / lambda_max - I of the normalised Laplacian L = I - D^-1/2 W D^-1/2.

    lambda_max is taken as 2, the bound of every graph: nothing depends on an iterative solver.

    Args:
        graph: (N, N) symmetric weights without loops.

    Returns:
        (N, N), eigenvalues in [-1, 1]; a node without edges has -1 on the diagonal.
    """
    laplacian = sparse.csgraph.laplacian(graph, normed=True)
    scaled = sparse.csr_array(laplacian - sparse.eye_array(graph.shape[0]))
    scaled.eliminate_zeros()
    return scaled


def binary_tree_graph(laplacians: Sequence[SparseArray], vertices: ArrayLike) -> MeshGraph:
    """A graph as Defferrard et al. and Pose2Mesh's own program store it, padded at every level.

    Args:
        laplacians: L + 1 scaled matrices, finest first, each of twice the size of the next; nodes
            2 i and 2 i + 1 of a level belong to node i of the next.
        vertices: (V,) the node of level 0 at each vertex ("reverse permutation", its first V).
    """
    return MeshGraph(
        laplacians=tuple(sparse.csr_array(laplacian) for laplacian in laplacians),
        parents=tuple(np.arange(laplacian.shape[0]) // 2 for laplacian in laplacians[:-1]),
        vertices=np.asarray(vertices, dtype=np.int64),
    )


def coarsen(graph: SparseArray, levels: int) -> tuple[list[SparseArray], list[IntArray]]:
    """Merge matched pairs of nodes, `levels` times.

    Args:
        graph: (N, N) symmetric weights without loops.
        levels: L.

    Returns:
        graphs: L + 1, the given one first; an edge weighs as much as all edges between the nodes'
            members.
        parents: L arrays (N_l,), the node of the next graph that each node went into.
    """
    graphs, parents = [graph], []
    for _ in range(levels):
        parents.append(match(graphs[-1]))
        member = membership(parents[-1], parents[-1].max() + 1)
        merged = sparse.coo_array(member.T @ graphs[-1] @ member)
        apart = merged.row != merged.col
        entries = merged.data[apart], (merged.row[apart], merged.col[apart])
        graphs.append(sparse.csr_array(entries, shape=merged.shape))
    return graphs, parents


def membership(parents: IntArray, num_parents: int) -> SparseArray:
    """(N, M) matrix with 1 where a node belongs to a parent: nodes get their parent's value."""
    rows = np.arange(len(parents))
    return sparse.csr_array((np.ones(len(parents)), (rows, parents)), (len(parents), num_parents))


def match(graph: SparseArray) -> IntArray:
    """Pair neighbours greedily: nodes of low degree choose first, and take the heaviest edge.

    The weight is Graclus' local normalised cut W_ij (1 / d_i + 1 / d_j) (Dhillon et al., PAMI
    2007). Of equals the lowest number is taken, so the same graph always gives the same pairs.

    Args:
        graph: (N, N) symmetric weights without loops.

    Returns:
        (N,) number of each node's pair, 0 to M - 1; a node left over is alone in its pair.
    """
    graph = sparse.csr_array(graph)
    degree = graph.sum(axis=1)
    share = np.divide(1.0, degree, out=np.zeros_like(degree), where=degree > 0)
    pair_of = np.full(graph.shape[0], -1, dtype=np.int64)
    count = 0
    for node in np.argsort(degree, kind="stable"):
        if pair_of[node] >= 0:
            continue
        pair_of[node] = count
        row = slice(graph.indptr[node], graph.indptr[node + 1])
        neighbours, weights = graph.indices[row], graph.data[row]
        free = pair_of[neighbours] < 0
        if free.any():
            cut = weights[free] * (share[node] + share[neighbours[free]])
            best = neighbours[free][cut >= cut.max() * (1 - 1e-12)]  # equal but for rounding
            pair_of[best.min()] = count
        count += 1
    return pair_of


def _within(indices: IntArray, count: int) -> bool:
    return indices.size == 0 or bool(indices.min() >= 0 and indices.max() < count)

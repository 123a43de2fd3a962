"""Meshes as graphs: coarsening, and convolution by Chebyshev polynomials."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
import torch
import trimesh
from numpy.polynomial import chebyshev
from scipy import sparse

from regressor.pose2mesh.chebyshev import SparseProduct, chebyshev_conv
from regressor.pose2mesh.mesh_graph import (
    MeshGraph,
    adjacency,
    binary_tree_graph,
    build_mesh_graph,
    coarsen,
    match,
    membership,
    scaled_laplacian,
)

LEVELS = 4


@pytest.fixture(scope="module")
def sphere():
    return trimesh.creation.icosphere(subdivisions=3)  # 642 vertices, 5 or 6 neighbours each


@pytest.fixture(scope="module")
def graph(sphere):
    return build_mesh_graph(sphere.faces, len(sphere.vertices), levels=LEVELS)


def random_graph(seed: int, nodes: int = 40) -> sparse.csr_array:
    """Weighted, and some of its nodes without edges."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.5, 2, (nodes, nodes)) * (rng.random((nodes, nodes)) < 0.05)
    weights = np.triu(weights, 1)
    return sparse.csr_array(weights + weights.T)


# --- Graphs -----------------------------------------------------------------------------------


def test_edges_are_those_of_the_mesh(sphere):
    found = sparse.triu(adjacency(sphere.edges, len(sphere.vertices))).nonzero()
    expected = sphere.edges_unique
    assert set(zip(*(a.tolist() for a in found), strict=True)) == set(map(tuple, expected.tolist()))


def test_laplacian_is_networkx_one_shifted():
    weights = random_graph(1)
    expected = networkx.normalized_laplacian_matrix(networkx.from_scipy_sparse_array(weights))
    assert abs(scaled_laplacian(weights) - (expected - sparse.eye_array(40))).max() < 1e-12


def test_eigenvalues_are_within_one(graph):
    for laplacian in graph.laplacians[1:]:
        values = np.linalg.eigvalsh(laplacian.toarray())
        assert np.abs(values).max() < 1 + 1e-9


# --- Coarsening -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_every_node_is_in_one_pair_of_neighbours(seed):
    weights = random_graph(seed)
    pair_of = match(weights)
    sizes = np.bincount(pair_of)
    assert set(sizes.tolist()) <= {1, 2} and sizes.sum() == 40
    for pair in np.flatnonzero(sizes == 2):
        a, b = np.flatnonzero(pair_of == pair)
        assert weights[a, b] > 0


@pytest.mark.parametrize("seed", range(5))
def test_no_two_neighbours_are_left_alone(seed):
    """The matching is maximal: who is left over has only partners that are taken."""
    weights = random_graph(seed)
    pair_of = match(weights)
    alone = np.flatnonzero(np.bincount(pair_of)[pair_of] == 1)
    assert not weights[np.ix_(alone, alone)].sum()


def weighted(nodes, **edges):
    """A graph from edges such as e01=3.0."""
    weights = np.zeros((nodes, nodes))
    for name, weight in edges.items():
        a, b = int(name[1]), int(name[2])
        weights[a, b] = weights[b, a] = weight
    return sparse.csr_array(weights)


def test_the_heavy_edge_is_taken():
    """Node 0 chooses first; its neighbours 1 and 2 have the same degree."""
    assert match(weighted(3, e01=1.0, e02=2.0, e12=9.0)).tolist() == [0, 1, 0]


def test_of_equal_edges_the_one_to_the_lesser_neighbour_is_taken():
    """Node 0 (degree 4) chooses first: 2 (1/4 + 1/16) of node 1 is less than 2 (1/4 + 1/10)."""
    assert match(weighted(4, e01=2.0, e02=2.0, e12=8.0, e13=6.0)).tolist() == [0, 1, 0, 1]


def test_the_same_mesh_gives_the_same_graph(sphere, graph):
    again = build_mesh_graph(sphere.faces[::-1], len(sphere.vertices), levels=LEVELS)
    for a, b in zip(graph.parents, again.parents, strict=True):
        np.testing.assert_array_equal(a, b)


def test_levels_halve_but_for_those_left_over(graph):
    ratios = np.divide(graph.sizes[1:], graph.sizes[:-1])
    assert graph.sizes[0] == 642
    assert (ratios >= 0.5).all() and (ratios < 0.6).all()


def test_coarse_edges_weigh_what_they_replace():
    weights = random_graph(3)
    (_, merged), (pair_of,) = coarsen(weights, 1)
    expected = np.zeros(merged.shape)
    for a, b in zip(*weights.nonzero(), strict=True):
        if pair_of[a] != pair_of[b]:
            expected[pair_of[a], pair_of[b]] += weights[a, b]
    np.testing.assert_allclose(merged.toarray(), expected)


def test_upsampling_then_pooling_changes_nothing(graph, rng):
    for parents, size in zip(graph.parents, graph.sizes[1:], strict=True):
        spread = membership(parents, size)
        coarse = rng.normal(size=(size, 3))
        pooled = spread.T @ (spread @ coarse) / np.bincount(parents)[:, None]
        np.testing.assert_allclose(pooled, coarse, rtol=1e-12)


def test_pieces_of_a_mesh_stay_apart(sphere):
    """Eyeballs are pieces of their own; coarsening must not mix them into the skull."""
    both = trimesh.util.concatenate([sphere, sphere])
    graph = build_mesh_graph(both.faces, len(both.vertices), levels=LEVELS)
    node = np.arange(graph.sizes[0])
    for parents in graph.parents:
        node = parents[node]
    assert not set(node[:642]) & set(node[642:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parents": ()}, "need 1 arrays of parents"),
        ({"parents": (np.array([0, 0, 1, 2]),)}, "nodes of the 2 of the next level"),
        ({"vertices": np.array([0, 4])}, "nodes of the 4 of level 0"),
    ],
)
def test_a_graph_that_does_not_fit_together_is_refused(change, message):
    parts = {
        "laplacians": (sparse.eye_array(4).tocsr(), sparse.eye_array(2).tocsr()),
        "parents": (np.array([0, 0, 1, 1]),),
        "vertices": np.arange(4),
    }
    MeshGraph(**parts)
    with pytest.raises(ValueError, match=message):
        MeshGraph(**{**parts, **change})


def test_edges_beyond_the_nodes_are_refused():
    with pytest.raises(ValueError, match="nodes 0 to 2, got 3"):
        adjacency([[0, 3]], 3)


def padded(graph: MeshGraph) -> MeshGraph:
    """The same graph as Defferrard et al. store it: a binary tree, filled up with lone nodes."""
    order = [np.arange(graph.sizes[-1])]  # real node at each place of a level, -1 where none is
    for parents in graph.parents[::-1]:
        places = np.full(2 * len(order[-1]), -1)
        for place, parent in enumerate(order[-1]):
            children = np.flatnonzero(parents == parent) if parent >= 0 else []
            places[2 * place : 2 * place + len(children)] = children
        order.append(places)
    laplacians, levels = [], zip(graph.laplacians, order[::-1], strict=True)
    for laplacian, places in levels:
        real = places >= 0
        spread = membership(places[real], laplacian.shape[0])
        full = sparse.lil_array((len(places), len(places)))
        full[np.ix_(real, real)] = (spread @ laplacian @ spread.T).toarray()
        laplacians.append(full.tocsr())
    reverse = np.argsort(np.where(order[-1] < 0, len(order[-1]), order[-1]), kind="stable")
    return binary_tree_graph(laplacians, reverse[: graph.sizes[0]])


def test_padding_to_a_binary_tree_only_moves_nodes(graph):
    """Permutation and its inverse: every level's real nodes are where their children look."""
    tree = padded(graph)
    assert [n / tree.sizes[-1] for n in tree.sizes] == [
        2 ** (LEVELS - i) for i in range(LEVELS + 1)
    ]
    place, node = tree.vertices, np.arange(graph.sizes[0])
    for level, (matrix, moved) in enumerate(zip(graph.laplacians, tree.laplacians, strict=True)):
        assert len(np.unique(np.stack([place, node]), axis=1).T) == graph.sizes[level]  # one to one
        inverse = np.empty(graph.sizes[level], int)
        inverse[node] = place
        assert abs(moved[inverse][:, inverse] - matrix).max() < 1e-12
        if level < LEVELS:
            place, node = tree.parents[level][place], graph.parents[level][node]


# --- Convolution ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_filters_are_polynomials_of_the_eigenvalues(order, rng):
    """Filtering in the basis of eigenvectors, where a polynomial of L acts on each eigenvalue."""
    laplacian = scaled_laplacian(random_graph(2))
    values, vectors = np.linalg.eigh(laplacian.toarray())
    x, bias = rng.normal(size=(40, 2, 3)), rng.normal(size=4)
    weight = rng.normal(size=(4, 3, order))
    gains = chebyshev.chebval(values, weight.transpose(2, 0, 1))  # (4, 3, 40)
    modes = np.einsum("nm,nbf->mbf", vectors, x)
    expected = np.einsum("nm,ofm,mbf->nbo", vectors, gains, modes) + bias
    flat = torch.from_numpy(weight.reshape(4, -1))
    y = chebyshev_conv(
        torch.from_numpy(x), SparseProduct(laplacian).double(), flat, torch.from_numpy(bias)
    )
    # the product's matrix is stored in float32
    np.testing.assert_allclose(y.numpy(), expected, atol=1e-5)


def test_products_are_scipys(rng):
    matrix = sparse.random_array((30, 20), density=0.2, rng=rng, format="csr")
    product = SparseProduct(matrix)
    x = rng.normal(size=(20, 4, 2)).astype(np.float32)
    expected = (matrix @ x.reshape(20, -1)).reshape(30, 4, 2)
    np.testing.assert_allclose(product(torch.from_numpy(x)).numpy(), expected, atol=1e-6)
    half = product(torch.from_numpy(x).bfloat16()).float().numpy()
    np.testing.assert_allclose(half, expected, atol=0.05)  # bfloat16 has 8 bits


def test_gradients_match_finite_differences(rng):
    product = SparseProduct(sparse.random_array((6, 5), density=0.4, rng=rng)).double()
    x = torch.from_numpy(rng.normal(size=(5, 2, 2))).requires_grad_()
    assert torch.autograd.gradcheck(product, x)
    assert torch.autograd.gradgradcheck(product, x)


def test_a_product_is_no_weight():
    assert not SparseProduct(sparse.eye_array(3)).state_dict()


def test_weights_for_other_features_are_refused(graph):
    product = SparseProduct(graph.laplacians[-1])
    with pytest.raises(ValueError, match="multiple of the signal's 4 features"):
        chebyshev_conv(torch.zeros(graph.sizes[-1], 1, 4), product, torch.zeros(2, 9))

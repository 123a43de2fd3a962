"""MeshNet, the half of Pose2Mesh that makes a mesh (Choi et al., ECCV 2020).

Parameters have the names and shapes of the published checkpoints; graphs are no part of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .chebyshev import SparseProduct, chebyshev_conv
from .mesh_graph import MeshGraph, SparseArray, membership

Channels = Sequence[Sequence[int]]

_ORDER = 3  # of the Chebyshev polynomials, K in the papers
# Widths after each convolution: the skeleton's block, then blocks from the coarsest mesh to the
# finest, which has two.
PUBLISHED_CHANNELS: tuple[tuple[int, ...], ...] = (
    (32, 64, 64),
    (128, 256), (256, 256), (256, 256), (256, 256), (256, 256), (128, 128), (128, 128), (128, 128),
    (64, 3),
)  # fmt: skip


class MeshNet(nn.Module):
    """Convolve keypoints over the skeleton, spread them over a coarse mesh, refine level by level.

    A block is a few Chebyshev convolutions on one graph. Signals inside are (N, B, F): nodes first.
    """

    def __init__(
        self,
        num_joints: int,
        *,
        channels: Channels,
        coarse_nodes: int,
        skeleton: SparseArray | None = None,
        graph: MeshGraph | None = None,
    ) -> None:
        """Make the layers.

        Args:
            num_joints: J.
            channels: widths after each convolution of each block, as in `PUBLISHED_CHANNELS`.
            coarse_nodes: nodes of the coarsest mesh.
            skeleton: (J, J) scaled Laplacian of the joints' graph.
            graph: of the mesh, coarsened len(channels) - 3 times. Without it and `skeleton` the
                layers hold weights but cannot run.

        Raises:
            ValueError: a graph does not fit the layers.
        """
        super().__init__()
        outputs = [block[-1] for block in channels]
        # A joint comes as its keypoint (2) and its lifted position (3).
        widths = [(i, *block) for i, block in zip([5, *outputs[:-1]], channels, strict=True)]
        pairs = list(chain.from_iterable(pairwise(block) for block in widths))
        self.fc = nn.Linear(num_joints * outputs[0], coarse_nodes * outputs[0])
        self.cl = nn.ModuleList(_make_conv(*pair) for pair in pairs)
        self.bn = nn.ModuleList(nn.BatchNorm1d(out) for _, out in pairs[:-1])
        first = [0, *accumulate(len(block) for block in channels)]
        self.blocks = [range(a, b) for a, b in pairwise(first)]  # of indices into cl
        self.skeleton: SparseProduct | None = None
        if skeleton is not None and graph is not None:
            self._check(skeleton, graph)
            self._take_graphs(skeleton, graph)

    def _check(self, skeleton: SparseArray, graph: MeshGraph) -> None:
        nodes, joints = (size // self._width_after(0) for size in self.fc.weight.shape)
        levels = len(self.blocks) - 2  # the finest mesh has two blocks
        if skeleton.shape != (joints, joints):
            raise ValueError(f"skeleton must be ({joints}, {joints}), got {skeleton.shape}")
        if len(graph.sizes) != levels or graph.sizes[-1] != nodes:
            raise ValueError(
                f"the graph must have {levels} levels, the coarsest of {nodes} nodes, "
                f"got levels of {', '.join(map(str, graph.sizes))}"
            )

    def _take_graphs(self, skeleton: SparseArray, graph: MeshGraph) -> None:
        self.skeleton = SparseProduct(skeleton)
        self.laplacians = nn.ModuleList(SparseProduct(m) for m in graph.laplacians[::-1])
        steps = zip(graph.parents, graph.sizes[1:], strict=True)
        upsamplings = [SparseProduct(membership(parents, size)) for parents, size in steps]
        self.upsamplings = nn.ModuleList(upsamplings[::-1])
        self.register_buffer("vertices", torch.as_tensor(graph.vertices), persistent=False)

    vertices: Tensor

    def forward(self, joints: Tensor) -> Tensor:
        """Keypoints beside lifted joints in metres (B, J, 5) -> vertices (B, V, 3) in metres."""
        if self.skeleton is None:
            raise RuntimeError(
                "this MeshNet has weights but no graphs, which published checkpoints lack: load it "
                "by from_official_state with the skeleton and graph that it was trained with"
            )
        x = self._block(0, joints.transpose(0, 1), self.skeleton)
        x = self.fc(x.transpose(0, 1).flatten(1)).unflatten(1, (-1, x.shape[2])).transpose(0, 1)
        for level, laplacian in enumerate(self.laplacians, start=1):
            x = _resize(x, self._width_after(level)) + self._block(level, x, laplacian)
            if level <= len(self.upsamplings):
                x = self.upsamplings[level - 1](x)
        x = self._block(len(self.blocks) - 1, x, self.laplacians[-1])
        return x[self.vertices].transpose(0, 1)

    def _block(self, block: int, x: Tensor, laplacian: nn.Module) -> Tensor:
        """(N, B, F) -> (N, B, F'): convolution, batch norm and ReLU, but the last of all bare."""
        for i in self.blocks[block]:
            layer = self._layer(i)
            if i == len(self.bn):
                # bfloat16 would round a metre to 4 mm
                with torch.autocast(x.device.type, enabled=False):
                    return chebyshev_conv(x.float(), laplacian, layer.weight, layer.bias)
            x = chebyshev_conv(x, laplacian, layer.weight, layer.bias)
            x = self.bn[i](x.flatten(0, 1)).relu_().view_as(x)
        return x

    def _layer(self, i: int) -> nn.Linear:
        layer = self.cl[i]
        assert isinstance(layer, nn.Linear)
        return layer

    def _width_after(self, block: int) -> int:
        """Features that come out of a block."""
        return self._layer(self.blocks[block][-1]).out_features


def _make_conv(inputs: int, outputs: int) -> nn.Linear:
    """Weights of a convolution, drawn as the authors draw them (after Glorot and Bengio 2010)."""
    layer = nn.Linear(_ORDER * inputs, outputs)
    bound = (2 / (_ORDER * inputs + outputs)) ** 0.5
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.zeros_(layer.bias)
    return layer


def _resize(x: Tensor, width: int) -> Tensor:
    """(N, B, F) -> (N, B, width) by interpolation along the features, as the published network."""
    if x.shape[2] == width:
        return x
    # a product with a matrix gives the same for less than interpolating at every node
    one_each = torch.eye(x.shape[2], device=x.device)[None]
    weights = functional.interpolate(one_each, size=width, mode="linear")[0]
    return x @ weights.to(x.dtype)

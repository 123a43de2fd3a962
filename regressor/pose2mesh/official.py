"""The checkpoints that the authors of Pose2Mesh published."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fitting.files import InputError
from fitting.skeleton import KEYPOINT_SETS

from .mesh_graph import MeshGraph, SparseArray
from .mesh_net import MeshNet
from .network import COCO19, Pose2Mesh
from .pose_net import PoseNet

# Sets of 17 and 24 joints are in the order of the published checkpoints, too.
_PUBLISHED_SETS = {len(s): s for s in (COCO19, KEYPOINT_SETS["h36m17"], KEYPOINT_SETS["smpl24"])}
_PUBLISHED_DROPOUT = 0.5


def from_official_state(
    state: Mapping[str, Tensor],
    *,
    skeleton: SparseArray | None = None,
    graph: MeshGraph | None = None,
) -> Pose2Mesh:
    """The network of a published checkpoint (`model_state_dict`), in eval mode.

    Number of joints, widths and levels follow from the shapes; without MeshNet's tensors the
    network only lifts. `pose_lifter` answers exactly as the published one. `pose2mesh` holds the
    weights, but the mesh graph that they belong to is not in the file: the authors' program
    coarsens SMPL's mesh when it starts, and which nodes it merges depends on its own order among
    equals.

    Args:
        state: names and tensors.
        skeleton: last of the Laplacians that their `build_coarse_graphs` returns. Without it and
            `graph`, `pose2mesh` cannot be called.
        graph: `binary_tree_graph` of the Laplacians before, but for the coarsest of them, and of
            the reverse permutation that it returns.

    Raises:
        InputError: keys or shapes are not those of such a checkpoint; the message names some.
    """
    network = _network_of_shapes(state, skeleton, graph)
    expected = network.state_dict()
    wrong = [
        key for key in expected.keys() | state.keys() if _shape(expected, key) != _shape(state, key)
    ]
    if wrong:
        raise InputError(
            f"{len(wrong)} tensors are missing, unknown or of another shape than in a published "
            f"Pose2Mesh checkpoint, such as {', '.join(sorted(wrong)[:3])}"
        )
    network.load_state_dict(dict(state))
    return network.eval()


def _network_of_shapes(
    state: Mapping[str, Tensor], skeleton: SparseArray | None, graph: MeshGraph | None
) -> Pose2Mesh:
    """An untrained network of the sizes that the tensors tell."""
    first = _shape(state, "pose_lifter.w1.weight")
    if len(first) != 2:
        raise InputError(
            "pose_lifter.w1.weight is missing: this is no published Pose2Mesh checkpoint "
            "(pass what its file holds under model_state_dict)"
        )
    num_joints = first[1] // 2
    stages = len(_numbered(state, "pose_lifter.linear_stages.{}.w1.weight"))
    lifter = PoseNet(num_joints, width=first[0], stages=stages, dropout=_PUBLISHED_DROPOUT)
    mesh_net = None
    if widths := [shape[0] for shape in _numbered(state, "pose2mesh.cl.{}.weight")]:
        # three convolutions on the skeleton, then pairs of them
        channels = [widths[:3], *([a, b] for a, b in zip(widths[3::2], widths[4::2], strict=False))]
        mesh_net = MeshNet(
            num_joints,
            channels=channels,
            coarse_nodes=max(_shape(state, "pose2mesh.fc.weight")[0] // channels[0][-1], 1),
            skeleton=skeleton,
            graph=graph,
        )
    return Pose2Mesh(_PUBLISHED_SETS.get(num_joints), lifter, mesh_net)


def _numbered(state: Mapping[str, Tensor], pattern: str) -> list[tuple[int, ...]]:
    """Shapes of the tensors called by 0, 1, ... in the pattern, up to the first that is missing."""
    shapes: list[tuple[int, ...]] = []
    while (key := pattern.format(len(shapes))) in state:
        shapes.append(_shape(state, key))
    return shapes


def _shape(state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    """Of a tensor; (-1,) if there is none."""
    return tuple(state[key].shape) if key in state else (-1,)

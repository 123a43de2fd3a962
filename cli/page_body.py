"""A body as the web page of a run holds it, to pose people where they are looked at.

A mesh for each of 10,000 people would be a gigabyte; the body that they share is one megabyte, and
cli/static/report/body.js poses it. Most arrays are rounded to integers of 8 or 16 bits, each row
with a scale of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fitting.body import Body
    from fitting.skeleton import KeypointSet


@dataclass(frozen=True, kw_only=True)
class PageBody:
    """Arrays one after the other.

    Attributes:
        arrays: name -> `type` of its values ("f4", "u4", "i2" or "i1", little endian), `offset` in
            bytes, `shape` and, of rounded numbers, `scales`: a value of row r is its integer times
            scales[r].
        content: the bytes, deflated (zlib).
    """

    arrays: Mapping[str, Mapping[str, Any]]
    content: bytes


def pack_body(body: Body, keypoint_set: KeypointSet) -> PageBody:
    """Pack a body of V vertices and F faces, and where P keypoints lie on it.

    The arrays: `jointTemplate` (24, 3) and `jointShapes` (10, 24, 3) metres; `keypointJoints`
    (P, 24) and `keypointVertices` (P, U), weights over the joints and over the vertices
    `vertexIds` (U,); `defined` (P,); `faces` (F, 3); `template` (1, V, 3), `shapes` (10, V, 3) and
    `poses` (207, V, 3) metres; `weights` (24, V).
    """
    from fitting.keypoints import map_keypoints

    places = map_keypoints(body, keypoint_set)
    arrays = {
        "jointTemplate": _exact(body.joint_template, "f4"),
        "jointShapes": _exact(body.joint_shapedirs.permute(2, 0, 1), "f4"),
        "keypointJoints": _exact(places.joint_weights, "f4"),
        "keypointVertices": _exact(places.vertex_weights, "f4"),
        "vertexIds": _exact(places.vertex_ids, "u4"),
        "defined": _exact(places.defined, "u4"),
        "faces": _exact(body.faces, "u4"),
        "template": _rounded(body.v_template[None], "i2"),
        "shapes": _rounded(body.shapedirs.permute(2, 0, 1), "i2"),
        "weights": _rounded(body.weights.T, "i2"),
        # Eight bits are 0.1 mm of an offset of 25 mm, the largest.
        "poses": _rounded(body.posedirs.permute(2, 0, 1), "i1"),
    }
    about, offset = {}, 0
    for name, (values, scales) in arrays.items():  # the widest types first keep all aligned
        about[name] = {
            "type": values.dtype.str[1:],
            "offset": offset,
            "shape": values.shape,
            "scales": scales,
        }
        offset += values.nbytes
    content = b"".join(values.tobytes() for values, _ in arrays.values())
    return PageBody(arrays=about, content=zlib.compress(content, level=9))


def licence_note(body: Path) -> str:
    """What to say of a page that holds somebody's own body, read from the file `body`."""
    return (
        f"This page holds the body {body.name}. Before you pass it on, see whether its licence "
        "lets you, or make the page again with fit-cli report --no-mesh."
    )


def _exact(tensor: Any, kind: str) -> tuple[np.ndarray, None]:
    return tensor.cpu().numpy().astype(f"<{kind}"), None


def _rounded(tensor: Any, kind: str) -> tuple[np.ndarray, list[float]]:
    """Integers (R, ...) and their R scales."""
    values = tensor.double().cpu().numpy()
    largest = np.abs(values).reshape(len(values), -1).max(axis=1)
    scales = np.where(largest > 0, largest, 1) / np.iinfo(kind).max
    integers = np.rint(values / scales.reshape(-1, *[1] * (values.ndim - 1)))
    return integers.astype(f"<{kind}"), scales.tolist()

"""COCO keypoint JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_json
from ..people import People
from ..skeleton import KeypointSet, keypoint_set


def write_coco(path: Path, people: People) -> None:
    """Write people as COCO keypoint JSON, with confidences in place of visibility flags.

    The category lists the names of the keypoints, so that the file can be read again whatever the
    set. Pictures are numbered from 0 in the order of their first person.

    Raises:
        OutputError: the file cannot be written.
    """
    s = keypoint_set(people.keypoint_set)
    names, first, image_id = np.unique(people.image, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    triplets = np.concatenate([people.keypoints_2d, people.conf[..., None]], axis=2)
    images = [
        {
            "id": int(order[i]),
            "file_name": str(names[i]),
            "width": int(people.width[first[i]]),
            "height": int(people.height[first[i]]),
        }
        for i in np.argsort(first)
    ]
    annotations = [
        {
            "id": int(people.annotation_id[row]),
            "image_id": int(order[image_id[row]]),
            "category_id": 1,
            "keypoints": triplets[row].astype(float).round(3).ravel().tolist(),
            "num_keypoints": int((people.conf[row] > 0).sum()),
            "bbox": _box(people.keypoints_2d[row][people.conf[row] > 0]),
            "iscrowd": 0,
        }
        for row in range(len(people))
    ]
    document = {"images": images, "annotations": annotations, "categories": [coco_category(s)]}
    write_json(path, document)


def coco_category(s: KeypointSet) -> dict[str, Any]:
    """COCO's category of people with the keypoints of a set."""
    return {
        "id": 1,
        "name": "person",
        "keypoints": list(s.names),
        "skeleton": (s.edges + 1).tolist(),
    }


def _box(points: np.ndarray) -> list[float]:
    """[x, y, width, height] in pixels around (P, 2) points; zeros around none."""
    if len(points) == 0:
        return [0.0, 0.0, 0.0, 0.0]
    low, high = points.min(axis=0), points.max(axis=0)
    return [round(float(v), 3) for v in (*low, *(high - low))]

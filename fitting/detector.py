"""Photographs in, people with 2D keypoints out: what every detector gives, and which exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fitting.images import check_image

DETECTORS = ("blazepose", "rtmlib")


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One person found in a picture.

    Attributes:
        keypoints_2d: (P, 2) full-image pixels; (0, 0) is the centre of the first pixel.
        conf: (P,) in [0, 1]; 0 where the keypoint is unseen or outside the picture.
        score: in [0, 1], how sure the detector is that this is one person.
    """

    keypoints_2d: np.ndarray
    conf: np.ndarray
    score: float


class Detector(Protocol):
    """Finds the people of one picture.

    `keypoint_set` names the order of the keypoints (`fitting.skeleton.keypoint_set`).
    """

    keypoint_set: str

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """People in an (H, W, 3) uint8 RGB image, the largest first; an empty list if none."""
        ...


def load_detector(name: str = "blazepose") -> Detector:
    """Load a detector; its networks are read once, here.

    Args:
        name: "blazepose", bundled and run by OpenCV, or "rtmlib", an optional extra that
            downloads more accurate RTMPose weights on first use.

    Raises:
        ValueError: no detector has this name.
        ImportError: OpenCV or rtmlib is not installed; the message says how to install it.
    """
    if name == "blazepose":
        from fitting.blazepose import BlazePoseDetector

        return BlazePoseDetector()
    if name == "rtmlib":
        return RtmlibDetector()
    raise ValueError(f"unknown detector {name!r}; use one of {', '.join(DETECTORS)}")


def inside_picture(keypoints_2d: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(P,) bool: the keypoint lies on a pixel of the (H, W, 3) image."""
    height, width = image.shape[:2]
    limit = np.array([width, height]) - 0.5
    return np.all((keypoints_2d >= -0.5) & (keypoints_2d < limit), axis=1)


def largest_first(people: list[Detection]) -> list[Detection]:
    """People by the diagonal of the box around their keypoints; ties by score, then position.

    Size, not score: it changes little with compression or thresholds, so that a person keeps
    the index under which the fits table lists them, and person 0 is the picture's subject.
    """

    def key(person: Detection) -> tuple[float, ...]:
        span = np.ptp(person.keypoints_2d, axis=0)
        return -float(np.hypot(*span)), -person.score, *person.keypoints_2d[0].tolist()

    return sorted(people, key=key)


class RtmlibDetector:
    """COCO keypoints by RTMPose through the optional package rtmlib.

    rtmlib fetches its weights from the network on first use. Not thread-safe.
    """

    keypoint_set = "coco17"
    # Without a person box rtmlib estimates a pose on the whole picture all the same; below this
    # mean score (its own drawings use 0.4 per keypoint) we take it for such a guess.
    min_score = 0.3

    def __init__(self) -> None:
        try:
            import rtmlib
        except ImportError as error:
            raise ImportError(
                f"the detector rtmlib cannot be imported ({error}); "
                "install it: pip install 'bodyloop[rtmlib]', or use the detector blazepose"
            ) from error
        self._body: Any = rtmlib.Body(to_openpose=False, mode="balanced", backend="onnxruntime")

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """People in an (H, W, 3) uint8 RGB image, the largest first."""
        check_image(image)
        bgr = np.ascontiguousarray(image[:, :, ::-1])
        people = []
        for keypoints, scores in zip(*self._body(bgr), strict=True):
            keypoints_2d = np.asarray(keypoints, dtype=np.float64)
            conf = np.clip(np.asarray(scores, dtype=np.float64), 0.0, 1.0)
            score = float(conf.mean())
            if score >= self.min_score:
                conf = np.where(inside_picture(keypoints_2d, image), conf, 0.0)
                people.append(Detection(keypoints_2d=keypoints_2d, conf=conf, score=score))
        return largest_first(people)

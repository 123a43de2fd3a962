"""BlazePose: a single-shot detector proposes people, a second network finds 33 landmarks each.

The networks are MediaPipe's (Bazarevsky et al., "BlazePose: On-device Real-time Body Pose
Tracking", 2020), run by `cv2.dnn`. Anchors, regions and activations follow MediaPipe's graphs
`pose_detection` and `pose_landmark`. MediaPipe follows one person through a video; we look for
several in one photograph, so the first network also sees overlapping tiles (docs/detector.md).

Two conventions of a position meet here. The networks speak of a continuous plane whose origin is
the *corner* of the first pixel, and so does every affine map in this file. The outside has the
origin at the *centre* of the first pixel, half a pixel further. The change is made where OpenCV
samples pixels (`ImagePyramid.warp`) and where keypoints leave (`_to_detection`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fitting.detector import Detection, inside_picture, largest_first
from fitting.images import check_image
from fitting.opencv import import_cv2
from fitting.skeleton import keypoint_set

ASSETS = Path(__file__).with_name("assets") / "blazepose"

DETECTION_SIZE = 224  # pixels, side of the first network's square input
LANDMARK_SIZE = 256  # pixels, side of the second network's
NUM_KEYPOINTS = 33
HIP_CENTRE, CIRCLE_POINT = 33, 34  # landmarks that say where to crop, not part of the body
NUM_LANDMARKS = 35  # the network gives four more, of the hands, which nobody needs here
REGION_MARGIN = 1.25  # the crop's side, relative to the diameter of the circle around the body


@dataclass(frozen=True, kw_only=True)
class BlazePoseConfig:
    """Settings of the detector; docs/detector.md shows what they cost and gain.

    Attributes:
        tile_divisions: the picture is searched in square tiles of its longer side divided by
            each of these; 1 is the whole picture.
        tile_overlap: part of a tile's side that it shares with the next, at least.
        min_proposal_score: of the first network, that a box holds a person.
        min_presence: of the second network, that its crop holds a person.
        min_score: of the finished person: presence times the similarity of the landmarks in a
            crop with those in its mirror image.
        max_box_overlap: intersection over union above which two proposals are one.
        min_circle_shift: a proposal whose hip centre and circle point both lie closer than this,
            in radii, to those of a known person is taken for that person and not looked at.
        max_similarity: similarity of landmarks above which two people are one.
        max_inside: share of a person's box in that of a surer one above which the former is a
            fragment of the latter, such as a chest taken for a small person.
        min_fragment_gap: how much lower a fragment's score is; a child before an adult scores
            as high.
        num_refinements: how often the region that the landmarks ask for is cropped anew; the
            last crop is read twice, as it is and mirrored.
    """

    tile_divisions: tuple[float, ...] = (1.0, 2.0)
    tile_overlap: float = 0.5
    min_proposal_score: float = 0.3
    min_presence: float = 0.5
    min_score: float = 0.7
    max_box_overlap: float = 0.3
    min_circle_shift: float = 0.3
    max_similarity: float = 0.5
    max_inside: float = 0.9
    min_fragment_gap: float = 0.1
    num_refinements: int = 2

    def __post_init__(self) -> None:
        if not self.tile_divisions or min(self.tile_divisions) < 1:
            raise ValueError(f"tile_divisions must be numbers >= 1, got {self.tile_divisions}")
        if not 0 <= self.tile_overlap < 1:
            raise ValueError(f"tile_overlap must be in [0, 1), got {self.tile_overlap}")
        if self.num_refinements < 1:
            raise ValueError(f"num_refinements must be at least 1, got {self.num_refinements}")


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """What the first network saw: N faces with the body's circle hung below each.

    Attributes:
        boxes: (N, 4) x0, y0, x1, y1 of the face.
        points: (N, 4, 2) hip centre, a point on the circle around the body, and the same two
            for the upper body.
        scores: (N,) in [0, 1].
    """

    boxes: np.ndarray
    points: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, index: np.ndarray) -> Proposals:
        """The proposals at `index` (any NumPy index)."""
        return Proposals(
            boxes=self.boxes[index], points=self.points[index], scores=self.scores[index]
        )

    def transformed(self, affine: np.ndarray) -> Proposals:
        """The proposals after a (2, 3) map that scales both axes alike and does not turn."""
        corners = apply_affine(affine, self.boxes.reshape(-1, 2, 2))
        return Proposals(
            boxes=corners.reshape(-1, 4),
            points=apply_affine(affine, self.points),
            scores=self.scores,
        )


def concatenate(parts: list[Proposals]) -> Proposals:
    """All proposals of a non-empty list, in order."""
    return Proposals(
        boxes=np.concatenate([p.boxes for p in parts]),
        points=np.concatenate([p.points for p in parts]),
        scores=np.concatenate([p.scores for p in parts]),
    )


@dataclass(frozen=True, kw_only=True)
class Region:
    """A square to crop, turned so that the person in it stands upright.

    Attributes:
        centre: (2,) picture position.
        side: pixels.
        angle: radians, clockwise on the screen; 0 where the person stands upright.
    """

    centre: np.ndarray
    side: float
    angle: float

    def to_crop(self, size: int) -> np.ndarray:
        """(2, 3) affine map from the picture to a crop of `size` x `size` pixels."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        linear = np.array([[cos, sin], [-sin, cos]]) * (size / self.side)
        return np.column_stack([linear, size / 2 - linear @ self.centre])


@dataclass(frozen=True, kw_only=True)
class Landmarks:
    """What the second network saw in one crop, or in a crop and its mirror image.

    Attributes:
        positions: (35, 2) the keypoints, the hip centre and the point on the circle.
        conf: (35,) in [0, 1], that the point is in the crop and not hidden.
        presence: in [0, 1], that the crop holds a person.
    """

    positions: np.ndarray
    conf: np.ndarray
    presence: float

    @property
    def region(self) -> Region | None:
        """The crop that the landmarks ask for; None if there is none."""
        return make_region(self.positions[HIP_CENTRE], self.positions[CIRCLE_POINT])

    @property
    def radius(self) -> float:
        """Pixels, of the circle around the whole body."""
        return float(np.hypot(*(self.positions[CIRCLE_POINT] - self.positions[HIP_CENTRE])))

    def transformed(self, affine: np.ndarray) -> Landmarks:
        """The landmarks after a (2, 3) affine map of their positions."""
        return replace(self, positions=apply_affine(affine, self.positions))

    def mirrored(self, width: float) -> Landmarks:
        """The landmarks of the mirror image of a crop of this width; left and right exchanged."""
        return Landmarks(
            positions=(self.positions * [-1.0, 1.0] + [width, 0.0])[_FLIP],
            conf=self.conf[_FLIP],
            presence=self.presence,
        )


_FLIP = np.append(keypoint_set("blazepose33").flip, [HIP_CENTRE, CIRCLE_POINT])


def apply_affine(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map (..., 2) points by a (2, 3) affine map."""
    return points @ affine[:, :2].T + affine[:, 2]


def invert_affine(affine: np.ndarray) -> np.ndarray:
    """The (2, 3) inverse of a (2, 3) affine map."""
    linear = np.linalg.inv(affine[:, :2])
    return np.column_stack([linear, -linear @ affine[:, 2]])


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function; the argument is clipped at +-80 so that float32 does not overflow."""
    return 1.0 / (1.0 + np.exp(-np.clip(x, -80.0, 80.0)))


def make_anchors() -> np.ndarray:
    """(2254, 2) anchor centres in [0, 1], in the order of the first network's outputs.

    The network predicts at strides 8, 16 and three times 32, two anchors each; layers of equal
    stride are interleaved cell by cell, so that a cell of stride 32 has six (MediaPipe,
    `SsdAnchorsCalculator` with the options of `pose_detection_cpu.pbtxt`).
    """
    parts = []
    for stride, per_cell in ((8, 2), (16, 2), (32, 6)):
        centres = (np.arange(DETECTION_SIZE // stride) + 0.5) * stride / DETECTION_SIZE
        grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
        parts.append(np.repeat(grid, per_cell, axis=0))
    return np.concatenate(parts)


def decode_proposals(
    raw: np.ndarray, logits: np.ndarray, anchors: np.ndarray, min_score: float
) -> Proposals:
    """Turn the first network's outputs into proposals, in pixels of its input.

    Args:
        raw: (A, 12) centre, width and height of the box, then four points; pixels, all but width
            and height relative to the anchor.
        logits: (A,) before the sigmoid.
        anchors: (A, 2) in [0, 1].
        min_score: lower scores are dropped.
    """
    scores = sigmoid(logits)
    kept = scores >= min_score
    raw, origin = raw[kept], anchors[kept] * DETECTION_SIZE
    centre, half_size = raw[:, :2] + origin, raw[:, 2:4] / 2
    return Proposals(
        boxes=np.concatenate([centre - half_size, centre + half_size], axis=1),
        points=raw[:, 4:].reshape(-1, 4, 2) + origin[:, None],
        scores=scores[kept],
    )


def box_overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N,) intersection over union of one (4,) box with (N, 4) boxes."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    intersection = np.prod(np.clip(high - low, 0.0, None), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    union = np.prod(box[2:] - box[:2]) + areas - intersection
    return intersection / np.maximum(union, np.finfo(np.float64).tiny)


def merge_proposals(proposals: Proposals, max_overlap: float) -> Proposals:
    """Weighted non-maximum suppression, best score first.

    Each group of boxes that overlap the best remaining one becomes its score-weighted mean, which
    is steadier than the best box alone (Bazarevsky et al., "BlazeFace", 2019, section 3.4).
    """
    remaining = proposals
    merged = []
    while len(remaining):
        best = int(np.argmax(remaining.scores))
        same = box_overlap(remaining.boxes[best], remaining.boxes) > max_overlap
        same[best] = True  # even where the box is empty and overlaps nothing
        group = remaining.select(same)
        weights = group.scores / group.scores.sum()
        merged.append(
            Proposals(
                boxes=(weights @ group.boxes)[None],
                points=np.einsum("n,nkd->kd", weights, group.points)[None],
                scores=remaining.scores[[best]],
            )
        )
        remaining = remaining.select(~same)
    return concatenate(merged) if merged else proposals


def make_region(hip_centre: np.ndarray, circle_point: np.ndarray) -> Region | None:
    """The crop for a person: hip centre, and the top of the circle around the whole body.

    Returns None where the two points coincide and no region exists.
    """
    offset = circle_point - hip_centre
    radius = float(np.hypot(*offset))
    if radius < 1.0:  # less than a pixel
        return None
    angle = float(np.arctan2(offset[0], -offset[1]))
    return Region(centre=hip_centre, side=2 * radius * REGION_MARGIN, angle=angle)


def landmark_agreement(one: Landmarks, other: Landmarks) -> np.ndarray:
    """(35,) in [0, 1], exp(-d^2 / 2 s^2) of the distance d between two landmarks.

    The form of COCO's object keypoint similarity, with one s for all: a tenth of the body's
    radius, about a hand's breadth. COCO's vary from a quarter (eyes) to the whole (hips) of that.
    """
    scale = max(0.1 * max(one.radius, other.radius), 1.0)
    distance = np.linalg.norm(one.positions - other.positions, axis=1)
    return np.exp(-0.5 * (distance / scale) ** 2)


def share_inside(person: Landmarks, other: Landmarks) -> float:
    """Share of the area of a person's box, around the keypoints, that lies in the other's."""
    low, high = person.positions[:NUM_KEYPOINTS].min(0), person.positions[:NUM_KEYPOINTS].max(0)
    around = other.positions[:NUM_KEYPOINTS]
    common = np.minimum(high, around.max(0)) - np.maximum(low, around.min(0))
    return float(np.prod(np.clip(common, 0, None)) / max(np.prod(high - low), 1e-9))


def landmark_similarity(one: Landmarks, other: Landmarks) -> float:
    """Mean agreement of the keypoints, each weighted by its confidence; in [0, 1]."""
    weights = (one.conf + other.conf)[:NUM_KEYPOINTS] + 1e-6
    agreement = landmark_agreement(one, other)[:NUM_KEYPOINTS]
    return float(weights @ agreement / weights.sum())


def circle_shift(circle: np.ndarray, person: Landmarks) -> float:
    """How far a proposed circle lies from a person's, in the person's radii.

    Args:
        circle: (2, 2) the hip centre and the point on the circle.
        person: landmarks in the same positions.
    """
    own = person.positions[[HIP_CENTRE, CIRCLE_POINT]]
    return float(np.linalg.norm(circle - own, axis=1).max() / max(person.radius, 1.0))


def combine_views(one: Landmarks, other: Landmarks) -> Landmarks:
    """The mean of what was seen in a crop and in its mirror image.

    Confidences and presence shrink where the views disagree, which tells wrong keypoints and
    people who are none better than the network's own confidence does (docs/detector.md).
    """
    return Landmarks(
        positions=(one.positions + other.positions) / 2,
        conf=(one.conf + other.conf) / 2 * landmark_agreement(one, other),
        presence=(one.presence + other.presence) / 2 * landmark_similarity(one, other),
    )


def tile_affines(width: int, height: int, config: BlazePoseConfig) -> list[np.ndarray]:
    """(2, 3) maps from the picture to the first network's input, one for each tile.

    Tiles are square. A side of the picture shorter than the tile is centred in it, which for the
    whole picture is MediaPipe's letterbox; a longer one is covered with equal steps.
    """
    affines = []
    for division in config.tile_divisions:
        side = max(width, height) / division
        scale = DETECTION_SIZE / side
        for y in _tile_starts(height, side, config.tile_overlap):
            for x in _tile_starts(width, side, config.tile_overlap):
                affines.append(np.array([[scale, 0, -x * scale], [0, scale, -y * scale]]))
    return affines


def _tile_starts(length: float, side: float, overlap: float) -> np.ndarray:
    """Where tiles of a side start on one axis of the picture; negative if it is shorter."""
    if length <= side:
        return np.array([(length - side) / 2])
    count = int(np.ceil((length - side) / (side * (1 - overlap)) - 1e-9)) + 1
    return np.linspace(0.0, length - side, count)


class ImagePyramid:
    """A picture at full size, a half, a quarter, ..., each made when first needed.

    Reducing a large picture to a small crop must average; sampling every tenth pixel would turn
    texture into noise.
    """

    def __init__(self, image: np.ndarray) -> None:
        self._levels = [image]

    def warp(self, to_crop: np.ndarray, size: int) -> np.ndarray:
        """(size, size, 3) crop under a (2, 3) map from picture to crop; black outside."""
        cv2 = import_cv2()
        reduction = 1.0 / np.sqrt(abs(np.linalg.det(to_crop[:, :2])))
        level = self._level(int(np.log2(max(reduction, 1.0))))
        # From this level to the picture: the shapes are rounded, so the axes scale apart.
        scale = np.array(self._levels[0].shape[1::-1]) / np.array(level.shape[1::-1])
        linear = to_crop[:, :2] * scale
        offset = to_crop[:, 2] + linear @ [0.5, 0.5] - 0.5  # corner to centre of the first pixel
        affine = np.column_stack([linear, offset])
        return cv2.warpAffine(level, affine, (size, size), flags=cv2.INTER_LINEAR)

    def _level(self, index: int) -> np.ndarray:
        cv2 = import_cv2()
        while len(self._levels) <= index:
            height, width = self._levels[-1].shape[:2]
            half = (max(width // 2, 1), max(height // 2, 1))
            self._levels.append(cv2.resize(self._levels[-1], half, interpolation=cv2.INTER_AREA))
        return self._levels[index]


class _Network:
    """One ONNX file in `cv2.dnn`."""

    def __init__(self, path: Path) -> None:
        self._net = import_cv2().dnn.readNetFromONNX(str(path))
        self._outputs = self._net.getUnconnectedOutLayersNames()

    def __call__(self, crop: np.ndarray) -> list[np.ndarray]:
        """The outputs for one (S, S, 3) float32 RGB crop, without their batch axis."""
        self._net.setInput(crop[None])
        return [output[0] for output in self._net.forward(self._outputs)]


class BlazePoseDetector:
    """Several people in a photograph, 33 keypoints each, on the CPU.

    One call runs at a time: `cv2.dnn` keeps its input and output in the network, so a lock guards
    it and threads wait for each other. Separate processes should load a detector each.
    """

    keypoint_set = "blazepose33"

    def __init__(self, config: BlazePoseConfig | None = None) -> None:
        self.config = config or BlazePoseConfig()
        self._anchors = make_anchors()
        self._detection = _Network(ASSETS / "pose_detection.onnx")
        self._landmark = _Network(ASSETS / "pose_landmark_full.onnx")
        self._lock = threading.Lock()

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """People in an (H, W, 3) uint8 RGB image, the largest first; an empty list if none.

        Raises:
            ValueError: the image has another shape or type.
        """
        check_image(image)
        pyramid = ImagePyramid(image)
        with self._lock:
            proposals = self._propose(pyramid, *image.shape[1::-1])
            people = self._find_people(pyramid, proposals)
        return largest_first([_to_detection(person, image) for person in people])

    def _propose(self, pyramid: ImagePyramid, width: int, height: int) -> Proposals:
        """Proposals from all tiles, in picture positions, the surest first."""
        parts = []
        for to_tile in tile_affines(width, height, self.config):
            tile = pyramid.warp(to_tile, DETECTION_SIZE)
            raw, logits = self._detection(tile.astype(np.float32) / 127.5 - 1.0)
            found = decode_proposals(
                raw, logits[:, 0], self._anchors, self.config.min_proposal_score
            )
            merged = merge_proposals(found, self.config.max_box_overlap)
            parts.append(merged.transformed(invert_affine(to_tile)))
        proposals = concatenate(parts)
        return proposals.select(np.argsort(-proposals.scores, kind="stable"))

    def _find_people(self, pyramid: ImagePyramid, proposals: Proposals) -> list[Landmarks]:
        """Each person once, however many proposals they have."""
        people: list[Landmarks] = []
        for circle in proposals.points[:, :2]:
            if any(circle_shift(circle, p) < self.config.min_circle_shift for p in people):
                continue  # most proposals are repeated by another tile; looking costs time
            rough = self._read_region(pyramid, make_region(*circle))
            if rough is not None and self._is_new(rough, people):
                person = self._refine(pyramid, rough)
                if person is not None and self._is_new(person, people):
                    people.append(person)
        return [p for p in people if not any(self._is_fragment(p, other) for other in people)]

    def _is_new(self, person: Landmarks, people: list[Landmarks]) -> bool:
        limit = self.config.max_similarity
        return all(landmark_similarity(person, other) <= limit for other in people)

    def _is_fragment(self, person: Landmarks, other: Landmarks) -> bool:
        surer = other.presence - person.presence >= self.config.min_fragment_gap
        return surer and share_inside(person, other) > self.config.max_inside

    def _refine(self, pyramid: ImagePyramid, person: Landmarks) -> Landmarks | None:
        """The person as seen in the region they ask for; None if there is none after all."""
        for _ in range(self.config.num_refinements - 1):
            better = self._read_region(pyramid, person.region)
            if better is None:
                return None
            person = better
        final = self._read_region(pyramid, person.region, twice=True)
        return final if final is not None and final.presence >= self.config.min_score else None

    def _read_region(
        self, pyramid: ImagePyramid, region: Region | None, *, twice: bool = False
    ) -> Landmarks | None:
        """Landmarks in picture positions, or None; read `twice` if also from the mirror image."""
        if region is None:
            return None
        to_crop = region.to_crop(LANDMARK_SIZE)
        crop = pyramid.warp(to_crop, LANDMARK_SIZE)
        seen = self._read_crop(crop)
        if seen.presence < self.config.min_presence:
            return None
        if twice:
            seen = combine_views(seen, self._read_crop(crop[:, ::-1]).mirrored(LANDMARK_SIZE))
        return seen.transformed(invert_affine(to_crop))

    def _read_crop(self, crop: np.ndarray) -> Landmarks:
        """Landmarks in positions of a (256, 256, 3) uint8 crop."""
        raw, presence, _ = self._landmark(crop.astype(np.float32) / 255.0)
        raw = raw.reshape(-1, 5)[:NUM_LANDMARKS].astype(np.float64)
        return Landmarks(  # columns: x, y, z, visibility, presence
            positions=raw[:, :2],
            conf=sigmoid(raw[:, 3]) * sigmoid(raw[:, 4]),
            presence=float(presence[0]),
        )


def _to_detection(person: Landmarks, image: np.ndarray) -> Detection:
    keypoints_2d = person.positions[:NUM_KEYPOINTS] - 0.5  # corner to centre of the first pixel
    conf = np.where(inside_picture(keypoints_2d, image), person.conf[:NUM_KEYPOINTS], 0.0)
    return Detection(keypoints_2d=keypoints_2d, conf=conf, score=person.presence)

"""Pictures of people whose truth is known, drawn as they are needed.

People, poses and cameras are those of `people.PeopleStream`; clothes, light, surroundings and
things in front are random. A batch is a pure function of seed and number, as in that stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, QhullError, cKDTree
from scipy.special import ndtri

from fitting.body import Body
from fitting.keypoints import map_keypoints
from fitting.opencv import import_cv2
from fitting.problem import BodyParams
from fitting.rasterizer import Light, vertex_normals
from fitting.skeleton import keypoint_set
from priors.mocap import MocapPoses

from .detection import DetectionConfig
from .drawing import NOBODY, Floats, Ints, Layer, Surface, draw_surfaces
from .people import CameraConfig, PeopleStream, PoseConfig, StreamConfig, SyntheticPeople
from .surroundings import cut_photo, dim, draw_surroundings
from .wardrobe import BOTTOM, Outfit, RestBody, draw_outfit, draw_pattern

BATCH = 32  # pictures posed together
LEAST_VISIBLE = 0.3  # share of keypoints; obstacles that leave less of the person are taken away
UNSEEN, HIDDEN, VISIBLE = range(3)  # COCO's visibility of a keypoint

_EXACT = DetectionConfig(exact=1, missing=0, wrong=0, cut=0, swapped=0)
_CAMERAS = CameraConfig(unknown_focal=0)


@dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """What pictures to draw.

    Attributes:
        size: width and height in pixels.
        crop: cut a square of the stream's picture around the first person, in place of showing all
            of it.
        people: largest number of people in a picture; each number is as likely.
        split: of the motion-capture subjects: "train", "validation" or "test".
        keypoint_set: name of the keypoints.
        occluded: share of pictures with something in front of the people.
        truncated: share of crops that cut the person off.
        looseness: of clothes and hair; at 0 the outline is the bare body's.
        poses, cameras: of the stream.
        backgrounds: photographs in place of drawn surroundings.
    """

    size: tuple[int, int] = (224, 224)
    crop: bool = True
    people: int = 1
    split: str = "train"
    keypoint_set: str = "coco17"
    occluded: float = 0.3
    truncated: float = 0.15
    looseness: float = 1.0
    poses: PoseConfig = field(default_factory=PoseConfig)
    cameras: CameraConfig = _CAMERAS
    backgrounds: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if min(self.size) < 16:
            raise ValueError(f"size must be at least 16 x 16 pixels, got {self.size}")
        if self.crop and self.size[0] != self.size[1]:
            raise ValueError(f"crops are square, got {self.size}")
        if self.people < 1:
            raise ValueError(f"people must be at least 1, got {self.people}")
        for name in ("occluded", "truncated"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share in [0, 1], got {getattr(self, name)}")
        if self.cameras.unknown_focal > 0:
            raise ValueError("pictures need true cameras: unknown_focal must be 0")

    @property
    def stream(self) -> StreamConfig:
        """The people before the camera."""
        return StreamConfig(
            split=self.split,
            keypoint_sets={self.keypoint_set: 1.0},
            poses=self.poses,
            cameras=self.cameras,
            detection=_EXACT,
        )


@dataclass(frozen=True, kw_only=True)
class RenderedPerson:
    """One person in a picture; camera frame, metres and pixels.

    Attributes:
        global_orient, body_pose, betas, transl: (3,), (69,), (10,), (3,) as SMPL has them.
        keypoints_2d: (P, 2) pixels of all keypoints, within the picture or not.
        visibility: (P,) `UNSEEN` outside of the picture, `HIDDEN` behind something, `VISIBLE`.
    """

    global_orient: Floats
    body_pose: Floats
    betas: Floats
    transl: Floats
    keypoints_2d: Floats
    visibility: Ints


@dataclass(frozen=True, kw_only=True)
class RenderedPicture:
    """A picture and its truth.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        intrinsics: (3, 3) pixels of this picture; a crop's centre is not that of its optics.
        parts: (H, W) uint8, 1 + index in SMPL's tree of the joint that moves what is seen at the
            pixel's centre most, clothes counting as what they cover; 0 where nobody is seen.
        owner: (H, W) int16 index into `people`, `NOBODY` where nobody is seen.
        people: those of whom at least one pixel is seen.
    """

    image: NDArray[np.uint8]
    intrinsics: Floats
    parts: NDArray[np.uint8]
    owner: NDArray[np.int16]
    people: tuple[RenderedPerson, ...]


@dataclass(frozen=True, kw_only=True)
class _Cast:
    """Those before the camera in one picture, N of them, the first one meant."""

    vertices: Floats  # (N, V, 3)
    normals: Floats  # (N, V, 3)
    keypoints: Floats  # (N, P, 3)
    params: tuple[Floats, ...]  # global_orient, body_pose, betas, transl, (N, ...) each
    intrinsics: Floats  # (3, 3)
    image_size: Floats  # (2,)

    def moved(self, shift: Floats) -> _Cast:
        """Everyone moved by (N, 3) metres."""
        *turned, transl = self.params
        return replace(
            self,
            vertices=self.vertices + shift[:, None],
            keypoints=self.keypoints + shift[:, None],
            params=(*turned, transl + shift),
        )


class PictureStream:
    """Batches of `BATCH` pictures, by number."""

    def __init__(self, body: Body, poses: MocapPoses, config: PictureConfig, *, seed: int) -> None:
        """Prepare pictures of `body`, a single-precision one on the CPU.

        Raises:
            ValueError: no pose is of the split, or the body has no point of the keypoint set.
        """
        self.body, self.config, self.seed = body, config, seed
        self.stream = PeopleStream(body, poses, config.stream, seed=seed)
        self.rest = RestBody.of(body)
        self.faces = _close(body.faces.numpy())
        parts = body.part_labels.numpy()
        # The median of three labels is the one that two corners share, or else one of the three.
        self.face_parts = (1 + np.median(parts[self.faces], axis=1)).astype(np.uint8)
        self.vertex_parts = parts
        self.flesh = _flesh(body, config.keypoint_set)

    def pictures(self, number: int, count: int = BATCH) -> list[RenderedPicture]:
        """The first `count` pictures of the batch with this number."""
        people = self.stream.people(number, BATCH * self.config.people)
        with torch.no_grad():
            posed = self.body.pose(people.pose_rotmat, people.betas, people.transl)
        vertices, params = posed.vertices.numpy(), people.params
        return [
            self._draw(self._gather(people, params, vertices, i * self.config.people, rng), rng)
            for i, rng in zip(range(count), self._generators(number), strict=False)
        ]

    def _generators(self, number: int) -> list[np.random.Generator]:
        """One for each picture; the stream of people uses (seed, number) itself."""
        seeds = np.random.SeedSequence((self.seed, number, 1)).spawn(BATCH)
        return [np.random.default_rng(seed) for seed in seeds]

    def _gather(
        self,
        people: SyntheticPeople,
        params: BodyParams,
        vertices: Floats,
        first: int,
        rng: np.random.Generator,
    ) -> _Cast:
        """Some of the `config.people` people from row `first` on, together in one scene."""
        rows = np.arange(first, first + rng.integers(1, self.config.people + 1))
        normals = np.stack([vertex_normals(vertices[row], self.faces) for row in rows])
        cast = _Cast(
            vertices=vertices[rows],
            normals=normals.astype(np.float32),
            keypoints=people.keypoints_3d[rows].numpy(),
            params=tuple(
                value[rows].numpy()
                for value in (params.global_orient, params.body_pose, params.betas, params.transl)
            ),
            intrinsics=people.problem.intrinsics[first].numpy().astype(np.float64),
            image_size=people.problem.image_size[first].numpy(),
        )
        return cast if len(rows) == 1 else cast.moved(_stand_together(cast, rng))

    def _draw(self, cast: _Cast, rng: np.random.Generator) -> RenderedPicture:
        config, rest = self.config, self.rest
        outfits = [
            draw_outfit(rest, rng, looseness=config.looseness) for _ in range(len(cast.vertices))
        ]
        surfaces = [
            surface
            for i, outfit in enumerate(outfits)
            for surface in self._dress(cast.vertices[i], cast.normals[i], outfit, i)
        ]
        K = self._view(surfaces[0].vertices, cast, rng)
        boxes = [_bounds(vertices, K) for vertices in cast.vertices]
        light, tint = _draw_light(rng)
        obstacles: list[Surface] = []
        if rng.random() < config.occluded:
            nearest = float(cast.vertices[..., 2].min())
            obstacles = _draw_obstacles(boxes[0], nearest, K, rng)
        layer = draw_surfaces([*surfaces, *obstacles], K, config.size, light, tint=tint)
        if obstacles and _hides_too_much(layer, cast.keypoints[0], K, self.flesh):
            layer = draw_surfaces(surfaces, K, config.size, light, tint=tint)
        behind = self._draw_behind(boxes, rng)
        image = _develop(layer.over(behind), rng)
        return self._with_truth(image, layer, cast, K)

    def _dress(
        self, vertices: Floats, normals: Floats, outfit: Outfit, owner: int
    ) -> list[Surface]:
        """A person's surfaces: skin and clothes, and perhaps a skirt."""
        points = self.rest.points
        layers = outfit.layers(points, self.rest)
        clothed = vertices + outfit.thickness.astype(np.float32)[layers, None] * normals
        worn = Surface(
            vertices=clothed,
            faces=self.faces,
            texture=points,
            normals=normals,
            labels=self.face_parts,
            owner=owner,
            paint=lambda seen: outfit.paint(seen, self.rest),
        )
        if outfit.hem is None:
            return [worn]
        covered = (layers == BOTTOM) | ((points[:, 1] > outfit.hem) & (points[:, 1] < outfit.waist))
        covered &= np.abs(points[:, 0]) < 0.3
        return [worn, *self._hang_skirt(np.flatnonzero(covered), clothed, outfit, owner)]

    def _hang_skirt(self, rows: Ints, clothed: Floats, outfit: Outfit, owner: int) -> list[Surface]:
        """Cloth around everything that it covers, tight as a drum: the convex hull."""
        points = clothed[rows]
        try:
            hull = ConvexHull(points)
        except QhullError:  # of a body without legs between waist and hem
            return []
        corners = points[hull.simplices]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        inwards = (normals * hull.equations[:, :3]).sum(axis=1) < 0
        faces = np.where(inwards[:, None], hull.simplices[:, ::-1], hull.simplices)
        parts = np.median(self.vertex_parts[rows][faces], axis=1)
        surface = Surface(
            vertices=points,
            faces=faces,
            texture=self.rest.points[rows],
            normals=vertex_normals(points, faces),
            labels=(1 + parts).astype(np.uint8),
            owner=owner,
            paint=outfit.bottom.paint,
        )
        return [surface]

    def _view(self, vertices: Floats, cast: _Cast, rng: np.random.Generator) -> Floats:
        """Intrinsics (3, 3) of the picture: all that the stream's camera saw, or a crop of it."""
        width, height = self.config.size
        if not self.config.crop:
            # pixels stay square, so what does not fit is cut off
            scale = float((np.array([width, height]) / cast.image_size).max())
            return _zoom(scale, (cast.image_size - 1) / 2, self.config.size) @ cast.intrinsics
        low, high = _bounds(vertices, cast.intrinsics)
        side = (high - low).max() * rng.uniform(1.05, 1.4)
        middle = (low + high) / 2 + rng.uniform(-0.06, 0.06, 2) * side
        if rng.random() < self.config.truncated:
            side *= rng.uniform(0.4, 0.8)
            middle = middle + rng.uniform(-0.3, 0.3, 2) * (high - low)
        return _zoom(width / side, middle, self.config.size) @ cast.intrinsics

    def _draw_behind(self, boxes: Sequence[Floats], rng: np.random.Generator) -> Floats:
        """The background, with a shadow at the feet."""
        if self.config.backgrounds:
            return cut_photo(self.config.backgrounds, self.config.size, rng)
        low, high = boxes[0]
        floor_row = high[1] - rng.uniform(0.03, 0.4) * (high[1] - low[1])
        picture = draw_surroundings(self.config.size, floor_row, rng)
        dark = np.float32(rng.uniform(0.2, 0.6)) * _shadows(boxes, self.config.size)
        return dim(picture, 1 - dark)

    def _with_truth(
        self, image: NDArray[np.uint8], layer: Layer, cast: _Cast, K: Floats
    ) -> RenderedPicture:
        """The picture with those of whom something is seen."""
        seen = [i for i in range(len(cast.vertices)) if (layer.owner == i).any()]
        numbers = np.full(len(cast.vertices) + 1, NOBODY, np.int16)
        numbers[seen] = np.arange(len(seen))
        people = [
            RenderedPerson(
                **dict(
                    zip(
                        ("global_orient", "body_pose", "betas", "transl"),
                        (value[i] for value in cast.params),
                        strict=True,
                    )
                ),
                keypoints_2d=_project(cast.keypoints[i], K),
                visibility=_look(cast.keypoints[i], K, layer.depth, self.flesh),
            )
            for i in seen
        ]
        return RenderedPicture(
            image=image,
            intrinsics=K,
            parts=layer.labels,
            owner=numbers[layer.owner],  # NOBODY is -1: the last entry
            people=tuple(people),
        )


def _close(faces: Ints) -> Ints:
    """Faces (F + G, 3) with holes covered: one would look through eyes and mouth otherwise.

    Each hole is covered by a fan around one of its corners.
    """
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    size = int(faces.max()) + 1
    is_open = ~np.isin(edges[:, 0] * size + edges[:, 1], edges[:, 1] * size + edges[:, 0])
    start, end = edges[is_open].T
    graph = coo_array((np.ones(len(start)), (start, end)), shape=(size, size))
    _, hole = connected_components(graph, directed=False)
    _, first, number = np.unique(hole[start], return_index=True, return_inverse=True)
    hub = start[first][number]
    fan = np.stack([end, start, hub], axis=1)[(start != hub) & (end != hub)]
    return np.concatenate([faces, fan])


def _flesh(body: Body, name: str) -> Floats:
    """(P,) metres: what is seen at a keypoint's pixel may lie this much before it and be its own.

    A joint lies inside the body, so the skin before it does not hide it; an arm before it does.
    """
    rest = body(torch.zeros(1, 3), torch.zeros(1, 69), torch.zeros(1, 10))
    keypoints = map_keypoints(body, keypoint_set(name))(rest)[0].detach().numpy()
    nearest, _ = cKDTree(rest.vertices[0].detach().numpy()).query(keypoints)
    return 0.045 + 1.6 * nearest


def _look(keypoints: Floats, K: Floats, depth: Floats, flesh: Floats) -> Ints:
    """(P,) visibility of keypoints (P, 3) by the depth (H, W) of what is seen."""
    pixels = np.rint(_project(keypoints, K))
    height, width = depth.shape
    inside = ((pixels >= 0) & (pixels < (width, height))).all(axis=1) & (keypoints[:, 2] > 0)
    column, row = np.where(inside[:, None], pixels, 0).astype(int).T
    hidden = depth[row, column] < keypoints[:, 2] - flesh
    return np.where(inside, np.where(hidden, HIDDEN, VISIBLE), UNSEEN)


def _hides_too_much(layer: Layer, keypoints: Floats, K: Floats, flesh: Floats) -> bool:
    """Whether most of the keypoints (P, 3) within the picture are behind something."""
    visibility = _look(keypoints, K, layer.depth, flesh)
    return (visibility == VISIBLE).sum() < LEAST_VISIBLE * (visibility != UNSEEN).sum()


def _stand_together(cast: _Cast, rng: np.random.Generator) -> Floats:
    """(N, 3) metres that bring all others near the first, on the same floor."""
    transl = cast.params[3]
    low, high = _bounds(cast.vertices[0], cast.intrinsics)
    target = transl.copy()
    for i in range(1, len(transl)):
        depth = transl[0, 2] * rng.uniform(0.8, 1.6)
        aside = rng.choice([-1, 1]) * rng.uniform(0.2, 0.9) * (high[1] - low[1])
        column = (low[0] + high[0]) / 2 + aside
        target[i, 0] = (column - cast.intrinsics[0, 2]) * depth / cast.intrinsics[0, 0]
        feet = cast.vertices[:, :, 1].max(axis=1) - transl[:, 1]  # below the root, y down
        target[i, 1] = transl[0, 1] + feet[0] - feet[i]
        target[i, 2] = depth
    return target - transl


def _draw_obstacles(
    box: Floats, nearest: float, K: Floats, rng: np.random.Generator
) -> list[Surface]:
    """One or two blocks, posts or slabs that cover parts of a person's box (2, 2), pixels."""
    extent = (box[1] - box[0]).max()
    surfaces = []
    for _ in range(rng.integers(1, 3)):
        depth = nearest * rng.uniform(0.6, 0.9)
        column, row = rng.uniform(box[0], box[1])
        half = extent * rng.uniform(0.04, 0.18, 3)
        shape = rng.integers(3)
        if shape == 1:  # a post
            half *= (0.5, 6, 0.5)
        elif shape == 2:  # the edge of a table
            half[0] *= 5
            row = box[1, 1] - rng.uniform(0, 0.3) * extent
        middle = np.linalg.inv(K) @ [column, row, 1.0] * depth
        turn = _small_turn(rng, 0.1 if shape else 1.0)
        surfaces.append(_make_block(middle, half * depth / K[0, 0], turn, rng))
    return surfaces


def _make_block(middle: Floats, half: Floats, turn: Floats, rng: np.random.Generator) -> Surface:
    """A block with edges of twice `half` (3,) metres."""
    local, faces = _unit_block()
    vertices = middle + (local * half) @ turn.T
    cloth = draw_pattern(rng)
    return Surface(
        vertices=vertices,
        faces=faces,
        texture=(local * half).astype(np.float32),
        normals=vertex_normals(vertices, faces),
        labels=np.zeros(len(faces), np.uint8),
        owner=NOBODY,
        paint=cloth.paint,
    )


def _unit_block() -> tuple[Floats, Ints]:
    """Vertices (24, 3) of the cube from -1 to 1, each side with its own, and faces (12, 3)."""
    vertices: list[Floats] = []
    faces: list[tuple[int, int, int]] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal = sign * np.eye(3)[axis]
            across, along = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3] * sign
            first = len(vertices)
            vertices += [
                normal + a * across + b * along for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
            ]
            faces += [(first, first + 1, first + 2), (first, first + 2, first + 3)]
    return np.array(vertices), np.array(faces)


def _small_turn(rng: np.random.Generator, angle: float) -> Floats:
    """(3, 3) rotation by about `angle` radians."""
    return import_cv2().Rodrigues(rng.normal(0, angle, 3))[0]


def _draw_light(rng: np.random.Generator) -> tuple[Light, Floats]:
    """A lamp, mostly above and before the person, and the colour of its light."""
    direction = rng.normal((0, -0.8, -0.6), (0.8, 0.4, 0.6))
    warmth = rng.normal(0, 0.06)
    tint = rng.uniform(0.85, 1.25) * np.array([1 + warmth, 1, 1 - warmth])
    x, y, z = direction.tolist()
    return Light(direction=(x, y, z), ambient=float(rng.uniform(0.15, 0.55))), tint


def _shadows(boxes: Sequence[Floats], size: tuple[int, int]) -> Floats:
    """(H, W) how dark the floor is under people's boxes, in [0, 1]."""
    cv2 = import_cv2()
    shade = np.zeros((size[1] // 4 + 1, size[0] // 4 + 1), np.float32)  # soft: a coarse one does
    for low, high in boxes:
        middle = np.clip([(low[0] + high[0]) / 2, high[1]], -9999, 9999) / 4
        across, along = np.array([0.4, 0.06]) * (high - low).max() / 4
        axes = (max(1, round(across)), max(1, round(along)))
        cv2.ellipse(shade, np.rint(middle).astype(int).tolist(), axes, 0, 0, 360, 1.0, -1)
    soft = cv2.GaussianBlur(shade, (0, 0), max(1.0, 0.012 * max(size)))
    return cv2.resize(soft, size)


def _develop(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A lens and a sensor: exposure, white balance, contrast, softness and grain."""
    cv2 = import_cv2()
    gain = rng.uniform(0.85, 1.35) * (1 + rng.normal(0, 0.04, 3))
    contrast = rng.uniform(0.8, 1.15)
    response = 255 * np.column_stack([np.diag(contrast * gain), np.full(3, 0.5 * (1 - contrast))])
    image = cv2.transform(picture, response.astype(np.float32))
    softness = rng.uniform(-0.8, 1.0) * min(picture.shape[:2]) / 224
    if softness > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), softness)
    grain = _draw_grain(image.shape, 255 * rng.uniform(0, 0.03), rng)
    return cv2.add(image, grain, dtype=cv2.CV_8U)  # rounded and clipped


def _draw_grain(
    shape: tuple[int, ...], deviation: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Normal noise of as many levels as a byte has: ten times faster than exact numbers."""
    raw = np.frombuffer(rng.bytes(math.prod(shape)), np.uint8).reshape(shape[0], -1)
    levels = ndtri((np.arange(256) + 0.5) / 256)
    return import_cv2().LUT(raw, (deviation * levels).astype(np.float32)).reshape(shape)


def _zoom(scale: float, middle: Floats, size: tuple[int, int]) -> Floats:
    """(3, 3) pixels to pixels, `middle` to the middle of a picture of `size`."""
    shift = (np.array(size) - 1) / 2 - scale * np.asarray(middle)
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])


def _project(points: Floats, K: Floats) -> Floats:
    """(N, 2) pixels of points (N, 3) before the camera."""
    homogeneous = points @ K.T
    return homogeneous[:, :2] / np.maximum(homogeneous[:, 2:], 1e-6)


def _bounds(points: Floats, K: Floats) -> Floats:
    """(2, 2) lowest and highest x and y of the pictures of points (N, 3) before the camera."""
    homogeneous = K @ points.T
    pixels = homogeneous[:2] / np.maximum(homogeneous[2], 1e-6)
    return np.stack([pixels.min(axis=1), pixels.max(axis=1)])

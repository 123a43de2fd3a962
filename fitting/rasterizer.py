"""Drawing triangle meshes through a full pinhole camera, on the processor, with OpenCV.

`cv2.triangleRasterize` knows only a vertical field of view, OpenGL's axes and pixel centres at
+0.5. This module hides all three: callers speak `intrinsics` in pixels, the camera frame (x right,
y down, z forward, metres) and pixel (0, 0) at the centre of the first pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .opencv import import_cv2

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.integer]

MIN_DEPTH = 1e-2  # metres; triangles reaching nearer than this are left out
MAX_BUFFER_PIXELS = 16_000_000  # supersampled pixels held at once: 256 MB of colour and depth
NO_LABEL = -1


@dataclass(frozen=True, kw_only=True)
class Light:
    """One distant lamp and light from all around."""

    direction: tuple[float, float, float] = (-0.35, -0.75, -1.0)  # camera frame, towards the lamp
    ambient: float = 0.2  # brightness of a surface turned away from the lamp; 1 is unshaded

    def __post_init__(self) -> None:
        if not np.linalg.norm(self.direction) > 0:
            raise ValueError(f"light direction must not be zero, got {self.direction}")
        if not 0 <= self.ambient <= 1:
            raise ValueError(f"ambient light must be within [0, 1], got {self.ambient}")


DEFAULT_LIGHT = Light()
DEFAULT_COLOR = (0.66, 0.78, 0.96)


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """A drawn picture.

    Attributes:
        color: (H, W, 3) uint8 RGB, blended with the background at the outline.
        depth: (H, W) float32 metres along the optical axis, inf outside `mask`.
        mask: (H, W) bool, where the mesh covers at least half of the pixel.
        coverage: (H, W) float32 in [0, 1], the covered share of each pixel.
    """

    color: NDArray[np.uint8]
    depth: NDArray[np.float32]
    mask: NDArray[np.bool_]
    coverage: NDArray[np.float32]


@dataclass(frozen=True)
class _Window:
    """The part of a picture that is drawn: columns x0 to x1 and rows y0 to y1, ends excluded."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


def render_mesh(
    vertices: ArrayLike,
    faces: ArrayLike,
    intrinsics: ArrayLike,
    image_size: tuple[int, int],
    *,
    colors: ArrayLike = DEFAULT_COLOR,
    background: ArrayLike | None = None,
    light: Light = DEFAULT_LIGHT,
    supersample: int = 2,
) -> Rendering:
    """Draw one or several people, smoothly shaded, nearer surfaces hiding farther ones.

    Only the meshes' bounding box is rasterised, so a small person in a large picture costs little.

    Args:
        vertices: (V, 3), or (N, V, 3) for N people; metres in the camera frame.
        faces: (F, 3) vertex indices, shared by all people, counter-clockwise seen from outside.
        intrinsics: (3, 3) pixels; fx, fy, cx, cy and skew are all honoured.
        image_size: width and height in pixels.
        colors: RGB in [0, 1] that broadcasts to (N, V, 3): (3,) for all, (V, 3) per vertex,
            (N, 1, 3) per person.
        background: RGB from 0 to 255, a colour (3,) or a uint8 picture (H, W, 3); black if none.
        light: where the light comes from.
        supersample: samples per pixel and axis; lowered for very large pictures to bound memory.

    Returns:
        The picture. Triangles that reach behind the camera, or nearer than `MIN_DEPTH`, are left
        out: projecting them would smear them across the picture.

    Raises:
        ValueError: an argument has the wrong shape, or vertices are not finite.
    """
    if supersample < 1:
        raise ValueError(f"supersample must be at least 1, got {supersample}")
    points = _check_vertices(vertices)
    people = points if points.ndim == 3 else points[None]
    triangles = _check_faces(faces, people.shape[1])
    tints = _check_colors(colors, people.shape)
    lit = [
        _shade(person, triangles, tint, light) for person, tint in zip(people, tints, strict=True)
    ]
    first_vertex = np.arange(len(people))[:, None, None] * people.shape[1]
    samples, depth, window = _rasterize(
        people.reshape(-1, 3),
        (triangles + first_vertex).reshape(-1, 3),
        np.reshape(lit, (-1, 3)),
        _check_intrinsics(intrinsics),
        image_size,
        supersample=supersample,
    )
    return _shrink(samples, depth, window, _as_background(background, image_size))


def render_labels(
    vertices: ArrayLike,
    faces: ArrayLike,
    labels: ArrayLike,
    intrinsics: ArrayLike,
    image_size: tuple[int, int],
) -> NDArray[np.int64]:
    """Draw a label per vertex, never mixing two of them.

    Args:
        vertices: (V, 3) metres in the camera frame.
        faces: (F, 3) vertex indices.
        labels: (V,) integers. A triangle takes the label of most of its corners.
        intrinsics: (3, 3) pixels.
        image_size: width and height in pixels.

    Returns:
        (H, W) the label at each pixel's centre, `NO_LABEL` (-1) where nothing is drawn.

    Raises:
        ValueError: an argument has the wrong shape or type.
    """
    points = _check_vertices(vertices, num_axes=2)
    triangles = _check_faces(faces, len(points))
    values = np.asarray(labels)
    if values.shape != (len(points),) or values.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be ({len(points)},) integers, one per vertex, "
            f"got {values.shape} of {values.dtype}"
        )
    # The median of three labels is the one that two corners share, or else one of the three.
    face_labels = np.median(values[triangles], axis=1).astype(np.int64)
    face_ids = render_face_ids(points, triangles, intrinsics, image_size)
    return np.where(face_ids >= 0, face_labels[face_ids], NO_LABEL)


def render_face_ids(
    vertices: ArrayLike, faces: ArrayLike, intrinsics: ArrayLike, image_size: tuple[int, int]
) -> NDArray[np.int32]:
    """Which triangle is seen at each pixel's centre.

    Args:
        vertices: (V, 3) metres in the camera frame.
        faces: (F, 3) vertex indices, at most 2**24 triangles.
        intrinsics: (3, 3) pixels.
        image_size: width and height in pixels.

    Returns:
        (H, W) row of `faces`, -1 where nothing is drawn.
    """
    points = _check_vertices(vertices, num_axes=2)
    triangles = _check_faces(faces, len(points))
    rows = np.flatnonzero(_is_before_camera(points, triangles))
    triangles = np.take(triangles, rows, axis=0)
    homogeneous = points @ _check_intrinsics(intrinsics).T  # (u z, v z, z)
    window = _find_window(homogeneous, triangles, image_size)
    width, height = image_size
    picture = np.full((height, width), -1, np.int32)
    if 0 in window.shape:
        return picture
    # Flat shading takes the colour of a triangle's first corner, so corners must not be shared.
    # Multiples of 2**-24 between -1 and 1 are exact in float32.
    colors = np.zeros((len(rows), 3, 3), np.float32)
    colors[:, 0] = rows[:, None] * 2.0**-24
    positions = np.take(_to_opengl(homogeneous, window, 1), triangles, axis=0)
    samples, _, _ = _draw_triangles(
        positions.reshape(-1, 3),
        np.arange(3 * len(rows), dtype=np.int32).reshape(-1, 3),
        colors.reshape(-1, 3),
        np.full((*window.shape, 3), -(2.0**-24), np.float32),
        flat=True,
    )
    picture[window.slices] = import_cv2().extractChannel(samples, 0) * 2.0**24
    return picture


def vertex_normals(vertices: FloatArray, faces: IntArray) -> FloatArray:
    """Unit normals (V, 3), the mean of the adjoining triangles' normals weighted by their area."""
    # One array for each coordinate: several times faster than np.cross on rows of three.
    coordinates = np.ascontiguousarray(vertices.T)
    a, b, c = (np.take(coordinates, corner, axis=1) for corner in np.asarray(faces).T)
    (ux, uy, uz), (vx, vy, vz) = b - a, c - a
    normals = (uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx)
    summed = np.zeros((len(vertices), 3))
    for corner in np.asarray(faces).T:
        for axis, normal in enumerate(normals):
            summed[:, axis] += np.bincount(corner, normal, minlength=len(vertices))
    length = np.sqrt(np.einsum("vi,vi->v", summed, summed))[:, None]  # faster than norm(axis=1)
    return summed / np.maximum(length, np.finfo(np.float64).tiny)


def shade_normals(normals: FloatArray, light: Light) -> FloatArray:
    """Brightness (...) of surfaces with unit normals (..., 3), between `light.ambient` and 1.

    Half-Lambert shading keeps form visible on the side without light.
    """
    towards = np.asarray(light.direction) / np.linalg.norm(light.direction)
    lambert = np.maximum(0.5 + 0.5 * normals @ towards.astype(normals.dtype), 0)
    return light.ambient + (1 - light.ambient) * lambert * np.sqrt(lambert)  # lambert ** 1.5


def _shade(vertices: FloatArray, faces: IntArray, color: FloatArray, light: Light) -> FloatArray:
    """Lit colours (V, 3)."""
    brightness = shade_normals(vertex_normals(vertices, faces), light)
    return np.clip(color * brightness[:, None], 0, 1)


def _rasterize(
    vertices: FloatArray,
    faces: IntArray,
    colors: FloatArray,
    intrinsics: FloatArray,
    image_size: tuple[int, int],
    *,
    supersample: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32], _Window]:
    """Colours (h s, w s, 3) and depth (h s, w s), inf where empty, of the window that is drawn.

    s is `supersample`, or less where the window would exceed `MAX_BUFFER_PIXELS`.
    """
    faces = faces[_is_before_camera(vertices, faces)]
    homogeneous = vertices @ intrinsics.T  # (u z, v z, z)
    window = _find_window(homogeneous, faces, image_size)
    height, width = window.shape
    supersample = min(supersample, max(1, math.isqrt(MAX_BUFFER_PIXELS // max(1, height * width))))
    samples = np.zeros((height * supersample, width * supersample, 3), np.float32)
    if samples.size == 0:
        return samples, np.full(samples.shape[:2], np.inf, np.float32), window
    positions = _to_opengl(homogeneous, window, supersample)
    samples, depth, far = _draw_triangles(positions, faces, colors, samples, flat=False)
    # OpenCV rounds the depth of empty pixels, so "empty" is tested half-way to the far plane.
    return samples, np.where(depth < 0.75 * far, depth, np.float32(np.inf)), window


def _is_before_camera(vertices: FloatArray, faces: IntArray) -> NDArray[np.bool_]:
    """(F,) whether no corner of a triangle (F, 3) is nearer than `MIN_DEPTH`; camera frame."""
    is_far = vertices[:, 2] >= MIN_DEPTH
    if is_far.all():
        return np.ones(len(faces), bool)
    a, b, c = (np.take(is_far, corner) for corner in faces.T)
    return a & b & c


def _draw_triangles(
    positions: FloatArray,
    faces: IntArray,
    colors: FloatArray,
    canvas: NDArray[np.float32],
    *,
    flat: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Colours (h, w, 3) on a `canvas` of that shape, depth (h, w), and the depth of empty pixels.

    Positions (V, 3) are those of `_to_opengl`; colours (V, 3) are interpolated, or that of each
    triangle's first corner if `flat`.
    """
    cv2 = import_cv2()
    depths = -np.take(positions[:, 2], faces)
    far = 2 * float(depths.max())
    settings = cv2.TriangleRasterizeSettings()
    settings.setCullingMode(cv2.RASTERIZE_CULLING_NONE)
    settings.setShadingType(cv2.RASTERIZE_SHADING_FLAT if flat else cv2.RASTERIZE_SHADING_SHADED)
    samples, depth = cv2.triangleRasterize(
        positions.astype(np.float32),
        faces.astype(np.int32),
        colors.astype(np.float32),
        canvas,
        np.full(canvas.shape[:2], far, np.float32),
        np.eye(4, dtype=np.float32),
        math.pi / 2,
        0.9 * float(depths.min()),
        far,
        settings,
    )
    return samples, depth, far


def _find_window(homogeneous: FloatArray, faces: IntArray, image_size: tuple[int, int]) -> _Window:
    """The pixels within the bounding box of the projected triangles, clipped to the picture."""
    if not len(faces):
        return _Window(0, 0, 0, 0)
    is_used = np.zeros(len(homogeneous), bool)  # np.unique would take as long as drawing
    is_used[faces] = True
    used = homogeneous[is_used].T.copy()  # rows of coordinates: least and largest are found faster
    pixels = used[:2] / used[2]
    limits = np.asarray(image_size)
    low = np.clip(np.floor(pixels.min(axis=1) - 0.5), 0, limits).astype(int)
    high = np.clip(np.ceil(pixels.max(axis=1) + 1.5), low, limits).astype(int)
    return _Window(int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _to_opengl(homogeneous: FloatArray, window: _Window, supersample: int) -> FloatArray:
    """Positions (V, 3) that OpenCV's camera of 90 degrees projects where the intrinsics do.

    That camera draws (X, Y, -z) at column w/2 + h/2 X/z and row h/2 - h/2 Y/z, counted from the
    corner of the first pixel. Solving for X and Y takes in the focal lengths, the principal point,
    the window's origin, the half pixel and the supersampling in one linear map of (u z, v z, z).
    """
    height, width = window.shape
    depth = homogeneous[:, 2]
    columns = supersample * (homogeneous[:, 0] + (0.5 - window.x0) * depth)
    rows = supersample * (homogeneous[:, 1] + (0.5 - window.y0) * depth)
    half_width, half_height = supersample * width / 2, supersample * height / 2
    return np.stack(
        [
            (columns - half_width * depth) / half_height,
            (half_height * depth - rows) / half_height,
            -depth,
        ],
        axis=1,
    )


def _shrink(
    samples: NDArray[np.float32],
    depth: NDArray[np.float32],
    window: _Window,
    background: NDArray[np.uint8],
) -> Rendering:
    """Average the samples of each pixel over the background; depth is the nearest sample's."""
    picture = Rendering(
        color=background,
        depth=np.full(background.shape[:2], np.inf, np.float32),
        mask=np.zeros(background.shape[:2], bool),
        coverage=np.zeros(background.shape[:2], np.float32),
    )
    height, width = window.shape
    if height * width == 0:
        return picture
    cv2 = import_cv2()
    step = depth.shape[0] // height
    size = (width, height)
    covered = np.isfinite(depth)
    coverage = cv2.resize(covered.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    shaded = cv2.resize(samples, size, interpolation=cv2.INTER_AREA)  # black where empty
    nearest = depth.reshape(height, step, width, step).min(axis=(1, 3))
    behind = background[window.slices] * (1 - coverage[..., None])
    mask = coverage >= 0.5
    picture.color[window.slices] = np.rint(255 * shaded + behind).astype(np.uint8)
    picture.depth[window.slices] = np.where(mask, nearest, np.inf)
    picture.mask[window.slices] = mask
    picture.coverage[window.slices] = coverage
    return picture


def _check_vertices(vertices: ArrayLike, *, num_axes: int | None = None) -> FloatArray:
    array = np.asarray(vertices, np.float64)
    allowed = (2, 3) if num_axes is None else (num_axes,)
    if array.ndim not in allowed or array.shape[-1] != 3:
        expected = "(V, 3) or (N, V, 3)" if num_axes is None else "(V, 3)"
        raise ValueError(f"vertices must be {expected} metres, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("vertices must be finite; leave out people whose fit diverged")
    return array


def _check_colors(colors: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    array = np.asarray(colors, np.float64)
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"colors must broadcast to (people, vertices, 3) = {shape}, got {array.shape}"
        ) from None


def _check_faces(faces: ArrayLike, num_vertices: int) -> NDArray[np.int64]:
    array = np.asarray(faces)
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "iu":
        raise ValueError(f"faces must be (F, 3) integers, got {array.shape} of {array.dtype}")
    if array.size and not (array.min() >= 0 and array.max() < num_vertices):
        raise ValueError(
            f"faces must index {num_vertices} vertices, got {array.min()} to {array.max()}"
        )
    return array.astype(np.int64)


def _check_intrinsics(intrinsics: ArrayLike) -> FloatArray:
    array = np.asarray(intrinsics, np.float64)
    if array.shape != (3, 3) or not np.array_equal(array[2], [0, 0, 1]):
        raise ValueError(
            "intrinsics must be (3, 3) pixels, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], "
            f"got {array.tolist()}"
        )
    return array


def _as_background(background: ArrayLike | None, image_size: tuple[int, int]) -> NDArray[np.uint8]:
    """A new (H, W, 3) picture to draw on."""
    width, height = image_size
    picture = np.zeros((height, width, 3), np.uint8)
    if background is not None:
        array = np.asarray(background)
        is_color = array.shape == (3,) and array.dtype.kind in "iu"
        if not is_color and (array.shape != picture.shape or array.dtype != np.uint8):
            raise ValueError(
                f"background must be a colour of 3 integers or a uint8 picture {picture.shape}, "
                f"got {array.shape} of {array.dtype}"
            )
        picture[:] = array
    return picture

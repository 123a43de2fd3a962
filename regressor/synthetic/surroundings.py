"""What is behind rendered people: drawn rooms, landscapes and clutter, or photographs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fitting.images import ImageError, list_images, read_image
from fitting.opencv import import_cv2

from .wardrobe import draw_color

Floats = NDArray[np.floating]

_PHOTO_SIDE = 768  # pixels: larger photographs are kept in memory at this size
_PHOTOS_KEPT = 128


def find_backgrounds(folder: Path) -> tuple[list[Path], list[str]]:
    """The photographs of a folder that can be read, and a sentence on each that cannot.

    Every photograph is decoded once: a damaged one must not end a run hours later.

    Raises:
        ImageError: the folder is missing, or holds no photograph that can be read.
    """
    good: list[Path] = []
    problems: list[str] = []
    for path in list_images(folder):
        try:
            read_image(path)
        except ImageError as error:
            problems.append(str(error))
        else:
            good.append(path)
    if not good:
        found = f"{len(problems)} that cannot be read" if problems else "none"
        raise ImageError(f"{folder} must hold pictures for backgrounds, found {found}; add some")
    return good, problems


def cut_photo(paths: Sequence[Path], size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """A part of one of some photographs.

    Args:
        paths: of the photographs.
        size: width and height of the result in pixels.
        rng: chooses the photograph and the part.

    Returns:
        (H, W, 3) float32 RGB in [0, 1].
    """
    photo = _load_photo(paths[int(rng.integers(len(paths)))])
    height, width = photo.shape[:2]
    fit = min(width / size[0], height / size[1])  # of the largest part of the right proportions
    fit *= rng.uniform(0.5, 1)
    part = np.maximum(np.array(size) * fit, 1).astype(int)
    x, y = (
        int(rng.integers(0, full - p + 1)) for full, p in zip((width, height), part, strict=True)
    )
    cut = photo[y : y + part[1], x : x + part[0]]
    if rng.random() < 0.5:
        cut = cut[:, ::-1]
    cv2 = import_cv2()
    method = cv2.INTER_AREA if fit > 1 else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(cut), size, interpolation=method) / np.float32(255)


@lru_cache(maxsize=_PHOTOS_KEPT)
def _load_photo(path: Path) -> NDArray[np.uint8]:
    photo = read_image(path)
    scale = _PHOTO_SIDE / max(photo.shape[:2])
    if scale >= 1:
        return photo
    cv2 = import_cv2()
    return cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def draw_surroundings(size: tuple[int, int], floor_row: float, rng: np.random.Generator) -> Floats:
    """A drawn background.

    Args:
        size: width and height in pixels.
        floor_row: where the floor ends in rooms and landscapes.
        rng: where everything else comes from.

    Returns:
        (H, W, 3) float32 RGB in [0, 1].
    """
    kind = rng.choice(5, p=[0.12, 0.14, 0.3, 0.26, 0.18])
    if kind == 0:
        picture = _gradient(size, rng)
    elif kind == 1:
        picture = _mix(_fractal(size, rng), _muted(draw_color(rng)), draw_color(rng))
    elif kind == 2:
        picture = _room(size, floor_row, rng)
    elif kind == 3:
        picture = _landscape(size, floor_row, rng)
    else:
        picture = _clutter(_gradient(size, rng), rng, int(rng.integers(8, 40)))
    blur = rng.uniform(-0.008, 0.012) * min(size)
    if blur > 0.3:  # the lens is focused on the person
        picture = import_cv2().GaussianBlur(picture, (0, 0), blur)
    return np.clip(picture, 0, 1)


def _fractal(size: tuple[int, int], rng: np.random.Generator, *, octaves: int = 5) -> Floats:
    """(H, W) float32 in [0, 1]: noise of several scales.

    Each scale is added to the coarser ones enlarged to its own cells, and only their sum is
    enlarged to the picture.
    """
    cv2 = import_cv2()
    width, height = size
    first = int(rng.integers(2, 5))
    picture = np.zeros((1, 1), np.float32)
    for octave in range(octaves):
        cells = first * 2**octave
        grid = (cells, max(1, round(cells * height / width)))
        noise = rng.random(grid[::-1], dtype=np.float32) - np.float32(0.5)
        picture = cv2.resize(picture, grid, interpolation=cv2.INTER_CUBIC)
        picture += np.float32(0.6**octave) * noise
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(0.5 + 0.7 * picture, 0, 1)


def dim(picture: Floats, light: Floats) -> NDArray[np.float32]:
    """A picture (H, W, 3) under light (H, W), both float32."""
    cv2 = import_cv2()
    return cv2.multiply(picture, cv2.merge((light, light, light)))


def _mix(share: Floats, first: Floats, second: Floats) -> NDArray[np.float32]:
    """(H, W, 3) between two colours; share is (H, W) float32."""
    a, b = first.astype(np.float32), second.astype(np.float32)
    return import_cv2().merge([low + share * (high - low) for low, high in zip(a, b, strict=True)])


def _gradient(size: tuple[int, int], rng: np.random.Generator) -> Floats:
    corners = np.stack([draw_color(rng) for _ in range(4)]).reshape(2, 2, 3).astype(np.float32)
    mean = corners.mean(axis=(0, 1))
    return import_cv2().resize(mean + 0.5 * (corners - mean), size)


def _room(size: tuple[int, int], floor_row: float, rng: np.random.Generator) -> Floats:
    """A wall with doors, windows and prints, a skirting board, and a floor of boards or tiles."""
    width, height = size
    row = int(np.clip(floor_row, 0, height))
    light = import_cv2().resize(rng.uniform(0.75, 1.15, (2, 3)).astype(np.float32), size)
    picture = np.empty((height, width, 3), np.float32)
    wall = _muted(draw_color(rng))
    picture[:row] = 0.35 + 0.65 * wall if rng.random() < 0.6 else wall
    _hang(picture[:row], rng)
    picture[row:] = _floor((width, height - row), max(1.0, rng.uniform(0.15, 0.6) * height), rng)
    picture[max(0, row - int(rng.uniform(0.01, 0.03) * height)) : row] = draw_color(rng)
    return dim(picture, light)


def _hang(wall: Floats, rng: np.random.Generator) -> None:
    """Draw rectangles with frames on a wall (h, W, 3), in place."""
    height, width = wall.shape[:2]
    for _ in range(rng.integers(0, 5)):
        w, h = rng.uniform(0.1, 0.45, 2) * width
        x, y = rng.uniform(-0.1, 1) * width, rng.uniform(-0.2, 0.9) * height
        frame = rng.uniform(0.005, 0.03) * width
        for margin, color in ((0.0, draw_color(rng)), (frame, draw_color(rng))):
            low = np.clip([x + margin, y + margin], 0, [width, height]).astype(int)
            high = np.clip([x + w - margin, y + h - margin], 0, [width, height]).astype(int)
            wall[low[1] : high[1], low[0] : high[0]] = color


def _floor(size: tuple[int, int], reach: float, rng: np.random.Generator) -> Floats:
    """(h, W, 3) a floor below the horizon, which lies `reach` pixels above it, in perspective."""
    width, height = size
    if height == 0:
        return np.zeros((0, width, 3), np.float32)
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    depth = 1 / (v + np.float32(reach))
    middle = np.float32(rng.uniform(0, width))
    across, along = (u - middle) * depth * rng.uniform(2, 6), 4 * reach * depth * rng.uniform(2, 6)
    if rng.random() < 0.5:
        tone = 0.9 + 0.12 * np.sin(37.7 * np.floor(across)) - 0.25 * (across % 1 > 0.94)
    else:
        tone = 0.85 + rng.uniform(0.02, 0.15) * ((np.floor(across) + np.floor(along)) % 2)
    return _mix(tone.astype(np.float32), np.zeros(3), _muted(draw_color(rng)))


def _muted(color: Floats) -> Floats:
    """(3,) float32 half-way to grey: large surfaces are seldom vivid."""
    return (0.5 * color + 0.5 * color.mean()).astype(np.float32)


def _landscape(size: tuple[int, int], floor_row: float, rng: np.random.Generator) -> Floats:
    """A sky with clouds, hills or houses before it, and mottled ground."""
    width, height = size
    row = int(np.clip(floor_row, 0, height))
    clouds = _fractal(size, rng, octaves=4)
    fade = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    blue = np.array([0.35, 0.55, 0.85]) * rng.uniform(0.7, 1.15)
    picture = _mix(np.clip(1.4 * clouds * (0.4 + fade), 0, 1), blue, np.array([0.9, 0.92, 0.95]))
    for _ in range(rng.integers(1, 4)):
        top = row - rng.uniform(0.02, 0.5) * height
        steps = int(rng.choice([6, 12, 60]))
        line = rng.random((1, steps), dtype=np.float32)
        method = "INTER_NEAREST" if rng.random() < 0.4 else "INTER_CUBIC"  # houses or hills
        cv2 = import_cv2()
        skyline = cv2.resize(line, (width, 1), interpolation=getattr(cv2, method))[0]
        below = np.arange(height)[:, None] > top + 0.25 * height * skyline
        picture[below] = _muted(draw_color(rng))
    ground = np.array([0.35, 0.4, 0.2]) if rng.random() < 0.5 else _muted(draw_color(rng))
    picture[row:] = _mix(0.55 + 0.9 * _fractal(size, rng), np.zeros(3), ground)[row:]
    return picture


def _clutter(picture: Floats, rng: np.random.Generator, count: int) -> Floats:
    """Things on a picture (H, W, 3): boxes, discs and lines of any colour."""
    cv2 = import_cv2()
    canvas = np.ascontiguousarray(picture, dtype=np.float32)
    scale = max(picture.shape[:2])
    for _ in range(count):
        x, y, dx, dy = (rng.uniform(0, 1, 4) * scale).astype(int).tolist()
        color = draw_color(rng).tolist()
        kind = rng.integers(3)
        if kind == 0:
            cv2.rectangle(canvas, (x, y), (x + dx // 3, y + dy // 3), color, -1)
        elif kind == 1:
            turn = float(rng.uniform(0, 180))
            cv2.ellipse(canvas, (x, y), (dx // 5, dy // 5), turn, 0, 360, color, -1)
        else:
            cv2.line(canvas, (x, y), (dx, dy), color, int(rng.integers(1, 2 + scale // 30)))
    return canvas

"""Skin, hair and clothes of rendered people: what colour a point of the resting body has.

Everything is cut out of the resting mean body (arms sideways along x, y up, z forward, metres), so
an outfit fits every shape and pose, and a pattern is as fine as the pixels, not as the mesh.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fitting.body import Body
from fitting.skeleton import joint_index

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

SKIN, BOTTOM, SHOES, TOP, HAIR = range(5)  # layers, from the skin outwards
_PATTERNS = ("plain", "stripes", "checks", "dots", "mottled", "blocks", "print")
_PATTERN_SHARES = (0.38, 0.16, 0.12, 0.08, 0.12, 0.08, 0.06)
# From very light to very dark, RGB; people are drawn between neighbours.
_SKIN_TONES = np.array(
    [
        (0.96, 0.82, 0.74), (0.90, 0.72, 0.61), (0.80, 0.60, 0.47), (0.66, 0.46, 0.34),
        (0.47, 0.31, 0.22), (0.30, 0.19, 0.14),
    ]
)  # fmt: skip
_HAIR_COLORS = np.array(
    [
        (0.07, 0.05, 0.05), (0.16, 0.10, 0.07), (0.30, 0.19, 0.11), (0.55, 0.30, 0.14),
        (0.78, 0.62, 0.36), (0.62, 0.61, 0.60),
    ]
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RestBody:
    """What the wardrobe knows of a body.

    Attributes:
        points: (V, 3) float32 mean body at rest, metres.
        joints: (24, 3) likewise.
        marks: named points of the skin, (3,) each; empty for a body without landmarks.
    """

    points: Floats
    joints: Floats
    marks: dict[str, Floats]

    @classmethod
    def of(cls, body: Body) -> RestBody:
        """Of a body on any device."""
        template = body.v_template.cpu().numpy().astype(np.float64)
        return cls(
            points=template.astype(np.float32),
            joints=body.joint_template.cpu().numpy().astype(np.float32),
            marks={name: weights @ template for name, weights in body.landmarks.items()},
        )

    def joint(self, name: str) -> Floats:
        """(3,) of the joint called `name`."""
        return self.joints[joint_index(name)]


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """Colours of a cloth.

    Attributes:
        kind: of `_PATTERNS`.
        colors: (3, 3) RGB in [0, 1].
        scale: metres from one stripe to the next.
        turn: (3, 3) rotation of the pattern.
    """

    kind: str
    colors: Floats
    scale: float
    turn: Floats

    def paint(self, points: Floats) -> Floats:
        """(M, 3) float32 RGB of points (M, 3) at rest."""
        colors = self.colors.astype(np.float32)
        if self.kind == "plain":
            return np.broadcast_to(colors[0], points.shape)
        if self.kind == "checks":  # the second where two stripes cross, half of it where one runs
            colors = np.stack([colors[0], (colors[0] + colors[1]) / 2, colors[1]])
        return np.take(colors, self._choose(points), axis=0)

    def _choose(self, points: Floats) -> NDArray[np.intp]:
        """(M,) which of three colours points (M, 3) have."""
        x, y, z = (self.turn / self.scale).astype(np.float32) @ points.T
        if self.kind == "checks":
            return (_fraction(x) < 0.5).astype(np.intp) + (_fraction(y) < 0.5)
        if self.kind == "mottled":
            waves = np.sin(3 * x + 2 * np.sin(2 * y)) + np.sin(4 * z)
            return (waves > -0.2).astype(np.intp) + (waves > 0.9)
        if self.kind == "stripes":
            return (_fraction(y) < 0.45).astype(np.intp)
        if self.kind == "dots":
            return ((_fraction(x) - 0.5) ** 2 + (_fraction(y) - 0.5) ** 2 < 0.07).astype(np.intp)
        across, height, front = points.T
        if self.kind == "blocks":
            return (height > 0.15 + self.scale).astype(np.intp)
        on_chest = (np.abs(across) <= 0.09) & (np.abs(height - 0.17) <= 0.08) & (front >= 0)
        return 2 * (on_chest & (_fraction(y) < 0.5)).astype(np.intp)  # a print


@dataclass(frozen=True, kw_only=True)
class Head:
    """What is on a head.

    Attributes:
        hair: RGB.
        hair_length: metres that hair reaches below the ears; None is bald.
        lips: how much redder than the skin, 0 to 1.
        beard: whether there is one.
    """

    hair: Floats
    hair_length: float | None
    lips: float
    beard: bool


@dataclass(frozen=True, kw_only=True)
class Outfit:
    """All that a person wears; lengths in metres on the resting body.

    Attributes:
        skin: RGB in [0, 1].
        head: see there.
        top, bottom, shoes: cloths.
        sleeve: |x| where sleeves end.
        neckline: how far below the neck the top begins at its lowest.
        waist, leg: y where trousers begin and end.
        hem: y where a skirt ends; None for trousers.
        shoe: y where shoes end; -inf for bare feet.
        thickness: (5,) of the layers.
        creases: (4, 3) waves of brightness, radians per metre.
    """

    skin: Floats
    head: Head
    top: Pattern
    bottom: Pattern
    shoes: Pattern
    sleeve: float
    neckline: float
    waist: float
    leg: float
    hem: float | None
    shoe: float
    thickness: Floats
    creases: Floats

    def layers(self, points: Floats, rest: RestBody) -> NDArray[np.int8]:
        """(M,) the outermost layer at points (M, 3)."""
        x, y, z = points.T.copy()  # rows of coordinates are read faster
        across = np.abs(x)
        layer = np.zeros(len(points), np.int8)
        trunk = across < 0.3
        layer[trunk & (y < self.waist + 0.02) & (y > self.leg)] = BOTTOM
        layer[y <= self.shoe] = SHOES
        dip = self.neckline * np.clip(1 - across / 0.1, 0, 1) * (z > 0)
        below_neck = (across > 0.12) | (y < rest.joint("neck")[1] - 0.01 - dip)
        layer[below_neck & (y >= self.waist) & (across < self.sleeve)] = TOP
        high = np.flatnonzero((y > rest.joint("neck")[1] - 0.25) & (across < 0.16))
        length = self.head.hair_length
        if length is not None:
            layer[high[is_hair(points[high], rest, length=length)]] = HAIR
        return layer

    def paint(self, points: Floats, rest: RestBody) -> Floats:
        """(M, 3) float32 RGB in [0, 1] of points (M, 3), unlit."""
        layer = self.layers(points, rest)
        colors = np.empty((len(points), 3), np.float32)
        colors[:] = self.skin
        self._paint_face(colors, points, layer, rest)
        for index, cloth in ((BOTTOM, self.bottom), (SHOES, self.shoes), (TOP, self.top)):
            rows = np.flatnonzero(layer == index)
            colors[rows] = cloth.paint(np.take(points, rows, axis=0))
        rows = np.flatnonzero(layer == HAIR)
        strands = 1 + 0.1 * np.sin(points[rows] @ np.array([260, 40, 190], np.float32))
        colors[rows] = self.head.hair.astype(np.float32) * strands[:, None]
        return np.clip(colors * self.crease(points, layer)[:, None], 0, 1)

    def crease(self, points: Floats, layer: NDArray[np.int8]) -> Floats:
        """(M,) brightness that varies over centimetres, more on cloth than on skin."""
        waves = np.sin(self.creases.astype(np.float32) @ points.T).sum(axis=0)
        return 1 + np.where(layer == SKIN, np.float32(0.02), np.float32(0.055)) * waves

    def _paint_face(
        self, colors: Floats, points: Floats, layer: NDArray[np.int8], rest: RestBody
    ) -> None:
        if not rest.marks:
            return
        rows = np.flatnonzero((points[:, 1] > rest.joint("neck")[1]) & (layer == SKIN))
        face = colors[rows]
        if self.head.beard:
            chin, mouth = rest.marks["chin"], rest.marks["left_mouth"]
            low = (points[rows, 1] < mouth[1] + 0.012) & (points[rows, 2] > chin[2] - 0.07)
            face[low & (points[rows, 1] > chin[1] - 0.03)] = 0.6 * self.head.hair + 0.4 * self.skin
        lips = self.skin * (1, 1 - 0.6 * self.head.lips, 1 - 0.55 * self.head.lips)
        paint_face(face, points[rows], rest, brows=self.head.hair, lips=lips)
        colors[rows] = face


def is_hair(points: Floats, rest: RestBody, *, length: float = 0.07) -> Bools:
    """(M,) the scalp: above a line from over the brows, through the ears' tops, to the nape.

    Args:
        points: (M, 3) at rest.
        rest: the body.
        length: metres that hair reaches below the ears, at the back.
    """
    x, y, z = points.T
    if not rest.marks:  # without landmarks: the head above and behind its joint
        head = rest.joint("head")
        return (np.abs(x) < 0.12) & (y > head[1] + 0.07 + 0.6 * (z - head[2] + 0.05))
    eye, ear = rest.marks["left_eye"], rest.marks["left_ear"]
    brow, temple = eye[1] + 0.055, ear[1] + 0.025
    slope = (brow - temple) / (eye[2] - ear[2])
    # Behind the ears the line falls steeply, down to the nape.
    hairline = temple + (z - ear[2]) * np.where(z > ear[2], slope, 2.5)
    return (np.abs(x) < 0.12) & (y > np.maximum(hairline, ear[1] - length))


def paint_face(
    colors: Floats, points: Floats, rest: RestBody, *, brows: Floats, lips: Floats
) -> None:
    """Eyes, brows and lips on colours (M, 3) of points (M, 3), in place.

    Without them a detector may take the face for a back.
    """
    for eye in (rest.marks["left_eye"], rest.marks["right_eye"]):
        offset = points - eye
        near = (offset**2).sum(axis=1) < 0.05**2
        across, above = np.abs(offset[:, 0]), np.abs(offset[:, 1])
        colors[near & (across < 0.013) & (above < 0.006)] = (0.12, 0.09, 0.08)
        colors[near & (across < 0.022) & (np.abs(offset[:, 1] - 0.022) < 0.005)] = brows
    mouth = (rest.marks["left_mouth"] + rest.marks["right_mouth"]) / 2
    half_width = np.linalg.norm(rest.marks["left_mouth"] - mouth)
    offset = points - mouth
    near = (offset**2).sum(axis=1) < 0.05**2
    colors[near & (np.abs(offset[:, 0]) < half_width) & (np.abs(offset[:, 1]) < 0.009)] = lips


def draw_color(rng: np.random.Generator) -> Floats:
    """(3,) an RGB colour as clothes and walls have it: often grey, dark or pale."""
    hue, vivid, value = rng.random(3)
    if rng.random() < 0.3:
        vivid *= 0.12
    return np.array(colorsys.hsv_to_rgb(hue, 0.85 * vivid, 0.08 + 0.88 * value))


def draw_outfit(rest: RestBody, rng: np.random.Generator, *, looseness: float = 1.0) -> Outfit:
    """A random outfit for `rest`.

    Args:
        rest: the body.
        rng: where it comes from.
        looseness: of clothes and hair; at 0 they are paint on the skin.
    """
    pelvis, knee, ankle = (rest.joint(n)[1] for n in ("pelvis", "left_knee", "left_ankle"))
    leg = {
        "long": ankle + 0.02,
        "cropped": ankle + 0.12,
        "shorts": knee + rng.uniform(-0.05, 0.15),
        "briefs": rest.joint("left_hip")[1] - rng.uniform(0.05, 0.12),
    }[str(rng.choice(["long", "cropped", "shorts", "briefs"], p=[0.55, 0.08, 0.27, 0.1]))]
    skirt = rng.random() < 0.18
    shoe = {"bare": -np.inf, "shoes": ankle + 0.01, "boots": ankle + rng.uniform(0.08, 0.3)}
    boots = str(rng.choice(["bare", "shoes", "boots"], p=[0.12, 0.7, 0.18]))
    thin = rng.uniform([0, 0.005, 0.006, 0.005, 0.01], [0, 0.022, 0.014, 0.024, 0.035])
    bottom = draw_pattern(rng)
    return Outfit(
        skin=_between(_SKIN_TONES, rng) * rng.uniform(0.93, 1.04),
        head=_draw_head(rng),
        top=bottom if rng.random() < 0.1 else draw_pattern(rng),  # a dress, an overall
        bottom=bottom,
        shoes=draw_pattern(rng, plain=True),
        sleeve=_draw_sleeve(rest, rng),
        neckline=rng.uniform(0, 0.11),
        waist=pelvis + rng.uniform(-0.03, 0.1),
        leg=rest.joint("left_hip")[1] - 0.1 if skirt else leg,
        hem=rng.uniform(knee - 0.12, knee + 0.22) if skirt else None,
        shoe=float(shoe[boots]),
        thickness=looseness * thin,
        creases=rng.normal(0, 22, (4, 3)),
    )


def draw_pattern(rng: np.random.Generator, *, plain: bool = False) -> Pattern:
    """A random cloth."""
    base = draw_color(rng)
    others = [draw_color(rng), draw_color(rng)]
    tilt = rng.choice([0.0, 0.0, np.pi / 2, rng.uniform(0, np.pi)])
    cos, sin = np.cos(tilt), np.sin(tilt)
    return Pattern(
        kind="plain" if plain else str(rng.choice(_PATTERNS, p=_PATTERN_SHARES)),
        colors=np.stack([base, *others]),
        scale=float(rng.uniform(0.03, 0.14)),
        turn=np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]),
    )


def _draw_sleeve(rest: RestBody, rng: np.random.Generator) -> float:
    shoulder, elbow, wrist = (
        float(rest.joint(f"left_{name}")[0]) for name in ("shoulder", "elbow", "wrist")
    )
    if rng.random() < 0.05:
        return 0.0  # bare from the waist up
    low, high = [(shoulder - 0.04, shoulder), (shoulder + 0.08, elbow - 0.02),
                 (elbow, elbow + 0.12), (wrist - 0.05, wrist)][
        rng.choice(4, p=[0.14, 0.42, 0.08, 0.36])
    ]  # fmt: skip
    return float(rng.uniform(low, high))


def _draw_head(rng: np.random.Generator) -> Head:
    length = rng.choice([np.nan, 0.02, 0.07, 0.13, 0.2], p=[0.1, 0.2, 0.35, 0.2, 0.15])
    dyed = rng.random() < 0.08  # or a cap
    return Head(
        hair=draw_color(rng) if dyed else _between(_HAIR_COLORS, rng),
        hair_length=None if np.isnan(length) else float(length),
        lips=float(rng.uniform(0.2, 0.9)),
        beard=bool(rng.random() < 0.15),
    )


def _between(colors: Floats, rng: np.random.Generator) -> Floats:
    """A colour between two neighbours of a scale (C, 3)."""
    place = rng.uniform(0, len(colors) - 1)
    low = int(place)
    return colors[low] + (place - low) * (colors[low + 1] - colors[low])


def _fraction(values: Floats) -> Floats:
    """What is above the next smaller whole number: `values % 1`, ten times faster."""
    return values - np.floor(values)

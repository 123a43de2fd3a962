"""Make the example pictures of `make demo`: drawn people whose bodies are known, and a photograph.

    python tools/make_demo.py OUT_DIR

Writes pictures of the bundled body in motion-captured poses (tools/demo_poses.json), dressed by
body part, in drawn surroundings, with the true parameters in `truth.parquet`, and the photograph of
Eileen Collins (NASA, public domain) that scikit-image ships, of which no truth is known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fitting.body import Body, load_body
from fitting.images import write_image
from fitting.rasterizer import Light, render_mesh, vertex_normals
from fitting.skeleton import keypoint_set
from fitting.table import build_truth, write_fits
from regressor.synthetic.wardrobe import RestBody, is_hair, paint_face

FloatArray = NDArray[np.floating]
Rgb = tuple[float, float, float]

KEYPOINTS = "smpl24"
POSES = Path(__file__).with_name("demo_poses.json")
LIGHT = Light(direction=(-0.5, -1.0, -0.9), ambient=0.3)
WALL_DISTANCE = 1.6  # metres behind the person
CLOTH_THICKNESS = 0.012  # metres
HAIR_THICKNESS = 0.02


@dataclass(frozen=True, kw_only=True)
class Outfit:
    """Colours, RGB in [0, 1], and how long the sleeves are, in metres from the body's middle."""

    skin: Rgb
    hair: Rgb
    shirt: Rgb
    trousers: Rgb
    shoes: Rgb
    sleeve: float = 0.38
    stripes: float = 0.0  # contrast of a striped shirt


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One picture: who stands how, seen from where, against what."""

    name: str
    pose: str
    image_size: tuple[int, int]  # width, height
    yaw_deg: float  # the body's turn to its own left, as the camera sees it
    tilt_deg: float  # the camera's, downwards
    fill: float  # the person's share of the picture's height
    centre: float  # where the person stands, as a share of the picture's width
    outfit: Outfit
    wall: Rgb | None  # None is outdoors
    floor: Rgb


@dataclass(frozen=True, kw_only=True)
class Person:
    """True parameters of one picture in the conventions of the fits table, camera frame."""

    global_orient: FloatArray  # (3,)
    body_pose: FloatArray  # (69,)
    betas: FloatArray  # (10,)
    transl: FloatArray  # (3,)
    intrinsics: FloatArray  # (3, 3)


SCENES = (
    Scene(
        name="waving.jpg", pose="waving", image_size=(640, 800), yaw_deg=-25, tilt_deg=4,
        fill=0.84, centre=0.58, wall=(0.80, 0.76, 0.70), floor=(0.62, 0.46, 0.32),
        outfit=Outfit(skin=(0.86, 0.66, 0.54), hair=(0.22, 0.14, 0.09), shirt=(0.75, 0.20, 0.18),
                      trousers=(0.17, 0.22, 0.36), shoes=(0.92, 0.92, 0.90)),
    ),
    Scene(
        name="walking.jpg", pose="walking", image_size=(640, 800), yaw_deg=42, tilt_deg=3,
        fill=0.82, centre=0.5, wall=None, floor=(0.60, 0.59, 0.57),
        outfit=Outfit(skin=(0.47, 0.31, 0.22), hair=(0.07, 0.05, 0.05), shirt=(0.93, 0.78, 0.25),
                      trousers=(0.30, 0.29, 0.28), shoes=(0.25, 0.13, 0.08), sleeve=0.62),
    ),
    Scene(
        name="reaching.jpg", pose="reaching", image_size=(600, 840), yaw_deg=14, tilt_deg=2,
        fill=0.86, centre=0.47, wall=(0.62, 0.70, 0.72), floor=(0.48, 0.42, 0.38),
        outfit=Outfit(skin=(0.93, 0.74, 0.64), hair=(0.70, 0.50, 0.25), shirt=(0.20, 0.32, 0.52),
                      trousers=(0.70, 0.64, 0.52), shoes=(0.15, 0.15, 0.16), stripes=0.35),
    ),
    Scene(
        name="landscape.jpg", pose="arms_out", image_size=(960, 640), yaw_deg=-24, tilt_deg=5,
        fill=0.6, centre=0.63, wall=None, floor=(0.36, 0.50, 0.22),
        outfit=Outfit(skin=(0.70, 0.50, 0.38), hair=(0.12, 0.09, 0.08), shirt=(0.90, 0.90, 0.92),
                      trousers=(0.16, 0.38, 0.36), shoes=(0.62, 0.16, 0.14)),
    ),
)  # fmt: skip


@click.command()
@click.argument("out_dir", type=click.Path(path_type=Path))
@click.option("--seed", default=7, show_default=True, help="Of body shapes and picture noise.")
def main(out_dir: Path, seed: int) -> None:
    """Write the example pictures and truth.parquet into OUT_DIR."""
    out_dir.mkdir(parents=True, exist_ok=True)
    body = load_body(dtype=torch.float64)
    people = make_demo(out_dir, body, np.random.default_rng(seed))
    write_truth(out_dir / "truth.parquet", people, body)
    write_photograph(out_dir / "astronaut.jpg")
    click.echo(f"{len(people) + 1} pictures -> {out_dir}")


def make_demo(out_dir: Path, body: Body, rng: np.random.Generator) -> list[Person]:
    """Draw every picture of `SCENES` into a folder and return the people in them, in order."""
    poses = json.loads(POSES.read_text("utf-8"))["poses"]
    people = []
    for scene in SCENES:
        pose = np.array(poses[scene.pose]["rotvec"]).reshape(24, 3)
        betas = rng.normal(0, 0.8, 10)
        person = place_person(scene, pose, betas, body)
        write_image(out_dir / scene.name, draw_picture(scene, person, body, rng))
        people.append(person)
    return people


def write_truth(path: Path, people: list[Person], body: Body) -> None:
    """Write the true parameters of `SCENES` as a fits table, one row per picture."""
    N, P = len(people), len(keypoint_set(KEYPOINTS))
    intrinsics = np.stack([person.intrinsics for person in people])
    columns = {
        "image": np.array([scene.name for scene in SCENES]),
        "person": np.zeros(N, dtype=np.int32),
        "annotation_id": np.arange(N),
        "width": np.array([scene.image_size[0] for scene in SCENES]),
        "height": np.array([scene.image_size[1] for scene in SCENES]),
        "keypoint_set": np.full(N, KEYPOINTS),
        "keypoints_2d": np.zeros((N, 3 * P)),  # the truth is the body; the pictures are the input
        "global_orient": np.stack([person.global_orient for person in people]),
        "body_pose": np.stack([person.body_pose for person in people]),
        "betas": np.stack([person.betas for person in people]),
        "transl": np.stack([person.transl for person in people]),
    }
    write_fits(path, build_truth(columns, intrinsics, {"body_sha256": body.sha256}))


def write_photograph(path: Path) -> None:
    """Write the public-domain portrait of an astronaut, with which scikit-image illustrates."""
    try:
        from skimage.data import astronaut
    except ImportError as error:
        raise click.ClickException(
            "the photograph comes with scikit-image: pip install scikit-image"
        ) from error
    write_image(path, astronaut())


def place_person(scene: Scene, pose: FloatArray, betas: FloatArray, body: Body) -> Person:
    """Turn a captured pose (24, 3), y up, to the camera and stand it where the scene wants it."""
    width, height = scene.image_size
    focal = float(np.hypot(width, height))
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    captured = Rotation.from_rotvec(pose[0])
    forward = captured.apply([0, 0, 1])
    # Undo the captured heading, so that yaw 0 faces the camera.
    heading = np.radians(scene.yaw_deg) - np.arctan2(forward[0], forward[2])
    turned = Rotation.from_rotvec([0, heading, 0]) * captured
    # Half a turn about x takes y up to y down, and the person's front towards the camera.
    orient = _camera_tilt(scene) * Rotation.from_rotvec([np.pi, 0, 0]) * turned
    person = Person(
        global_orient=orient.as_rotvec(),
        body_pose=pose[1:].ravel(),
        betas=betas,
        transl=np.zeros(3),
        intrinsics=intrinsics,
    )
    vertices = pose_vertices(person, body)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    depth = focal * (high[1] - low[1]) / (scene.fill * height)
    column = (scene.centre - 0.5) * width / focal * depth
    target = np.array([column, 0.01 * depth, depth])
    return Person(**{**vars(person), "transl": target - (low + high) / 2})


def pose_vertices(person: Person, body: Body) -> FloatArray:
    """(V, 3) metres, camera frame."""
    params = (person.global_orient, person.body_pose, person.betas, person.transl)
    output = body(*(torch.as_tensor(array)[None] for array in params))
    return output.vertices[0].numpy()


def draw_picture(
    scene: Scene, person: Person, body: Body, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, like a photograph of the person in the scene."""
    faces = body.faces.numpy()
    vertices = pose_vertices(person, body)
    colors, thickness = dress(body, scene.outfit, rng)
    normals = vertex_normals(vertices, faces)
    upright = vertices @ _camera_tilt(scene).as_matrix()  # gravity along y
    floor = upright[:, 1].max() + 0.004
    background = draw_surroundings(scene, person, floor, upright[:, 2].mean() + WALL_DISTANCE, rng)
    shade = draw_shadow(scene, person, upright, faces, floor)
    background = background * (1 - 0.55 * shade[..., None])
    picture = render_mesh(
        vertices + thickness[:, None] * normals,
        faces,
        person.intrinsics,
        scene.image_size,
        colors=colors,
        background=_to_bytes(background),
        light=LIGHT,
    ).color
    return _develop(picture, rng)


def dress(body: Body, outfit: Outfit, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Colours (V, 3) of skin, hair and clothes, and how thick they are (V,), metres.

    Parts are cut out of the resting body, arms sideways along x, y up.
    """
    template, rest = body.v_template.numpy(), RestBody.of(body)
    x, y, z = template.T
    joints = body.joint_template.numpy()
    waist, ankle, neck = joints[[0, 7, 12], 1] + (0.02, 0.03, -0.02)
    parts = (
        (outfit.trousers, CLOTH_THICKNESS, (y < waist) & (y > ankle) & (np.abs(x) < 0.3)),
        (outfit.shoes, CLOTH_THICKNESS, y <= ankle),
        (outfit.shirt, CLOTH_THICKNESS, (y >= waist) & (y < neck) & (np.abs(x) < outfit.sleeve)),
        (outfit.hair, HAIR_THICKNESS, is_hair(template, rest)),
    )
    colors = np.tile(np.array(outfit.skin), (len(x), 1))
    thickness = np.zeros(len(x))
    for color, depth, where in parts:
        colors[where], thickness[where] = color, depth
    shirt = parts[2][2]
    colors[shirt] *= 1 - outfit.stripes * (np.sin(2 * np.pi * y[shirt] / 0.11) > 0.2)[:, None]
    lips = np.array(outfit.skin) * (0.85, 0.55, 0.55)
    paint_face(colors, template, rest, brows=np.array(outfit.hair), lips=lips)
    # Creases and blemishes: brightness that varies smoothly over centimetres.
    waves = rng.normal(0, 25, (6, 3))
    texture = np.sin(np.stack([x, y, z], axis=1) @ waves.T + rng.uniform(0, 6, 6)).mean(axis=1)
    return np.clip(colors * (1 + 0.12 * texture[:, None]), 0, 1), thickness


def draw_surroundings(
    scene: Scene, person: Person, floor: float, wall: float, rng: np.random.Generator
) -> FloatArray:
    """A floor and behind it a wall or the sky, (H, W, 3) in [0, 1], cast ray by ray.

    Args:
        scene: the picture.
        person: for the camera.
        floor: metres below the camera, along gravity.
        wall: metres before the camera, horizontally.
        rng: of the textures.
    """
    width, height = scene.image_size
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(person.intrinsics).T
    x, y, z = np.moveaxis(rays @ _camera_tilt(scene).as_matrix(), -1, 0)
    ground = y > 1e-4
    reach = np.where(ground, floor / np.where(ground, y, 1), np.inf)  # along the ray, to the floor
    if scene.wall is not None:
        ground &= reach * z < wall
    stretch = np.where(ground, reach, 0)
    picture = _draw_floor(scene, stretch * x, stretch * z, rng)
    if scene.wall is None:
        horizon = np.clip(-y / z / 0.6, 0, 1)[..., None]
        behind = (1 - horizon) * [0.86, 0.90, 0.93] + horizon * [0.42, 0.62, 0.88]
        haze = np.exp(-np.maximum(stretch * z - wall, 0) / 12)[..., None]
        picture = haze * picture + (1 - haze) * [0.80, 0.84, 0.84]
    else:
        behind = _draw_wall(scene.wall, wall / z * x, floor - wall / z * y)
    return np.where(ground[..., None], picture, behind)


def _draw_floor(scene: Scene, x: FloatArray, z: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Boards indoors, mottled ground outdoors; x and z (H, W) in metres on the floor."""
    if scene.wall is None:
        waves = rng.normal(0, 1, (40, 2)) * rng.uniform(4, 60, (40, 1))
        phases = rng.uniform(0, 2 * np.pi, 40)
        mottle = sum(np.sin(a * x + b * z + p) for (a, b), p in zip(waves, phases, strict=True))
        brightness = 1 + 0.02 * mottle
    else:
        board = np.floor(x / 0.13)
        grain = 0.04 * np.sin(40 * x + 3 * np.sin(2 * z + board)) + 0.10 * np.sin(77.7 * board)
        seam = np.abs(x / 0.13 - board - 0.5) > 0.48
        brightness = (1 + grain) * np.where(seam, 0.6, 1)
    return np.clip(np.asarray(scene.floor) * brightness[..., None], 0, 1)


def _draw_wall(color: Rgb, x: FloatArray, up: FloatArray) -> FloatArray:
    """A wall lit from the upper left, with a skirting board and a framed print; metres (H, W)."""
    light = 1.12 - 0.10 * np.hypot(x + 0.8, up - 2.2)
    picture = np.clip(np.asarray(color) * light[..., None], 0, 1)
    skirting = up < 0.10
    picture[skirting] = np.array([0.90, 0.89, 0.86]) * light[skirting, None]
    across, above = np.abs(x - 1.0), np.abs(up - 1.6)
    frame, print_ = (across < 0.32) & (above < 0.42), (across < 0.27) & (above < 0.37)
    picture[frame] = (0.20, 0.16, 0.13)
    hills = up[print_] - 1.55 - 0.08 * np.sin(9 * x[print_])
    picture[print_] = np.where(hills[:, None] > 0, (0.85, 0.80, 0.66), (0.35, 0.48, 0.45))
    return np.clip(picture, 0, 1)


def draw_shadow(
    scene: Scene, person: Person, upright: FloatArray, faces: NDArray[np.integer], floor: float
) -> FloatArray:
    """How dark the person's shadow makes the floor, (H, W) in [0, 1], softened.

    The vertices, with gravity along y, slide along the light until they meet the floor.
    """
    from_lamp = -np.array(LIGHT.direction)
    slide = (floor - upright[:, 1:2]) / from_lamp[1]
    flat = (upright + slide * from_lamp) @ _camera_tilt(scene).as_matrix().T
    cast = render_mesh(flat, faces, person.intrinsics, scene.image_size).coverage
    contact = flat[slide[:, 0] * from_lamp[1] < 0.05] @ person.intrinsics.T
    touch = np.zeros_like(cast)
    for column, row in np.rint(contact[:, :2] / contact[:, 2:]).astype(int):
        cv2.circle(touch, (int(column), int(row)), 5, 1.0, cv2.FILLED)
    soft = cv2.GaussianBlur(cast, (0, 0), 7) * 0.7
    return np.maximum(soft, cv2.GaussianBlur(touch, (0, 0), 4))


def _develop(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A lens and a sensor: soft, darker towards the corners, grainy."""
    height, width = picture.shape[:2]
    v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    image = cv2.GaussianBlur(picture / 255.0, (0, 0), 0.6)
    image = image * (1 - 0.12 * (u**2 + v**2))[..., None] ** 1.2
    return _to_bytes(image + rng.normal(0, 0.012, image.shape))


def _to_bytes(image: FloatArray) -> NDArray[np.uint8]:
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def _camera_tilt(scene: Scene) -> Rotation:
    """From axes x right, y along gravity, z level forward, to those of the tilted camera."""
    return Rotation.from_euler("x", scene.tilt_deg, degrees=True)


if __name__ == "__main__":
    main()

"""Draw the pictures of docs/body.md.

    python tools/draw_body.py fitting/assets/body.npz -o docs/pictures --mocap mocap_poses.npz

Without ``--mocap`` the poses are a few built-in ones. The file holds ``smpl_rotvec`` (N, 24, 3),
axis-angle, y up.
"""

from __future__ import annotations

import argparse
import colorsys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fitting.body import Body, load_body
from fitting.images import write_image
from fitting.rasterizer import render_mesh
from fitting.skeleton import SMPL_JOINTS, joint_index

FloatArray = NDArray[np.float64]
Image = NDArray[np.uint8]

NUM_POSES = 8
CORRECTIVE_RANGE_M = 0.03  # full colour in the picture of the correctives
SKIN = (0.80, 0.76, 0.72)
# The camera stands this many picture heights away: nearly orthographic, as in a textbook plate.
DISTANCE = 5.0


def yaw(angle_deg: float) -> FloatArray:
    """(3, 3) turn about the vertical; +90 shows the person's left side."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])


FRONT, SIDE = yaw(0), yaw(90)


class View(NamedTuple):
    """What a picture shows."""

    size: tuple[int, int]  # width and height, pixels
    height: float  # metres from top to bottom of the picture
    centre: FloatArray  # (3,) metres, body frame: the middle of the picture
    rotation: FloatArray = FRONT  # (3, 3) turn of the body before it is seen from the front

    @property
    def intrinsics(self) -> FloatArray:
        """(3, 3) pixels."""
        width, height = self.size
        focal = DISTANCE * height
        return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])

    def in_camera(self, points: FloatArray) -> FloatArray:
        """(N, 3) points of the body frame (y up, z forward) in the camera frame, metres."""
        x, y, z = ((points - self.centre) @ self.rotation.T).T
        return np.stack([x, -y, DISTANCE * self.height - z], axis=1)

    def project(self, points: FloatArray) -> FloatArray:
        """(N, 2) pixels of points of the body frame."""
        homogeneous = self.in_camera(points) @ self.intrinsics.T
        return homogeneous[:, :2] / homogeneous[:, 2:]

    def draw(
        self, points: FloatArray, body: Body, colors: FloatArray | tuple[float, ...] = SKIN
    ) -> Image:
        """The mesh of `body` with vertices at `points`, on white; colors as in `render_mesh`."""
        vertices, faces, white = self.in_camera(points), body.faces.numpy(), (255, 255, 255)
        return render_mesh(
            vertices, faces, self.intrinsics, self.size, colors=colors, background=white
        ).color


def label(image: Image, text: str) -> Image:
    """A copy with a caption in the top left corner."""
    font, ink = cv2.FONT_HERSHEY_SIMPLEX, (40, 40, 40)
    return cv2.putText(image.copy(), text, (8, 20), font, 0.5, ink, 1, cv2.LINE_AA)


def grid(images: list[Image], *, columns: int) -> Image:
    """Tile equally large pictures row by row; the last row must be full."""
    rows = [np.hstack(images[i : i + columns]) for i in range(0, len(images), columns)]
    return np.vstack(rows)


def main() -> None:
    """Parse the command line and write the pictures."""
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/body.md.")
    parser.add_argument("body", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--mocap", type=Path, help=".npz with smpl_rotvec (N, 24, 3), y up")
    arguments = parser.parse_args()
    body = load_body(arguments.body, dtype=torch.float64)
    poses = _built_in_poses() if arguments.mocap is None else _mocap_poses(arguments.mocap)
    pictures = {
        "body_shapes.png": draw_shapes(body),
        "body_poses.png": draw_poses(body, poses),
        "body_parts.png": draw_parts(body),
        "body_landmarks.png": draw_landmarks(body),
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, image in pictures.items():
        write_image(arguments.output / name, image)


def posed(body: Body, pose: FloatArray, betas: FloatArray) -> FloatArray:
    """(V, 3) vertices of a pose (24, 3) and shape (10,), metres, body frame."""
    with torch.no_grad():
        flat = torch.as_tensor(pose).reshape(1, -1)
        output = body(flat[:, :3], flat[:, 3:], torch.as_tensor(betas)[None])
    return output.vertices[0].numpy()


def _rest(body: Body, betas: FloatArray) -> FloatArray:
    return posed(body, np.zeros((len(SMPL_JOINTS), 3)), betas)


def draw_shapes(body: Body) -> Image:
    """The mean, and each of the first five betas at -2 and +2, arms lowered."""
    pose = np.zeros((len(SMPL_JOINTS), 3))
    pose[joint_index("left_shoulder"), 2], pose[joint_index("right_shoulder"), 2] = -1.0, 1.0
    view = View((230, 420), 2.2, np.array([0, -0.1, 0]), yaw(25))

    def figure(betas: FloatArray, caption: str) -> Image:
        return label(view.draw(posed(body, pose, betas), body), caption)

    mean = figure(np.zeros(10), "mean")
    rows = []
    for amount in (-2, 2):
        row = [figure(amount * np.eye(10)[k], f"beta {k}: {amount:+d}") for k in range(5)]
        rows += [mean if amount < 0 else np.full_like(mean, 255), *row]
    return grid(rows, columns=6)


def draw_poses(body: Body, poses: list[FloatArray]) -> Image:
    """Poses without correctives, with them, and how far each vertex is moved by them."""
    plain = load_body(body.path, dtype=torch.float64)
    plain.posedirs.zero_()
    rows: list[list[Image]] = [[], [], []]
    for pose in poses:
        upright = pose.copy()
        upright[0] = 0
        without, corrected = (posed(b, upright, np.zeros(10)) for b in (plain, body))
        centre = (without.min(axis=0) + without.max(axis=0)) / 2
        view = View((280, 380), 1.15 * float(np.ptp(without[:, 1])), centre, yaw(30))
        moved = np.linalg.norm(corrected - without, axis=1) / CORRECTIVE_RANGE_M
        colours = np.clip(np.stack([0.85 + 0 * moved, 0.85 - moved, 0.85 - moved], axis=1), 0, 1)
        rows[0].append(view.draw(without, body))
        rows[1].append(view.draw(corrected, body))
        rows[2].append(view.draw(corrected, body, colours))
    rows[0][0] = label(rows[0][0], "24 joints only")
    rows[1][0] = label(rows[1][0], "with correctives")
    rows[2][0] = label(rows[2][0], f"moved by them (red: {CORRECTIVE_RANGE_M * 100:.0f} cm)")
    return grid([image for row in rows for image in row], columns=len(poses))


def draw_parts(body: Body) -> Image:
    """Each vertex in the colour of the joint that moves it most, front and back."""
    hues = np.array([colorsys.hsv_to_rgb(k * 0.381966 % 1, 0.55, 0.95) for k in range(24)])
    labels = body.part_labels.numpy()
    rest = _rest(body, np.zeros(10))
    views = []
    for angle, caption in ((0, "front"), (180, "back")):
        view = View((580, 560), 1.9, np.array([0, -0.1, 0]), yaw(angle))
        views.append(label(view.draw(rest, body, hues[labels]), caption))
    return grid(views, columns=2)


def draw_landmarks(body: Body) -> Image:
    """Landmarks (red) and joints (blue) on the mean body, seen through the skin."""
    rest = _rest(body, np.zeros(10))
    points = {name: row @ rest for name, row in body.landmarks.items()}
    head = (points["jaw"] + points["h36m_head"]) / 2
    hand = points["left_index_knuckle"]
    foot = (points["coco_left_ankle"] + points["left_big_toe"]) / 2
    above = np.array([[0, 0, -1.0], [-1, 0, 0], [0, 1, 0]])  # the left hand from above, fingers up
    size, whole = (760, 760), np.array([0, -0.1, 0])
    views = [
        (View(size, 1.9, whole), False),
        (View(size, 1.9, whole, SIDE), False),
        (View(size, 0.42, head), True),
        (View(size, 0.42, head, SIDE), True),
        (View(size, 0.34, hand, above @ yaw(180)), True),
        (View(size, 0.4, foot, SIDE), True),
    ]
    return grid([_marked(body, rest, points, view, named) for view, named in views], columns=2)


def _marked(
    body: Body, rest: FloatArray, points: dict[str, FloatArray], view: View, named: bool
) -> Image:
    """One view with marks, and with names where `named`."""
    joints = dict(zip(SMPL_JOINTS, (body.J_regressor.numpy() @ rest), strict=True))
    image = (view.draw(rest, body) // 2 + 128).astype(np.uint8)  # pale: the marks stand out
    for marks, colour in ((joints, (40, 70, 220)), (points, (210, 30, 30))):
        for name, position in marks.items():
            if named and np.linalg.norm(position - view.centre) > view.height / 2:
                continue  # elsewhere on the body, only in line with this part
            x, y = np.round(view.project(position[None])[0]).astype(int).tolist()
            cv2.circle(image, (x, y), 4, colour, -1, cv2.LINE_AA)
            if named and "right" not in name:
                text, font = name.replace("left_", ""), cv2.FONT_HERSHEY_SIMPLEX
                cv2.putText(image, text, (x + 6, y - 3), font, 0.4, colour, 1, cv2.LINE_AA)
    return image


def _mocap_poses(path: Path) -> list[FloatArray]:
    """Poses far from the T-pose and from each other, chosen greedily."""
    with np.load(path, allow_pickle=False) as file:
        poses = file["smpl_rotvec"][::50].astype(np.float64)
    flat = poses[:, 1:].reshape(len(poses), -1)
    chosen = [int(np.median(np.argsort(np.linalg.norm(flat, axis=1))))]
    distance = np.linalg.norm(flat - flat[chosen[0]], axis=1)
    while len(chosen) < NUM_POSES:
        # The 90th percentile rather than the farthest: extreme poses are often capture faults.
        chosen.append(int(np.argsort(distance)[int(0.9 * len(distance))]))
        distance = np.minimum(distance, np.linalg.norm(flat - flat[chosen[-1]], axis=1))
    return [poses[i] for i in chosen]


def _built_in_poses() -> list[FloatArray]:
    """Arms down, arms up, arms forward, elbows bent, sitting, a step, a squat, a bow."""
    turns: list[dict[str, tuple[float, float, float]]] = [
        {"left_shoulder": (0, 0, -1.3)},
        {"left_shoulder": (0, 0, 1.2)},
        {"left_shoulder": (0, -1.4, 0)},
        {"left_elbow": (0, -2.0, 0), "left_shoulder": (0, 0, -0.8)},
        {"left_hip": (-1.5, 0, 0), "left_knee": (1.5, 0, 0), "left_shoulder": (0, 0, -1.2)},
        {"left_hip": (-0.6, 0, 0), "left_knee": (0.4, 0, 0), "right_knee": (0.9, 0, 0)},
        {"left_hip": (-1.8, 0, 0.4), "left_knee": (2.1, 0, 0), "left_shoulder": (0, -1.4, 0)},
        {"spine1": (0.4, 0, 0), "spine2": (0.4, 0, 0), "spine3": (0.3, 0, 0)},
    ]
    poses = []
    for turn in turns:
        pose = np.zeros((len(SMPL_JOINTS), 3))
        for name, rotation in turn.items():
            other = name.replace("left", "right")
            pose[joint_index(name)] = rotation
            if other not in turn:
                pose[joint_index(other)] = np.multiply(rotation, [1, -1, -1])
        poses.append(pose)
    return poses


if __name__ == "__main__":
    main()

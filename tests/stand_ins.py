"""A folder in which the commands that the documents show can run: small stand-ins of every file.

Its names are those that the documents use: PICTURES/, people.npz, truth.parquet, RUN/best.pt, ...
"""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import torch
from untrained import save_untrained

from fitting.body_files import BUNDLED_BODY
from fitting.files import write_json
from fitting.images import write_image
from fitting.run import run
from fitting.run_config import RunConfig
from fitting.table import read_fits
from priors.mocap import load_mocap
from regressor.encoders import make_encoder
from regressor.synthetic.rendered_set import SetConfig, write_rendered_set
from regressor.synthetic.rendering import PictureConfig

ROOT = Path(__file__).resolve().parents[1]
_COUNT = 2  # drawn pictures of one person each
_SMPL_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")


def make_stand_ins(folder: Path, photograph: np.ndarray) -> Path:
    """Fill a folder; `photograph` (H, W, 3) uint8 RGB shows somebody whom the detector finds."""
    photograph = np.ascontiguousarray(photograph)
    pictures = PictureConfig(size=(224, 224), occluded=0, truncated=0)
    write_rendered_set(folder / "PEOPLE", SetConfig(count=_COUNT, pictures=pictures, jobs=1))
    for name in ("truth.parquet", "person_keypoints.json"):
        shutil.copy(folder / "PEOPLE" / name, folder / name)
    shutil.copy(folder / "person_keypoints.json", folder / "people.json")
    for name in ("PICTURES", "photographs", "PHOTOS"):
        shutil.copytree(folder / "PEOPLE/images", folder / name)
    write_image(folder / "PICTURES/somebody.jpg", photograph)
    (folder / "FRAMES").mkdir()
    for frame in (1, 2):
        write_image(folder / f"FRAMES/clip_{frame:05d}.jpg", photograph)
    for name in ("people.jpg", "group.jpg"):
        write_image(folder / name, photograph)
    _write_keypoints(folder)
    _write_networks(folder)
    _write_poses(folder)
    shutil.copytree(ROOT / "configs", folder / "configs")
    _write_run(folder)
    return folder


def _write_keypoints(folder: Path) -> None:
    """The drawn people's in other formats and from two cameras, and estimates of them."""
    truth = read_fits(folder / "truth.parquet")
    keypoints = truth.column_array("keypoints_2d").reshape(-1, 17, 3)
    names = truth.column_array("image")
    arrays = {
        "keypoints_2d": keypoints[..., :2],
        "conf": (keypoints[..., 2] > 0).astype(float),
        "keypoint_set": np.array("coco17"),
        "width": truth.column_array("width"),
        "height": truth.column_array("height"),
    }
    np.savez(folder / "people.npz", image=names, **arrays)
    for name in ("front", "side"):
        np.savez(folder / f"{name}.npz", **arrays)
    pose = np.concatenate([truth.column_array(n) for n in ("global_orient", "body_pose")], axis=1)
    betas = truth.column_array("betas")
    np.savez(folder / "predictions.npz", pose=pose, betas=betas, imgname=names)
    (folder / "openpose_output").mkdir()
    for name, points in zip(names, keypoints, strict=True):
        flat = np.zeros((25, 3))
        flat[:17] = points
        found = {"people": [{"pose_keypoints_2d": flat.ravel().tolist()}]}
        write_json(folder / "openpose_output" / f"{Path(name).stem}_keypoints.json", found)
    people = "".join(f"{name},0\n" for name in names[:1])
    (folder / "marks.csv").write_text("image,person\n" + people, encoding="utf-8")
    K = [[300, 0, 112], [0, 300, 112], [0, 0, 1]]
    eye = np.eye(3).tolist()
    cameras = [
        {"name": "front", "intrinsics": K, "rotation": eye, "translation": [0, 0, 0]},
        {"name": "side", "keypoints": "side.npz", "intrinsics": K,
         "rotation": [[0, 0, -1], [0, 1, 0], [1, 0, 0]], "translation": [5, 0, 5]},
    ]  # fmt: skip
    write_json(folder / "cameras.json", {"cameras": cameras})


def _write_networks(folder: Path) -> None:
    """Weights that have learned nothing, and the bundled body as SMPL's file would come."""
    (folder / "RUN").mkdir()
    save_untrained(folder / "RUN/best.pt")
    encoder = make_encoder("resnet50").state_dict()
    # Each tensor is one number, over and over: the file is small, and so is the time to copy it
    torch.save(
        {n: t.new_ones(()).expand(t.shape) for n, t in encoder.items()}, folder / "resnet50.pth"
    )
    with np.load(BUNDLED_BODY) as body:
        arrays = {name: body[name] for name in _SMPL_KEYS}
    (folder / "SMPL_NEUTRAL.pkl").write_bytes(pickle.dumps(arrays))


def _write_poses(folder: Path) -> None:
    """Motion capture as AMASS has it, and where the pose prior of it belongs."""
    poses = load_mocap().rotvec[:400, :22]
    np.savez(folder / "MOCAP.npz", poses=poses.reshape(len(poses), -1))
    (folder / "priors/assets").mkdir(parents=True)


def _write_run(folder: Path) -> None:
    """OUT, what `fit-cli fit` leaves, and groups of its people."""
    config = RunConfig(
        input=folder / "PICTURES", keypoints=folder / "people.json", output=folder / "OUT", jobs=1
    )
    run(config)
    rows = (folder / "marks.csv").read_text(encoding="utf-8").splitlines()[1:]
    groups = ["image,person,action", *(f"{row},walk" for row in rows)]
    (folder / "groups.csv").write_text("\n".join(groups) + "\n", encoding="utf-8")

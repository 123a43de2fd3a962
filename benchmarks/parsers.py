"""Every parser of strangers' files: good files to begin with, what may come of others, and damage.

The good files are those of the tests, made as their publishers make them.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import damage
import numpy as np
import scipy.sparse
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

import test_dataset_readers as dataset_files  # noqa: E402
import test_readers as keypoint_files  # noqa: E402
from bodies import synthetic_arrays  # noqa: E402
from fits import fits_table  # noqa: E402

from fitting.body import load_body  # noqa: E402
from fitting.body_files import BodyFileError, load_body_arrays  # noqa: E402
from fitting.estimates import read_estimates  # noqa: E402
from fitting.exclusions import leave_out  # noqa: E402
from fitting.files import InputError  # noqa: E402
from fitting.groups import read_groups  # noqa: E402
from fitting.images import read_image, read_size  # noqa: E402
from fitting.people import is_safe_name  # noqa: E402
from fitting.readers import read_people  # noqa: E402
from priors.gmm import load_pose_prior  # noqa: E402
from regressor.checkpoints import read_checkpoint  # noqa: E402
from regressor.config import load_config  # noqa: E402

_PICTURES = (
    "a.jpg", "im0001.jpg", "0.jpg", "1.jpg", "images/0.jpg", "images/1.jpg", "seven.jpg",
    "walk_00/image_00000.jpg",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Parser:
    """One parser.

    Attributes:
        name: of a file that it reads.
        good: contents of good files.
        read: what reads a file, given the folder of pictures that such files name.
        damage: of the kind of file.
        refusal: the error that is documented.
    """

    name: str
    good: Callable[[], Iterator[bytes]]
    read: Callable[[Path, Path], object]
    damage: damage.Damage
    refusal: type[Exception] = InputError


def make_pictures(folder: Path) -> None:
    """The pictures that the good files name."""
    dataset_files.make_pictures(folder, *_PICTURES)


def parsers() -> dict[str, Parser]:
    """All of them, by name."""
    return {**_people_parsers(), **_other_parsers()}


def _people_parsers() -> dict[str, Parser]:
    json_files = {
        "coco": ("a.json", partial(_coco, 17)),
        "wholebody": ("a.json", partial(_coco, 133)),
        "mmpose": ("a.json", _mmpose),
    }
    arrays = {"npz": _plain, "spin": _spin, "humandata": _humandata}
    files = {
        **{k: Parser(name=name, good=good, read=partial(_people, k.replace("wholebody", "coco")),
                     damage=damage.damage_json) for k, (name, good) in json_files.items()},
        **{k: Parser(name="a.npz", good=good, read=partial(_people, k), damage=damage.damage_npz)
           for k, good in arrays.items()},
    }  # fmt: skip
    words = damage.damage_words
    return {
        **files,
        "openpose": Parser(
            name="a_keypoints.json", good=_openpose, read=_folder, damage=damage.damage_json
        ),
        "lsp": Parser(
            name="a.mat", good=partial(_samples, "lsp"), read=partial(_people, "lsp"), damage=words
        ),
        "mpii": Parser(
            name="a.mat",
            good=partial(_samples, "mpii"),
            read=partial(_people, "mpii"),
            damage=words,
        ),
        "3dpw": Parser(
            name="a.pkl",
            good=_threedpw,
            read=partial(_people, "3dpw"),
            damage=damage.damage_pickle,
        ),
        "fits": Parser(
            name="a.parquet",
            good=partial(_samples, "fits"),
            read=partial(_people, "fits"),
            damage=damage.damage_parquet,
        ),
    }


def _other_parsers() -> dict[str, Parser]:
    table, body = fits_table({}), load_body()
    return {
        "body npz": Parser(
            name="a.npz",
            good=_bodies,
            read=lambda path, _: load_body_arrays(path),
            damage=damage.damage_npz,
            refusal=BodyFileError,
        ),
        "body pkl": Parser(
            name="a.pkl",
            good=_pickled_bodies,
            read=lambda path, _: load_body_arrays(path),
            damage=damage.damage_pickle,
            refusal=BodyFileError,
        ),
        "prior": Parser(
            name="a.npz",
            good=_priors,
            read=lambda path, _: load_pose_prior(path),
            damage=damage.damage_npz,
            refusal=ValueError,
        ),
        "estimates": Parser(
            name="a.npz",
            good=_estimates,
            read=lambda path, _: read_estimates(path, body),
            damage=damage.damage_npz,
        ),
        "exclusions": Parser(
            name="a.csv",
            good=_marks,
            read=lambda path, _: leave_out(table, path),
            damage=damage.damage_csv,
        ),
        "groups": Parser(
            name="a.csv",
            good=_groups,
            read=lambda path, _: read_groups(path),
            damage=damage.damage_csv,
        ),
        "image": Parser(name="a.png", good=_images, read=_picture, damage=damage.damage_picture),
        "checkpoint": Parser(
            name="a.pt",
            good=_checkpoints,
            read=lambda path, _: read_checkpoint(path),
            damage=damage.damage_checkpoint,
        ),
        "config": Parser(
            name="a.yaml",
            good=_configs,
            read=lambda path, _: load_config(path),
            damage=damage.damage_yaml,
        ),
    }


# --- What is read must be fit for use ---


def _people(keypoint_format: str, path: Path, images: Path) -> None:
    people, problems = read_people(path, images=images, keypoint_format=keypoint_format)
    assert np.isfinite(people.keypoints_2d).all()
    assert ((people.conf >= 0) & (people.conf <= 1)).all()
    assert (people.width > 0).all() and (people.height > 0).all()
    assert all(is_safe_name(name) for name in people.image.tolist())
    assert all(problem.reason and "\n" not in str(problem) for problem in problems)


def _folder(path: Path, images: Path) -> None:
    _people("openpose", path.parent, images)
    _people("openpose", path, images)


def _picture(path: Path, _: Path) -> None:
    width, height = read_size(path)
    assert read_image(path, max_megapixels=1).shape == (height, width, 3)


# --- Good files ---


def _dumped(*documents: Any) -> Iterator[bytes]:
    return (json.dumps(document).encode() for document in documents)


def _saved(arrays: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _coco(points: int) -> Iterator[bytes]:
    person = partial(keypoint_files.coco_person, points=points)
    feet = {"foot_kpts": [1, 2, 2] * 6} if points == 17 else {}
    document = keypoint_files.coco_file(person(0), person(1, image_id=8, **feet))
    return _dumped(document, [person(0, image_id="a")])


def _openpose() -> Iterator[bytes]:
    person = keypoint_files.openpose_person
    return _dumped({"people": [person(), person()]}, {"people": [person(18)]}, {"people": []})


def _mmpose() -> Iterator[bytes]:
    instance = dataset_files.instance
    names = dataset_files.meta_info(dataset_files.keypoint_set("coco17").names)
    frames = [{"frame_id": i, "instances": [instance()]} for i in range(len(_PICTURES) - 3)]
    return _dumped(
        [instance(), instance(26)],
        {"meta_info": names, "instance_info": [instance()]},
        {"meta_info": {}, "instance_info": frames},
    )


def _plain() -> Iterator[bytes]:
    more = {"image": np.array(["a.jpg", "b.jpg", "a.jpg"]), "focal": np.full(3, 900.0)}
    yield _saved(keypoint_files.plain_arrays())
    yield _saved(keypoint_files.plain_arrays(**more, track=np.array([4, 5, 4])))


def _spin() -> Iterator[bytes]:
    yield _saved(dataset_files.spin_arrays())
    size = {"width": np.full(3, 64), "height": np.full(3, 48), "focal": np.full(3, 90.0)}
    yield _saved(dataset_files.spin_arrays(openpose=None, **size))


def _humandata() -> Iterator[bytes]:
    mask = dataset_files.COCO_MASK
    arrays = dataset_files.human_arrays(mask, smpl=None, meta=None)
    yield _saved(arrays)
    arrays["keypoints2d"] = arrays["keypoints2d"][:, sorted(mask)]
    yield _saved(arrays | {"__keypoints_compressed__": np.array(True)})


def _threedpw() -> Iterator[bytes]:
    for protocol in (0, 2, 4, 5):
        yield pickle.dumps(dataset_files.pw3d_content(), protocol=protocol)


def _samples(name: str) -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        yield dataset_files.sample_files(Path(folder))[name].read_bytes()


def _small_body(num_joints: int = 24) -> dict[str, np.ndarray]:
    """Few vertices, so that the arrays that count are not lost among numbers."""
    arrays = synthetic_arrays(num_joints=num_joints)
    weights, regressor = arrays["weights"][:6], arrays["J_regressor"][:, :6]
    names = ("v_template", "shapedirs", "posedirs")
    return {
        **{name: arrays[name][:6].astype(np.float32) for name in names},
        "weights": weights,
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "kintree_table": arrays["kintree_table"],
        "f": arrays["f"][:3] % 6,
    }


def _bodies() -> Iterator[bytes]:
    points = {"landmark_names": np.array(["nose"]), "landmark_regressor": np.eye(6)[:1]}
    yield _saved({**_small_body(), **points})
    yield _saved(_small_body(52))


def _pickled_bodies() -> Iterator[bytes]:
    arrays = _small_body()
    arrays["J_regressor"] = scipy.sparse.csc_matrix(arrays["J_regressor"])
    for protocol in (0, 2, 4, 5):
        yield pickle.dumps(arrays, protocol=protocol)


def _priors() -> Iterator[bytes]:
    yield _saved({
        "weights": np.array([0.5, 0.5], np.float32),
        "means": np.zeros((2, 69), np.float32),
        "covariances": np.tile(np.eye(69, dtype=np.float32), (2, 1, 1)),
    })  # fmt: skip


def _estimates() -> Iterator[bytes]:
    arrays = {"pose": np.zeros((2, 72)), "betas": np.zeros((2, 10))}
    yield _saved(arrays)
    yield _saved({**arrays, "imgname": np.array(["a.jpg", "b.jpg"]), "transl": np.ones((2, 3))})


def _marks() -> Iterator[bytes]:
    yield b"image,person\n0.jpg,0\n2.jpg,0\n"
    yield from _groups()


def _groups() -> Iterator[bytes]:
    yield b'row,image,person,sport\r\n1,"1.jpg",0,"a ""b"""\r\n'


def _images() -> Iterator[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(
            stream, kind, **({} if kind in ("BMP", "GIF") else {"exif": exif})
        )
        yield stream.getvalue()
    for mode in ("P", "RGBA", "I;16", "1"):
        stream = io.BytesIO()
        Image.new(mode, (5, 4)).save(stream, "PNG")
        yield stream.getvalue()


def _checkpoints() -> Iterator[bytes]:
    content = {
        "format": "bodyloop", "version": 1, "architecture": "toy", "config": {"task": "lifter"},
        "metrics": {"step": 3}, "body_sha256": "", "training": None,
        "model": {"weight": torch.ones(2, 3), "bias": torch.arange(2)},
    }  # fmt: skip
    for is_zip in (True, False):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=is_zip)
        yield stream.getvalue()


def _configs() -> Iterator[bytes]:
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        yield path.read_bytes()
    yield b"task: lifter\ntraining: &a {steps: 5}\nseed: 0x10\n"

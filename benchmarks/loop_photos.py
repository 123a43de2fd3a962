"""The loop on photographs that nobody has 3D truth for: 2D accuracy and plausibility.

    python benchmarks/loop_photos.py --photographs FOLDER --cache FOLDER [--encoder tuned]

The folder holds `images/` and `keypoints.npz` with `imgname`, `keypoints_2d (N, 14, 3)`, LSP's
joints in pixels with their visibility, and `joint_names`: square crops of LSP-extended (Johnson and
Everingham, CVPR 2011), for one. The last tenth by number of the picture is held out. Networks learn
from the others as in `loop_gain.py`. Judged by PCK@0.2 of the torso (Yang and Ramanan, PAMI 2013)
of what the network says alone, and by the mean energy of its poses under the bundled prior, lower
being likelier; `fit-cli fit` and the loop's fits beside it.

Photographs of the best, the median and the worst stay in the cache, to be looked at.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import roma
import torch
from loop_gain import ENCODERS, OBSERVED, VARIANTS, Study, Variant, fit
from numpy.typing import NDArray
from record import RESULTS, describe_run

from fitting.allocator import keep_freed_memory
from fitting.body import load_body, pose_body
from fitting.camera import make_intrinsics, project_points
from fitting.files import write_json
from fitting.images import read_image, write_image
from fitting.keypoints import map_keypoints
from fitting.overlay import draw_overlay
from fitting.posing import params_of
from fitting.skeleton import keypoint_set
from fitting.table import FitsTable, build_truth, read_fits, write_fits
from priors.gmm import load_pose_prior
from regressor.feature_cache import FeatureCache
from regressor.image_task import LABELS, ImageTask

LSP = keypoint_set("lsp14")
HELD_OUT = "held_out.parquet"
CHOSEN = ("keypoints", "adversarial", "static_lift", "spin_lift", "loop_lift")
WEAKER = (0.1, 0.01)  # weights of the adversarial prior, for what they cost and gain
_SHARE_HELD_OUT = 0.1
_PCK = 0.2  # of the torso
_TORSO = [LSP.names.index("left_shoulder"), LSP.names.index("right_hip")]


def variants() -> list[Variant]:
    """Those of `loop_gain.py` that need no truth, and weaker adversarial priors."""
    chosen = {variant.name: variant for variant in VARIANTS if variant.name in CHOSEN}
    adversarial = chosen.pop("adversarial")
    weights = (adversarial.adversarial, *WEAKER)
    adversarials = [
        replace(
            adversarial,
            name=f"adversarial_{weight:g}",
            what=f"{adversarial.what}, weight {weight:g}",
            adversarial=weight,
        )
        for weight in weights
    ]
    return [chosen.pop("keypoints"), *adversarials, *chosen.values()]


def read_photographs(folder: Path) -> FitsTable:
    """Their people, of whom nothing is known in 3D."""
    with np.load(folder / "keypoints.npz") as content:
        order = [content["joint_names"].tolist().index(name) for name in LSP.names]
        keypoints = content["keypoints_2d"][:, order].astype(np.float32)
        image = content["imgname"]
    N = len(image)
    height, width = read_image(folder / "images" / str(image[0])).shape[:2]
    size = torch.tensor([[width, height]]).float().expand(N, 2)
    unknown = {
        name: np.full((N, length), np.nan, np.float32)
        for name, length in (("global_orient", 3), ("body_pose", 69), ("betas", 10), ("transl", 3))
    }
    columns = {
        "image": image,
        "person": np.zeros(N, int),
        "annotation_id": np.arange(N),
        "width": np.full(N, width),
        "height": np.full(N, height),
        "keypoint_set": np.full(N, LSP.name),
        "keypoints_2d": keypoints.reshape(N, -1),
        **unknown,
    }
    return build_truth(columns, make_intrinsics(size).numpy(), {})


def prepare(photographs: Path, cache: Path, device: str) -> Path:
    """Split the people and fit those to learn from, where that was not done before; the fits."""
    cache.mkdir(parents=True, exist_ok=True)
    people = read_photographs(photographs)
    order = np.argsort(people.column_array("image"), kind="stable")
    split = round((1 - _SHARE_HELD_OUT) * len(people))
    write_fits(cache / OBSERVED, people.select(np.sort(order[:split])))
    write_fits(cache / HELD_OUT, people.select(np.sort(order[split:])))
    for name, out in ((OBSERVED, "fits_lift"), (HELD_OUT, "fits_held_out")):
        fit(cache / name, cache / out, "lift", device)
    return cache / "fits_lift"


def pck(projected: NDArray[np.floating], table: FitsTable) -> float:
    """Share of the labelled joints (N, 14, 2) within a fifth of the torso, which must be seen."""
    labelled = table.column_array("keypoints_2d").reshape(len(table), -1, 3)
    torso = labelled[:, _TORSO]
    size = np.linalg.norm(torso[:, 0, :2] - torso[:, 1, :2], axis=1)
    seen = (labelled[..., 2] > 0) & (torso[..., 2] > 0).all(axis=1)[:, None]
    errors = np.linalg.norm(projected - labelled[..., :2], axis=2)
    return float((errors <= _PCK * size[:, None])[seen].mean())


def judge_fits(table: FitsTable) -> dict[str, float]:
    """2D accuracy and plausibility of fits, of those that have parameters."""
    table = table.select(table.has_parameters)
    body = load_body()
    params = params_of(table, body.v_template)
    with torch.no_grad():
        keypoints = map_keypoints(body, LSP)(pose_body(body, params))
        pixels, _ = project_points(keypoints, torch.from_numpy(table.intrinsics))
    return {
        "pck_02": round(pck(pixels.numpy(), table), 4),
        "pose_energy": round(energy(params.body_pose), 2),
    }


def energy(body_pose: torch.Tensor) -> float:
    """Mean negative log density of poses (N, 69) under the bundled prior, but for a constant."""
    return float(load_pose_prior().component_costs(body_pose).amin(dim=1).mean())


def judge(task: ImageTask, study: Study, held_out: FitsTable) -> dict[str, Any]:
    """What the network of a task says of the people held out."""
    batch = task.validation.first(study.judged)
    points = [task.data.keypoints.names.index(point) for point in LSP.points]
    projected, poses, vertices = [], [], []
    network = task.network.eval()
    with torch.no_grad():
        for start in range(0, study.judged, 64):
            part = {name: value[start : start + 64] for name, value in batch.items()}
            seen = task.see(network, part)
            projected.append(seen["projected"][:, points])
            poses.append(network(part["images"]).pose_rotmat[:, 1:])
            vertices.append(seen["vertices"] + seen["transl"][:, None])
    rotvec = roma.rotmat_to_rotvec(torch.cat(poses)).flatten(1)
    found = torch.cat(projected).numpy()
    return {
        "pck_02": round(pck(found, held_out), 4),
        "pose_energy": round(energy(rotvec), 2),
        "projected": found,
        "vertices": torch.cat(vertices).numpy(),
    }


def draw(seen: dict[str, Any], held_out: FitsTable, images: Path, path: Path) -> None:
    """Two of the best, of the median and of the worst, as the network sees them."""
    labelled = held_out.column_array("keypoints_2d").reshape(len(held_out), -1, 3)
    distance = np.linalg.norm(seen["projected"] - labelled[..., :2], axis=2)
    error = np.nanmean(np.where(labelled[..., 2] > 0, distance, np.nan), axis=1)
    order, middle = np.argsort(error), len(error) // 2
    faces, columns = load_body().faces.numpy(), []
    for row in [*order[:2], *order[middle : middle + 2], *order[-2:]]:
        image = read_image(images / str(held_out.column_array("image")[row]))
        overlay = draw_overlay(
            image,
            seen["vertices"][row],
            faces,
            held_out.intrinsics[row],
            keypoints_2d=labelled[row, :, :2],
            conf=labelled[row, :, 2],
        )
        columns.append(np.concatenate([image, overlay]))
    write_image(path, np.concatenate(columns, axis=1))


def train_and_judge(
    variant: Variant, seed: int, *, study: Study, held_out: FitsTable, features: FeatureCache | None
) -> dict[str, Any]:
    """Train and judge one network; its record."""
    record, task = study.train(variant, seed, features)
    seen = judge(task, study, held_out)
    draw(seen, held_out, study.images, study.runs / f"{variant.name}-{seed}.png")
    record |= {name: seen[name] for name in ("pck_02", "pose_energy")}
    out = study.folder(variant, seed)
    if task.loop is not None:
        record["fits"] = judge_fits(read_fits(out / LABELS / "00.parquet"))
    return record


@click.command()
@click.option("--photographs", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--cache", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--encoder", default="tuned", show_default=True, type=click.Choice([*ENCODERS]))
@click.option("--steps", default=1200, show_default=True, type=click.IntRange(min=1))
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(min=2))
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--jobs", default=1, show_default=True, help="Trainings side by side.")
@click.option("--only", multiple=True, type=click.Choice([v.name for v in variants()]))
@click.option("--device", default="cpu", show_default=True)
@click.option("--output", default=RESULTS / "loop_photos.json", type=click.Path(path_type=Path))
def main(
    photographs: Path,
    cache: Path,
    encoder: str,
    steps: int,
    batch_size: int,
    seeds: int,
    jobs: int,
    only: tuple[str, ...],
    device: str,
    output: Path,
) -> None:
    """Train and judge all variants."""
    keep_freed_memory()  # as `fit-cli train` does
    fits = prepare(photographs, cache, device)
    held_out = read_fits(cache / HELD_OUT)
    study = Study(
        tables={None: cache / OBSERVED, "lift": fits},
        images=photographs / "images",
        crop="keypoints",
        held_out={
            "kind": "table",
            "path": str(cache / HELD_OUT),
            "images": str(photographs / "images"),
        },
        judged=len(held_out),
        runs=cache / "runs",
        pictures=ENCODERS[encoder],
        steps=steps,
        batch_size=batch_size,
        device=device,
    )
    command = f"python benchmarks/loop_photos.py --encoder {encoder} --steps {steps}"
    command += f" --batch-size {batch_size} --seeds {seeds} --jobs {jobs} --device {device}"
    described = describe_run(" ".join([command, *(f"--only {name}" for name in only)]))
    content: dict[str, Any] = {
        "learned_from": len(read_fits(cache / OBSERVED)),
        "held_out": len(held_out),
        "static_fits": judge_fits(read_fits(fits)),
        "static_fits_held_out": judge_fits(read_fits(cache / "fits_held_out")),
    }
    chosen = [variant for variant in variants() if not only or variant.name in only]
    features, records = study.features(chosen[0]), []
    measure = partial(train_and_judge, study=study, held_out=held_out, features=features)
    for record in study.measure_all(measure, chosen, seeds, jobs):
        records.append(record)
        click.echo(f"{record['variant']:16} seed {record['seed']}: {record}")
        means = {
            name: statistics.fmean(r["pck_02"] for r in records if r["variant"] == name)
            for name in dict.fromkeys(r["variant"] for r in records)
        }
        write_json(output, {**described, **content, "runs": records, "mean_pck_02": means})


if __name__ == "__main__":
    main()

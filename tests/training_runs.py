"""Folders of invented training runs, as `fit-cli train` leaves them, without training."""

from __future__ import annotations

import io
import json
import math

import numpy as np
from PIL import Image

from fitting.files import write_json
from fitting.table import PARAMETERS, build_fits, write_fits
from regressor.image_task import COUNTS, LABELS
from regressor.loop import FOLDER
from regressor.run_log import METRICS_NAME, TIMES_NAME
from regressor.snapshot_files import HELD_OUT, LEARNED_FROM, write_people, write_snapshot
from regressor.store.fit_store import create_store
from regressor.store.fits import Origin, StoredFits
from regressor.store.identity import DatasetIdentity, StoreIdentity
from tests.fits import fit_columns

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>.jpg"
DATASET = "0: <b>photos</b>"
STEPS = (100, 200, 300)  # of the evaluations
SIZE = 128  # pixels across the pictures
FOCAL = 1.4 * SIZE
NUM_STORED = 40
CONFIG = """\
task: image
training: {steps: 300}
data: {sources: [{kind: table, path: people, params: fits}]}
loop: {largest_error: 0.1, largest_beta: 4.0}
"""


def write_log(folder, steps, *, every=10):
    """Curves that fall, and at each hundredth step an evaluation."""
    lines, times = [], []
    for step in range(every, steps + 1, every):
        loss = 2 * math.exp(-step / 150) + 0.1 * math.sin(step) ** 2 + 0.3
        line = {"step": step, "lr": 1e-3 * (1 - step / (steps + 1))}
        line["losses"] = {"loss": loss, "joints": 0.2 * loss, "keypoints_2d": 0.1 * loss}
        if step % 100 == 0:
            error = 60 + 9000 / step
            line["metrics"] = {"pa_mpjpe_mm": error, "mpjpe_mm": 1.6 * error, "pck_2d": 0.5}
            shares = {"static": 100 / step, "regressor": 0.0, "loop": 1 - 100 / step}
            line["files"] = {"filled": 0.9, "cost": 900 / step, "improved": 0.2, **shares}
        lines.append(json.dumps(line))
        times.append(json.dumps({"step": step, "seconds": 0.5 * step}))
    (folder / METRICS_NAME).write_text("".join(f"{line}\n" for line in lines))
    (folder / TIMES_NAME).write_text("".join(f"{line}\n" for line in times))


def write_album(folder, body):
    """Three people: one held out, one learned from, and one who has no fit until the last step.

    Returns:
        Estimates (S, 3, 85) and what they are compared with, NaN where there is nothing.
    """
    rng = np.random.default_rng(4)
    params = np.zeros((3, 85))
    params[:, 0] = np.pi  # upright in the camera's frame
    params[:, 3:72] = rng.normal(0, 0.25, (3, 69))
    params[:, 82:] = [0, 0.1, 3.0]
    pictures = [_picture(color) for color in ((70, 110, 150), (150, 100, 70), (90, 140, 90))]
    columns = {
        "group": [HELD_OUT, LEARNED_FROM, LEARNED_FROM],
        "dataset": ["", DATASET, DATASET],
        "row": [-1, 0, 7],
        "image": ["", HOSTILE, "b.jpg"],
        "size": [SIZE] * 3,
        "camera": [[FOCAL, FOCAL, (SIZE - 1) / 2, (SIZE - 1) / 2]] * 3,
        "keypoints": [[60.0, 20.0, 64.0, 100.0]] * 3,
        "truth": [params[0].tolist(), None, None],
        "picture": pictures,
    }
    write_people(folder, columns, body_sha256=body.sha256)
    estimates = np.stack([params + rng.normal(0, 30 / step, params.shape) for step in STEPS])
    estimates[..., 82:] = params[:, 82:]
    against = np.repeat(params[None], len(STEPS), axis=0)
    against[:-1, 2] = np.nan
    for step, estimate, fit in zip(STEPS, estimates, against, strict=True):
        known = [False, True, not np.isnan(fit[2]).any()]
        columns = {
            "estimate": estimate.tolist(),
            "fit": _where(known, fit.tolist()),
            "joint_std_mm": _where(known, [[40.0] * 24] * 3),
            "cost": _where(known, [9.0] * 3),
            "error_px": _where(known, [3.0] * 3),
            "origin": ["none", "loop", "loop" if known[2] else "none"],
            "epoch": [0, step // 50, 6 if known[2] else 0],
        }
        write_snapshot(folder, step, columns)
    return estimates, against


def write_store(folder):
    """A store of fits, and the labels of it: the last four people have none."""
    rng = np.random.default_rng(6)
    identity = StoreIdentity(
        body_sha256="b" * 64,
        datasets=(DatasetIdentity(name=DATASET, num_rows=NUM_STORED, sha256="1" * 64),),
    )
    rows = np.arange(NUM_STORED - 4)
    fits = StoredFits(
        params=rng.normal(0, 0.5, (len(rows), 85)),
        joint_std_mm=rng.uniform(20, 90, (len(rows), 24)),
        cost=rng.gamma(4, 5, len(rows)),
        error_px=rng.gamma(4, 1, len(rows)),
        focal=np.full(len(rows), 500.0),
        epoch=rows % 6,
        origin=np.where(rows < 10, Origin.STATIC, Origin.LOOP),
    )
    create_store(folder / FOLDER, identity, [(DATASET, rows, fits)])
    columns = fit_columns(NUM_STORED)
    points = rng.uniform(0, 100, (NUM_STORED, 17, 3))
    points[..., 2] = 1
    points[:, 0, :2], points[:, 1, :2] = 0, 100  # all are 100 pixels large
    columns |= {
        "keypoints_2d": points.reshape(NUM_STORED, -1),
        "reprojection_error_px": np.full(NUM_STORED, 5.0),
    }
    columns["reprojection_error_px"][:3] = 10.5  # of 100 pixels: not to be trusted
    columns["betas"][2:5, 3] = 4.5  # nor are these; the first of them for both reasons
    for name in (*PARAMETERS, "reprojection_error_px"):
        columns[name][-4:] = np.nan
    (folder / LABELS).mkdir()
    write_fits(folder / LABELS / "00.parquet", build_fits(columns, {}))
    write_json(folder / LABELS / COUNTS, {DATASET: {"in_file": 47, "kept": NUM_STORED}})
    return fits


def write_run(folder, body):
    """A run of all parts; what its snapshots hold."""
    write_log(folder, STEPS[-1])
    (folder / "config.yaml").write_text(CONFIG)
    best = {"value": 60 + 9000 / 300, "step": 300, "since": 0}
    record = {"task": "image", "ended": "finished", "steps": 300, "steps_per_second": 2.0}
    write_json(folder / "run.json", {**record, "best": best})
    write_store(folder)
    return write_album(folder, body)


def _where(known, values):
    return [value if there else None for value, there in zip(values, known, strict=True)]


def _picture(color):
    """A JPEG of a wall that grows darker to the floor."""
    rows = np.linspace(1, 0.6, SIZE)[:, None, None] * np.array(color)
    stream = io.BytesIO()
    Image.fromarray(np.broadcast_to(rows, (SIZE, SIZE, 3)).astype(np.uint8)).save(stream, "JPEG")
    return stream.getvalue()

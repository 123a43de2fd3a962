"""The example pictures of `make demo`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fitting.body import load_body, pose_body
from fitting.images import read_image
from fitting.posing import params_of
from fitting.table import read_fits

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    pytest.importorskip("skimage")
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "tools/make_demo.py", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment)
    return folder


def test_pictures_and_truth_are_written(demo):
    truth = read_fits(demo / "truth.parquet")
    assert len(truth) == 4
    for name, width in zip(truth.column_array("image"), truth.column_array("width"), strict=True):
        assert read_image(demo / name).shape[1] == width
    assert read_image(demo / "astronaut.jpg").shape == (512, 512, 3)


def test_the_true_people_are_in_the_picture(demo):
    """All joints, projected by OpenCV, lie in the picture, and fill a good part of it."""
    truth = read_fits(demo / "truth.parquet")
    body = load_body()
    joints = pose_body(body, params_of(truth, torch.zeros(1))).joints.detach().numpy()
    for row, K in enumerate(truth.intrinsics.astype(float)):
        pixels, _ = cv2.projectPoints(joints[row].astype(float), np.zeros(3), np.zeros(3), K, None)
        width, height = (truth.column_array(n)[row] for n in ("width", "height"))
        inside = (pixels[:, 0] > 0) & (pixels[:, 0] < [width, height])
        assert inside.all()
        assert np.ptp(pixels[:, 0, 1]) > 0.45 * height

"""`fitting.fit`, the Python twin of the command line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fitting
from fitting.body import load_body
from fitting.camera import make_intrinsics, project_points
from fitting.keypoints import map_keypoints
from fitting.skeleton import keypoint_set


@pytest.fixture
def keypoints_2d():
    body, s = load_body(), keypoint_set("lsp14")
    with torch.no_grad():
        posed = body(
            torch.tensor([[torch.pi, 0, 0]]),
            torch.zeros(1, 69),
            torch.zeros(1, 10),
            torch.tensor([[0.0, 0.2, 4.0]]),
        )
        K = make_intrinsics(torch.tensor([[400.0, 300.0]]))
        return project_points(map_keypoints(body, s)(posed), K)[0].numpy()


def test_fit_returns_parameters_that_project_onto_the_keypoints(keypoints_2d):
    result = fitting.fit(keypoints_2d, image_size=(400, 300), keypoint_set="lsp14", device="cpu")
    assert result.params.body_pose.shape == (1, 69)
    assert result.mean_reprojection_error.item() < 4
    assert result.params.transl[0, 2].item() == pytest.approx(4, abs=0.6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoint_set": "coco17"}, r"keypoints_2d must be \(N, 17, 2\)"),
        ({"keypoint_set": "lps14"}, "did you mean lsp14"),
        ({"solver": "newton"}, "use one of lm, adam, lbfgs"),
        ({"conf": np.full((1, 14), 2.0)}, "row 0.*confidence"),
        ({"image_size": (0, 300)}, "width and height"),
    ],
)
def test_wrong_arguments_are_named(change, message, keypoints_2d):
    arguments = {"image_size": (400, 300), "keypoint_set": "lsp14", **change}
    with pytest.raises(ValueError, match=message):
        fitting.fit(keypoints_2d, **arguments)


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = fitting.fitt

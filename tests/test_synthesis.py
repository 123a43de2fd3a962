"""The stream of people with truth, and what detectors are taken to make of their keypoints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from fitting.body import pose_body
from fitting.camera import project_points
from fitting.keypoints import map_keypoints
from fitting.skeleton import BODY_POINTS, KEYPOINT_SETS, keypoint_set
from priors.mocap import load_mocap, split_of
from regressor.synthetic.detection import DetectionConfig, detect
from regressor.synthetic.people import CameraConfig, PeopleStream, PoseConfig, StreamConfig

CLEAN = DetectionConfig(exact=1, missing=0, wrong=0, cut=0, swapped=0)
AS_RECORDED = PoseConfig(composed=0, jittered=0)


@pytest.fixture(scope="module")
def poses():
    return load_mocap()


@pytest.fixture(scope="module")
def stream(body, poses):
    return PeopleStream(body, poses, StreamConfig(), seed=1)


def test_a_batch_depends_on_seed_and_number_alone(body, poses, stream):
    again = PeopleStream(body, poses, StreamConfig(), seed=1)
    first, second = stream.people(7, 16), again.people(7, 16)
    assert torch.equal(first.problem.keypoints_2d, second.problem.keypoints_2d)
    assert torch.equal(first.pose_rotmat, second.pose_rotmat)
    other_seed = PeopleStream(body, poses, StreamConfig(), seed=2)
    for other in (stream.people(8, 16), other_seed.people(7, 16)):
        assert not torch.equal(first.pose_rotmat, other.pose_rotmat)


def test_truth_is_that_of_the_mesh(body, poses):
    """Keypoints and joints against the posed mesh, pixels against the camera's projection."""
    config = StreamConfig(detection=CLEAN, cameras=CameraConfig(unknown_focal=0))
    people = PeopleStream(body, poses, config, seed=3).people(0, 8)
    output = pose_body(body, people.params)
    torch.testing.assert_close(people.joints, output.joints, atol=1e-4, rtol=0)
    points = map_keypoints(body, BODY_POINTS)(output)
    torch.testing.assert_close(people.keypoints_3d, points, atol=1e-4, rtol=0)
    pixels, in_front = project_points(points, people.problem.intrinsics)
    seen = (people.problem.conf > 0) & in_front
    torch.testing.assert_close(people.keypoints_2d[seen], pixels[seen], atol=0.1, rtol=0)
    torch.testing.assert_close(people.problem.keypoints_2d[seen], pixels[seen], atol=0.1, rtol=0)


def test_a_guessed_focal_length_moves_people_along_the_axis(body, poses):
    guessed = StreamConfig(detection=CLEAN, cameras=CameraConfig(unknown_focal=1, focal_error=0.5))
    people = PeopleStream(body, poses, guessed, seed=3).people(0, 64)
    # at the pelvis's depth, both cameras see the same
    pelvis = people.joints[:, :1]
    depth_at_true_focal = people.keypoints_2d - people.problem.intrinsics[:, None, :2, 2]
    pixels, _ = project_points(people.keypoints_3d, people.problem.intrinsics)
    size = people.problem.person_size
    off = (pixels - people.keypoints_2d).norm(dim=2).mean(dim=1) / size
    assert depth_at_true_focal.isfinite().all() and (pelvis[..., 2] > 0).all()
    assert off.median() < 0.02


def test_only_points_of_the_set_drawn_are_seen(stream):
    people = stream.people(0, 64)
    masks = torch.tensor(
        [[p in s.points for p in BODY_POINTS.points] for s in KEYPOINT_SETS.values()]
    )
    seen = people.problem.conf > 0
    within = (seen[:, None] & ~masks).sum(dim=2) == 0
    assert within.any(dim=1).all()
    assert seen.any(dim=1).all()


def test_one_set_gives_its_own_keypoints(body, poses):
    config = StreamConfig(keypoint_sets={"h36m17": 1.0}, detection=CLEAN)
    people = PeopleStream(body, poses, config, seed=0).people(0, 4)
    assert people.problem.keypoint_set is keypoint_set("h36m17")
    assert (people.problem.conf == 1).all()


def test_poses_are_of_the_split(body, poses):
    config = StreamConfig(split="validation", poses=AS_RECORDED)
    stream = PeopleStream(body, poses, config, seed=0)
    kept = np.array([split_of(subject) == "validation" for subject in poses.subject])
    assert len(stream.pose_rotmat) == 2 * kept.sum()


def test_noise_has_the_stated_deviation():
    config = replace(CLEAN, exact=0, sigma=(2.0, 2.0), spread=0)
    problem = standing_people(4000)
    seen = detect(problem, config, torch.Generator().manual_seed(0))
    white = (seen.keypoints_2d - problem.keypoints_2d) / (2 * problem.person_size / 200)[
        :, None, None
    ]
    assert stats.kstest(white.flatten()[:5000].numpy(), "norm").pvalue > 1e-3
    assert white.std().item() == pytest.approx(1, abs=0.01)


def test_shares_of_missing_and_wrong_keypoints():
    problem = standing_people(4000)
    generator = torch.Generator().manual_seed(0)
    missing = detect(problem, replace(CLEAN, missing=0.4), generator)
    assert (missing.conf == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    wrong = detect(problem, replace(CLEAN, wrong=0.3), generator)
    moved = (wrong.keypoints_2d != problem.keypoints_2d).any(dim=2)
    # uniform between -0.1 and 0.3, not below 0: a mean of 0.1125
    assert moved.float().mean().item() == pytest.approx(0.1125, abs=0.01)


def test_swapped_people_keep_their_keypoints_under_other_names():
    problem = standing_people(400)
    swapped = detect(problem, replace(CLEAN, swapped=1), torch.Generator().manual_seed(0))
    changed = (swapped.keypoints_2d != problem.keypoints_2d).any(dim=2)
    assert changed.any(dim=1).all()
    flip = problem.keypoint_set.flip
    everything = changed[:, 1:].all(dim=1)  # but for the nose
    assert 0.2 < everything.float().mean() < 0.5
    torch.testing.assert_close(
        swapped.keypoints_2d[everything], problem.keypoints_2d[:, flip][everything]
    )


def test_someone_of_whom_all_was_lost_keeps_one_keypoint():
    problem = standing_people(200)
    lost = detect(problem, replace(CLEAN, missing=1, cut=1), torch.Generator().manual_seed(0))
    assert (lost.conf > 0).any(dim=1).all()
    assert ((lost.conf > 0).sum(dim=1) == 1).any()


def test_detection_leaves_its_input_alone():
    problem = standing_people(8)
    before = problem.keypoints_2d.clone(), problem.conf.clone()
    detect(problem, DetectionConfig(), torch.Generator().manual_seed(0))
    assert torch.equal(problem.keypoints_2d, before[0])
    assert torch.equal(problem.conf, before[1])


def standing_people(count):
    from fitting.camera import make_intrinsics
    from fitting.problem import FitProblem

    generator = torch.Generator().manual_seed(5)
    size = torch.tensor([640.0, 480.0]).expand(count, 2)
    s = keypoint_set("coco17")
    return FitProblem(
        keypoint_set=s,
        keypoints_2d=100 + 200 * torch.rand(count, len(s), 2, generator=generator),
        conf=torch.ones(count, len(s)),
        intrinsics=make_intrinsics(size),
        image_size=size,
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": "dev"}, "split must be train, validation or test"),
        ({"keypoint_sets": {"coco18": 1.0}}, "did you mean coco17"),
        ({"keypoint_sets": {}}, "positive weights"),
        ({"keypoint_sets": {"coco17": 0.0}}, "positive weights"),
    ],
)
def test_what_makes_no_stream_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        StreamConfig(**change)


def test_shares_must_be_shares():
    with pytest.raises(ValueError, match="missing must be a share"):
        DetectionConfig(missing=1.5)
    with pytest.raises(ValueError, match="sigma"):
        DetectionConfig(sigma=(3.0, 1.0))

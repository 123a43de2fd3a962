"""Who is who from picture to picture, and when."""

from __future__ import annotations

import numpy as np
import pytest

from fitting.files import InputError
from fitting.people import People, index_within_image
from fitting.tracks import link_people, make_tracks, number_frames

SHAPE = np.random.default_rng(5).uniform(-50, 50, (17, 2))  # of a person 100 px tall


def people(places, images, *, seen=None, track=None):
    """People around places (N, 2) px, in pictures named `images`."""
    N = len(places)
    conf = np.ones((N, 17)) if seen is None else np.repeat(np.array(seen, float)[:, None], 17, 1)
    noise = np.random.default_rng(1).normal(0, 1, (N, 17, 2))
    return People(
        keypoint_set="coco17",
        image=np.array(images),
        person=index_within_image(np.array(images)),
        annotation_id=np.arange(N),
        width=np.full(N, 640),
        height=np.full(N, 480),
        keypoints_2d=np.asarray(places, float)[:, None] + SHAPE + noise,
        conf=conf,
        focal=np.full(N, np.nan),
        track=track,
    )


def names(frames, pattern="clip/{:04}.jpg"):
    return [pattern.format(frame) for frame in frames]


def test_numbers_come_from_names():
    images = ["b/f_10.jpg", "b/f_2.jpg", "a/f_7.jpg", "b/f_2.jpg", "b/f_30.jpg"]
    folder, frame = number_frames(np.array(images))
    assert frame.tolist() == [10, 2, 7, 2, 30]
    assert folder[0] == folder[1] == folder[3] == folder[4] != folder[2]


@pytest.mark.parametrize(
    "ordered",
    [
        ["cam1.png", "cam2 take9.png", "cam2 take10.png", "end.png"],  # one has no number
        ["1_take2.png", "2_take2.png", "10_take1.png", "10_take2.png"],  # one number twice
    ],
)
def test_numbers_are_places_in_natural_order(ordered):
    shuffled = np.array(ordered)[[2, 0, 3, 1]]
    assert number_frames(shuffled)[1].tolist() == [2, 0, 3, 1]


@pytest.mark.parametrize("away", [0, 6])
def test_crossing_people_keep_their_tracks(away):
    """Also if both are not seen where they pass each other: they are expected to go on."""
    frames = np.concatenate([np.arange(15 - away // 2), np.arange(15 + away // 2, 30)])
    N = len(frames)
    one = np.stack([100 + 10.0 * frames, np.full(N, 200.0)], axis=1)
    other = np.stack([390 - 10.0 * frames, np.full(N, 210.0)], axis=1)
    places = np.stack([one, other], axis=1)
    places[1::2] = places[1::2, ::-1]  # the order within pictures says nothing
    track = link_people(people(places.reshape(-1, 2), np.repeat(names(frames), 2)), fps=30)
    found = track.reshape(N, 2)
    found[1::2] = found[1::2, ::-1]
    assert (found == found[0]).all()
    assert found[0, 0] != found[0, 1]


def test_gaps_are_bridged_up_to_a_second():
    frames = np.array([0, 1, 2, 20, 21, 60, 61])
    places = np.stack([100 + 2.0 * frames, np.full(7, 200.0)], axis=1)
    track = link_people(people(places, names(frames)), fps=30)
    assert track[:5].tolist() == [0] * 5
    assert track[5:].tolist() == [1] * 2, "too long away"


def test_somebody_leaves_and_somebody_else_comes():
    frames = [0, 0, 1, 1, 2, 3, 4, 4]
    places = [[100, 100], [400, 100], [102, 100], [403, 100], [104, 100], [106, 100], [108, 100],
              [250, 300]]  # fmt: skip
    track = link_people(people(places, names(frames)), fps=30)
    assert track.tolist() == [0, 1, 0, 1, 0, 0, 0, 2]


def test_people_not_seen_are_linked_to_nobody():
    track = link_people(people([[100, 100]] * 3, names([0, 1, 2]), seen=[1, 0, 1]), fps=30)
    assert track.tolist() == [0, -1, 0]


def test_folders_are_videos_of_their_own():
    images = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"]
    track = link_people(people([[100, 100]] * 4, images), fps=30)
    assert track.tolist() == [0, 0, 1, 1]


def test_tracks_are_in_order_of_time():
    file = people(np.zeros((6, 2)), names([4, 1, 1, 3, 9, 0]), track=[7, 7, 2, 2, 7, -1])
    tracks = make_tracks(file, fps=10)
    found = {tuple(t.rows.tolist()): t.seconds.round(6).tolist() for t in tracks}
    assert found == {(5,): [0], (2, 3): [0, 0.2], (1, 0, 4): [0, 0.3, 0.8]}


def test_tracks_without_names_are_in_the_order_of_rows():
    tracks = make_tracks(people(np.zeros((4, 2)), [""] * 4, track=[3, 1, 3, 3]), fps=2)
    found = {tuple(t.rows.tolist()): t.seconds.tolist() for t in tracks}
    assert found == {(1,): [0], (0, 2, 3): [0, 0.5, 1]}


def test_nobody_is_no_track():
    empty = people(np.zeros((0, 2)), [], track=np.zeros(0, int))
    assert make_tracks(empty, 30) == []
    assert link_people(empty, 30).tolist() == []


@pytest.mark.parametrize(
    ("images", "track", "fps", "message"),
    [
        (names([1, 1]), [5, 5], 30, "row 1: track 5 is in the picture clip/0001.jpg twice"),
        (names([1, 2]), [5, 5], 0, "fps must be a positive number"),
        (names([1, 2]), [5, 5], float("nan"), "fps must be a positive number"),
        (names([1, 2]), None, -1, "fps must be a positive number"),
        ([names([1])[0], ""], None, 30, "row 1 names no picture"),
    ],
)
def test_what_cannot_be_a_video_is_named(images, track, fps, message):
    file = people(np.zeros((2, 2)), images, track=track)
    with pytest.raises(InputError, match=message):
        if track is None:
            link_people(file, fps)
        else:
            make_tracks(file, fps)

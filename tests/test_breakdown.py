"""Tables by groups of people, against means worked out by hand; and the pictures of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from fitting import evaluation_plots
from fitting.breakdown import (
    NOISE_LABELS,
    Grouping,
    break_down,
    group_by_columns,
    group_by_noise,
    group_by_seen,
)
from fitting.evaluation import BodyErrors, Comparison
from fitting.files import InputError, OutputError
from fitting.groups import read_groups
from fitting.keypoint_quality import KeypointQuality
from fitting.skeleton import KEYPOINT_SETS

# Five invented people. MPJPE of LSP's joints, then what follows from it.
MPJPE = np.array([40.0, 60.0, 200.0, 100.0, 150.0])
PCK_2D = np.array([1, 1, 0.5, np.nan, 0])  # the camera of the fourth is not known
NOISE = np.array([0.0, 0.003, 0.03, 0.03, np.nan])
SEEN = np.array([17, 17, 3, 12, 0])


def comparison(**changes) -> Comparison:
    joints = np.zeros((5, 24))
    joints[:, 1:] = MPJPE[:, None]
    shares = {"pck_150": MPJPE <= 150, "auc": 1 - MPJPE / 400, "pck_2d": PCK_2D}
    errors = {
        "smpl24.mpjpe_mm": MPJPE + 1, "smpl24.pa_mpjpe_mm": MPJPE / 2,
        "lsp14.mpjpe_mm": MPJPE, "lsp14.pa_mpjpe_mm": MPJPE / 4, "pve_mm": MPJPE * 2,
        **{f"{joints}.{name}": np.asarray(values, float)
           for joints in ("smpl24", "lsp14") for name, values in shares.items()},
    }  # fmt: skip
    found = Comparison(
        counts={"truth": 7, "matched": 5, "missing": 2, "extra": 0},
        matched=[(f"{n}.jpg", 0) for n in range(5)],
        missing=[("5.jpg", 0), ("6.jpg", 0)],
        bodies=BodyErrors(
            errors=errors,
            joint_errors_mm={"smpl24": joints, "lsp14": np.tile(MPJPE[:, None], 14)},
            joint_names={name: KEYPOINT_SETS[name].names for name in ("smpl24", "lsp14")},
        ),
        keypoints=KeypointQuality(
            set_size=np.full(5, 17),
            seen=SEEN,
            compared=np.where(np.isnan(NOISE), 0, SEEN),
            wrong=np.array([0, 1, 2, 0, 0]),
            noise=NOISE,
        ),
        joint_std_mm=np.where(np.arange(24) > 0, np.full((5, 24), 70.0), 0),  # 0 at the pelvis
    )
    return replace(found, **changes)


def of_group(rows, label):
    (row,) = (row for row in rows if row["group"] == label)
    return row


# --- groups


@pytest.mark.parametrize("name", KEYPOINT_SETS)
def test_every_number_of_keypoints_has_its_bin(name):
    P = len(KEYPOINT_SETS[name])
    seen = np.arange(P + 1)
    zeros = np.zeros(P + 1)
    quality = KeypointQuality(
        set_size=np.full(P + 1, P), seen=seen, compared=seen, wrong=zeros, noise=zeros
    )
    grouping = group_by_seen(quality)
    assert grouping.labels[0] == "none"
    assert [grouping.labels[i] for i in grouping.index[:1]] == ["none"]
    for count in seen[1:]:
        low, high = grouping.labels[grouping.index[count]].split(" to ")
        assert int(low) <= count <= int(high)
    assert grouping.labels[-1].endswith(f" to {P}")


def test_bins_of_coco():
    labels = group_by_seen(comparison().keypoints).labels
    assert labels == ("none", "1 to 3", "4 to 6", "7 to 10", "11 to 13", "14 to 17")


def test_sets_of_two_sizes_are_binned_by_shares():
    P, seen = np.array([17, 24, 24, 0]), np.array([17, 12, 1, 0])
    zeros = np.zeros(4)
    grouping = group_by_seen(
        KeypointQuality(set_size=P, seen=seen, compared=seen, wrong=zeros, noise=zeros)
    )
    found = [grouping.labels[i] for i in grouping.index]
    assert found == ["80 to 100 %", "40 to 60 %", "0 to 20 %", "unknown"]


def test_bins_of_noise():
    shares = np.array([0, 0.00009, 0.0002, 0.0049, 0.0051, 0.0099, 0.015, 0.025, 0.039, 0.041, 9])
    quality = replace(comparison().keypoints, noise=np.append(shares, np.nan))
    grouping = group_by_noise(quality)
    np.testing.assert_array_equal(grouping.index, [0, 0, 1, 1, 2, 2, 3, 4, 4, 5, 5, 6])
    assert grouping.labels == (*NOISE_LABELS, "unknown")
    assert group_by_noise(replace(quality, noise=shares)).labels == NOISE_LABELS


GROUPS = """\
person,image,action,subject
0,0.jpg,walk,A
0,1.jpg, run ,A
0,2.jpg,walk,B

0,4.jpg,,B
0,5.jpg,run,B
0,6.jpg,unknown,A
0,9.jpg,swim,C
"""


@pytest.fixture
def groups(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text(GROUPS, encoding="utf-8-sig")
    return read_groups(path)


def test_columns_of_a_file(groups):
    found = group_by_columns(groups, comparison())
    assert list(found) == ["action", "subject"]
    action = found["action"]
    assert action.labels == ("walk", "run", "swim", "unknown")
    np.testing.assert_array_equal(action.index, [0, 1, 0, 3, 3])  # 3.jpg is absent, 4.jpg empty
    assert action.missing == (0, 1, 0, 1)  # of 5.jpg and 6.jpg
    np.testing.assert_array_equal(found["subject"].index, [0, 0, 1, 3, 1])


def test_no_group_unknown_where_all_are_known(groups):
    alone = comparison(matched=[(f"{n}.jpg", 0) for n in range(3)], missing=[])
    assert group_by_columns(groups, alone)["action"].labels == ("walk", "run", "swim")


def test_a_file_of_other_people_is_refused(groups):
    with pytest.raises(InputError, match=r"groups\.csv holds none of the 1 people"):
        group_by_columns(groups, comparison(matched=[("0.jpg", 7)], missing=[]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the columns must be image, person and something to group by, got none"),
        ("image,person\n", "line 1: the columns must be image, person and something"),
        ("image,action\n", "line 1: the columns must be image, person and something"),
        ("image,person,\n", "line 1: each column needs a name of its own"),
        ("image,person,a,a\n", "line 1: each column needs a name of its own"),
        ("image,person,a\nx,0,b\nx,0\n", "line 3: 2 cells under 3 columns"),
        ("image,person,a\n\nx,one,b\n", "line 3: person must be the whole number .* got 'one'"),
        ("image,person,a\nx,0,b\ny,0,b\nx,0,c\n", "line 4: person 0 of the picture 'x' .* line 2"),
        ('image,person,a\nx,0,"b"c\n', "line 2: no CSV .*; check the quotes"),
        ("image,person,a\nx,0,\x1b[31m\n", "line 2: a cell holds characters that cannot be"),
        ("image,person,ä\n", "is not UTF-8 text"),
    ],
)
def test_files_that_are_no_groups_name_the_line(text, message, tmp_path):
    path = tmp_path / "g.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=rf"g\.csv,? {message}"):
        read_groups(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"absent\.csv cannot be read .*; check the path"):
        read_groups(tmp_path / "absent.csv")


# --- numbers


def test_everyone_by_hand():
    found = break_down(comparison())["overall"]
    assert found["people"] == 5
    assert found["lsp14"] == pytest.approx(
        {
            "mpjpe_mm": 110, "mpjpe_median_mm": 100, "above_150": 1 / 5,
            "pa_mpjpe_mm": 27.5, "pa_mpjpe_median_mm": 25, "pck_150": 4 / 5, "auc": 0.725,
            "pck_2d": 2.5 / 4,
        }
    )  # fmt: skip
    assert found["smpl24"]["mpjpe_mm"] == pytest.approx(111)
    assert found["smpl24"]["above_150"] == pytest.approx(2 / 5)  # 151 is above, 150 was not
    assert (found["pve_mm"], found["pve_median_mm"]) == pytest.approx((220, 200))
    assert found["keypoints"] == {"seen": 49, "compared": 49, "wrong": 3}


def test_groups_by_hand():
    found = break_down(comparison())
    rows = found["by_noise"]
    assert [row["people"] for row in rows] == [1, 1, 0, 0, 2, 0, 1]
    noisy = of_group(rows, "2 to 4 %")
    assert noisy["lsp14"]["mpjpe_mm"] == pytest.approx(150)
    assert noisy["lsp14"]["above_150"] == pytest.approx(0.5)
    assert noisy["keypoints"] == {"seen": 15, "compared": 15, "wrong": 2}
    rows = found["by_keypoints_seen"]
    assert {row["group"]: row["people"] for row in rows} == {
        "none": 1, "1 to 3": 1, "4 to 6": 0, "7 to 10": 0, "11 to 13": 1, "14 to 17": 2,
    }  # fmt: skip
    assert of_group(rows, "14 to 17")["pve_median_mm"] == pytest.approx(100)
    assert found["by_group"] == {}


def test_groups_of_a_file_by_hand(groups):
    rows = break_down(comparison(), group_by_columns(groups, comparison()))["by_group"]["action"]
    numbers = [(row["group"], row["people"], row["missing"]) for row in rows]
    assert numbers == [("walk", 2, 0), ("run", 1, 1), ("swim", 0, 0), ("unknown", 2, 1)]
    assert rows[0]["lsp14"]["mpjpe_mm"] == pytest.approx((40 + 200) / 2)


def test_a_group_of_nobody_has_no_numbers():
    row = of_group(break_down(comparison())["by_noise"], "over 4 %")
    assert row["people"] == 0
    assert set(row["lsp14"].values()) == {None}
    assert row["pve_mm"] is row["pve_median_mm"] is row["calibration"] is None
    assert row["keypoints"] == {"seen": 0, "compared": 0, "wrong": 0}


def test_joints_by_hand():
    errors = np.arange(24) + np.array([0.0, 10, 20, 30, 0])[:, None]
    bodies = replace(comparison().bodies, joint_errors_mm={"smpl24": errors})
    found = break_down(comparison(bodies=bodies))["mpjpe_by_joint_mm"]["smpl24"]
    assert found["pelvis"] == 12
    assert found["right_hand"] == 23 + 12
    assert len(found) == 24


def test_calibration_by_hand():
    """Errors of 40, 60, 200, 100, 150 mm, all said to be 70: 2 within once, 3 within twice."""
    found = break_down(comparison())["overall"]["calibration"]
    assert (found["people"], found["within_1"], found["within_2"]) == (5, 2 / 5, 3 / 5)
    assert found["predicted_mm"] == pytest.approx(70)
    assert found["actual_mm"] == pytest.approx(np.sqrt((MPJPE**2).mean()))
    assert found["curve"]["joints"] == [23] * 5, "no more bins than people"


def test_the_curve_is_sorted_by_what_was_stated():
    stated = np.tile(np.array([50.0, 40, 30, 20, 10])[:, None], 24)
    curve = break_down(comparison(joint_std_mm=stated))["overall"]["calibration"]["curve"]
    assert curve["predicted_mm"] == pytest.approx([10, 20, 30, 40, 50])
    assert curve["actual_mm"] == pytest.approx(MPJPE[::-1])


def test_people_who_do_not_say_leave_calibration():
    stated = np.full((5, 24), 70.0)
    stated[[0, 3]] = np.nan
    stated[1, 4] = 0
    found = break_down(comparison(joint_std_mm=stated))
    assert found["overall"]["calibration"]["people"] == 2
    assert found["overall"]["calibration"]["within_1"] == 0
    assert of_group(found["by_noise"], "exact")["calibration"] is None
    nobody = break_down(comparison(joint_std_mm=np.full((5, 24), np.nan)))
    assert nobody["overall"]["calibration"] is None


def test_numbers_are_strict_json(groups):
    numbers = break_down(comparison(), group_by_columns(groups, comparison()))
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers


# --- pictures

PICTURES = (
    "calibration.png", "error_by_joint.png", "error_by_keypoints.png", "error_by_noise.png",
    "pck.png",
)  # fmt: skip


def drawn(axes, label):
    """(N, 2) points of the line called `label`."""
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return line.get_xydata()


def test_curves_are_the_numbers():
    found = comparison()
    figure = evaluation_plots.draw_calibration(found, {"noise": group_by_noise(found.keypoints)})
    everyone, by_noise = figure.axes
    curve = break_down(found)["overall"]["calibration"]["curve"]
    points = everyone.lines[0].get_xydata()
    np.testing.assert_allclose(points, np.transpose([curve["predicted_mm"], curve["actual_mm"]]))
    texts = [text.get_text() for text in by_noise.get_legend().get_texts()]
    assert texts[2] == "2 to 4 %, n = 2: 0 / 50 %"
    title = by_noise.get_legend().get_title().get_text()
    assert "61 to 68 / 95 to 99 %" in title


def test_many_groups_are_not_drawn():
    many = Grouping(labels=tuple("abcdefg"), index=np.arange(5))
    one = Grouping(labels=("a",), index=np.zeros(5, dtype=int))
    seven = comparison(
        matched=[("x", n) for n in range(7)],
        joint_std_mm=np.full((7, 24), 70.0),
        bodies=replace(comparison().bodies, joint_errors_mm={"smpl24": np.ones((7, 24))}),
    )
    groupings = {"many": replace(many, index=np.arange(7)), "one": one}
    assert len(evaluation_plots.draw_calibration(seven, groupings).axes) == 1


def test_bands_are_quartiles():
    (axes,) = evaluation_plots.draw_by_noise(comparison()).axes
    np.testing.assert_allclose(drawn(axes, "median"), [[0, 40], [1, 60], [4, 150]])
    (band,) = (c for c in axes.collections if c.get_label() == "quartiles")
    at_4 = band.get_paths()[0].vertices
    assert {125.0, 175.0} <= set(at_4[at_4[:, 0] == 4][:, 1])
    assert axes.get_xticklabels()[4].get_text() == "2 to 4 %\nn = 2"


def test_errors_over_the_keypoints_seen():
    (axes,) = evaluation_plots.draw_by_keypoints(comparison()).axes
    np.testing.assert_allclose(drawn(axes, "median"), [[0, 150], [3, 200], [12, 100], [17, 50]])
    assert axes.get_xlabel() == "keypoints seen, of 17"
    quality = replace(comparison().keypoints, set_size=np.array([17, 34, 17, 24, 0]))
    (axes,) = evaluation_plots.draw_by_keypoints(comparison(keypoints=quality)).axes
    np.testing.assert_allclose(drawn(axes, "median")[:, 0], [18, 50, 100])


def test_bars_are_the_joints_means():
    smpl, lsp = evaluation_plots.draw_by_joint(comparison()).axes
    assert [bar.get_width() for bar in smpl.patches] == pytest.approx([0, *[110] * 23])
    assert [label.get_text() for label in lsp.get_yticklabels()][:2] == [
        "right ankle",
        "right knee",
    ]
    np.testing.assert_allclose(lsp.lines[0].get_xdata(), 100)


def test_curves_count_the_joints_within_a_distance():
    (axes,) = evaluation_plots.draw_pck(comparison()).axes
    lsp = axes.lines[1]
    assert lsp.get_label().startswith("lsp14, AUC 0.3")
    at = dict(lsp.get_xydata().tolist())
    assert [at[mm] for mm in (38.0, 40.0, 60.0, 98.0, 100.0, 150.0)] == pytest.approx(
        [0, 1 / 5, 2 / 5, 2 / 5, 3 / 5, 4 / 5]
    )


def test_pictures_of_hostile_groups(tmp_path):
    labels = (r"$\frac{", "_hidden", "a" * 200, "x$y")
    grouping = Grouping(labels=labels, index=np.array([0, 1, 2, 3, 3]))
    left_out = evaluation_plots.write_plots(tmp_path / "p", comparison(), {"a_$b": grouping})
    assert left_out == {}
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == list(PICTURES)
    for name in PICTURES:
        image = cv2.imread(str(tmp_path / "p" / name))
        assert image.shape[0] > 400
        assert image.std() > 10, "not blank"
    figure = evaluation_plots.draw_calibration(comparison(), {"a_$b": grouping})
    texts = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert [text.split(",")[0] for text in texts] == [
        r"\$\frac{", "_hidden", "a" * 23 + "…", r"x\$y",
    ]  # fmt: skip


def test_one_person_without_errors(tmp_path):
    bodies = comparison().bodies
    alone = comparison(
        matched=[("0.jpg", 0)],
        bodies=replace(
            bodies,
            errors={name: np.zeros(1) for name in bodies.errors},
            joint_errors_mm={"smpl24": np.zeros((1, 24)), "lsp14": np.zeros((1, 14))},
        ),
        keypoints=KeypointQuality(
            **{name: getattr(comparison().keypoints, name)[:1]
               for name in ("set_size", "seen", "compared", "wrong", "noise")}
        ),
        joint_std_mm=np.full((1, 24), 70.0),
    )  # fmt: skip
    assert evaluation_plots.write_plots(tmp_path, alone) == {}
    assert break_down(alone)["overall"]["calibration"]["curve"]["joints"] == [23]


def test_pictures_that_cannot_be_drawn_are_named_and_old_ones_go(tmp_path):
    evaluation_plots.write_plots(tmp_path, comparison())
    zeros = np.zeros(5, dtype=int)
    nothing = KeypointQuality(
        set_size=zeros, seen=zeros, compared=zeros, wrong=zeros, noise=np.full(5, np.nan)
    )
    silent = comparison(joint_std_mm=np.full((5, 24), np.nan), keypoints=nothing)
    left_out = evaluation_plots.write_plots(tmp_path, silent)
    assert sorted(left_out) == ["calibration.png", "error_by_keypoints.png", "error_by_noise.png"]
    assert "joint_std_mm" in left_out["calibration.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["error_by_joint.png", "pck.png"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a file stands"):
        evaluation_plots.write_plots(tmp_path / "file" / "plots", comparison())


def test_without_matplotlib_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'bodyloop\[train\]'"):
        evaluation_plots.write_plots(tmp_path / "plots", comparison())
    assert not (tmp_path / "plots").exists()

"""The benchmarks' own arithmetic, and that they run; their numbers are in benchmarks/results."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.spatial.transform import Rotation
from untrained import save_untrained

from fitting.body import load_body, pose_body
from fitting.files import InputError
from fitting.problem import PARAMETERS, BodyParams
from regressor.checkpoints import Checkpoint, save_checkpoint
from regressor.config import TrainingConfig, config_to_dict
from regressor.lift import LIFTER_FILE
from regressor.pose2mesh.task import Pose2MeshConfig, Pose2MeshNetworkConfig, make_network

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def update_readme():
    path = ROOT / "tools" / "update_readme.py"
    spec = importlib.util.spec_from_file_location("update_readme", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(module, folder, *options):
    """The record that a benchmark writes."""
    path = folder / f"{module.__name__}.json"
    done = CliRunner().invoke(module.main, [*options, "--output", str(path)])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return json.loads(path.read_text(encoding="utf-8"))


# --- the regressor-like start


def people(rng, count=1000):
    arrays = {
        "global_orient": rng.normal(size=(count, 3)),
        "body_pose": rng.normal(size=(count, 69)) * 0.5,
        "betas": rng.normal(size=(count, 10)),
        "transl": rng.uniform([-1, -1, 3], [1, 1, 8], (count, 3)),
    }
    return BodyParams(**{name: torch.from_numpy(value) for name, value in arrays.items()})


def rotations(params):
    rotvec = torch.cat([params.global_orient, params.body_pose], dim=1).reshape(-1, 3)
    return Rotation.from_rotvec(rotvec.numpy())


def assert_normal(sample, std):
    """Mean 0 and the deviation `std` (columns) of rows, within five standard errors."""
    N = len(sample)
    assert (np.abs(sample.mean(0)) < 5 * std / np.sqrt(N)).all()
    assert (np.abs(sample.std(0) - std) < 5 * std / np.sqrt(2 * N)).all()


def test_estimate_is_off_by_what_is_documented(benchmark, rng):
    truth = people(rng)
    estimate = benchmark("problems").perturb(truth, seed=3)
    turned = (rotations(truth).inv() * rotations(estimate)).as_rotvec().reshape(-1, 24, 3)
    assert_normal(turned, np.where(np.arange(24) == 0, 0.1, 0.08)[:, None] * np.ones(3))
    assert_normal((estimate.betas - truth.betas).numpy(), np.full(10, 0.7))
    scale = (estimate.transl[:, 2:] / truth.transl[:, 2:]).numpy()
    assert_normal(np.log(scale), np.array([0.08]))
    across = estimate.transl.numpy() / scale - truth.transl.numpy()
    assert_normal(across[:, :2], np.full(2, 0.03))


def test_estimate_depends_on_nothing_but_its_seed(benchmark, rng):
    truth, perturb = people(rng, 4), benchmark("problems").perturb
    before = truth.pack(PARAMETERS).clone()
    first, again, other = (perturb(truth, seed).pack(PARAMETERS) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not (first == other).any()
    assert torch.equal(truth.pack(PARAMETERS), before)


# --- what a computation costs


def test_operations_are_counted_by_their_formulas(benchmark):
    count_cost = benchmark("cost").count_cost
    a, b = torch.rand(7, 3, 4), torch.rand(7, 4, 5)
    assert count_cost(lambda: a @ b).flops == 2 * 7 * 3 * 4 * 5
    matrix, right = torch.eye(6).repeat(5, 1, 1), torch.rand(5, 6, 2)
    assert count_cost(lambda: torch.linalg.cholesky_ex(matrix)).flops == 5 * 6**3 // 3
    assert count_cost(lambda: torch.cholesky_solve(right, matrix)).flops == 5 * 2 * 6**2 * 2


def test_bytes_are_those_read_and_written(benchmark):
    count_cost = benchmark("cost").count_cost
    x = torch.rand(10, 20)
    assert count_cost(lambda: x + x).bytes == 3 * 4 * 200
    assert count_cost(lambda: x.T[3:]).bytes == 0, "views move nothing"
    row = torch.rand(1, 20).expand(10, 20)
    assert count_cost(lambda: x * row).bytes == 4 * (200 + 20 + 200), "repetitions are not read"


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_counting_is_on_one_thread_and_puts_them_back(benchmark, two_threads):
    seen = []
    benchmark("cost").count_cost(lambda: seen.append(torch.get_num_threads()))
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2


def test_median_is_over_the_runs_wanted(benchmark):
    calls = []
    seconds, runs = benchmark("cost").time_median(
        lambda: calls.append(0), torch.device("cpu"), runs=4
    )
    assert runs == 4
    assert len(calls) == 5, "one to warm up"
    assert 0 <= seconds < 0.1


def test_no_run_begins_beyond_the_budget(benchmark):
    cost = benchmark("cost")
    assert cost.time_median(lambda: None, torch.device("cpu"), runs=9, budget=0)[1] == 1
    assert cost.time_median(lambda: None, torch.device("cpu"), runs=9, budget=0, least=3)[1] == 3


# --- the benchmarks themselves


@pytest.fixture(scope="module")
def pose2mesh(tmp_path_factory):
    """A checkpoint of an untrained Pose2Mesh."""
    sizes = Pose2MeshNetworkConfig(pose_width=16, mesh_channels=((4, 4), (4,), (4,), (4, 3)))
    config = Pose2MeshConfig(training=TrainingConfig(), network=sizes)
    body = load_body()
    checkpoint = Checkpoint(
        architecture="pose2mesh",
        config=config_to_dict(config),
        metrics={},
        body_sha256=body.sha256,
        model=make_network(config, body).state_dict(),
    )
    path = tmp_path_factory.mktemp("pose2mesh") / "best.pt"
    save_checkpoint(path, checkpoint)
    return path


@pytest.fixture(scope="module")
def accuracy(benchmark, tmp_path_factory, pose2mesh):
    folder = tmp_path_factory.mktemp("accuracy")
    options = ["--people", "3", "--solver", "lm", "--level", "2px", "--level", "4px"]
    options += ["--lbfgs-people", "2", "--pose2mesh", str(pose2mesh)]
    for seconds in (100.0, 20.5):
        path = folder / f"{seconds}.json"
        path.write_text(json.dumps({"seconds": {"train": seconds, "evaluate": 7.0}}))
        options += ["--training", "pose2mesh", str(path)]
    return run(benchmark("accuracy"), folder, *options)


@pytest.fixture(scope="module")
def speed(benchmark, tmp_path_factory):
    return run(benchmark("speed"), tmp_path_factory.mktemp("speed"), "--quick")


def test_accuracy_has_every_start_of_a_solver(accuracy):
    labels = [(r["noise"], r["solver"], r["start"], r["proximal"]) for r in accuracy["results"]]
    starts = [("start", start, False) for start in ("lift", "regressor")]
    of_lm = [("mean", False), ("modes", False), ("lift", True)]
    of_lm += [("regressor", True), ("regressor", False)]
    expected = [
        (noise, *label)
        for noise in ("2px", "4px")
        for label in [*starts, *(("lm", *start) for start in of_lm)]
    ]
    assert labels == expected
    for result in accuracy["results"]:
        assert result["people"] == 3
        assert result["subset"]["people"] == 2
        assert result["pa_mpjpe"] < result["mpjpe"] < 500
        assert 0 <= result["outliers"] <= 1
    _, start, _, _, _, told, untold = accuracy["results"][:7]
    assert 40 < start["mpjpe"] < 130, "the estimate of a good regressor"
    assert told["mpjpe"] < start["mpjpe"]
    assert told["mpjpe"] < untold["mpjpe"], "people keep the depth that a picture does not show"
    assert told["reprojection_px"] < start["reprojection_px"]


def test_networks_are_measured_beside_each_other(accuracy, pose2mesh):
    lifter, other = accuracy["networks"]
    assert (lifter["network"], other["network"]) == ("lift", "pose2mesh")
    assert lifter["training_seconds"] is None
    assert other["training_seconds"] == 120.5
    assert other["megabytes"] == pytest.approx(pose2mesh.stat().st_size / 1e6, abs=0.06)
    # weights of 4 bytes fill the file
    assert other["parameters"] == pytest.approx(pose2mesh.stat().st_size / 4, rel=0.2)
    for network in accuracy["networks"]:
        assert [r["noise"] for r in network["results"]] == ["2px", "4px"]
        assert all(
            set(r["families"]) == {"everyday", "dance", "acrobatics"} for r in network["results"]
        )
    skeletal = [r for r in accuracy["results"] if (r["solver"], r["start"]) == ("start", "lift")]
    for found, expected in zip(lifter["results"], skeletal, strict=True):
        # joints of the mesh are some millimetres beside those of the skeleton
        for name in ("mpjpe", "pa_mpjpe", "pve"):
            assert found[name] == pytest.approx(expected[name], abs=5)
        assert other["results"][0]["mpjpe"] > found["mpjpe"], "it is untrained"
    assert "/" not in accuracy["command"].replace("benchmarks/accuracy.py", "")


def test_errors_of_a_swollen_mesh_are_its_growth(benchmark):
    """A mesh a tenth too large, somewhere else: no error is left once it is scaled."""
    networks, truth = benchmark("networks"), benchmark("problems").make_truth(load_body(), 3, 0)
    body = load_body()
    posed = pose_body(body, truth.params)
    swollen = 1.1 * posed.vertices + torch.tensor([1.0, 2.0, 3.0])
    errors = networks.mesh_errors(lambda problem: swollen, body, truth.problem, truth.params)
    pelvis = (posed.vertices.mT @ body.J_regressor[0])[:, None]
    expected = 100 * (posed.vertices - pelvis).norm(dim=2).mean(dim=1)
    np.testing.assert_allclose(errors["pve"], expected, rtol=1e-4)
    assert (errors["pa_mpjpe"] < 1e-2).all()
    assert (errors["mpjpe"] > 20).all()


def test_only_a_pose2mesh_is_compared(benchmark):
    with pytest.raises(InputError, match="holds no Pose2Mesh"):
        benchmark("networks").make_pose2mesh(load_body(), LIFTER_FILE)


def test_lbfgs_fits_some_of_every_family(benchmark, monkeypatch):
    accuracy = benchmark("accuracy")
    truth = accuracy.make_truth(accuracy.load_body(), 9, 0)
    case = next(case for case in accuracy.CASES if case.solver == "lbfgs")
    seen = []

    def note(case, body, prior, problem, estimate):
        seen.append(problem.keypoints_2d)
        raise StopIteration

    monkeypatch.setattr(accuracy, "solve_all", note)
    with pytest.raises(StopIteration):
        accuracy.measure(accuracy.load_body(), truth, [case], ["true"], 0, 3)
    assert set(truth.family[[0, 3, 6]]) == {"everyday", "dance", "acrobatics"}
    assert torch.equal(seen[0], truth.problem.keypoints_2d[[0, 3, 6]])


def test_speed_is_measured_and_compared(speed):
    rates = {(r["solver"], r["start"], r["batch"]): r for r in speed["results"]}
    assert {("lm", "regressor", 32), ("lm", "mean", 1), ("adam", "mean", 1)} <= set(rates)
    for (_, _, batch), row in rates.items():
        assert row["people_per_second"] == pytest.approx(batch / row["seconds"], rel=0.02)
    comparison = speed["comparison"]
    for start, times in comparison["lm_over_adam"].items():
        ours = rates["lm", start, comparison["batch"]]["people_per_second"]
        theirs = rates["adam", "mean" if start == "lift" else start, 1]["people_per_second"]
        assert times == pytest.approx(ours / theirs, rel=0.01, abs=0.1)
        assert comparison["rate_over_reference"][start] == {str(comparison["batch"]): 1}
        assert 0 < speed["alone_ms"][start] < 10_000
        cost = speed["cost_of_a_fit"][start]
        assert 1e-3 < cost["gflop"] < 1
        assert 1e-3 < cost["gbyte"] < 1
        assert 0 < cost["gflop_share_of_peak"] < 1
    assert speed["peak"]["gflops"] > 1
    assert 0.05 < speed["memory_gib"]["before"] <= speed["memory_gib"]["peak"] < 4
    assert speed["setup_seconds"]["lm from mean"] < 10
    assert speed["lifter"]["people_per_second"] > 100


def test_readmes_section_has_both(accuracy, speed, update_readme):
    section = update_readme.results_section(accuracy, speed)
    with_both = [line for line in section.splitlines() if line.startswith("| `lm` | mean |")]
    rates = [
        r["people_per_second"]
        for r in speed["results"]
        if (r["solver"], r["start"]) == ("lm", "mean")
    ]
    first = next(r for r in accuracy["results"] if r["start"] == "mean")
    assert with_both[0].split(" | ")[2] == "–", "true keypoints were not fitted"
    assert with_both[0].split(" | ")[3] == f"{first['mpjpe']:.0f} / {first['pa_mpjpe']:.0f}"
    shown = with_both[0].split(" | ")[-1].rstrip(" |").replace(",", "")
    assert float(shown) == pytest.approx(max(rates), rel=0.06), "of two digits, or whole"
    assert "times as fast" in section
    assert "times as fast" not in update_readme.results_section(accuracy, None)


def test_networks_table_has_sizes_and_every_motion(accuracy, update_readme):
    lines = update_readme.networks_table(accuracy).splitlines()
    lifter, other = (record["results"][1] for record in accuracy["networks"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:10]]
    assert [row[:2] for row in rows[:3]] == [
        ["lifter", "all"],
        ["Pose2Mesh", "all"],
        ["lifter", "everyday"],
    ]
    for row, result in zip(rows, (lifter, other, lifter["families"]["everyday"]), strict=False):
        shown = [float(number) for number in row[4].split(" / ")]
        assert shown == [round(result[name]) for name in ("mpjpe", "pa_mpjpe", "pve")]
        assert row[2] == "–", "true keypoints were not seen"
    assert rows[0][5:] == ["7.0 million", "14 MB", "–"]
    assert rows[1][7] == "2 min"
    assert rows[2][5:] == ["", "", ""]


def test_lifter_table_has_every_motion_before_and_after_the_fit(accuracy, update_readme):
    lines = update_readme.lifter_table(accuracy).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:8]]
    assert [row[0] for row in rows[:3]] == ["everyday, lifter", "everyday, fit", "dance, lifter"]
    of_lift = [r for r in accuracy["results"] if r["start"] == "lift" and r["noise"] == "2px"]
    for row, result in zip(rows, of_lift, strict=False):
        errors = result["families"]["everyday"]
        assert row[1] == "–", "true keypoints were not seen"
        assert row[2] == f"{errors['mpjpe']:.0f} / {errors['pa_mpjpe']:.0f}"


def test_readme_shows_who_else_fitted_the_people_of_lbfgs(accuracy, update_readme):
    mean = next(r for r in accuracy["results"] if (r["noise"], r["start"]) == ("4px", "mean"))
    lbfgs = {**mean, **mean["subset"], "solver": "lbfgs"}
    del lbfgs["subset"]
    section = update_readme.results_section(
        {**accuracy, "results": [*accuracy["results"], lbfgs]}, None
    )
    lines = section.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("| `lbfgs`, 2 people | mean"))
    assert lines[at + 1] == lines[at].replace("lbfgs", "lm")


def test_smplfitter_is_left_out_where_it_is_not_installed(benchmark, monkeypatch):
    monkeypatch.setitem(sys.modules, "smplfitter", None)
    found = benchmark("against_smplfitter").measure_smplfitter(None, None, runs=1)
    assert "not installed" in found["skipped"]


# --- sequences


def test_videos_are_compared_with_their_pictures(benchmark, tmp_path, monkeypatch):
    video = benchmark("video")
    mocap = video.held_out_sequences()
    first = np.flatnonzero(np.isin(mocap.sequence, [0, 9]))
    few = mocap.select(np.concatenate([first[:8], first[-8:]]))
    monkeypatch.setattr(video, "held_out_sequences", lambda: few)
    record = run(video, tmp_path, "--level", "hidden")
    assert (record["sequences"], record["pictures"]) == (2, 16)
    by_case = {(r["noise"], r["method"], r["start"]): r for r in record["results"]}
    assert len(by_case) == 4
    for (noise, method, start), result in by_case.items():
        alone = by_case[noise, "alone", start]
        if method == "video":
            assert result["acceleration_m_s2"] < 0.7 * alone["acceleration_m_s2"]
            assert result["unseen"]["pictures"] == 8
        else:
            assert "unseen" not in result


def test_people_walk_on_the_ground(benchmark):
    """Feet that carry stay where they are, and nothing goes through the ground."""
    sequences = benchmark("sequences")
    body = load_body()
    mocap = sequences.held_out_sequences()
    mocap = mocap.select(mocap.sequence == mocap.sequence[mocap.subject == "007"][0])
    track = np.zeros(len(mocap), int)
    orient, path = sequences._walk(body, mocap.rotvec, np.zeros((len(mocap), 10)), track)
    params = {
        "global_orient": orient.as_rotvec(),
        "body_pose": mocap.rotvec[:, 1:].reshape(-1, 69),
        "betas": np.zeros((len(mocap), 10)),
        "transl": path,
    }
    joints = body(**{k: torch.as_tensor(v).float() for k, v in params.items()}).joints.numpy()
    feet = joints[:, [10, 11]]
    lowest = feet[..., 1].min(axis=1)
    assert np.ptp(lowest) < 0.01
    slid = np.linalg.norm(np.diff(feet, axis=0)[..., [0, 2]], axis=2)
    assert slid.min(axis=1).max() < 0.03, "one foot stands"
    assert slid.max() > 0.2, "the other goes"


# --- drawn people


def test_drawing_is_timed_by_stage(benchmark, tmp_path):
    record = run(
        benchmark("synth"), tmp_path,
        "--pictures", "3", "--turns", "1", "--jobs", "1", "--size", "32",
    )  # fmt: skip
    spent = record["processor_ms_per_picture"]
    stages = dict(spent["stages"])
    assert 0 < stages.pop("of surfaces: triangles") < stages["surfaces"]
    assert min(stages.values()) > 0
    assert sum(stages.values()) == pytest.approx(spent["total"], abs=0.1)
    assert record["jobs"]["1"]["pictures_per_second"] > 0


def test_image_training_is_compared_with_batches_at_hand(benchmark, tmp_path):
    record = run(
        benchmark("image_training"), tmp_path,
        "--steps", "1", "--turns", "1", "--pictures", "3", "--batch-size", "2",
        "--crop-size", "32", "--encoder", "resnet18",
    )  # fmt: skip
    (found,) = record["encoders"].values()
    seconds = found["seconds_per_step"]
    share = seconds["cached"] / seconds["fresh"]
    assert found["share_of_cached_throughput"] == pytest.approx(share, rel=0.02)
    rate = found["crops_per_second_while_training"]
    assert rate == pytest.approx(2 / seconds["fresh"], rel=0.01, abs=0.05)  # of one decimal


# --- predictions


def test_predictions_are_compared_with_the_bare_encoder(benchmark, tmp_path):
    checkpoint = save_untrained(tmp_path / "best.pt")
    record = run(
        benchmark("predict"), tmp_path, "--quick", "--people", "3", "--turns", "1",
        "--checkpoint", str(checkpoint), "--refined", "3",
    )  # fmt: skip
    (found,) = record["networks"].values()
    rates = found["people_per_second"]
    assert set(rates) == {"encoder", "regressor", "with_pictures"}
    assert found["share_of_encoder"] == pytest.approx(
        rates["regressor"] / rates["encoder"], rel=0.02
    )
    share = rates["with_pictures"] / rates["encoder"]
    assert found["share_with_pictures"] == pytest.approx(share, rel=0.02)
    errors = record["refinement"]
    assert set(errors) == {"predicted", "fitted", "lift"}
    assert errors["fitted"]["reprojection_error_px"] < errors["predicted"]["reprojection_error_px"]

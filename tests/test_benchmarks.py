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

from fitting.body import load_body
from fitting.problem import PARAMETERS, BodyParams

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def benchmark():
    """Imports a module of the folder benchmarks; on one thread, as others may use the cores."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        yield importlib.import_module
    torch.set_num_threads(threads)


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
def accuracy(benchmark, tmp_path_factory):
    options = ("--people", "3", "--solver", "lm", "--level", "2px", "--level", "4px")
    folder = tmp_path_factory.mktemp("accuracy")
    return run(benchmark("accuracy"), folder, *options, "--lbfgs-people", "2")


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
    assert with_both[0].endswith(f"| {max(rates):.3g} |")
    assert "times as fast" in section
    assert "times as fast" not in update_readme.results_section(accuracy, None)


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

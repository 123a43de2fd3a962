"""The training loop against plain loops of torch, and against kills, full disks and NaN."""

from __future__ import annotations

import copy
import errno
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from timing import LONG
from torch import nn
from torch.optim.swa_utils import update_bn
from toy_task import ENTRY, ToyConfig, ToyNetworkConfig, ToyTask, make_network

from fitting.files import InputError, OutputError
from regressor import load_checkpoint
from regressor.averaging import WeightAverage, estimate_batch_norm
from regressor.checkpoints import read_checkpoint
from regressor.config import (
    AverageConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
    dump_config,
)
from regressor.distributed import Group
from regressor.learner import all_finite
from regressor.loss_window import LossWindow
from regressor.optimizers import make_optimizer, schedule_factor, set_learning_rate
from regressor.prefetch import prefetch
from regressor.run_log import read_metrics
from regressor.tasks import TASKS, make_task
from regressor.training import DivergedError, train

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setitem(TASKS, "toy", ENTRY)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """The toy is so small that further threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(**changes):
    """A config that uses everything that a resumed run must bring back."""
    return TrainingConfig(
        **{
            "steps": 24,
            "batch_size": 8,
            "accumulate": 2,
            "optimizer": OptimizerConfig(name="adamw", lr=1e-2),
            "schedule": ScheduleConfig(name="cosine", warmup_steps=3),
            "average": AverageConfig(kind="ema", decay=0.8, batch_norm_batches=3),
            "clip_norm": 1.0,
            "evaluate_every": 8,
            "log_every": 5,
            "save_every": 3,
            **changes,
        }
    )


PLAIN = {
    "accumulate": 1,
    "optimizer": OptimizerConfig(name="sgd", lr=0.05),
    "schedule": ScheduleConfig(),
    "average": AverageConfig(),
    "clip_norm": None,
    "workers": 0,
}


def toy(**changes):
    return ToyConfig(training=settings(**changes))


def run(config, out, **options):
    return train(make_task(config), config, out, device="cpu", **options)


def stop_at(step):
    """For `train(stop=...)`: says stop before the update after `step` updates of this sitting."""
    calls = itertools.count()
    return lambda: next(calls) >= step


def assert_same_end(a, b):
    """Weights, optimiser, averages and loss curve, bit for bit."""
    one, other = (read_checkpoint(out / "last.pt") for out in (a, b))
    left, right = (
        torch.utils._pytree.tree_leaves((c.model, c.training["learner"], c.training["best"]))
        for c in (one, other)
    )
    assert len(left) == len(right) > 30
    for x, y in zip(left, right, strict=True):
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
    assert read_metrics(a) == read_metrics(b)
    best = [read_checkpoint(out / "best.pt") for out in (a, b)]
    assert best[0].metrics == best[1].metrics


# --- Against plain torch ------------------------------------------------------------------------


def plain_loop(config, steps):
    """The toy's weights after `steps` updates, by the loop that anyone would write."""
    task = make_task(config)
    network, training = task.network, config.training
    optimizer = torch.optim.SGD(network.parameters(), lr=training.optimizer.lr)
    for step in range(steps):
        optimizer.zero_grad()
        for k in range(training.accumulate):
            batch = task.batch(step * training.accumulate + k)
            loss = nn.functional.mse_loss(network(batch["x"]), batch["y"])
            (loss / training.accumulate).backward()
        if training.clip_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), training.clip_norm)
        optimizer.step()
    return network.state_dict()


@pytest.mark.parametrize("changes", [{}, {"accumulate": 3}, {"clip_norm": 0.1}], ids=str)
def test_updates_are_those_of_a_plain_loop(tmp_path, changes):
    config = replace(toy(**{**PLAIN, "steps": 7, **changes}), network=ToyNetworkConfig(dropout=0.0))
    run(config, tmp_path)
    found = read_checkpoint(tmp_path / "last.pt").model
    for name, expected in plain_loop(config, 7).items():
        torch.testing.assert_close(found[name], expected, msg=name)


@pytest.mark.parametrize(
    ("config", "kind", "given"),
    [
        (OptimizerConfig(name="adam", betas=(0.8, 0.9)), torch.optim.Adam, {"betas": (0.8, 0.9)}),
        (OptimizerConfig(name="adamw"), torch.optim.AdamW, {"betas": (0.9, 0.999)}),
        (OptimizerConfig(name="sgd", momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
        (OptimizerConfig(name="rmsprop", momentum=0.5), torch.optim.RMSprop, {"momentum": 0.5}),
    ],
)
def test_optimizers(config, kind, given):
    optimizer = make_optimizer(
        replace(config, lr=0.3, weight_decay=0.01), nn.Linear(1, 1).named_parameters()
    )
    assert type(optimizer) is kind
    expected = {"lr": 0.3, "weight_decay": 0.01, **given}
    assert {name: optimizer.param_groups[0][name] for name in expected} == expected


def test_parts_learn_at_rates_of_their_own():
    """As if each had an optimiser of its own; Adam's steps are as long as the rate at first."""
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    config = OptimizerConfig(lr=0.5, factors={"1": 0.1, "1.b": 2.0})
    optimizer = make_optimizer(config, network.named_parameters())
    set_learning_rate(optimizer, 0.01)
    network(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    moved = {n: (p - before[n]).abs().max().item() for n, p in network.named_parameters()}
    factors = {"0": 1, "1.weight": 0.1, "1.bias": 2, "2": 1}
    for name, distance in moved.items():
        factor = next(f for prefix, f in factors.items() if name.startswith(prefix))
        assert distance == pytest.approx(0.01 * factor, rel=1e-3), name


@pytest.mark.parametrize(
    ("factors", "message"),
    [({"encodr": 0.1}, "has a name that begins with encodr"), ({"0": 0.0}, "must be above 0")],
)
def test_factors_of_nothing(factors, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(OptimizerConfig(factors=factors), nn.Linear(1, 1).named_parameters())


def torchs_schedule(config, steps):
    """Factors by the schedulers of torch: a linear warm-up, then the one named."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    schedulers = torch.optim.lr_scheduler
    warm = config.warmup_steps
    main = {
        "constant": lambda: schedulers.ConstantLR(optimizer, factor=1.0),
        "cosine": lambda: schedulers.CosineAnnealingLR(
            optimizer, steps - warm, eta_min=config.final_factor
        ),
        "step": lambda: schedulers.MultiStepLR(
            optimizer, [m - warm for m in config.milestones], gamma=config.gamma
        ),
    }[config.name]()
    if warm:
        linear = schedulers.LinearLR(optimizer, 1 / (warm + 1), 1.0, total_iters=warm)
        main = schedulers.SequentialLR(optimizer, [linear, main], milestones=[warm])
    for _ in range(steps):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        main.step()


@pytest.mark.parametrize(
    "config",
    [
        ScheduleConfig(),
        ScheduleConfig(warmup_steps=4),
        ScheduleConfig(name="cosine", final_factor=0.1),
        ScheduleConfig(name="cosine", warmup_steps=5),
        ScheduleConfig(name="step", milestones=(6, 7, 15), gamma=0.3),
        ScheduleConfig(name="step", milestones=(9,), warmup_steps=3),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")  # SequentialLR's own
def test_schedules_are_those_of_torch(config):
    found = [schedule_factor(config, step, 20) for step in range(20)]
    assert found == pytest.approx(list(torchs_schedule(config, 20)), rel=1e-9)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averages_have_closed_forms(kind):
    """Of the weights after steps 3, 5, 7 and 9: start_step 3, every 2."""
    decay = {"decay": 0.7} if kind == "ema" else {}
    network = nn.Linear(1, 1)
    average = WeightAverage(AverageConfig(kind=kind, start_step=3, every=2, **decay), network)
    weights = np.random.default_rng(1).normal(size=11)
    for step in range(1, 11):
        with torch.no_grad():
            network.weight.fill_(weights[step])
        average.update(network, step)
        assert (average.network is None) == (step < 3)
    first, *others = weights[[3, 5, 7, 9]]
    expected = first
    for w in others:
        expected = 0.7 * expected + 0.3 * w
    expected = expected if kind == "ema" else np.mean([first, *others])
    assert average.network.weight.item() == pytest.approx(expected, rel=1e-4)


def test_batch_norms_are_estimated_as_torch_does():
    network = make_network(ToyConfig(network=ToyNetworkConfig(dropout=0.0)))
    batches = [torch.randn(8, 3) for _ in range(5)]
    other = copy.deepcopy(network)
    estimate_batch_norm(network, network, batches)
    update_bn(batches, other)
    for name, expected in other.state_dict().items():
        assert torch.equal(network.state_dict()[name], expected), name
    assert network[1].momentum == 0.1
    assert not network.training


def test_dropout_neither_disturbs_batch_norms_nor_draws_numbers():
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    batch = torch.randn(50, 3)
    before = torch.get_rng_state()
    estimate_batch_norm(network, network, [batch])
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(network[1].running_mean, batch.mean(dim=0))


class HalfFrozen(nn.Module):
    """An encoder that stays as it is, and a head that learns."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.BatchNorm1d(4)
        self.encoder[1].running_mean.uniform_(-1, 1)
        self.encoder[1].running_var.uniform_(1, 2)
        self.encoder.requires_grad_(False)

    def train(self, mode=True):
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, x):
        return self.head(self.encoder(x))


def test_batch_norms_of_a_frozen_encoder_keep_their_statistics():
    """Those of the head are of what the encoder gives in eval mode: NumPy's mean and variance."""
    network = HalfFrozen()
    before = copy.deepcopy(network.encoder.state_dict())
    batches = [torch.randn(8, 3) for _ in range(5)]
    estimate_batch_norm(network, network, batches)
    for name, value in network.encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    mean, var = before["1.running_mean"].numpy(), before["1.running_var"].numpy()
    linear = [b.numpy() @ before["0.weight"].numpy().T + before["0.bias"].numpy() for b in batches]
    features = [(x - mean) / np.sqrt(var + 1e-5) for x in linear]
    means = np.mean([x.mean(axis=0) for x in features], axis=0)
    variances = np.mean([x.var(axis=0, ddof=1) for x in features], axis=0)
    np.testing.assert_allclose(network.head.running_mean, means, atol=1e-6)
    np.testing.assert_allclose(network.head.running_var, variances, rtol=1e-4)
    assert not network.training


def test_the_best_is_the_average_and_scores_what_it_says(tmp_path):
    config = toy(steps=16)
    run(config, tmp_path)
    best, last = read_checkpoint(tmp_path / "best.pt"), read_checkpoint(tmp_path / "last.pt")
    assert best.training is None
    average = last.training["learner"]["average"]
    for name in ("0.weight", "4.bias"):
        assert torch.equal(best.model[name], average[f"module.{name}"])
        assert not torch.equal(best.model[name], last.model[name])
    network = load_checkpoint(tmp_path / "best.pt")
    assert make_task(config).evaluate(network)["error"] == best.metrics["error"]
    assert best.metrics["step"] == 16
    # Its batch norm sees what it normalises: over many batches, mean 0 and variance 1
    x = torch.cat([make_task(config).batch(n)["x"] for n in range(3)])
    seen = network[:2](x)
    assert seen.mean(dim=0).sub(network[1].bias).abs().max() < 1e-5


def test_bfloat16_learns_with_float32_weights(tmp_path):
    run(toy(precision="bfloat16"), tmp_path)
    lines = read_metrics(tmp_path)
    assert lines[-1]["losses"]["loss"] < lines[0]["losses"]["loss"]
    weights = read_checkpoint(tmp_path / "last.pt").model
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}
    run(toy(), tmp_path / "float32")
    assert lines != read_metrics(tmp_path / "float32")


def test_float16_needs_a_gpu(tmp_path):
    with pytest.raises(InputError, match="float16 needs a GPU; use bfloat16"):
        run(toy(precision="float16"), tmp_path)


# --- Logs -------------------------------------------------------------------------------------


def test_logged_losses_are_means_over_the_batches_since_the_last_line(tmp_path):
    config = toy(**{**PLAIN, "steps": 6, "log_every": 3, "accumulate": 2})
    config = replace(config, network=ToyNetworkConfig(dropout=0.0))
    seen = []

    class Recording(ToyTask):
        def losses(self, network, batch):
            losses = super().losses(network, batch)
            seen.append(float(losses["loss"].detach()))
            return losses

    torch.manual_seed(0)
    train(Recording(config), config, tmp_path, device="cpu")
    lines = [line for line in read_metrics(tmp_path) if "losses" in line]
    assert [line["step"] for line in lines] == [3, 6]
    for line, losses in zip(lines, (seen[:6], seen[6:]), strict=True):
        assert line["losses"]["loss"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_watching_the_loss_never_waits_for_the_device():
    """A tensor on the device "meta" has no value: reading one is an error."""
    device = torch.device("meta")
    window = LossWindow(device)
    for number in range(3):
        window.add({"loss": torch.empty((), device=device)}, number)


def test_the_window_names_the_first_bad_batch():
    window = LossWindow(torch.device("cpu"))
    for number, loss in enumerate([1.0, math.inf, 2.0, math.nan]):
        window.add({"loss": torch.tensor(loss)}, number)
    assert window.first_bad(Group()) == 1
    window.clear()
    assert window.first_bad(Group()) is None


def test_tensorboard_has_the_same_numbers_and_pictures(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(toy(steps=10), tmp_path, stop=stop_at(8))
    run(toy(steps=10), tmp_path, resume=True)
    events = loader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    lines = read_metrics(tmp_path)
    for tag in ("losses/loss", "metrics/error"):
        kind, name = tag.split("/")
        expected = {line["step"]: line[kind][name] for line in lines if kind in line}
        found = {event.step: event.value for event in events.Scalars(tag)}
        assert found == pytest.approx(expected, rel=1e-6)
    picture = events.Images("weights")[0]
    assert (picture.height, picture.width) == (4, 6)


def test_without_tensorboard_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said = []
    run(toy(steps=3), tmp_path, say=said.append)
    assert said[0] == "TensorBoard is not installed; metrics.jsonl has the numbers"
    assert not (tmp_path / "tensorboard").exists()
    assert [line["step"] for line in read_metrics(tmp_path)] == [3]


def test_record_and_files_of_a_run(tmp_path):
    ticks = []
    record = run(toy(steps=10), tmp_path, progress=lambda *tick: ticks.append(tick))
    assert json.loads((tmp_path / "run.json").read_text()) == record
    assert (record["ended"], record["steps"], record["device"]) == ("finished", 10, "cpu")
    assert record["best"]["step"] == 10
    assert {"bodyloop", "python", "torch", "numpy"} <= set(record["versions"])
    assert 0 < record["seconds"]["wait"] < record["seconds"]["train"]
    assert ticks == [("train", 0, 10), *[("train", 1, 10)] * 10]
    assert {p.name for p in tmp_path.iterdir()} >= {"best.pt", "last.pt", "metrics.jsonl"}
    assert (tmp_path / "config.yaml").read_text() == dump_config(toy(steps=10))


def test_the_callers_random_numbers_are_left_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run(toy(steps=2), tmp_path)
    assert torch.equal(torch.rand(3), expected)


# --- Early stop ---------------------------------------------------------------------------------


class Scripted(ToyTask):
    """Evaluates to given values."""

    def __init__(self, config, values):
        super().__init__(config)
        self.values = iter(values)

    def evaluate(self, network):
        return {"error": next(self.values)}


def test_patience(tmp_path):
    config = toy(steps=100, evaluate_every=2, patience=3)
    task = Scripted(config, [5.0, 3.0, 4.0, 2.0, 2.0, 3.0, 2.5, 1.0])
    record = train(task, config, tmp_path, device="cpu")
    assert record["ended"] == "no improvement"
    assert record["steps"] == 14
    assert record["best"] == {"value": 2.0, "step": 8, "since": 3}
    assert read_checkpoint(tmp_path / "best.pt").metrics == {"step": 8, "error": 2.0}
    assert read_checkpoint(tmp_path / "last.pt").training["learner"]["step"] == 14


def test_patience_and_the_best_outlive_a_stop(tmp_path):
    config = toy(steps=100, evaluate_every=2, patience=3)
    train(Scripted(config, [5.0, 2.0, 3.0]), config, tmp_path, device="cpu", stop=stop_at(7))
    best = (tmp_path / "best.pt").read_bytes()
    task = Scripted(config, [4.0, 3.0, 1.0])
    record = train(task, config, tmp_path, device="cpu", resume=True)
    assert (record["ended"], record["steps"]) == ("no improvement", 10)
    assert record["best"] == {"value": 2.0, "step": 4, "since": 3}
    assert (tmp_path / "best.pt").read_bytes() == best


# --- Resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": OptimizerConfig(name="sgd", lr=0.05, momentum=0.9), "precision": "bfloat16"},
        {
            "optimizer": OptimizerConfig(name="rmsprop", lr=1e-3),
            "average": AverageConfig(kind="swa", start_step=7, every=2, batch_norm_batches=2),
            "schedule": ScheduleConfig(name="step", milestones=(9, 17)),
        },
    ],
    ids=["adamw-ema-cosine", "sgd-bfloat16", "rmsprop-swa-step"],
)
def test_a_resumed_run_ends_as_an_unbroken_one(tmp_path, changes):
    config = toy(**changes)
    run(config, tmp_path / "unbroken")
    record = run(config, tmp_path / "broken", stop=stop_at(11))
    assert (record["ended"], record["steps"]) == ("interrupted", 11)
    run(config, tmp_path / "broken", resume=True, stop=stop_at(2))
    record = run(config, tmp_path / "broken", resume=True)
    assert (record["ended"], record["resumed_at"]) == ("finished", 13)
    assert_same_end(tmp_path / "unbroken", tmp_path / "broken")


def start_toy(arguments, *, launcher=(), slow=0.0):
    """`fit-cli train` with the toy, in a process and a process group of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "BODYLOOP_TOY_SLOW": str(slow),
    }
    return subprocess.Popen(
        [sys.executable, *launcher, str(HERE / "toy_task.py"), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_step(out, step, process):
    """Until last.pt holds at least `step`."""
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline and process.poll() is None:
        record = out / "run.json"
        if record.exists() and json.loads(record.read_text())["steps"] >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached: {process.communicate(timeout=LONG)[1]}")


def test_a_killed_run_goes_on_as_if_unbroken(tmp_path):
    """SIGKILL with worker processes, accumulation, an average and dropout; resumed with threads."""
    config = toy(prefetch="process", workers=2)
    (tmp_path / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    out = tmp_path / "killed"
    process = start_toy([tmp_path / "config.yaml", "-o", out], slow=0.15)
    wait_for_step(out, 9, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=LONG)
    assert read_checkpoint(out / "last.pt").training["learner"]["step"] < 24
    # As if the kill had come in the middle of a line
    with (out / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 23, "lr": 0.0}\n{"step": 24, "lo')
    again = toy(prefetch="thread", workers=1)
    run(again, out, resume=True)
    run(again, tmp_path / "unbroken")
    assert_same_end(tmp_path / "unbroken", out)


def test_a_finished_run_may_be_resumed_for_longer(tmp_path):
    short, long = toy(**{**PLAIN, "steps": 8}), toy(**{**PLAIN, "steps": 16})
    run(short, tmp_path / "a")
    assert run(short, tmp_path / "a", resume=True)["ended"] == "finished"
    run(long, tmp_path / "a", resume=True)
    run(long, tmp_path / "b")
    a, b = (read_checkpoint(tmp_path / name / "last.pt").model for name in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_what_cannot_be_resumed(tmp_path):
    with pytest.raises(InputError, match=r"last\.pt: no run to resume; leave --resume out"):
        run(toy(), tmp_path, resume=True)
    run(toy(steps=1), tmp_path)
    other = toy(optimizer=OptimizerConfig(name="adamw", lr=0.5))
    with pytest.raises(InputError, match=r"with training\.optimizer\.lr 0\.01, .* says 0\.5"):
        run(other, tmp_path, resume=True)
    with pytest.raises(InputError, match=r"with seed 0, .* says 1"):
        run(replace(toy(), seed=1), tmp_path, resume=True)
    with pytest.raises(InputError, match="step took 2 batches, now it would take 3"):
        run(toy(accumulate=3), tmp_path, resume=True)
    task = make_task(toy())
    task.body_sha256 = "a"
    with pytest.raises(InputError, match="was trained for another body"):
        train(task, toy(), tmp_path, device="cpu", resume=True)
    (tmp_path / "last.pt").write_bytes((tmp_path / "best.pt").read_bytes())
    with pytest.raises(InputError, match="holds no state of a training"):
        run(toy(), tmp_path, resume=True)


def test_an_earlier_run_is_replaced_only_when_told(tmp_path):
    run(toy(steps=8), tmp_path)
    with pytest.raises(OutputError, match=r"already holds files.*--overwrite"):
        run(toy(), tmp_path)
    run(toy(), tmp_path, overwrite=True, stop=stop_at(2))
    assert not (tmp_path / "best.pt").exists()
    assert read_metrics(tmp_path) == []


# --- What goes wrong --------------------------------------------------------------------------


def test_a_nan_loss_stops_the_run_and_keeps_the_last_good_state(tmp_path):
    config = replace(toy(**PLAIN), bad_batches=(13,))
    match = r"NaN or infinite at step 14, in batch 13; .*last\.pt holds step 12; lower training\."
    with pytest.raises(DivergedError, match=match):
        run(config, tmp_path)
    last = read_checkpoint(tmp_path / "last.pt")
    assert last.training["learner"]["step"] == 12
    assert all_finite(last.model.values())
    assert json.loads((tmp_path / "run.json").read_text())["ended"] == "diverged"
    assert [line["step"] for line in read_metrics(tmp_path)] == [5, 8, 10]


def test_an_accumulated_nan_names_its_batch(tmp_path):
    config = replace(toy(), bad_batches=(7,))
    with pytest.raises(DivergedError, match="at step 4, in batch 7"):
        run(config, tmp_path)


def test_weights_that_overflow_are_noticed_before_they_are_saved(tmp_path):
    """The loss before the update was finite."""
    huge = OptimizerConfig(name="sgd", lr=1e30, weight_decay=1e30)
    changes = {**PLAIN, "optimizer": huge, "save_every": 1}
    with pytest.raises(DivergedError, match="weights became NaN or infinite by step 1"):
        run(toy(**changes), tmp_path)
    assert all_finite(read_checkpoint(tmp_path / "last.pt").model.values())


def test_a_nan_metric_stops_the_run(tmp_path):
    config = toy(evaluate_every=2)
    with pytest.raises(DivergedError, match="error became nan at step 4"):
        train(Scripted(config, [1.0, math.nan]), config, tmp_path, device="cpu")
    assert read_checkpoint(tmp_path / "best.pt").metrics["step"] == 2


def test_a_disk_that_fills_up_leaves_a_run_that_can_be_resumed(tmp_path, monkeypatch):
    config = toy()
    run(config, tmp_path / "unbroken")
    real, calls = os.fsync, itertools.count()

    def full(descriptor):
        if next(calls) > 25:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        run(config, tmp_path / "full")
    monkeypatch.undo()
    monkeypatch.setitem(TASKS, "toy", ENTRY)
    assert 0 < read_checkpoint(tmp_path / "full" / "last.pt").training["learner"]["step"] < 24
    run(config, tmp_path / "full", resume=True)
    assert_same_end(tmp_path / "unbroken", tmp_path / "full")


def test_batches_that_cannot_be_made_stop_the_run_with_their_own_words(tmp_path):
    class Empty(ToyTask):
        def batch(self, number):
            raise InputError("data: the data set is empty; give another")

    for prefetched in ("thread", "process"):
        config = toy(prefetch=prefetched)
        with pytest.raises(InputError, match=r"^data: the data set is empty; give another$"):
            train(Empty(config), config, tmp_path / prefetched, device="cpu")


@pytest.mark.parametrize(("kind", "workers"), [("thread", 0), ("thread", 3), ("process", 2)])
def test_prefetched_batches_come_in_order(kind, workers):
    def make(number):
        time.sleep(0.01 * (number % 3 == 0))  # some take longer than those behind them
        return {"x": torch.tensor([number])}

    config = settings(prefetch=kind, workers=workers)
    batches = prefetch(make, range(3, 30, 2), config, pin_memory=False)
    assert [int(batch["x"]) for batch in batches] == list(range(3, 30, 2))


def test_threads_stay_only_a_little_ahead():
    made = []

    def make(number):
        made.append(number)
        return {"x": torch.tensor([number])}

    batches = prefetch(make, range(10**6), settings(workers=2), pin_memory=False)
    next(batches)
    batches.close()
    assert len(made) <= 6


# --- Several processes --------------------------------------------------------------------------


def test_two_processes_are_one_that_accumulates_two_batches(tmp_path):
    """Two of torchrun resume a run that one process began, and end where one process ends.

    Step 8, at which they begin, lies between two lines of the log.
    """
    alone = toy()
    run(alone, tmp_path / "alone")
    run(alone, tmp_path / "both", stop=stop_at(8))
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(toy(accumulate=1)), encoding="utf-8")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = start_toy([config, "-o", tmp_path / "both", "--resume"], launcher=launcher)
    said = process.communicate(timeout=LONG)[1]
    assert process.returncode == 0, said
    assert said.count("step 24: error") == 1
    assert json.loads((tmp_path / "both" / "run.json").read_text())["processes"] == 2
    one, two = (read_checkpoint(tmp_path / name / "last.pt") for name in ("alone", "both"))
    for name, expected in one.model.items():
        if "running" not in name and "num_batches" not in name:  # those see one process's batches
            # Sums in another order, through 16 updates of Adam
            torch.testing.assert_close(two.model[name], expected, rtol=1e-3, atol=1e-5, msg=name)
    lines = list(
        zip(read_metrics(tmp_path / "alone"), read_metrics(tmp_path / "both"), strict=True)
    )
    assert len(lines) == 7
    for a, b in lines:
        for kind in ("losses", "metrics"):  # the average's batch norms do see the same batches
            assert b.get(kind, {}) == pytest.approx(a.get(kind, {}), rel=1e-4)

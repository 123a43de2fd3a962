"""Configs: what is written is what is read, and a slip is one sentence that names it."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_task import ENTRY, ToyConfig, ToyNetworkConfig

from fitting.files import InputError
from regressor.config import (
    AverageConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
    config_from_dict,
    config_to_dict,
    dotted_keys,
    dump_config,
    load_config,
)
from regressor.tasks import TASKS, TaskEntry, make_task


@pytest.fixture(autouse=True, scope="module")
def _toy():
    """The toy among the tasks; for the module, because hypothesis wants no fixture per example."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "toy", ENTRY)
        yield


FEW = settings(max_examples=40)
SMALL = st.integers(1, 10**6)
RATES = st.floats(1e-12, 1e3)
SHARES = st.floats(0, 1, exclude_max=True)
OPTIMIZERS = st.one_of(
    st.builds(
        OptimizerConfig,
        name=st.sampled_from(["adam", "adamw"]),
        lr=RATES,
        weight_decay=SHARES,
        betas=st.tuples(SHARES, SHARES),
    ),
    st.builds(OptimizerConfig, name=st.sampled_from(["sgd", "rmsprop"]), lr=RATES, momentum=SHARES),
)
WARMUPS = st.integers(0, 9)
SCHEDULES = st.one_of(
    st.builds(ScheduleConfig, name=st.just("constant"), warmup_steps=WARMUPS),
    st.builds(ScheduleConfig, name=st.just("cosine"), warmup_steps=WARMUPS, final_factor=SHARES),
    st.builds(
        ScheduleConfig,
        name=st.just("step"),
        milestones=st.sets(SMALL, min_size=1).map(lambda s: tuple(sorted(s))),
        gamma=st.floats(1e-6, 1),
    ),
)
AVERAGES = st.one_of(
    st.just(AverageConfig()),
    st.builds(AverageConfig, kind=st.just("ema"), decay=st.floats(0.01, 0.9999), every=SMALL),
    st.builds(AverageConfig, kind=st.just("swa"), start_step=SMALL, batch_norm_batches=SMALL),
)
TRAININGS = st.builds(
    TrainingConfig,
    steps=st.integers(10, 10**9),
    batch_size=SMALL,
    accumulate=SMALL,
    optimizer=OPTIMIZERS,
    schedule=SCHEDULES,
    average=AVERAGES,
    precision=st.sampled_from(["float32", "bfloat16", "float16"]),
    clip_norm=st.none() | RATES,
    patience=st.none() | SMALL,
    prefetch=st.sampled_from(["thread", "process"]),
    workers=st.integers(0, 64),
)
CONFIGS = st.builds(
    ToyConfig,
    seed=st.integers(0, 2**63 - 1),
    training=TRAININGS,
    network=st.builds(ToyNetworkConfig, width=SMALL, dropout=SHARES),
    bad_batches=st.lists(SMALL).map(tuple),
)


@FEW
@given(CONFIGS)
def test_round_trip(config):
    """By way of plain data and of a YAML file; types too, since 1 == 1.0 == True."""
    assert repr(config_from_dict(config_to_dict(config))) == repr(config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(dump_config(config), encoding="utf-8")
        assert repr(load_config(path)) == repr(config)


@FEW
@given(CONFIGS, CONFIGS)
def test_overrides_turn_any_config_into_any_other(one, other):
    plain = config_to_dict(other)
    overrides = [f"{key}={yaml.safe_dump(plain[key])}" for key in plain]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(dump_config(one), encoding="utf-8")
        assert load_config(path, overrides) == other


def write(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_left_out_has_its_default(tmp_path):
    config = load_config(write(tmp_path, "task: toy\ntraining: {steps: 5}\n"))
    assert config == ToyConfig(training=TrainingConfig(steps=5))


def test_yaml_reads_1e_3_as_text_but_a_config_does_not(tmp_path):
    config = load_config(write(tmp_path, "task: toy\ntraining: {optimizer: {lr: 1e-3}}\n"))
    assert config.training.optimizer.lr == 1e-3


def test_later_overrides_win_and_may_open_new_sections(tmp_path):
    path = write(tmp_path, "task: toy\n")
    overrides = ["training.schedule.name=cosine", "training.steps=3", "training.steps=7"]
    training = load_config(path, overrides).training
    assert (training.steps, training.schedule.name) == (7, "cosine")
    assert load_config(path, ["bad_batches=[1, 2]"]).bad_batches == (1, 2)


SLIPS = [
    ("task: toy\ntrainin: {}", "trainin is not a setting; did you mean training?"),
    ("task: toy\ntraining: {step: 5}", "training.step is not .*did you mean training.steps?"),
    ("task: toy\nlr: 1", r"lr is not .*did you mean training\.optimizer\.lr\?"),
    ("task: toy\ntraining: {optimizer: {beta: 1}}", r"did you mean training\.optimizer\.betas\?"),
    ("task: toy\nnetwork: {xyzzy: 1}", r"network\.xyzzy is not .*network has width, dropout"),
    ("task: toy\n1: 2", "1 is not a setting; a config has task, seed, training"),
    ("task: toi", "task toi is not known; did you mean toy?"),
    ("task: [toy]", "task must name what to train"),
    ("training: {}", "task must name what to train, got None; add task: NAME"),
    ("task: toy\ntraining: {steps: many}", "training.steps should be a valid integer.*got 'many'"),
    ("task: toy\ntraining: {steps: 1.5}", "training.steps should be a valid integer.*got 1.5"),
    ("task: toy\ntraining: 5", "training should hold settings below it, got 5"),
    ("task: toy\ntraining:", "training should hold settings below it, got None"),
    ("task: toy\ntraining: {optimizer: {name: adamm}}", r"optimizer\.name .*'adamw'.*got 'adamm'"),
    ("task: toy\ntraining: {optimizer: {lr: -1}}", r"training\.optimizer: lr must be above 0"),
    ("task: toy\ntraining: {optimizer: {lr: .nan}}", r"training\.optimizer: lr must be above 0"),
    ("task: toy\ntraining: {optimizer: {momentum: 0.9}}", "momentum has no effect .*sgd or rms"),
    ("task: toy\ntraining: {schedule: {name: step}}", "the schedule step needs milestones"),
    (
        "task: toy\ntraining: {schedule: {name: step, milestones: [5, 5]}}",
        r"rising step numbers, got \[5, 5\]",
    ),
    ("task: toy\ntraining: {average: {decay: 0.9}}", "decay has no effect with kind none"),
    ("task: toy\ntraining: {average: {kind: ema, decay: 1.5}}", r"decay must be in \(0, 1\)"),
    ("task: toy\ntraining: {steps: 0}", "training: steps must be at least 1, got 0"),
    ("task: toy\ntraining: {patience: 0}", "training: patience must be at least 1, got 0"),
    ("task: toy\ntraining: {workers: -1}", "training: workers must be 0 or more, got -1"),
    ("task: toy\ntraining: {clip_norm: 0}", "training: clip_norm must be above 0, or null"),
    ("task: toy\ntraining: {steps: 5\n", "is not valid YAML in line 3"),
    ("- task: toy", "holds no settings"),
    ("", "holds no settings"),
]


@pytest.mark.parametrize(("text", "message"), SLIPS)
def test_a_slip_is_one_sentence_with_file_and_key(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeedyConfig:
    task: str
    width: int


def test_a_misspelt_key_comes_before_the_missing_one_that_it_causes(monkeypatch):
    monkeypatch.setitem(TASKS, "needy", TaskEntry(module=__name__, config="NeedyConfig"))
    with pytest.raises(InputError, match=r"widht is not a setting; did you mean width\?"):
        config_from_dict({"task": "needy", "widht": 3})
    with pytest.raises(InputError, match="width is missing; add it"):
        config_from_dict({"task": "needy"})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.steps", r"expected KEY=VALUE, such as training\.steps=100"),
        ("training..steps=3", "expected KEY=VALUE"),
        ("training.steps=[3", "the value is not valid YAML"),
        ("seed.first=3", "there are no settings below 0"),
        ("training.stebs=3", "did you mean training.steps?"),
    ],
)
def test_a_slip_in_an_override(tmp_path, override, message):
    with pytest.raises(InputError, match=message) as caught:
        load_config(write(tmp_path, "task: toy\nseed: 0"), [override])
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for path, message in [
        (tmp_path / "none.yaml", "no such file"),
        (tmp_path, "cannot be read"),
        (tmp_path / "binary.yaml", "cannot be read as text"),
    ]:
        with pytest.raises(InputError, match=message):
            load_config(path)


def test_every_key_is_known_by_its_dotted_name():
    keys = list(dotted_keys(ToyConfig))
    assert {"seed", "training.optimizer.betas", "network.width"} <= set(keys)
    assert len(keys) == len(set(keys))


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingConfig().steps = 3  # type: ignore[misc]


def test_first_weights_follow_from_the_seed_and_leave_the_callers_numbers_alone():
    import torch

    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    tasks = [make_task(ToyConfig(seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(2), expected)
    a, b, c = (task.network[0].weight for task in tasks)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)

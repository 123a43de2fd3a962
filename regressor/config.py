"""Settings of a training run: typed dataclasses, read from YAML and checked once."""

from __future__ import annotations

import dataclasses
import difflib
import json
import reprlib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from fitting.files import InputError

from .tasks import config_class


class TaskConfig(Protocol):
    """What the config of every task has; the task's own dataclass adds network, data and loss."""

    @property
    def task(self) -> str:
        """Its name in `tasks.TASKS`."""

    @property
    def seed(self) -> int:
        """Of the first weights, the batches and the dropout."""

    @property
    def training(self) -> TrainingConfig:
        """How the network is trained."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Which optimiser of `torch.optim`, and its settings; those of another one are refused."""

    name: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.0  # of sgd and rmsprop
    betas: tuple[float, float] = (0.9, 0.999)  # of adam and adamw
    factors: dict[str, float] = field(default_factory=dict)  # on lr, by how parameters' names begin

    def __post_init__(self) -> None:
        _check(0 < self.lr < float("inf"), f"lr must be above 0, got {self.lr}")
        _check(self.weight_decay >= 0, f"weight_decay must be 0 or more, got {self.weight_decay}")
        _check(0 <= self.momentum < 1, f"momentum must be in [0, 1), got {self.momentum}")
        _check(all(0 <= b < 1 for b in self.betas), f"betas must be in [0, 1), got {self.betas}")
        _check(
            all(0 < f < float("inf") for f in self.factors.values()),
            f"factors must be above 0, got {self.factors}",
        )
        _check_unused(self, "name", momentum=("sgd", "rmsprop"), betas=("adam", "adamw"))


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate changes; a factor on `OptimizerConfig.lr`, see `schedule_factor`."""

    name: Literal["constant", "cosine", "step"] = "constant"
    warmup_steps: int = 0  # the factor rises linearly over the first so many steps
    final_factor: float = 0.0  # of cosine, where it ends after the last step
    milestones: tuple[int, ...] = ()  # of step: the factor is multiplied by gamma at these steps
    gamma: float = 0.1  # of step

    def __post_init__(self) -> None:
        _check(self.warmup_steps >= 0, f"warmup_steps must be 0 or more, got {self.warmup_steps}")
        _check(
            0 <= self.final_factor <= 1, f"final_factor must be in [0, 1], got {self.final_factor}"
        )
        _check(0 < self.gamma <= 1, f"gamma must be in (0, 1], got {self.gamma}")
        _check(
            all(a < b for a, b in zip((0, *self.milestones), self.milestones, strict=False)),
            f"milestones must be rising step numbers, got {list(self.milestones)}",
        )
        _check(
            self.name != "step" or bool(self.milestones),
            "the schedule step needs milestones, the steps at which the learning rate falls",
        )
        _check_unused(self, "name", final_factor=("cosine",), milestones=("step",), gamma=("step",))


@dataclass(frozen=True, kw_only=True)
class AverageConfig:
    """An average of the weights, which is then what is evaluated and kept as the best.

    `ema`: exponential moving average; `swa`: plain mean (Izmailov et al. 2018).
    """

    kind: Literal["none", "ema", "swa"] = "none"
    decay: float = 0.999  # of ema
    start_step: int = 0  # the weights after this step are the first to enter
    every: int = 1  # steps between weights that enter
    # Batches from which the batch norms of the averaged network are estimated anew before each
    # evaluation: the running statistics of training belong to other weights.
    batch_norm_batches: int = 50

    def __post_init__(self) -> None:
        _check(0 < self.decay < 1, f"decay must be in (0, 1), got {self.decay}")
        _check(self.start_step >= 0, f"start_step must be 0 or more, got {self.start_step}")
        _check_at_least_one(self, "every", "batch_norm_batches")
        _check_unused(self, "kind", decay=("ema",), start_step=("ema", "swa"), every=("ema", "swa"))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a network is trained. No device and no path: those belong to the command.

    Attributes:
        steps: updates of the weights in all.
        batch_size: people, or pictures, of a batch; the task makes its batches of this size.
        accumulate: batches whose gradients are averaged for one update.
        optimizer: which one, and its learning rate.
        schedule: of the learning rate.
        average: of the weights.
        precision: of the forward pass. The weights and the evaluations are float32 throughout.
        clip_norm: largest 2-norm of the gradient; none means any.
        evaluate_every: steps between evaluations, of which the best is kept.
        log_every: steps between lines of metrics.jsonl, and between looks at whether the loss is
            still finite.
        save_every: steps between saves of last.pt, from which a killed run goes on.
        patience: evaluations without a new best after which training ends; none means never.
        prefetch: whether `workers` are threads, cheapest for batches made by torch and numpy, or
            processes, for batches made in Python.
        workers: make batches ahead of time; 0 makes each one when it is needed.
    """

    steps: int = 100_000
    batch_size: int = 256
    accumulate: int = 1
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    clip_norm: float | None = None
    evaluate_every: int = 1000
    log_every: int = 50
    save_every: int = 1000
    patience: int | None = None
    prefetch: Literal["thread", "process"] = "thread"
    workers: int = 1

    def __post_init__(self) -> None:
        _check_at_least_one(
            self, "steps", "batch_size", "accumulate", "evaluate_every", "log_every", "save_every"
        )
        if self.patience is not None:
            _check_at_least_one(self, "patience")
        _check(self.workers >= 0, f"workers must be 0 or more, got {self.workers}")
        _check(
            self.clip_norm is None or self.clip_norm > 0,
            f"clip_norm must be above 0, or null for no clipping, got {self.clip_norm}",
        )


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _check_at_least_one(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _check(value >= 1, f"{name} must be at least 1, got {value}")


def _check_unused(config: Any, selector: str, **users: tuple[str, ...]) -> None:
    """ValueError if a setting differs from its default though the choice made does not use it."""
    chosen = getattr(config, selector)
    for name, choices in users.items():
        default = type(config).__dataclass_fields__[name].default
        _check(
            chosen in choices or getattr(config, name) == default,
            f"{name} has no effect with {selector} {chosen}, only with {' or '.join(choices)}; "
            "leave it out",
        )


# --- From and to YAML -------------------------------------------------------------------------


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Any:
    """Read the config of a task.

    Args:
        path: YAML file whose `task` names an entry of `tasks.TASKS`.
        overrides: "dotted.key=value" each, the value in YAML; they replace what the file says.

    Returns:
        The task's config dataclass (`TaskConfig`).

    Raises:
        InputError: the file cannot be read, or has an unknown key, a wrong type or a value out of
            range; the message names the file, the dotted key and the nearest known one.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path of the config") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); give a YAML file") from error
    try:
        raw = yaml.safe_load(text)
    except Exception as error:  # PyYAML's dates and numbers raise what Python's do
        raise InputError(f"{path}: is not valid YAML{_where(error)}; correct it") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path}: holds no settings; a config is a YAML mapping, task: ... first")
    for override in overrides:
        raw = _overridden(raw, override)
    return config_from_dict(raw, source=str(path))


def config_from_dict(raw: Mapping[str, Any], *, source: str = "config") -> Any:
    """The config dataclass of plain data such as `config_to_dict` gives.

    Args:
        raw: with a key `task`.
        source: what messages call it.

    Raises:
        InputError: as `load_config`.
    """
    name = raw.get("task")
    if not isinstance(name, str):
        raise InputError(
            f"{source}: task must name what to train, got {_shown(name)}; add task: NAME"
        )
    try:
        cls = config_class(name)
    except ValueError as error:
        raise InputError(f"{source}: {_printable(str(error))}") from error
    # Within a tuple, because pydantic hands its config down to dataclasses but takes none for one.
    adapter = TypeAdapter(tuple[cls], config=ConfigDict(extra="forbid"))  # type: ignore[valid-type]
    try:
        return adapter.validate_python((dict(raw),))[0]
    except ValidationError as error:
        raise InputError(f"{source}: {_printable(_sentence(error, cls))}") from error


def config_to_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain data for YAML and checkpoints: lists in place of tuples."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def dump_config(config: Any) -> str:
    """A config dataclass as YAML that `load_config` reads back."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)


def _where(error: Exception) -> str:
    """In which line the YAML is wrong, where known."""
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f" in line {mark.line + 1} ({getattr(error, 'problem', '')})"


def _overridden(raw: dict[str, Any], override: str) -> dict[str, Any]:
    """`raw` with one "dotted.key=value" set; the original stays as it is."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"--set {override}: expected KEY=VALUE, such as training.steps=100")
    try:
        value = yaml.safe_load(text)
    except Exception as error:  # as in `load_config`
        raise InputError(f"--set {override}: the value is not valid YAML; quote it") from error
    return _with(raw, key.split("."), value, override)


def _with(raw: Any, keys: Sequence[str], value: Any, override: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise InputError(
            f"--set {override}: there are no settings below {_shown(raw)}; check the key"
        )
    first, *rest = keys
    return {**raw, first: _with(raw.get(first, {}), rest, value, override) if rest else value}


# --- Errors -----------------------------------------------------------------------------------

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_MAX_TEXT = 1000  # characters of a message

_UNKNOWN = ("unexpected_keyword_argument", "invalid_key")


def _sentence(error: ValidationError, cls: type) -> str:
    """The first thing wrong; a misspelt key before the missing one that it causes."""
    details = sorted(error.errors(), key=lambda e: e["type"] not in _UNKNOWN)[0]
    key = ".".join(str(part) for part in details["loc"][1:])  # without the place in the tuple
    if details["type"] in _UNKNOWN:
        return f"{key} is not a setting; {_advice(key, cls)}"
    if details["type"] == "missing":
        return f"{key} is missing; add it"
    return _wrong_value(details, key)


def _wrong_value(details: ErrorDetails, key: str) -> str:
    message = details["msg"]
    if details["type"] == "value_error":
        return f"{key}: {message.removeprefix('Value error, ')}".removeprefix(": ")
    if details["type"] == "dataclass_type":
        message = "should hold settings below it"
    message = message.removeprefix("Input ")
    return f"{key} {message[0].lower() + message[1:]}, got {_shown(details['input'])}; correct it"


def _shown(value: Any) -> str:
    """A value in a few characters, however much aliases in the YAML make of it."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes no numbers of thousands of digits
        return f"a huge {type(value).__name__}"


def _printable(text: str) -> str:
    """In one line; keys and names come from the file."""
    return "".join(c if c.isprintable() else ascii(c).strip("'") for c in text[:_MAX_TEXT])


def _advice(key: str, cls: type) -> str:
    """Which known key was probably meant: a neighbour's name, or else one elsewhere."""
    known = list(dotted_keys(cls))
    parent, _, leaf = key.rpartition(".")
    neighbours = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == parent}
    leaves = {k.rpartition(".")[2]: k for k in reversed(known)}
    for names in (neighbours, leaves):
        if near := difflib.get_close_matches(leaf, names, n=1):
            return f"did you mean {names[near[0]]}?"
    return f"{parent or 'a config'} has {', '.join(neighbours)}"


def dotted_keys(cls: type, prefix: str = "") -> Iterator[str]:
    """Every key of a config dataclass and of those within it, outer ones first."""
    types = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        yield prefix + f.name
        for inner in (types[f.name], *typing.get_args(types[f.name])):
            if dataclasses.is_dataclass(inner) and isinstance(inner, type):
                yield from dotted_keys(inner, f"{prefix}{f.name}.")

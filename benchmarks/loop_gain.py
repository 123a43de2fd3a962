"""What the loop gains: networks that learn from pictures with nothing but 2D keypoints.

    python benchmarks/loop_gain.py --cache FOLDER [--seeds 3] [--jobs 2] [--only NAME]
    python benchmarks/loop_gain.py --cache FOLDER --encoder learned --device cuda --output FILE

Drawn people, so that the truth is known, with keypoints as a detector might have seen them
(`regressor.synthetic.detection`: noisy, some missing, some wrong, some on the wrong side). Static
fits are what `fit-cli fit` makes of those keypoints: "smplify" as SPIN made its own, by Adam from
the mean pose; "mean" from there by our solver; "lift" from the lifter's estimates, the default.
Networks are heads on the features of a "frozen" BlazePose, which are computed once; "tuned", its
last layers learn too, on what the first have seen; "learned", for GPUs, is an EfficientNet-Lite0
that learns as a whole. All see the same people in the same order, and none has seen a truth but
"full". They are judged on people of other subjects, with their last weights; so are the fits that
are in the store at the end, by the truth of the people that were learned from.

The cache keeps pictures, fits and the record of each training, so that whoever is stopped goes on.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import click
import joblib
import numpy as np
import torch
from record import RESULTS, describe_run, utc_now

from fitting.allocator import keep_freed_memory
from fitting.body import load_body
from fitting.evaluation import evaluate_fits
from fitting.files import write_json
from fitting.problem import FitProblem
from fitting.skeleton import keypoint_set
from fitting.table import FitsTable, build_truth, read_fits, write_fits
from regressor.config import TaskConfig, config_from_dict, dump_config
from regressor.feature_cache import FeatureCache
from regressor.image_task import LABELS, ImageTask
from regressor.synthetic.detection import DetectionConfig, detect
from regressor.synthetic.rendered_set import IMAGES, TRUTH_FILE, SetConfig, write_rendered_set
from regressor.synthetic.rendering import PictureConfig
from regressor.tasks import make_task
from regressor.training import CONFIG_NAME, train

MEASURES = ("pa_mpjpe_mm", "mpjpe_mm", "pve_mm", "pck_2d")
OBSERVED = "observed.parquet"
RECORD = "record.json"
_SHARD = 500  # people; static fits by SMPLify take minutes for as many
_PARAMETERS = {
    "keypoints_2d": 2, "keypoint_norm": "l1", "joints": 5, "joint_norm": "l1", "rotations": 5,
    "betas": 0.05, "camera": 0, "location": 1,
}  # fmt: skip
_KEYPOINTS = {
    "keypoints_2d": 10, "keypoint_norm": "l1", "joints": 0, "rotations": 0, "betas": 0,
    "camera": 0.01,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where static fits come from.

    Attributes:
        what: for readers.
        options: of `fit-cli fit`.
    """

    what: str
    options: tuple[str, ...]


STARTS = {
    "smplify": Start(what="SMPLify's fits", options=("--init", "mean", "--solver", "adam")),
    "mean": Start(what="fits from the mean pose", options=("--init", "mean")),
    "lift": Start(what="fits from the lifter's estimates", options=("--init", "lift")),
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to learn.

    Attributes:
        name: in the results.
        what: for readers.
        fits: static fits that it learns from or begins with: one of `STARTS`; none means none.
        params: what the parameters of its table are.
        loop: settings, or none.
        loss, adversarial: settings.
    """

    name: str
    what: str
    fits: str | None = None
    params: str = "none"
    loop: dict[str, Any] | None = None
    loss: dict[str, Any]
    adversarial: float = 0.0


VARIANTS = (
    Variant(name="keypoints", what="2D keypoints alone", loss=_KEYPOINTS),
    Variant(
        name="adversarial",
        what="2D keypoints and the adversarial prior",
        loss=_KEYPOINTS,
        adversarial=1.0,
    ),
    *(
        variant
        for name, start in STARTS.items()
        for variant in (
            Variant(
                name=f"static_{name}",
                what=start.what,
                fits=name,
                params="truth",
                loss=_PARAMETERS,
            ),
            Variant(
                name=f"spin_{name}",
                what=f"{start.what}, then in the loop by SPIN's rule, 2D error",
                fits=name,
                params="fits",
                loop={"rule": "spin", "half_std_mm": None, "lifter": False},
                loss=_PARAMETERS,
            ),
            Variant(
                name=f"loop_{name}",
                what=f"{start.what}, then in the loop by MAP cost, weighted",
                fits=name,
                params="fits",
                loop={},
                loss=_PARAMETERS,
            ),
        )
    ),
    Variant(name="full", what="the true parameters", params="truth", loss=_PARAMETERS),
)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """How networks look at pictures.

    Attributes:
        network: settings of the encoder.
        crop_size: pixels.
        augmentation: settings.
        optimizer: its settings.
    """

    network: dict[str, Any]
    crop_size: int
    augmentation: dict[str, Any]
    optimizer: dict[str, Any]


_FROZEN = Pictures(
    network={"encoder": "blazepose", "pretrained": "blazepose", "frozen": True},
    crop_size=256,
    augmentation={"scale": [1, 1], "scale_std": None, "rotation_deg": 0, "color": 0},
    optimizer={"lr": 1e-3},
)
ENCODERS = {
    "frozen": _FROZEN,
    "tuned": replace(
        _FROZEN,
        network=_FROZEN.network | {"frozen": "early"},
        optimizer=_FROZEN.optimizer | {"factors": {"encoder": 0.05}},
    ),
    "learned": Pictures(
        network={"encoder": "efficientnet_lite0", "pretrained": "imagenet"},
        crop_size=128,
        augmentation={"scale": [0.85, 1.15], "scale_std": None, "color": 0.2},
        optimizer={"lr": 5e-4},
    ),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all runs have in common.

    Attributes:
        cache: folder of pictures, fits and runs.
        people, judged: to learn from, and to be judged by.
        keypoint_set: that a detector saw.
        encoder: of `ENCODERS`.
        steps, batch_size: of each training.
        device: "auto", "cpu" or "cuda".
        seed: of pictures and keypoints.
    """

    cache: Path
    people: int
    judged: int
    keypoint_set: str
    encoder: str
    steps: int
    batch_size: int
    device: str
    seed: int = 0


def prepare(settings: Settings, starts: Iterable[str]) -> dict[str, Any]:
    """Draw people, disturb their keypoints and fit them, where that was not done before.

    Args:
        settings: of the study.
        starts: of static fits, those of `STARTS` that are needed.

    Returns:
        Errors of the static fits, mm.
    """
    for name, split, count in (
        ("train", "train", settings.people),
        ("test", "test", settings.judged),
    ):
        if not (settings.cache / name / TRUTH_FILE).exists():
            pictures = PictureConfig(split=split, keypoint_set=settings.keypoint_set)
            drawn = SetConfig(count=count, seed=settings.seed, pictures=pictures)
            write_rendered_set(settings.cache / name, drawn, overwrite=True)
    truth = read_fits(settings.cache / "train" / TRUTH_FILE)
    observed = settings.cache / OBSERVED
    if not observed.exists():
        write_fits(observed, observe(truth, settings.seed))
    errors = {}
    for start in starts:
        out = settings.cache / f"fits_{start}"
        fit(observed, out, start, settings.device)
        errors[start] = summary(read_fits(out), truth)
    return errors


def observe(truth: FitsTable, seed: int) -> FitsTable:
    """A table with keypoints as a detector might have seen them."""
    keypoints = keypoint_set(str(truth.column_array("keypoint_set")[0]))
    numbers = torch.from_numpy(truth.column_array("keypoints_2d")).reshape(len(truth), -1, 3)
    size = np.column_stack([truth.column_array("width"), truth.column_array("height")])
    problem = FitProblem(
        keypoint_set=keypoints,
        keypoints_2d=numbers[..., :2],
        conf=(numbers[..., 2] > 0).float(),
        intrinsics=torch.from_numpy(truth.intrinsics),
        image_size=torch.from_numpy(size).float(),
    )
    seen = detect(problem, DetectionConfig(), torch.Generator().manual_seed(seed))
    at = seen.keypoints_2d.where(seen.conf[..., None] > 0, 0.0)  # somebody may not be seen at all
    found = torch.cat([at, seen.conf[..., None]], dim=2).flatten(1)
    names = (
        *("image", "person", "annotation_id", "width", "height", "keypoint_set"),
        *("global_orient", "body_pose", "betas", "transl"),
    )
    columns = {name: truth.column_array(name) for name in names}
    return build_truth({**columns, "keypoints_2d": found.numpy()}, truth.intrinsics, truth.metadata)


def fit(observed: Path, out: Path, start: str, device: str) -> None:
    """Static fits, by the command, where they are not there; it goes on where it was stopped."""
    if (out / "run.json").exists():
        return
    command = "from cli.main import main; main()"
    options = ["--keypoint-format", "fits", *STARTS[start].options, "--device", device]
    options += ["--shard-size", str(_SHARD), "-o", str(out), *["--resume"] * out.exists()]
    subprocess.run([sys.executable, "-c", command, "fit", str(observed), *options], check=False)


def summary(fits: FitsTable, truth: FitsTable) -> dict[str, float]:
    """Mean errors of fits, mm, of SMPL's joints."""
    found = evaluate_fits(fits, truth, load_body())["smpl24"]
    return {name: round(found[name], 2) for name in ("pa_mpjpe_mm", "mpjpe_mm")}


Measure = Callable[[Variant, int], dict[str, Any]]
"""Train a network with a seed and judge it; its record."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What the trainings of a study have in common.

    Attributes:
        tables: of 2D keypoints (None), and of fits by where they began.
        images: folder of their pictures.
        crop: see `regressor.image_sources.DataSourceConfig`.
        held_out: source of whom networks are judged by.
        judged: how many of them.
        runs: folder.
        pictures: how networks look at them.
        steps, batch_size: of each training.
        device: "auto", "cpu" or "cuda".
    """

    tables: dict[str | None, Path]
    images: Path
    crop: str
    held_out: dict[str, Any]
    judged: int
    runs: Path
    pictures: Pictures
    steps: int
    batch_size: int
    device: str

    def configure(self, variant: Variant, seed: int) -> TaskConfig:
        """The config of a training."""
        table = str(self.tables[variant.fits])
        source = {"kind": "table", "path": table, "images": str(self.images), "crop": self.crop}
        every = max(1, self.steps // 2)
        content = {
            "task": "image",
            "seed": seed,
            "training": {
                "steps": self.steps,
                "batch_size": self.batch_size,
                "optimizer": {"name": "adamw", "weight_decay": 0.05, **self.pictures.optimizer},
                "schedule": {"name": "cosine", "warmup_steps": self.steps // 20},
                "clip_norm": 1.0,
                "evaluate_every": every,
                "log_every": every,
                "save_every": self.steps,
                "workers": 0,
            },
            "network": {
                **self.pictures.network,
                **{"head": "sequential", "mean": "prior", "dropout": 0.1},
            },
            "data": {
                "sources": [{**source, "params": variant.params}],
                "crop_size": self.pictures.crop_size,
            },
            "evaluation": {"source": self.held_out, "people": self.judged},
            "augmentation": self.pictures.augmentation,
            "loss": variant.loss,
            "adversarial": {"encoder": variant.adversarial},
            "loop": variant.loop,
        }
        return config_from_dict(content)

    def features(self, variant: Variant) -> FeatureCache | None:
        """What a frozen encoder sees of the people, who are those of every variant and seed."""
        config = self.configure(variant, seed=0)
        if not config.network.frozen:
            return None
        task = make_task(config)
        assert isinstance(task, ImageTask)
        task.data.cache_features(task.encode)
        return task.data.features

    def train(
        self, variant: Variant, seed: int, features: FeatureCache | None
    ) -> tuple[dict[str, Any], ImageTask]:
        """Train a network; its record and its task."""
        config = self.configure(variant, seed)
        task = make_task(config)
        assert isinstance(task, ImageTask)
        task.data.features = features
        began = time.perf_counter()
        train(task, config, self.folder(variant, seed), device=self.device, overwrite=True)
        record = {
            "variant": variant.name,
            "what": variant.what,
            "seed": seed,
            "seconds": round(time.perf_counter() - began, 1),
            "finished": utc_now(),
        }
        return record, task

    def folder(self, variant: Variant, seed: int) -> Path:
        """Of a run."""
        return self.runs / f"{variant.name}-{seed}"

    def measure_all(
        self, measure: Measure, variants: Sequence[Variant], seeds: int, jobs: int
    ) -> Iterator[dict[str, Any]]:
        """Records of all trainings, `jobs` of them side by side, each as soon as it is known.

        Those of trainings that were finished under the same settings are in the cache.
        """
        trainings = product(range(seeds), variants)
        yield from joblib.Parallel(n_jobs=jobs, return_as="generator")(
            joblib.delayed(self._measure)(measure, variant, seed) for seed, variant in trainings
        )

    def _measure(self, measure: Measure, variant: Variant, seed: int) -> dict[str, Any]:
        out = self.folder(variant, seed)
        config = dump_config(self.configure(variant, seed))
        if (out / RECORD).exists() and (out / CONFIG_NAME).read_text("utf-8") == config:
            return json.loads((out / RECORD).read_text("utf-8"))
        keep_freed_memory()  # as `fit-cli train` does; this may be a process of its own
        record = measure(variant, seed)
        write_json(out / RECORD, record)
        return record


def study_of(settings: Settings) -> Study:
    """The trainings on drawn people."""
    cache = settings.cache
    return Study(
        tables={None: cache / OBSERVED, **{name: cache / f"fits_{name}" for name in STARTS}},
        images=cache / "train" / IMAGES,
        crop="picture",  # a box about keypoints as bad as these may leave half the person out
        held_out={"kind": "table", "path": str(cache / "test"), "crop": "picture"},
        judged=settings.judged,
        runs=cache / "runs",
        pictures=ENCODERS[settings.encoder],
        steps=settings.steps,
        batch_size=settings.batch_size,
        device=settings.device,
    )


def train_and_judge(
    variant: Variant, seed: int, *, study: Study, truth: FitsTable, features: FeatureCache | None
) -> dict[str, Any]:
    """Train and judge one network; its record."""
    record, task = study.train(variant, seed, features)
    out = study.folder(variant, seed)
    record |= last_errors(out / "metrics.jsonl")
    if task.loop is not None:
        record["fits"] = summary(read_fits(out / LABELS / "00.parquet"), truth)
    return record


def last_errors(path: Path) -> dict[str, Any]:
    """Errors after the last step, and PA-MPJPE at each evaluation."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    curve = [(line["step"], line["metrics"]) for line in lines if "metrics" in line]
    last = curve[-1][1]
    return {
        **{name: round(last[name], 4) for name in MEASURES},
        "curve": [(step, round(metrics["pa_mpjpe_mm"], 2)) for step, metrics in curve],
    }


def compare(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, what the loop gains, and how much of the gap it closes."""
    by_name: dict[str, list[float]] = {}
    for record in records:
        by_name.setdefault(record["variant"], []).append(record["pa_mpjpe_mm"])
    mean = {name: statistics.fmean(errors) for name, errors in by_name.items()}
    found: dict[str, Any] = {"pa_mpjpe_mm": {name: round(v, 2) for name, v in mean.items()}}
    for start in STARTS:
        static, loop = f"static_{start}", f"loop_{start}"
        if {static, loop} <= mean.keys():
            found[f"loop_below_static_{start}"] = round(1 - mean[loop] / mean[static], 4)
        if {"keypoints", "full", loop} <= mean.keys():
            gap = mean["keypoints"] - mean["full"]
            found[f"gap_closed_{start}"] = round((mean["keypoints"] - mean[loop]) / gap, 4)
    return found


@click.command()
@click.option("--cache", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--people", default=8000, show_default=True, type=click.IntRange(min=2))
@click.option("--judged", default=500, show_default=True, type=click.IntRange(min=2))
@click.option("--keypoint-set", default="lsp14", show_default=True)
@click.option("--encoder", default="frozen", show_default=True, type=click.Choice([*ENCODERS]))
@click.option("--steps", default=1200, show_default=True, type=click.IntRange(min=1))
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(min=2))
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--jobs", default=1, show_default=True, help="Trainings side by side.")
@click.option("--only", multiple=True, type=click.Choice([v.name for v in VARIANTS]))
@click.option("--device", default="cpu", show_default=True)
@click.option("--output", default=RESULTS / "loop_gain.json", type=click.Path(path_type=Path))
def main(seeds: int, jobs: int, only: tuple[str, ...], output: Path, **options: Any) -> None:
    """Train and judge all variants; repeat --only to choose several."""
    keep_freed_memory()  # as `fit-cli train` does
    settings = Settings(**options)
    shown = [f"--{n.replace('_', '-')} {v}" for n, v in options.items() if n != "cache"]
    shown += [f"--seeds {seeds} --jobs {jobs}", *(f"--only {name}" for name in only)]
    described = describe_run(" ".join(["python benchmarks/loop_gain.py", *shown]))
    chosen = [variant for variant in VARIANTS if not only or variant.name in only]
    static = prepare(settings, dict.fromkeys(v.fits for v in chosen if v.fits))
    study, truth = study_of(settings), read_fits(settings.cache / "train" / TRUTH_FILE)
    features, records = study.features(chosen[0]), []
    measure = partial(train_and_judge, study=study, truth=truth, features=features)
    for record in study.measure_all(measure, chosen, seeds, jobs):
        records.append(record)
        click.echo(
            f"{record['variant']:14} seed {record['seed']}: PA-MPJPE "
            f"{record['pa_mpjpe_mm']:6.1f} mm, fits {record.get('fits')}, {record['seconds']:.0f} s"
        )
        content = {"static_fits": static, "runs": records, "compared": compare(records)}
        write_json(output, {**described, **content})


if __name__ == "__main__":
    main()

"""Image regressors of the field's line in the small: short trainings on drawn people.

    python benchmarks/regressors.py --cache FOLDER [--steps 400] [--seeds 1] [--only NAME]

Each run is `configs/spin.yaml` with some settings changed, and all get the same pictures and the
same number of steps, so that a run comes out alike on a busy machine and a free one; its seconds
are recorded. They are judged on pictures of subjects whom none has seen, with nothing in
front of the people ("clear") and with something in front of each of them ("occluded"); which of a
run's checkpoints is, on pictures of the validation subjects. Joints are SMPL's 24, aligned at the
pelvis.

The folder keeps the drawn pictures, for the next time, and the runs. On two free cores the defaults
take about half an hour. They are short trainings: who is ahead after 400 steps need not be so at
the end. Results are written after each run, so that an interrupted benchmark leaves those that were
done.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import click
import torch
from record import RESULTS, describe_run

from fitting.allocator import keep_freed_memory
from fitting.files import InputError, write_json
from fitting.offline import choose_device
from regressor.checkpoints import load_checkpoint
from regressor.config import load_config
from regressor.image_sources import DataSourceConfig
from regressor.image_task import ImageConfig
from regressor.synthetic.people import PoseConfig
from regressor.synthetic.rendered_set import TRUTH_FILE, SetConfig, write_rendered_set
from regressor.synthetic.rendering import PictureConfig
from regressor.tasks import make_task
from regressor.training import BEST_NAME, train

CONFIG = Path(__file__).parents[1] / "configs" / "spin.yaml"
JUDGED_BY = "pa_mpjpe_mm"
MEASURES = (JUDGED_BY, "mpjpe_mm", "pve_mm", "keypoint_error", "pck_2d")
TEST_SETS = ("clear", "occluded")
BASELINE = "sequential"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training.

    Attributes:
        name: in the results.
        what: for readers.
        overrides: of the config, as for `fit-cli train --set`.
    """

    name: str
    what: str
    overrides: tuple[str, ...]


_RESNET18 = ("network.encoder=resnet18",)
_LITE0 = ("network.encoder=efficientnet_lite0", "network.pretrained=imagenet")
_BLAZEPOSE = (
    *("network.encoder=blazepose", "network.pretrained=blazepose", "network.frozen=true"),
    *("network.head=sequential", "data.crop_size=256"),
)
_HEAD_ALONE = "training.optimizer.lr=1.0e-3"
_IN_2D = (
    "loss={keypoints_2d: 10, keypoint_norm: l1, joints: 0, rotations: 0, betas: 0, camera: 0.01}"
)

RUNS = (
    Run(
        name="sequential",
        what="ResNet-18, one shot",
        overrides=(*_RESNET18, "network.head=sequential"),
    ),
    Run(name="iterative", what="ResNet-18, feedback", overrides=_RESNET18),
    Run(
        name="lite0_frozen",
        what="EfficientNet-Lite0 as ImageNet made it, feedback",
        overrides=(*_LITE0, "network.frozen=true", _HEAD_ALONE),
    ),
    Run(name="lite0", what="EfficientNet-Lite0, all trained, feedback", overrides=_LITE0),
    Run(
        name="lite0_parameters",
        what="the same, learning rotations, shape and 2D keypoints",
        overrides=(*_LITE0, "loss.joints=0"),
    ),
    Run(
        name="lite0_vertices",
        what="the same, learning vertices and 2D keypoints",
        overrides=(
            *_LITE0,
            "loss={keypoints_2d: 1, joints: 0, rotations: 0, betas: 0, vertices: 5, camera: 0,"
            " location: 1}",
        ),
    ),
    Run(
        name="lite0_parts",
        what="EfficientNet-Lite0, part attention",
        overrides=(*_LITE0, "network.head=part_attention", "loss.parts=1"),
    ),
    Run(
        name="blazepose_frozen",
        what="BlazePose's landmark network as it is, crops of 256 pixels, one shot",
        overrides=(*_BLAZEPOSE, _HEAD_ALONE),
    ),
    Run(name="unpaired", what="EfficientNet-Lite0 without 3D truth", overrides=(*_LITE0, _IN_2D)),
    Run(
        name="unpaired_adversarial",
        what="the same with the adversarial prior",
        overrides=(*_LITE0, _IN_2D, "adversarial.encoder=1"),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a paper found, to be seen here or not.

    Attributes:
        claim: in words.
        source: the paper.
        worse, better: names of runs.
        on: the test set.
    """

    claim: str
    source: str
    worse: str
    better: str
    on: str = "clear"


COMPARISONS = (
    Comparison(
        claim="feedback is better than one shot",
        source="Kanazawa et al., CVPR 2018",
        worse="sequential",
        better="iterative",
    ),
    Comparison(
        claim="an encoder that knows ImageNet is better than one that starts from nothing",
        source="custom in the field",
        worse="iterative",
        better="lite0",
    ),
    Comparison(
        claim="training the encoder is better than freezing it",
        source="custom in the field",
        worse="lite0_frozen",
        better="lite0",
    ),
    Comparison(
        claim="an encoder that knows people is better than one that knows ImageNet",
        source="Kocabas et al., ICCV 2021, Sec. 4",
        worse="lite0_frozen",
        better="blazepose_frozen",
    ),
    Comparison(
        claim="learning vertices is better than learning parameters",
        source="Pavlakos et al., CVPR 2018",
        worse="lite0_parameters",
        better="lite0_vertices",
    ),
    Comparison(
        claim="without 3D truth the adversarial prior is better than none",
        source="Kanazawa et al., CVPR 2018",
        worse="unpaired",
        better="unpaired_adversarial",
    ),
    Comparison(
        claim="behind occluders part attention is better than pooling",
        source="Kocabas et al., ICCV 2021",
        worse="lite0",
        better="lite0_parts",
        on="occluded",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all runs have in common.

    Attributes:
        cache: folder of the pictures and the runs.
        steps: of each training.
        pictures: to learn from.
        judged: pictures of each test set, and of the validation subjects.
        crop_size, batch_size: pixels across the crops; people.
        evaluations: of a run, evenly spread.
        device: "auto", "cpu" or "cuda".
        jobs: processes that draw; none means one for each core.
    """

    cache: Path
    steps: int
    pictures: int
    judged: int
    crop_size: int
    batch_size: int
    evaluations: int
    device: str
    jobs: int | None = None


def picture_sets(settings: Settings) -> dict[str, SetConfig]:
    """What is drawn: people to learn from, to choose checkpoints by, and to judge by."""
    base = PictureConfig(poses=PoseConfig(composed=0, jittered=0))  # as recorded
    pictures = {
        "train": base,
        "validation": replace(base, split="validation"),
        "clear": replace(base, split="test", occluded=0, truncated=0),
        "occluded": replace(base, split="test", occluded=1, truncated=0),
    }
    return {
        name: SetConfig(
            count=settings.pictures if name == "train" else settings.judged,
            pictures=drawn,
            jobs=settings.jobs,
        )
        for name, drawn in pictures.items()
    }


def prepare_set(folder: Path, config: SetConfig) -> None:
    """Draw the pictures, unless they lie there already.

    Raises:
        InputError: the folder holds others.
    """
    if (folder / "run.json").exists():
        command = json.loads((folder / "run.json").read_text(encoding="utf-8"))["command"]
        wanted = json.loads(json.dumps(asdict(config), default=str))
        if {**command, "jobs": None} != {**wanted, "jobs": None}:
            raise InputError(f"{folder}: holds pictures of other settings; give another --cache")
        return
    click.echo(f"drawing {config.count} pictures into {folder}")
    write_rendered_set(folder, config, overwrite=True)


def source_of(settings: Settings, name: str) -> DataSourceConfig:
    """The people of a set."""
    return DataSourceConfig(kind="table", path=str(settings.cache / name / TRUTH_FILE))


def configure(run: Run, seed: int, settings: Settings) -> ImageConfig:
    """The config of a run: that of `CONFIG`, made short and small."""
    common = (
        "loop=null",  # the truth is known
        f"training.batch_size={settings.batch_size}",
        "training.optimizer={name: adamw, lr: 5.0e-4, weight_decay: 0.01}",
        "training.schedule={name: cosine, warmup_steps: 30}",
        "training.clip_norm=1",
        *("network.mean=data", "network.dropout=0.1"),
        # SPIN's weights let limbs fold while a network does not know yet where people face. Its
        # loss on cameras has no bound, and one bad person then has all of a clipped gradient.
        "loss={keypoints_2d: 1, joints: 5, joint_norm: l1, rotations: 5, betas: 0.05, camera: 0,"
        " location: 1}",
        "augmentation={scale_std: 0.1, rotation_deg: 10, color: 0.2}",
        f"data.crop_size={settings.crop_size}",
    )
    config = load_config(CONFIG, [*common, *run.overrides])
    steps = settings.steps
    between = max(1, steps // settings.evaluations)
    training = replace(
        config.training, steps=steps, evaluate_every=between, log_every=between, save_every=steps
    )
    return replace(
        config,
        seed=seed,
        training=training,
        data=replace(config.data, sources=(source_of(settings, "train"),)),
        evaluation=replace(
            config.evaluation, source=source_of(settings, "validation"), people=settings.judged
        ),
    )


def judge(config: ImageConfig, checkpoint: Path, settings: Settings) -> dict[str, Any]:
    """Errors on each test set."""
    network = load_checkpoint(checkpoint, device=choose_device(settings.device))
    errors = {}
    for name in TEST_SETS:
        judged = replace(config.evaluation, source=source_of(settings, name))
        with torch.no_grad():
            metrics = make_task(replace(config, evaluation=judged)).evaluate(network)
        errors[name] = {measure: round(metrics[measure], 4) for measure in MEASURES}
    return errors


def read_curve(path: Path) -> list[dict[str, float]]:
    """Training loss and validation errors of a run, evaluation by evaluation."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        {
            "step": line["step"],
            "loss": round(line["losses"]["loss"], 5),
            **{measure: round(line["metrics"][measure], 4) for measure in MEASURES},
        }
        for line in lines
        if "metrics" in line
    ]


def measure(run: Run, seed: int, settings: Settings) -> dict[str, Any]:
    """Train and judge one run; its record."""
    config = configure(run, seed, settings)
    folder = settings.cache / "runs" / f"{run.name}-{seed}"
    task = make_task(config)
    weights = sum(p.numel() for p in task.network.parameters() if p.requires_grad)
    trained = train(task, config, folder, device=settings.device, overwrite=True)
    return {
        "run": run.name,
        "what": run.what,
        "seed": seed,
        "overrides": list(run.overrides),
        "trained_weights": weights,
        "steps": trained["steps"],
        "seconds": trained["seconds"],
        "best": trained["best"],
        "curve": read_curve(folder / "metrics.jsonl"),
        "errors": judge(config, folder / BEST_NAME, settings),
    }


def mean_error(records: Iterable[dict[str, Any]], run: str, on: str) -> float | None:
    """PA-MPJPE of a run on a test set, mm, a mean over seeds; none if it was not run."""
    found = [r["errors"][on][JUDGED_BY] for r in records if r["run"] == run]
    return statistics.fmean(found) if found else None


def compare(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was found of each claim whose runs are there.

    A claim is seen if it holds for the mean, and in each seed, or else by chance.
    """
    found = []
    for claim in COMPARISONS:
        worse, better = (mean_error(records, r, claim.on) for r in (claim.worse, claim.better))
        if worse is None or better is None:
            continue
        errors = {(r["run"], r["seed"]): r["errors"][claim.on][JUDGED_BY] for r in records}
        seeds = sorted({r["seed"] for r in records})
        pairs = [
            errors[claim.better, seed] - errors[claim.worse, seed]
            for seed in seeds
            if {(claim.better, seed), (claim.worse, seed)} <= errors.keys()
        ]
        found.append(
            {
                **asdict(claim),
                "worse_pa_mpjpe_mm": round(worse, 2),
                "better_pa_mpjpe_mm": round(better, 2),
                "differences_mm": [round(difference, 2) for difference in pairs],
                "seen": all(difference < 0 for difference in pairs),
            }
        )
    return found


def find_best(records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The best run on clear pictures, and its share below `BASELINE`; none if that was not run."""
    baseline = mean_error(records, BASELINE, "clear")
    if baseline is None:
        return None
    errors = {r["run"]: mean_error(records, r["run"], "clear") for r in records}
    run, error = min(errors.items(), key=lambda item: item[1])
    return {
        "run": run,
        "pa_mpjpe_mm": round(error, 2),
        "baseline": BASELINE,
        "baseline_pa_mpjpe_mm": round(baseline, 2),
        "lower_by": round(1 - error / baseline, 4),
    }


def say(record: dict[str, Any]) -> None:
    """A line for whoever waits."""
    clear, occluded = (record["errors"][name][JUDGED_BY] for name in TEST_SETS)
    click.echo(
        f"{record['run']:22} seed {record['seed']}: {record['steps']:5} steps, "
        f"PA-MPJPE {clear:6.1f} mm, occluded {occluded:6.1f} mm"
    )


@click.command()
@click.option("--cache", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--steps", default=400, show_default=True, type=click.IntRange(min=1))
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--only", multiple=True, type=click.Choice([run.name for run in RUNS]))
@click.option("--pictures", default=6000, show_default=True, type=click.IntRange(min=1))
@click.option("--judged", default=384, show_default=True, type=click.IntRange(min=1))
@click.option("--crop-size", default=112, show_default=True, type=click.IntRange(min=32))
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(min=2))
@click.option("--evaluations", default=4, show_default=True, type=click.IntRange(min=1))
@click.option("--device", default="cpu", show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes that draw.")
@click.option("--output", default=RESULTS / "regressors.json", type=click.Path(path_type=Path))
def main(
    cache: Path,
    seeds: int,
    only: tuple[str, ...],
    jobs: int | None,
    output: Path,
    **options: Any,
) -> None:
    """Train and judge all runs; repeat --only to choose several."""
    keep_freed_memory()  # as `fit-cli train` does
    settings = Settings(cache=cache, jobs=jobs, **options)
    for name, config in picture_sets(settings).items():
        prepare_set(cache / name, config)
    shown = [f"--{name.replace('_', '-')} {value}" for name, value in options.items()]
    shown += [f"--seeds {seeds}", *(f"--only {name}" for name in only)]
    described = describe_run(" ".join(["python benchmarks/regressors.py", *shown]))
    chosen = [run for run in RUNS if not only or run.name in only]
    records: list[dict[str, Any]] = []
    for seed, run in product(range(seeds), chosen):
        records.append(measure(run, seed, settings))
        say(records[-1])
        content = {"config": CONFIG.name, **options, "seeds": seeds, "runs": records}
        found = {"best": find_best(records), "comparisons": compare(records)}
        write_json(output, {**described, **content, **found})


if __name__ == "__main__":
    main()

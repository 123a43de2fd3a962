"""What image regressors lose to their bare encoders, and predictions to the reading of pictures.

    python benchmarks/predict.py [--device cuda] [--checkpoint FILE] [--quick --output FILE]

Three jobs take turns on the same people, so that ratios hold on a machine that others use too: the
encoder alone on crops that are there, the whole regressor on them, and `Predictor.predict_people`,
which reads pictures of 640 x 480, cuts the people out and predicts them. Shares are of the medians;
those of the processor's time, over all threads, do not depend on what else the machine does, nor on
what is done at the same time. Weights are random: they do not change the time.

With a checkpoint, drawn people of the test subjects are predicted in pictures of 224 px, and fits
to their true keypoints begin there, and at the lifter's estimates.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from cost import time_once
from record import RESULTS, describe_run

from fitting.allocator import keep_freed_memory
from fitting.body import Body, load_body
from fitting.evaluation import evaluate_fits
from fitting.files import write_json
from fitting.offline import choose_device
from fitting.people import People
from fitting.readers import read_people
from fitting.run import RunConfig, run
from fitting.table import read_fits
from regressor.crops import crop_of_keypoints
from regressor.encoders import make_encoder
from regressor.heads import FeedbackHead, Head, SequentialHead
from regressor.image_networks import ImageRegressor
from regressor.lift import load_lifter
from regressor.predict import Predictor, load_predictor
from regressor.prediction_run import PredictConfig, run_prediction
from regressor.synthetic.rendered_set import (
    IMAGES,
    KEYPOINTS_FILE,
    TRUTH_FILE,
    SetConfig,
    write_rendered_set,
)
from regressor.synthetic.rendering import PictureConfig

BATCH = 32
NETWORKS: dict[str, tuple[str, Callable[[int], Head]]] = {
    "resnet50, spin": ("resnet50", FeedbackHead),
    "efficientnet_lite0, sequential": ("efficientnet_lite0", SequentialHead),
}
QUICK = {"resnet18, sequential": ("resnet18", SequentialHead)}


def draw_people(folder: Path, count: int) -> People:
    """Pictures of one person each in a folder, and their keypoints."""
    pictures = PictureConfig(size=(640, 480), crop=False)
    write_rendered_set(folder, SetConfig(count=count, pictures=pictures))
    people, _ = read_people(folder / KEYPOINTS_FILE)
    has_crop = crop_of_keypoints(people.keypoints_2d, people.conf)[:, 0] > 0
    return people.select(has_crop)


@torch.inference_mode()
def run_in_batches(network: Callable[[torch.Tensor], Any], crops: torch.Tensor) -> None:
    for batch in crops.split(BATCH):
        network(batch)


def measure(
    network: ImageRegressor, body: Body, people: People, images: Path, turns: int
) -> dict[str, Any]:
    """People per second of each job, and shares of the encoder's, for one network."""
    device = body.v_template.device
    crops = torch.randn(len(people), 3, 224, 224, device=device)
    predictor = Predictor(network, body, same_body=True, batch_size=BATCH)
    jobs: dict[str, Callable[[], object]] = {
        "encoder": lambda: run_in_batches(network.encoder, crops),
        "regressor": lambda: run_in_batches(network, crops),
        "with_pictures": lambda: predictor.predict_people(people, images),
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    of_processor: dict[str, list[float]] = {name: [] for name in jobs}
    for work in jobs.values():
        work()  # to warm up
    for turn in range(turns):
        # There and back again: what ran before leaves the memory more or less ready.
        for name, work in list(jobs.items())[:: 1 if turn % 2 == 0 else -1]:
            began = time.process_time()
            seconds[name].append(time_once(work, device))
            of_processor[name].append(time.process_time() - began)
    wall, processor = _medians(seconds), _medians(of_processor)
    return {
        "people_per_second": {name: round(len(people) / s, 2) for name, s in wall.items()},
        "share_of_encoder": round(wall["encoder"] / wall["regressor"], 3),
        "share_with_pictures": round(wall["encoder"] / wall["with_pictures"], 3),
        "processor_seconds": {name: round(s, 3) for name, s in processor.items()},
        "processor_share_of_encoder": round(processor["encoder"] / processor["regressor"], 3),
        "processor_share_with_pictures": round(
            processor["encoder"] / processor["with_pictures"], 3
        ),
    }


def _medians(values: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(found) for name, found in values.items()}


def measure_refinement(checkpoint: Path, folder: Path, count: int, device: str) -> dict[str, Any]:
    """Errors against the truth: of predictions, of fits from there, and of the lifter's fits."""
    pictures = PictureConfig(split="test")
    write_rendered_set(folder, SetConfig(count=count, seed=1, pictures=pictures))
    source = {"input": folder / IMAGES, "keypoints": folder / KEYPOINTS_FILE, "device": device}
    predicting = PredictConfig(
        **source, output=folder / "predicted", checkpoint=checkpoint, overlays=False
    )
    tables = {"predicted": run_prediction(predicting).table}
    starts = {str(checkpoint): partial(load_predictor, checkpoint), "lift": None}
    for name, (init, make_predictor) in zip(("fitted", "lift"), starts.items(), strict=True):
        fitting = RunConfig(**source, output=folder / name, init=init, overlays=False)
        summary = run(fitting, make_estimator=load_lifter, make_predictor=make_predictor)
        tables[name] = summary.table
    truth, body = read_fits(folder / TRUTH_FILE), load_body()
    return {name: _errors(evaluate_fits(table, truth, body)) for name, table in tables.items()}


def _errors(found: dict[str, Any]) -> dict[str, float]:
    return {
        "people": found["people"]["matched"],
        "reprojection_error_px": round(found["reprojection_error_px"], 2),
        "mpjpe_mm": round(found["smpl24"]["mpjpe_mm"], 1),
        "pa_mpjpe_mm": round(found["smpl24"]["pa_mpjpe_mm"], 1),
        "pve_mm": round(found["pve_mm"], 1),
    }


@click.command()
@click.option("--device", default="cpu", show_default=True)
@click.option("--people", default=2 * BATCH, show_default=True, help="Pictures to be drawn.")
@click.option("--turns", default=5, show_default=True)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Image regressor to refine.")
@click.option("--refined", default=256, show_default=True, help="Pictures to refine it on.")
@click.option("--quick", is_flag=True, help="One small network, to see whether all this runs.")
@click.option("-o", "--output", default=RESULTS / "predict.json", type=click.Path(path_type=Path))
def main(
    device: str,
    people: int,
    turns: int,
    checkpoint: Path | None,
    refined: int,
    quick: bool,
    output: Path,
) -> None:
    keep_freed_memory()  # as `fit-cli predict` does
    body = load_body().to(choose_device(device))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        drawn = draw_people(Path(folder), people)
        for name, (encoder_name, make_head) in (QUICK if quick else NETWORKS).items():
            torch.manual_seed(0)
            encoder = make_encoder(encoder_name)
            network = ImageRegressor(encoder, make_head(encoder.channels))
            network.to(body.v_template.device).eval().requires_grad_(False)
            found[name] = measure(network, body, drawn, Path(folder) / IMAGES, turns)
            click.echo(
                f"{name}: {found[name]['share_of_encoder']:.0%} of the encoder's throughput, "
                f"{found[name]['share_with_pictures']:.0%} with reading and cropping"
            )
    refinement = None
    if checkpoint is not None:
        with tempfile.TemporaryDirectory() as folder:
            refinement = measure_refinement(checkpoint, Path(folder), refined, device)
        for name, errors in refinement.items():
            click.echo(f"{name}: {errors}")
    command = f"python benchmarks/predict.py --device {device} --people {people} --turns {turns}"
    if checkpoint is not None:
        command += f" --refined {refined} --checkpoint {checkpoint.name}"
    record = {
        **describe_run(command),
        "threads": torch.get_num_threads(),
        "people": len(drawn),
        "batch": BATCH,
        "pictures": "640 x 480 JPEG, one person each",
        "networks": found,
        "refinement": refinement,
    }
    write_json(output, record)


if __name__ == "__main__":
    main()

"""How well and how fast a detector finds people with labelled keypoints in photographs.

    python benchmarks/detector.py person_keypoints.json images/ [-o detector.json]

Counted are people with at least 10 labelled keypoints. A person is found if a detection has
object keypoint similarity (OKS) of 0.5 or more with the labels, each label and each detection
being used once, the surest detection first. Detections of people who are labelled with fewer
keypoints, without any, or only as a crowd are neither right nor wrong.

For blazepose the table also shows what each ingredient adds.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, describe_run

from fitting.blazepose import BlazePoseConfig, BlazePoseDetector
from fitting.detector import Detection, Detector, load_detector
from fitting.files import write_json
from fitting.images import read_image
from fitting.skeleton import convert_keypoints, keypoint_set

# Standard deviations of annotators, relative to the person's size (COCO keypoint evaluation).
COCO_SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1e3
PACKAGES = ("opencv-python", "numpy", "pillow")
MIN_LABELLED = 10
MIN_SIMILARITY = 0.5
MIN_CONF = 0.3  # a keypoint at least this sure counts as seen

VARIANTS = {
    "as shipped": BlazePoseConfig(),
    "whole picture only": BlazePoseConfig(tile_divisions=(1.0,)),
    "third scale": BlazePoseConfig(tile_divisions=(1.0, 2.0, 3.0)),
    "one refinement": BlazePoseConfig(num_refinements=1),
    "no test of agreement": BlazePoseConfig(min_score=0.0),
}


@dataclass(kw_only=True)
class Tally:
    """Counts over all photographs."""

    people: int = 0
    found: int = 0
    wrong: int = 0
    ignored: int = 0
    errors: list[float] = field(default_factory=list)  # matched labels, by sqrt of the area
    similarities: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        return {
            "images": len(self.seconds),
            "people": self.people,
            "found": self.found,
            "wrong": self.wrong,
            "ignored": self.ignored,
            "recall": self.found / max(self.people, 1),
            "precision": self.found / max(self.found + self.wrong, 1),
            "mean_oks_of_found": _mean(self.similarities),
            "mean_error_by_sqrt_area": _mean(self.errors),
            "ms_per_image_median": 1e3 * float(np.median(self.seconds)),
            "ms_per_image_max": 1e3 * float(np.max(self.seconds)),
        }


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None  # JSON has no NaN


def label_errors(annotation: dict[str, Any], keypoints_2d: np.ndarray) -> np.ndarray:
    """Distances of (17, 2) keypoints from the labelled ones, by the square root of the area."""
    labels = np.array(annotation["keypoints"], dtype=float).reshape(17, 3)
    distance = np.linalg.norm(keypoints_2d - labels[:, :2], axis=1) / np.sqrt(annotation["area"])
    return np.where(labels[:, 2] > 0, distance, np.nan)


def object_keypoint_similarity(annotation: dict[str, Any], keypoints_2d: np.ndarray) -> float:
    """OKS over the labelled keypoints, as in COCO's evaluation; 0 if there are none."""
    if annotation["num_keypoints"] == 0:
        return 0.0
    errors = label_errors(annotation, keypoints_2d)
    return float(np.nanmean(np.exp(-(errors**2) / (2 * (2 * COCO_SIGMAS) ** 2))))


def in_box(annotation: dict[str, Any], point: np.ndarray) -> bool:
    x, y, width, height = annotation["bbox"]
    return bool(x <= point[0] <= x + width and y <= point[1] <= y + height)


def match_image(
    annotations: list[dict[str, Any]], detections: list[Detection], set_name: str, tally: Tally
) -> None:
    """Count one photograph."""
    source, coco = keypoint_set(set_name), keypoint_set("coco17")
    counted = [a for a in annotations if a["num_keypoints"] >= MIN_LABELLED]
    others = [a for a in annotations if a["num_keypoints"] < MIN_LABELLED]
    tally.people += len(counted)
    for detection in sorted(detections, key=lambda d: -d.score):
        keypoints_2d, _ = convert_keypoints(detection.keypoints_2d, detection.conf, source, coco)
        similarities = [object_keypoint_similarity(a, keypoints_2d) for a in counted]
        best = int(np.argmax(similarities)) if counted else -1
        if counted and similarities[best] >= MIN_SIMILARITY:
            tally.found += 1
            tally.similarities.append(similarities[best])
            errors = label_errors(counted.pop(best), keypoints_2d)
            tally.errors.extend(errors[~np.isnan(errors)])
        elif is_ignored(detection, keypoints_2d, others):
            tally.ignored += 1
        else:
            tally.wrong += 1


def is_ignored(
    detection: Detection, keypoints_2d: np.ndarray, others: list[dict[str, Any]]
) -> bool:
    """Whether the detection is of somebody who is labelled too little to judge it."""
    seen = detection.conf >= MIN_CONF
    centre = detection.keypoints_2d[seen if seen.any() else slice(None)].mean(axis=0)
    return any(
        object_keypoint_similarity(a, keypoints_2d) >= MIN_SIMILARITY
        or (a["num_keypoints"] == 0 and in_box(a, centre))
        for a in others
    )


def measure(detector: Detector, labels: Path, images: Path) -> dict[str, Any]:
    """Run a detector over all photographs that the COCO file lists."""
    coco = json.loads(labels.read_text(encoding="utf-8"))
    tally = Tally()
    for number, entry in enumerate(coco["images"]):
        image = read_image(images / entry["file_name"])
        if number == 0:
            detector(image)  # warm-up: the first call prepares the networks
        start = time.perf_counter()
        detections = detector(image)
        tally.seconds.append(time.perf_counter() - start)
        annotations = [a for a in coco["annotations"] if a["image_id"] == entry["id"]]
        match_image(annotations, detections, detector.keypoint_set, tally)
    return tally.summary()


def measure_all(name: str, labels: Path, images: Path) -> dict[str, Any]:
    """The detector called `name`, for blazepose in all its `VARIANTS`."""
    if name != "blazepose":
        return {name: measure(load_detector(name), labels, images)}
    return {
        variant: measure(BlazePoseDetector(config), labels, images)
        for variant, config in VARIANTS.items()
    }


def print_table(results: dict[str, Any]) -> None:
    """The results as the Markdown table of docs/detector.md."""
    print("| | found | wrong | recall | precision | OKS | error | ms |")
    print("|---|---|---|---|---|---|---|---|")
    for name, r in results.items():
        print(
            f"| {name} | {r['found']} of {r['people']} | {r['wrong']} | {r['recall']:.2f} "
            f"| {r['precision']:.2f} | {r['mean_oks_of_found']:.2f} "
            f"| {100 * r['mean_error_by_sqrt_area']:.1f} % | {r['ms_per_image_median']:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", type=Path, help="COCO person keypoints JSON")
    parser.add_argument("images", type=Path, help="folder of the photographs it names")
    parser.add_argument("--detector", default="blazepose")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "detector.json")
    arguments = parser.parse_args()
    labels, images = arguments.labels, arguments.images
    paths = f"{labels.name} {images.name}/"  # without the folders of this machine
    command = f"python benchmarks/detector.py {paths} --detector {arguments.detector}"
    record = {
        **describe_run(command, PACKAGES),
        "results": measure_all(arguments.detector, labels, images),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, record)
    print_table(record["results"])


if __name__ == "__main__":
    main()

"""Checkpoints of networks that have learned nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from fitting.body import load_body
from regressor.checkpoints import Checkpoint, save_checkpoint
from regressor.config import config_to_dict
from regressor.image_architectures import ImageNetworkConfig
from regressor.image_data import ImageDataConfig
from regressor.image_task import ImageConfig, make_network


def save_untrained(path: Path, *, body_sha256: str | None = None) -> Path:
    """Write a small image regressor for crops of 64 pixels, of the bundled body if not told."""
    config = ImageConfig(
        network=ImageNetworkConfig(encoder="resnet18"), data=ImageDataConfig(crop_size=64)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make_network(config, None).state_dict()
    checkpoint = Checkpoint(
        architecture="image",
        config=config_to_dict(config),
        metrics={},
        body_sha256=load_body().sha256 if body_sha256 is None else body_sha256,
        model=model,
    )
    save_checkpoint(path, checkpoint)
    return path

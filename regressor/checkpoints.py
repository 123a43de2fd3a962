"""Checkpoints: networks with their config and metrics, read without running code in the file."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from fitting.body import Body, load_body
from fitting.files import InputError, write_atomically

from .config import config_from_dict
from .layouts import load_official, recognise
from .state_dicts import some_names
from .tasks import make_network

FORMAT = "bodyloop"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network at some step of its training, as our own files hold it.

    Attributes:
        architecture: name of the task in `tasks.TASKS`.
        config: of the task, as `config_to_dict` gives it.
        metrics: of the last evaluation, and its `step`; empty before the first.
        body_sha256: of the body that the output belongs to; "" where there is none.
        model: state dict, on the CPU.
        training: what resuming needs besides; only in last.pt.
    """

    architecture: str
    config: dict[str, Any]
    metrics: dict[str, float]
    body_sha256: str
    model: dict[str, Tensor]
    training: dict[str, Any] | None = field(default=None, repr=False)


def save_checkpoint(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that `path` holds the whole new one or the whole old one.

    Raises:
        OutputError: the disk is full, the folder is missing and the like.
    """
    content = {"format": FORMAT, "version": VERSION, **vars(checkpoint)}
    content["model"] = {k: v.detach().cpu() for k, v in checkpoint.model.items()}
    # In memory first: torch.save hides the reason when its stream cannot be written.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, lambda stream: stream.write(buffer.getbuffer()))


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint of our own format.

    Raises:
        InputError: it is missing, damaged, holds code, or is of another program or version.
    """
    content = _read_plain(path)
    if not _is_own(content):
        raise InputError(f"{path}: is no checkpoint of bodyloop{_likeness(content)}")
    return _checkpoint(content, path)


def load_checkpoint(
    path: Path | str, *, body: Body | None = None, device: torch.device | str = "cpu"
) -> nn.Module:
    """Load a trained network: one of our own, or one of a published layout (`layouts`).

    Args:
        path: of best.pt or last.pt of a run, or of a published file. Code in it is refused.
        body: that the network was trained for; none means the bundled one.
        device: where the network goes.

    Returns:
        The network in eval mode, its gradients off.

    Raises:
        InputError: the file is missing, damaged or holds code, belongs to another body, or lacks
            tensors of the network it names.
    """
    return open_network(path, body=body, device=device).network


@dataclass(frozen=True, kw_only=True)
class OpenedNetwork:
    """A trained network, and what its file says of it.

    Attributes:
        network: in eval mode, its gradients off.
        architecture: name of the task in `tasks.TASKS`, or title of the published system.
        config: of the task; empty for published files.
        body_sha256: as in `Checkpoint`; "" for published files.
    """

    network: nn.Module
    architecture: str
    config: Mapping[str, Any]
    body_sha256: str


def open_network(
    path: Path | str, *, body: Body | None = None, device: torch.device | str = "cpu"
) -> OpenedNetwork:
    """Load a trained network with what its file says of it; see `load_checkpoint`."""
    content = _read_plain(path)
    layout = recognise(content)
    if _is_own(content):
        checkpoint = _checkpoint(content, path)
        network = _build(checkpoint, path, body)
        found = (checkpoint.architecture, checkpoint.config, checkpoint.body_sha256)
    elif layout is not None:
        network, found = load_official(layout, content, path), (layout.title, {}, "")
    else:
        raise InputError(f"{path}: holds no network known here{_likeness(content)}")
    architecture, config, body_sha256 = found
    return OpenedNetwork(
        network=network.to(device).eval().requires_grad_(False),
        architecture=architecture,
        config=config,
        body_sha256=body_sha256,
    )


def architecture_of(path: Path | str) -> str:
    """Name of the task of a checkpoint of ours, or title of the published system.

    Raises:
        InputError: the file is missing, damaged or holds code, or no network known here.
    """
    content = _read_plain(path)
    layout = recognise(content)
    if _is_own(content):
        return _checkpoint(content, path).architecture
    if layout is not None:
        return layout.title
    raise InputError(f"{path}: holds no network known here{_likeness(content)}")


def build_network(checkpoint: Checkpoint, path: Path | str, body: Body | None) -> nn.Module:
    """The network of a checkpoint's config with its weights, whichever body it was trained for.

    Raises:
        InputError: the config or the weights are not of this program.
    """
    config = config_from_dict(checkpoint.config, source=f"{path}: its config")
    with torch.device("meta"):  # without memory: a stranger's config may ask for any amount
        _check_fits(make_network(config, body), checkpoint, path)
    network = make_network(config, body)
    load_weights(network, checkpoint, path)
    return network


def load_weights(network: nn.Module, checkpoint: Checkpoint, path: Path | str) -> None:
    """Put a checkpoint's tensors into the network of its config.

    Raises:
        InputError: tensors are missing, left over or of another shape; nothing is changed.
    """
    _check_fits(network, checkpoint, path)
    network.load_state_dict(checkpoint.model)


def _check_fits(network: nn.Module, checkpoint: Checkpoint, path: Path | str) -> None:
    """InputError where the checkpoint's tensors are not those of the network."""
    misfit = _misfit(network, checkpoint.model)
    if misfit:
        raise InputError(
            f"{path}: does not fit the network {checkpoint.architecture} of its config: {misfit}; "
            "was it made by another version?"
        )


def start_from(network: nn.Module, path: Path | str) -> None:
    """Put the weights of a checkpoint, our own or a published one, into a network to be trained.

    The body that they were trained for does not matter: it may be what is to be changed.

    Raises:
        InputError: see `load_checkpoint`; or they are of another network. Nothing is changed.
    """
    content = _read_plain(path)
    layout = recognise(content)
    if _is_own(content):
        model = _checkpoint(content, path).model
    elif layout is not None:
        model = load_official(layout, content, path).state_dict()
    else:
        raise InputError(f"{path}: holds no network known here{_likeness(content)}")
    misfit = _misfit(network, model)
    if misfit:
        raise InputError(f"{path}: is of another network than is to be trained: {misfit}")
    network.load_state_dict(model)


def _misfit(network: nn.Module, model: Mapping[str, Tensor]) -> str:
    """How tensors differ from the network's in names or shapes; "" if they do not."""
    expected = network.state_dict()
    missing = [name for name in expected if name not in model]
    extra = [name for name in model if name not in expected]
    if missing or extra:
        return f"{some_names(missing)} missing, {some_names(extra)} left over"
    for name, tensor in expected.items():
        if model[name].shape != tensor.shape:
            return f"{name} must be {tuple(tensor.shape)}, got {tuple(model[name].shape)}"
    return ""


def _build(checkpoint: Checkpoint, path: Path | str, body: Body | None) -> nn.Module:
    if checkpoint.body_sha256:
        body = load_body() if body is None else body
        if body.sha256 != checkpoint.body_sha256:
            raise InputError(
                f"{path}: was trained for the body {checkpoint.body_sha256[:12]}, not for "
                f"{body.sha256[:12]}; pass the body it was trained for"
            )
    return build_network(checkpoint, path, body)


def _read_plain(path: Path | str) -> Any:
    """The plain containers and tensors of a file that `torch.save` wrote."""
    _check_unpacked(Path(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of a kind that is refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path of the checkpoint") from error
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give a checkpoint file"
        ) from error
    except UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise InputError(
                f"{path}: holds Python objects besides tensors, which might run code, so it is "
                "not loaded; save its state dict alone"
            ) from error
        raise InputError(_damaged(path)) from error
    except Exception as error:  # torch raises whatever its reader stumbled over in the bytes
        raise InputError(_damaged(path)) from error


def _check_unpacked(path: Path) -> None:
    """InputError for a decompression bomb: `torch.save` compresses nothing."""
    try:
        if not zipfile.is_zipfile(path):  # of the older layout, or for `torch.load` to refuse
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
    except Exception as error:  # a damaged archive can raise nearly anything
        raise InputError(_damaged(path)) from error
    if unpacked > path.stat().st_size:
        raise InputError(
            f"{path}: is compressed and would unpack to {unpacked} bytes; save it again by "
            "torch.save, which compresses nothing"
        )


def _damaged(path: Path | str) -> str:
    return f"{path}: is no checkpoint, or is truncated or damaged; copy it again"


def _is_own(content: Any) -> bool:
    return isinstance(content, dict) and content.get("format") == FORMAT


def _likeness(content: Any) -> str:
    """What else a file may be, for a message."""
    layout = recognise(content)
    if layout is not None:
        return f"; it looks like one of {layout.title}"
    if isinstance(content, Mapping) and content:
        return f"; it holds {some_names([str(k) for k in content])}"
    return "; give a best.pt of fit-cli train"


_FIELDS: dict[str, type | tuple[type, ...]] = {
    "architecture": str,
    "config": dict,
    "metrics": dict,
    "body_sha256": str,
    "model": dict,
    "training": (dict, type(None)),
}


def _checkpoint(content: dict[str, Any], path: Path | str) -> Checkpoint:
    if content.get("version") != VERSION:
        raise InputError(
            f"{path}: has version {content.get('version')} of the format, this program reads "
            f"version {VERSION}; use the program that wrote it"
        )
    for name, kind in _FIELDS.items():
        if name not in content or not isinstance(content[name], kind):
            raise InputError(f"{path}: its part {name} is missing or wrong; copy it again")
    if not all(isinstance(tensor, Tensor) for tensor in content["model"].values()):
        raise InputError(f"{path}: its part model must hold tensors alone; copy it again")
    return Checkpoint(**{name: content[name] for name in _FIELDS})

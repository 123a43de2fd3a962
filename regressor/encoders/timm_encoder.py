"""Any encoder of the package timm (Wightman, "PyTorch Image Models")."""

from __future__ import annotations

from torch import Tensor

from .base import Encoder, Renormalise


class TimmEncoder(Encoder):
    """A network of timm without its classifier, which normalises colours as it was trained."""

    def __init__(self, name: str) -> None:
        """Build the network that timm calls `name`.

        Raises:
            ImportError: timm is not installed.
            ValueError: it has no such network.
        """
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise ImportError(
                f"the encoder timm:{name} needs the package timm ({error}); install it: "
                "pip install 'bodyloop[timm]'"
            ) from error
        try:
            self.network = timm.create_model(name, num_classes=0, global_pool="")
        except RuntimeError as error:
            raise ValueError(f"encoder timm:{name} is not known to timm; {error}") from error
        config = self.network.pretrained_cfg
        self.normalise = Renormalise(config["mean"], config["std"])
        self.channels = self.network.num_features

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w)."""
        return self.network.forward_features(self.normalise(images))

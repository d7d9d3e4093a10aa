"""Lightning plugin that writes checkpoints whole and seals them with configuration and checksum."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from handgrad.runs.checkpoint import SEAL, checksum
from handgrad.runs.folder import replacing


class SealedCheckpointIO(TorchCheckpointIO):
    """Writes whole files that say which configuration they belong to and what their content's checksum is.

    Lightning's own writes to the system's temporary folder and moves that, which across file systems is a copy that can
    be cut short.

    Args:
        config: the composed configuration.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        whole = io.BytesIO()
        torch.save(checkpoint, whole)
        with zipfile.ZipFile(whole, "a") as archive:
            archive.writestr(SEAL, json.dumps({"config": self.config, "sha256": checksum(archive)}))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(whole.getbuffer())

"""Lightning plugin that writes checkpoints atomically."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from handgrad.runs.folder import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file beside the target, and renames it.

    Lightning's plugin moves it from the system's temporary folder, across file systems by a copy that can be
    interrupted.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        whole = io.BytesIO()
        torch.save(checkpoint, whole)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(whole.getbuffer())

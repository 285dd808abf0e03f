"""Checkpoints on disk: the old file stays until the new one is whole."""

from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO


class WholeCheckpoints(TorchCheckpointIO):
    """Writes beside the file and then takes its place, so that a full disk or a crash costs no checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        draft = path.with_name(path.name + ".part")
        try:
            super().save_checkpoint(checkpoint, draft, storage_options)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

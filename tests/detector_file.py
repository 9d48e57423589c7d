"""A narrow detector of the synthetic shapes in a checkpoint file, as a training would leave it."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from hoyer_det.config import load_config
from narrow import narrow_model, random_items
from torch import nn

CONFIG = Path(__file__).parents[1] / 'configs' / 'hoyer_ssd_shapes.py'
CLASSES = ('circle', 'square', 'triangle', 'star', 'cross', 'ring')


def save_detector(path: Path, options: dict[str, Any] | None = None, **meta: Any) -> nn.Module:
    """Write the checkpoint; return the detector, which has seen one batch and detects at random."""
    cfg = load_config(CONFIG, options)
    cfg.work_dir = str(path.parent)
    model, side = narrow_model(cfg)
    batch = model.data_preprocessor(
        dict(
            inputs=[item['inputs'] for item in random_items(2, side)],
            data_samples=[item['data_samples'] for item in random_items(2, side)],
        ),
        True,
    )
    with torch.no_grad():
        model.train()(**batch, mode='tensor')
    meta = dict(cfg=cfg.pretty_text, dataset_meta=dict(classes=CLASSES), epoch=1) | meta
    meta = {key: value for key, value in meta.items() if value is not None}
    content = dict(state_dict=model.state_dict(), meta=meta, optimizer={}, message_hub={})
    torch.save(content, path)
    return model.eval()


def write_images(folder: Path, *names: str) -> list[str]:
    """Write noisy images of 96 x 80 pixels; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 255, (80, 96, 3), np.uint8)
        assert cv2.imwrite(str(folder / name), pixels)
    return [str(folder / name) for name in names]


def write_video(path: Path, frames: int) -> str:
    """Write a noisy video of 96 x 80 pixels; return its path."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (96, 80))
    for seed in range(frames):
        writer.write(np.random.default_rng(seed).integers(0, 255, (80, 96, 3), np.uint8))
    writer.release()
    return str(path)

"""Runs a detector over real images and collects everything that is counted."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from .operations import LayerOperations, OperationCounter
from .potentials import LayerPotentials, PotentialRecorder
from .spikes import LayerSpikes, SpikeRecorder


@dataclass
class Measurement:
    """What was seen of one network.

    Attributes:
        layers: Operations of each layer.
        not_counted: What ran and is in no count, with the reason.
        not_run: Layers with weights that no image needed.
        spikes: Spikes of each neuron layer.
        potentials: Potentials of each neuron layer.
        images: Number of images.
        picture: The image of the spike maps, (H, W, 3), RGB, uint8.
        map_shape: Height and width of that image with its padding, to which the maps belong.
    """

    layers: list[LayerOperations]
    not_counted: dict[str, str]
    not_run: list[str]
    spikes: dict[str, LayerSpikes]
    potentials: dict[str, LayerPotentials]
    images: int
    picture: np.ndarray
    map_shape: tuple[int, int]


def load_detector(cfg: Config, checkpoint: str, device: str) -> nn.Module:
    """Build the model of a config in evaluation mode and load its weights.

    Args:
        cfg: Completed config.
        checkpoint: Checkpoint file, known to belong to the config.
        device: Where the model goes, for example ``'cpu'``.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = MODELS.build(cfg.model)
    load_checkpoint(model, checkpoint, map_location='cpu', strict=True, logger='silent')
    return model.to(device).eval()


def build_dataset(cfg: Config, split: str) -> Any:
    """Build the data set of a split; images to train on come through the pipeline of evaluation.

    Args:
        cfg: Completed config.
        split: ``'train'``, ``'val'`` or ``'test'``.

    Raises:
        ValueError: If the config has no such data loader, or the data set no image.
    """
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        raise ValueError(f'--data {split}: {cfg.filename} has no {split}_dataloader')
    dataset = loader.dataset
    if split == 'train':
        if cfg.get('val_dataloader') is None:
            raise ValueError(
                f'--data train: {cfg.filename} has no val_dataloader to take a pipeline of'
            )
        dataset = _with_pipeline(dataset, cfg.val_dataloader.dataset.pipeline)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    dataset = DATASETS.build(dataset)
    if len(dataset) == 0:
        raise ValueError(f'{split}_dataloader of {cfg.filename}: its data set has no images')
    return dataset


def spread_images(dataset: Any, number: int) -> Iterator[Any]:
    """Yield batches of one image, spread evenly over a data set.

    Args:
        dataset: Data set as MMDetection builds it.
        number: How many; all of them if there are fewer.
    """
    number = min(number, len(dataset))
    for i in range(number):
        yield pseudo_collate([dataset[i * len(dataset) // number]])


def measure(model: nn.Module, dataset: Any, images: int, map_image: int = 0) -> Measurement:
    """Let a detector look at images, from the image to its boxes, and count.

    Args:
        model: Detector in evaluation mode.
        dataset: Data set as MMDetection builds it.
        images: Number of images, spread evenly over the data set.
        map_image: Number, among these, of the one whose spike maps are kept.
    """
    counter, spikes, potentials = (
        OperationCounter(model),
        SpikeRecorder(model, map_image),
        PotentialRecorder(model),
    )
    picture, map_shape, seen = np.zeros((1, 1, 3), np.uint8), (1, 1), 0
    with spikes, potentials, torch.no_grad():
        for seen, batch in enumerate(spread_images(dataset, images), start=1):
            with counter, counter.image():
                (result,) = model.test_step(batch)
            spikes.end_image()
            if seen == map_image + 1:
                picture = _picture(batch['inputs'][0])
                shape = result.metainfo.get('batch_input_shape') or picture.shape[:2]
                map_shape = tuple(shape)
    return Measurement(
        counter.layers,
        counter.not_counted,
        counter.not_run,
        spikes.layers,
        potentials.layers,
        seen,
        picture,
        map_shape,
    )


def _with_pipeline(dataset: Any, pipeline: Any) -> Any:
    """Return the config of a data set without wrappers that repeat or mix, and with a pipeline."""
    if 'dataset' in dataset:
        return _with_pipeline(dataset['dataset'], pipeline)
    if 'datasets' in dataset:
        parts = [_with_pipeline(part, pipeline) for part in dataset['datasets']]
        return dict(type='ConcatDataset', datasets=parts)
    return dict(dataset, pipeline=pipeline)


def _picture(inputs: torch.Tensor) -> np.ndarray:
    """Return an image as the data set hands it out (BGR, channels first) as RGB."""
    return inputs.flip(0).permute(1, 2, 0).clamp(0, 255).to(torch.uint8).cpu().numpy()

"""Runs a detector over real images and collects everything that is counted."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATASETS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn

from ..errors import naming
from ..spiking import LIFSpike
from .neurons import NeuronRecorder, NeuronStatistics
from .operations import LayerOperations, OperationCounter


@dataclass
class Picture:
    """An image of which spike maps are kept.

    Attributes:
        pixels: (H, W, 3), RGB, uint8.
        map_shape: Height and width with the padding of the batch, to which the maps belong.
        name: Name of its file; empty where the data set knows none.
    """

    pixels: np.ndarray
    map_shape: tuple[int, int]
    name: str = ''


@dataclass
class Measurement:
    """What was counted on one network.

    Attributes:
        layers: Operations of each layer.
        not_counted: What ran and is in no count, with the reason.
        not_run: Layers with weights that no image needed.
        neurons: Statistics of each layer of neurons, by name; empty where there are none.
        images: Number of images.
        pictures: Images with spike maps, by number of the image.
        parameters: Trainable numbers of the network.
        leaky: Whether it has ``LIFSpike`` neurons, of which there are no statistics.
    """

    layers: list[LayerOperations]
    not_counted: dict[str, str]
    not_run: list[str]
    neurons: dict[str, NeuronStatistics]
    images: int
    pictures: dict[int, Picture]
    parameters: int
    leaky: bool = False

    @property
    def spiking(self) -> bool:
        """Whether its activations are spikes."""
        return bool(self.neurons) or self.leaky


def build_dataset(cfg: Config, split: str) -> Any:
    """Build the data set of a split; images to train on come through the pipeline of evaluation.

    Args:
        cfg: Completed config.
        split: ``'train'``, ``'val'`` or ``'test'``.

    Raises:
        ValueError: If the config has no such data loader, or its data set cannot be built, has no image
            or no inputs for the network.
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
        with naming(cfg, 'val_dataloader.dataset'):
            pipeline = get_test_pipeline_cfg(ConfigDict(test_dataloader=cfg.val_dataloader))
        dataset = _with_pipeline(dataset, pipeline)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with naming(cfg, f'{split}_dataloader.dataset'):
        dataset = DATASETS.build(dataset)
    if len(dataset) == 0:
        raise ValueError(f'{split}_dataloader of {cfg.filename}: its data set has no images')
    if 'inputs' not in dataset[0]:
        raise ValueError(
            f'{cfg.filename}: {split}_dataloader.dataset.pipeline: hands out no inputs for the network; '
            'end it with PackDetInputs'
        )
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


def measure(model: nn.Module, dataset: Any, images: int, maps: int = 3) -> Measurement:
    """Run a detector on images, from the image to its boxes, and count.

    Args:
        model: Detector in evaluation mode.
        dataset: Data set as MMDetection builds it.
        images: Number of images, spread evenly over the data set.
        maps: Of how many of these, likewise spread, pictures and spike maps are kept.
    """
    images = min(images, len(dataset))
    maps = min(maps, images)
    with_maps = {i * images // maps for i in range(maps)}
    counter, recorder = OperationCounter(model), NeuronRecorder(model, with_maps)
    pictures = {}
    for number, batch in enumerate(spread_images(dataset, images)):
        with torch.no_grad(), counter.image(), recorder.image():
            (result,) = model.test_step(batch)
        if number in with_maps:
            pixels = _pixels(batch['inputs'][0])
            shape = result.metainfo.get('batch_input_shape') or pixels.shape[:2]
            pictures[number] = Picture(
                pixels, tuple(shape), Path(result.metainfo.get('img_path') or '').name
            )
    return Measurement(
        counter.layers,
        counter.not_counted,
        counter.not_run,
        recorder.layers,
        images,
        pictures,
        sum(p.numel() for p in model.parameters()),
        any(isinstance(module, LIFSpike) for module in model.modules()),
    )


def _with_pipeline(dataset: Any, pipeline: Any) -> Any:
    """Return the config of a data set without wrappers that repeat or mix, and with a pipeline."""
    if 'dataset' in dataset:
        return _with_pipeline(dataset['dataset'], pipeline)
    if 'datasets' in dataset:
        parts = [_with_pipeline(part, pipeline) for part in dataset['datasets']]
        return dict(type='ConcatDataset', datasets=parts)
    return dict(dataset, pipeline=pipeline)


def _pixels(inputs: torch.Tensor) -> np.ndarray:
    """Return an image as the data set hands it out (BGR, channels first) as RGB."""
    return inputs.flip(0).permute(1, 2, 0).clamp(0, 255).to(torch.uint8).cpu().numpy()

"""Image classification data: torchvision's data sets and transforms behind mmengine's loaders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from mmdet.registry import DATASETS
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from ..errors import named


class ClassificationDataset(Dataset):
    """Pairs of image and class as ``dict(inputs=..., data_samples=...)``.

    Args:
        samples: Pairs of an RGB image (PIL, or uint8 of shape (3, H, W)) and a class index.
        classes: Names of the classes.
        transforms: Configs of torchvision's transforms (v2), by their class names.

    Attributes:
        metainfo: ``classes``, as every checkpoint records them.

    Raises:
        ValueError: If torchvision has no transform of a name.
    """

    def __init__(
        self, samples: Sequence, classes: Sequence[str], transforms: Sequence[dict[str, Any]]
    ) -> None:
        self.samples = samples
        self.metainfo = dict(classes=tuple(classes))
        self.transform = v2.Compose(
            [_transform(**config) for config in transforms] or [v2.Identity()]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        image, label = self.samples[index]
        image = self.transform(image)
        if isinstance(image, Image):
            image = v2.functional.pil_to_tensor(image)
        return dict(inputs=image, data_samples=int(label))


def _transform(type: str, **arguments: Any) -> torch.nn.Module:
    made = getattr(v2, type, None)
    if made is None:
        raise ValueError(f'transforms: torchvision.transforms.v2 has no {type!r}')
    return made(**arguments)


@DATASETS.register_module()
class TorchvisionDataset(ClassificationDataset):
    """A classification data set of torchvision.

    Args:
        name: Class in ``torchvision.datasets``, such as ``'CIFAR10'`` or ``'ImageFolder'``.
        data_root: Its folder.
        transforms: Configs of torchvision's transforms.
        folder: Folder below ``data_root`` that is the data set's root.
        arguments: Further arguments of that class.

    Raises:
        FileNotFoundError: If the data are not there.
        ValueError: If torchvision has no data set of that name.
    """

    def __init__(
        self,
        name: str,
        data_root: str,
        transforms: Sequence[dict[str, Any]],
        folder: str = '',
        arguments: dict[str, Any] | None = None,
    ) -> None:
        kind = getattr(torchvision.datasets, name, None)
        if kind is None:
            raise ValueError(f'TorchvisionDataset: torchvision.datasets has no {name!r}')
        root = Path(data_root) / folder
        try:
            samples = kind(str(root), **(arguments or {}))
        except (OSError, RuntimeError) as error:  # an address that does not answer is an OSError
            raise FileNotFoundError(
                f'{root}: torchvision finds no {name} there ({named(error)}); point to it '
                'with `--cfg-options data_root=FOLDER`'
            ) from error
        super().__init__(samples, samples.classes, transforms)


@DATASETS.register_module()
class DigitsDataset(ClassificationDataset):
    """The 1797 handwritten digits of 8x8 pixels that scikit-learn brings; needs no network.

    Every fifth one, from the first, is kept for testing: 360, and 1437 to train on. Source: UCI ML
    hand-written digits data set, test part.

    Args:
        transforms: Configs of torchvision's transforms.
        test_mode: Whether to take the part for testing.

    Raises:
        ImportError: If scikit-learn is not installed.
    """

    def __init__(self, transforms: Sequence[dict[str, Any]], test_mode: bool = False) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError('DigitsDataset: pip install scikit-learn') from error
        digits = load_digits()
        # Grey levels 0 to 16, in every channel.
        images = torch.from_numpy(digits.images).mul(255 / 16).byte()[:, None].expand(-1, 3, -1, -1)
        chosen = [i for i in range(len(images)) if (i % 5 == 0) == test_mode]
        samples = [(images[i].contiguous(), int(digits.target[i])) for i in chosen]
        super().__init__(samples, [str(digit) for digit in digits.target_names], transforms)

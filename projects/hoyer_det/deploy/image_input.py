"""Moves the normalisation of images into the first convolutions."""

import torch
from torch import Tensor, nn


class ImageInput:
    """The normalisation of a detector's images, folded or kept.

    Pixels enter a folded network as integers less one integer for all channels, the rounded average of the
    channels' means. It stands for the mean where borders are padded.

    Args:
        model: Detector with a ``data_preprocessor``, or any other module.
        wanted: Whether only convolutions that can be folded read the image.

    Attributes:
        folded: Whether the normalisation is folded.
        zero: What is subtracted from the pixels.
    """

    def __init__(self, model: nn.Module, wanted: bool) -> None:
        self.preprocessor = getattr(model, 'data_preprocessor', None)
        self.folded = wanted and hasattr(self.preprocessor, '_enable_normalize')
        self.zero = 0
        if self.folded and self.preprocessor._enable_normalize:
            self.mean = self.preprocessor.mean.double().flatten()
            self.std = self.preprocessor.std.double().flatten()
            self.zero = round(float(self.mean.mean()))
        else:
            self.mean, self.std = torch.zeros(1).double(), torch.ones(1).double()

    def fold(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weight for pixels less ``zero``, and what has to be added to the sums.

        Args:
            weight: Weight for normalised images, float64 (M, C, kh, kw).
        """
        if not self.folded:
            return weight, weight.new_zeros(weight.size(0))
        weight = weight / self.std.view(1, -1, 1, 1).to(weight.device)
        offset = (weight * (self.zero - self.mean).view(1, -1, 1, 1).to(weight.device)).sum(
            (1, 2, 3)
        )
        return weight, offset

    def apply(self) -> None:
        """Set the preprocessor to what is left of the normalisation."""
        if self.folded and self.preprocessor._enable_normalize:
            self.preprocessor.mean.fill_(float(self.zero))
            self.preprocessor.std.fill_(1.0)

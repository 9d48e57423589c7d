"""A detector from uint8 images to boxes and scores in one module, as it is exported."""

import torch
from mmdet.models.dense_heads import YOLOV3Head
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import Tensor, nn

from .reads import run_network


class ExportedDetector(nn.Module):
    """Backbone, neck, head and the decoding of MMDetection's own coders, without NMS.

    Args:
        model: Single-stage detector in evaluation mode, folded or not.
        size: Height and width of the images.

    Attributes:
        levels: Number of priors from which NMS takes its candidates apart, level by level.
        has_factor: Whether scores are multiplied by objectness, centerness or the like.

    Raises:
        ValueError: If the detector has no dense head, or one that decodes boxes in a way of its own.

    Shape:
        Images uint8 (N, 3, H, W) in the order of channels that the network reads; boxes (N, P, 4) in
        pixels; scores (N, P, classes).
    """

    def __init__(self, model: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = model
        self.size = size
        head = getattr(model, 'bbox_head', None)
        self.is_yolo = isinstance(head, YOLOV3Head)
        own = type(head)
        if not self.is_yolo and (
            not isinstance(head, BaseDenseHead)
            or own.predict_by_feat is not BaseDenseHead.predict_by_feat
            or own._predict_by_feat_single is not BaseDenseHead._predict_by_feat_single
        ):
            name = type(head).__name__ if head is not None else 'no bbox_head'
            raise ValueError(
                f'export: {type(model).__name__} with {name} cannot be exported; known are single-stage '
                "detectors with YOLOV3Head or a head that decodes as MMDetection's BaseDenseHead "
                '(SSD, RetinaNet, FCOS, ATSS, ...)'
            )
        preprocessor = model.data_preprocessor
        normalises = getattr(preprocessor, '_enable_normalize', False)
        self.zero = _one_number(preprocessor.mean, 0.0) if normalises else None
        self.std = _one_number(preprocessor.std, 1.0) if normalises else None
        with torch.no_grad():
            outputs = self._head_outputs(torch.zeros(1, 3, *size, dtype=torch.uint8))
        maps = outputs[0]
        self.has_factor = self.is_yolo or len(outputs) == 3
        sizes = [tuple(level.shape[-2:]) for level in maps]
        priors = head.prior_generator.grid_priors(sizes, dtype=maps[0].dtype, device=maps[0].device)
        counts = [len(level) for level in priors]
        self.register_buffer('priors', torch.cat(list(priors)))
        self.register_buffer('border', maps[0].new_tensor([size[1], size[0]] * 2))
        self.levels = [sum(counts)] if self.is_yolo else counts
        if self.is_yolo:
            strides = [
                maps[0].new_tensor(stride).expand(count)
                for stride, count in zip(head.featmap_strides, counts, strict=True)
            ]
            self.register_buffer('strides', torch.cat(strides)[:, None])

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.model.parameters()).dtype

    @property
    def clips(self) -> bool:
        """Whether boxes are cut off at the border of the image."""
        return not self.is_yolo and bool(self.model.bbox_head.bbox_coder.clip_border)

    def normalise(self, image: Tensor) -> Tensor:
        """Return the image as backbones read it."""
        image = image.to(self.dtype)
        image = image if self.zero is None else image - self.zero
        return image if self.std is None else image / self.std

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes and scores."""
        outputs = self._head_outputs(image)
        return self._decode_yolo(outputs[0]) if self.is_yolo else self._decode(*outputs)

    def _head_outputs(self, image: Tensor) -> tuple:
        return run_network(self.model, self.normalise(image))

    def _decode(
        self, cls_scores: list[Tensor], box_preds: list[Tensor], factors: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        head = self.model.bbox_head
        scores = _flatten(cls_scores, head.cls_out_channels)
        scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(-1)[..., :-1]
        if factors is not None:
            scores = scores * _flatten(factors, 1).sigmoid()
        deltas = _flatten(box_preds, head.bbox_coder.encode_size)
        boxes = self._boxes(deltas)
        if self.clips:
            boxes = torch.minimum(boxes.clamp(min=0), self.border)
        return boxes, scores

    def _decode_yolo(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        raw = _flatten(maps, self.model.bbox_head.num_attrib)
        deltas = torch.cat([raw[..., :2].sigmoid(), raw[..., 2:4]], -1)
        boxes = self._boxes(deltas, self.strides)
        return boxes, raw[..., 5:].sigmoid() * raw[..., 4:5].sigmoid()

    def _boxes(self, deltas: Tensor, *more: Tensor) -> Tensor:
        """Decode (N, P, 4) by the head's coder, which clips by itself in a way that is not exported."""
        # `expand` would ask for the shape of the image, and with a Shape of its integer input OpenVINO
        # 2026.4 computes the first convolution wrongly. Zeros of the right shape do without.
        priors = self.priors + deltas[..., : self.priors.size(-1)] * 0
        return self.model.bbox_head.bbox_coder.decode(priors, deltas, *more)


def _flatten(maps: tuple[Tensor, ...], channels: int) -> Tensor:
    """Join maps (N, A * channels, H, W) of several levels to (N, P, channels)."""
    flat = [level.permute(0, 2, 3, 1).reshape(level.size(0), -1, channels) for level in maps]
    return torch.cat(flat, 1)


def _one_number(values: Tensor, neutral: float) -> Tensor | float | None:
    """Return the one number that all entries are, None if that changes nothing, or the entries."""
    first = values.flatten()[0].item()
    if not bool((values == first).all()):
        return values
    return None if first == neutral else first

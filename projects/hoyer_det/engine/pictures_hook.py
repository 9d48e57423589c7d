"""Draws detections beside the ground truth after evaluation."""

import copy
from collections.abc import Sequence
from pathlib import Path

import mmcv
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.fileio import get
from mmengine.runner import Runner


@HOOKS.register_module()
class DetectionPicturesHook(DetVisualizationHook):
    """Draws the first images of each evaluation: ground truth on the left, detections on the right.

    MMDetection's own hook draws one image of every 50 batches in validation and every single image in
    testing. This one draws the same few images each time, so that epochs can be compared; with
    ``--show`` or ``--show-dir`` of ``tools/test.py`` it does what MMDetection's does. The pictures go
    to all visual backends: files in ``vis_data/vis_image`` and TensorBoard.

    Args:
        num_images: How many images are drawn; 0 for none.
        score_thr: Least score of a drawn detection.
        min_side: Smaller images are enlarged until their longer side has this many pixels, so that the
            labels can be read and do not cover them; those with masks stay as they are.
        **kwargs: Arguments of ``DetVisualizationHook``.
    """

    def __init__(
        self, num_images: int = 8, score_thr: float = 0.3, min_side: int = 400, **kwargs
    ) -> None:
        super().__init__(score_thr=score_thr, **kwargs)
        self.num_images = num_images
        self.min_side = min_side
        self._drawn = 0

    def before_val_epoch(self, runner: Runner) -> None:
        """Start again with the first image."""
        self._drawn = 0

    before_test_epoch = before_val_epoch

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[DetDataSample] | None = None,
    ) -> None:
        """Draw what is still to be drawn."""
        # A loop of iterations stays in epoch 0.
        self._draw(outputs, 'val', runner.epoch or runner.iter)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[DetDataSample] | None = None,
    ) -> None:
        """Draw what is still to be drawn; all images when they are to be shown or kept."""
        if self.draw:
            super().after_test_iter(runner, batch_idx, data_batch, outputs)
        else:
            self._draw(outputs, 'test', runner.epoch)

    def _draw(self, samples: Sequence[DetDataSample], prefix: str, step: int) -> None:
        for sample in samples[: max(self.num_images - self._drawn, 0)]:
            image = mmcv.imfrombytes(
                get(sample.img_path, backend_args=self.backend_args), channel_order='rgb'
            )
            scale = 1.0 if _has_masks(sample) else max(self.min_side / max(image.shape[:2]), 1.0)
            if scale > 1:
                image = mmcv.imrescale(image, scale)
            sample = copy.deepcopy(sample)
            for instances in (sample.get('gt_instances'), sample.get('pred_instances')):
                if instances is None or 'bboxes' not in instances:
                    continue
                boxes = instances.bboxes * scale
                # YOLO's may reach over the edge, and the canvas would grow with them.
                boxes[:, 0::2] = boxes[:, 0::2].clamp(0, image.shape[1])
                boxes[:, 1::2] = boxes[:, 1::2].clamp(0, image.shape[0])
                instances.bboxes = boxes
            self._visualizer.add_datasample(
                f'{prefix}_{Path(sample.img_path).stem}',
                image,
                data_sample=sample,
                pred_score_thr=self.score_thr,
                step=step,
            )
            self._drawn += 1


def _has_masks(sample: DetDataSample) -> bool:
    """Tell whether a sample has something to draw that is of the image's own size."""
    instances = sample.get('gt_instances'), sample.get('pred_instances')
    maps = 'gt_sem_seg', 'pred_sem_seg', 'gt_panoptic_seg', 'pred_panoptic_seg'
    return any(key in sample for key in maps) or any(
        each is not None and 'masks' in each for each in instances
    )

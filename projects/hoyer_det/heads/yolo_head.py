"""The head of YOLOv3 whose convolution block spikes; the read-out behind it is real-valued."""

from typing import Any

from mmdet.models.dense_heads import YOLOV3Head
from mmdet.registry import MODELS

from ..backbones.blocks import ACT_CFG, prepare_conv_modules, spread_biases
from ..spiking import keeps_bits


@MODELS.register_module()
class HoyerYOLOV3Head(YOLOV3Head):
    """MMDetection's YOLOv3 head with neurons that know their channels.

    Each level is 3x3 convolution -> norm -> ``HoyerSpike`` -> 1x1 read-out, so both convolutions read
    spikes. The head is that of YOLOv3 (Redmon and Farhadi, arXiv 1804.02767).

    Args:
        *args: As for ``YOLOV3Head``.
        act_cfg: Config of the activations.
        bias_spread: Half width of the interval of the norms' first biases, see
            :class:`hoyer_det.backbones.blocks.SpikingConvBlock`.
        **kwargs: As for ``YOLOV3Head``.
    """

    def __init__(
        self,
        *args: Any,
        act_cfg: dict[str, Any] = ACT_CFG,
        bias_spread: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, act_cfg=act_cfg, **kwargs)
        self.bias_spread = bias_spread
        prepare_conv_modules(self)

    def init_weights(self) -> None:
        """Initialise as YOLOv3 does, then spread the norms' biases."""
        super().init_weights()
        spread_biases(self, self.bias_spread)

    forward = keeps_bits(YOLOV3Head.forward)

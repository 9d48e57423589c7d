"""The head of YOLOv3 whose convolution block spikes; the read-out behind it is real-valued."""

from typing import Any

from mmdet.models.dense_heads import YOLOV3Head
from mmdet.registry import MODELS

from ..backbones.blocks import ACT_CFG, spiking_conv_cfg, spread_biases, use_spiking_conv_modules


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
        conv_cfg: Config of the convolutions.
        **kwargs: As for ``YOLOV3Head``.
    """

    def __init__(
        self,
        *args: Any,
        act_cfg: dict[str, Any] = ACT_CFG,
        bias_spread: float = 0.0,
        conv_cfg: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        conv_cfg = spiking_conv_cfg(conv_cfg, act_cfg)
        super().__init__(*args, act_cfg=act_cfg, conv_cfg=conv_cfg, **kwargs)
        self.bias_spread = bias_spread
        use_spiking_conv_modules(self)

    def init_weights(self) -> None:
        """Initialise as YOLOv3 does, then spread the norms' biases."""
        super().init_weights()
        spread_biases(self, self.bias_spread)

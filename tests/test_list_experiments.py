"""The table of the experiments against PyTorch's own counter."""

import pytest
import torch
from conftest import CONFIGS, load_script
from mmengine.config import Config
from torch.utils.flop_counter import FlopCounterMode


def test_row_of_a_config():
    tool = load_script('dev/list_experiments.py')
    path = CONFIGS / 'hoyer_ssd_shapes.py'
    cells = [cell.strip() for cell in tool.row(path).strip('|').split('|')]
    cfg = Config.fromfile(path)
    model = tool.build(cfg, (128, 128))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 128, 128), mode='tensor')
    assert cells[:4] == [
        '`hoyer_ssd_shapes.py`',
        'SingleStageDetector',
        'HoyerVGG-11 x 0.25',
        '128x128',
    ]
    assert float(cells[4].removesuffix(' M')) * 1e6 == pytest.approx(
        sum(parameter.numel() for parameter in model.parameters()), rel=0.05
    )
    assert float(cells[5].removesuffix(' G')) * 2e9 == pytest.approx(
        counter.get_total_flops(), rel=0.01
    )

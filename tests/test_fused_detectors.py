"""A training step of whole detectors on the fused path against the plain path."""

import copy

import pytest
import torch
from conftest import CONFIGS
from hoyer_det.config import load_config
from hoyer_det.spiking import fused_path, plain_path, record_hoyer_squares
from mmengine.dataset import pseudo_collate
from narrow import narrow_model, random_items


@pytest.mark.parametrize(
    'name', ['hoyer_ssd_shapes', 'hoyer_yolov3_shapes', 'hoyer_retinanet_r18_voc']
)
def test_losses_and_gradients_are_those_of_the_plain_path(name):
    model, side = narrow_model(load_config(CONFIGS / f'{name}.py'))
    model.train()
    batch = pseudo_collate(random_items(4, side))
    results = []
    for path in (plain_path, fused_path):
        net = copy.deepcopy(model)
        with path(), record_hoyer_squares(net) as squares:
            losses = net(**net.data_preprocessor(copy.deepcopy(batch), True), mode='loss')
            loss = net.parse_losses(losses)[0] + 1e-4 * sum(squares)
            loss.backward()
        results.append((loss, {key: p.grad for key, p in net.named_parameters()}))
    (loss, gradients), (fused_loss, fused_gradients) = results
    torch.testing.assert_close(fused_loss, loss)
    for key, gradient in gradients.items():
        difference = (fused_gradients[key] - gradient).norm()
        assert difference <= 1e-5 * gradient.norm() + 1e-9, key

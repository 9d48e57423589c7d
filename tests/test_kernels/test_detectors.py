"""A training step of whole detectors with the kernels and with PyTorch's operations."""

import copy

import pytest
import torch
from conftest import CONFIGS
from hoyer_det.config import load_config
from hoyer_det.kernels import set_kernels
from hoyer_det.spiking import record_hoyer_squares
from mmengine.dataset import pseudo_collate
from narrow import narrow_model, random_items


@pytest.mark.parametrize(
    'name', ['hoyer_ssd_shapes', 'hoyer_yolov3_shapes', 'hoyer_retinanet_r18_voc']
)
def test_losses_and_gradients_are_those_of_pytorchs_operations(name):
    model, side = narrow_model(load_config(CONFIGS / f'{name}.py'))
    model.train()
    batch = pseudo_collate(random_items(4, side))
    results = []
    for level in ('plain', 'tested'):
        net = copy.deepcopy(model)
        set_kernels(net, level)
        with record_hoyer_squares(net) as squares:
            losses = net(**net.data_preprocessor(copy.deepcopy(batch), True), mode='loss')
            loss = net.parse_losses(losses)[0] + 1e-4 * sum(squares)
            loss.backward()
        results.append((loss, {key: p.grad for key, p in net.named_parameters()}))
    (loss, gradients), (fast_loss, fast_gradients) = results
    torch.testing.assert_close(fast_loss, loss)
    for key, gradient in gradients.items():
        difference = (fast_gradients[key] - gradient).norm()
        assert difference <= 1e-5 * gradient.norm() + 1e-9, key

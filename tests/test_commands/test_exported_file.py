"""``hoyer-det detect`` and ``hoyer-det test`` on an exported file, in the spike engine."""

import json
import shutil
import sys

import onnx
import pytest
from detector_file import CLASSES, CONFIG, save_detector, write_images
from hoyer_det.commands import export as export_command
from hoyer_det.config import load_config
from hoyer_det.datasets import generate_shapes
from hoyer_det.deploy.export import export
from hoyer_det_runtime.description import KEY
from warm import Warm


@pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler')
def test_engine_on_spikes_detects_and_is_evaluated_as_onnxruntime(tmp_path, warm: Warm):
    model = save_detector(tmp_path / 'narrow.pth')
    model.dataset_meta = dict(classes=CLASSES)
    export(model, load_config(CONFIG), tmp_path / 'narrow.onnx')
    write_images(tmp_path / 'images', 'a.png', 'b.png')
    generate_shapes(tmp_path / 'shapes', num_train=2, num_test=4, image_size=64)
    options = [
        f'data_root={tmp_path / "shapes"}',
        'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
        'default_hooks.visualization.num_images=0',
    ]
    detections, metrics = [], []
    for engine in ('onnxruntime', 'spikes'):
        flags = ['--engine', engine]
        arguments = ['narrow.onnx', 'images', *flags, '--score-thr', 0.1, '--out-dir', engine]
        (ended,) = warm.run(['detect', *arguments], tmp_path)
        assert ended.code == 0, ended.err
        content = json.loads((tmp_path / engine / 'detections.json').read_text())
        detections.append([(a['image_id'], a['category_id']) for a in content['annotations']])
        work = ['--work-dir', f'{engine}_work', '--cfg-options', *options]
        (ended,) = warm.run(['test', CONFIG, 'narrow.onnx', *flags, *work], tmp_path)
        assert ended.code == 0, ended.err
        assert 'ms per image, the median of 4' in ended.out
        (file,) = (tmp_path / f'{engine}_work').glob('*/[0-9]*.json')
        metrics.append(json.loads(file.read_text()))
    assert detections[0] and detections[0] == detections[1]
    values = [{k: v for k, v in found.items() if 'mAP' in k} for found in metrics]
    assert len(values[0]) > 5 and values[0] == pytest.approx(values[1], abs=1e-3)
    for twin in ('relu', 'onebit'):
        (ended,) = warm.run(
            ['test', CONFIG, 'narrow.onnx', '--twin', twin, '--cfg-options', *options], tmp_path
        )
        assert ended.code == 1 and f'not of the {twin} twin; leave --twin out' in ended.err
    (ended,) = warm.run(
        ['test', CONFIG, 'narrow.onnx', '--threads', '0', '--cfg-options', *options], tmp_path
    )
    assert ended.code == 1 and 'error: --threads 0: must be at least 1' in ended.err
    other = 'other.ONNX'
    exported = onnx.load(tmp_path / 'narrow.onnx')
    (entry,) = (entry for entry in exported.metadata_props if entry.key == KEY)
    entry.value = json.dumps({**json.loads(entry.value), 'classes': CLASSES[::-1]})
    onnx.save(exported, tmp_path / other)
    (ended,) = warm.run(
        ['test', CONFIG, other, '--work-dir', 'new', '--cfg-options', *options], tmp_path
    )
    assert ended.code == 1 and f'{other}: knows the classes' in ended.err
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('dumped', [True, False])
def test_a_lif_twin_is_not_exported(dumped, tmp_path, monkeypatch):
    config, flags = CONFIG, ['--twin', 'lif']
    if dumped:
        config, flags = tmp_path / 'lif.py', []
        load_config(CONFIG, twin='lif').dump(config)
    argv = ['hoyer-det export', str(config), 'ssd_shapes', str(tmp_path / 'm.onnx'), *flags]
    monkeypatch.setattr(sys, 'argv', argv)
    with pytest.raises(SystemExit, match='error: .*: a lif twin, .* cannot be exported'):
        export_command.main()
    assert not (tmp_path / 'm.onnx').exists()


def test_export_says_at_once_that_onnxscript_is_missing(tmp_path, monkeypatch):
    for name in ('hoyer_det.deploy.export', 'hoyer_det.deploy.graph'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    argv = ['hoyer-det export', str(CONFIG), 'ssd_shapes', str(tmp_path / 'm.onnx')]
    monkeypatch.setattr(sys, 'argv', argv)
    with pytest.raises(SystemExit, match='error: export needs packages .*onnxscript.*pip install'):
        export_command.main()

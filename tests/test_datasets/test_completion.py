"""Which num_classes of a model follow the data set, and what is said of images used twice."""

from pathlib import Path

import pytest
from coco_folder import change, write_coco_folder
from conftest import CONFIGS, write_split
from hoyer_det.config import load_config
from hoyer_det.datasets import complete_config, set_num_classes
from mmdet.registry import MODELS
from mmengine.config import Config


def test_a_proposal_head_keeps_its_one_class() -> None:
    model = Config.fromfile(CONFIGS / 'swap' / 'faster_rcnn_r50_coco.py').model
    detector = model.get('detector', model)
    detector.rpn_head.num_classes = 1
    detector.backbone.num_classes = 1000
    set_num_classes(model, 3)
    assert detector.roi_head.bbox_head.num_classes == 3
    assert (detector.rpn_head.num_classes, detector.backbone.num_classes) == (1, 1000)


def test_every_stage_of_a_cascade_follows_and_regresses_as_before() -> None:
    model = Config.fromfile(CONFIGS / 'swap' / 'cascade_rcnn_r50_coco.py').model
    detector = model.get('detector', model)
    set_num_classes(model, 3)
    stages = detector.roi_head.bbox_head
    assert [(stage.num_classes, stage.reg_class_agnostic) for stage in stages] == [(3, True)] * 3
    built = MODELS.build(stages[0])
    assert (built.fc_cls.out_features, built.fc_reg.out_features) == (4, 4)


def test_a_class_agnostic_head_beside_others_keeps_its_one_class() -> None:
    heads = [dict(num_classes=1), dict(num_classes=20, loss=dict(num_classes=20))]
    model = dict(roi_head=dict(bbox_head=heads), semantic_head=dict(num_classes=183))
    set_num_classes(dict(type='DetTTAModel', module=model), 3)
    assert heads == [dict(num_classes=1), dict(num_classes=3, loss=dict(num_classes=3))]
    assert model['semantic_head']['num_classes'] == 183


def test_a_detector_of_one_class_is_no_class_agnostic_one() -> None:
    model = dict(bbox_head=dict(num_classes=1))
    set_num_classes(model, 3)
    assert model['bbox_head']['num_classes'] == 3


def test_images_that_are_trained_on_and_evaluated_are_told(
    tmp_path: Path, voc_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voc, coco = CONFIGS / 'hoyer_ssd_vocformat.py', CONFIGS / 'hoyer_ssd_cocoformat.py'
    load_config(voc, {'data_root': str(voc_folder)})
    root = write_coco_folder(tmp_path / 'coco')
    load_config(coco, {'data_root': str(root)})
    assert 'trained on and evaluated' not in capsys.readouterr().out
    write_split(voc_folder, 'test', ['image3', 'image4'])
    load_config(voc, {'data_root': str(voc_folder)})
    assert '1 images are trained on and evaluated, e.g. ' in capsys.readouterr().out
    write_split(voc_folder, 'test', [f'image{index}' for index in range(6)])
    load_config(voc, {'data_root': str(voc_folder)})
    assert '4 images are trained on and evaluated, e.g. ' in capsys.readouterr().out
    cfg = load_config(voc, {'data_root': str(voc_folder)}, complete=False)
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[key].dataset.ann_file = 'ImageSets/Main/test.txt'  # plainly meant
    complete_config(cfg)
    assert 'trained on and evaluated' not in capsys.readouterr().out
    file = root / 'annotations' / 'instances_val2017.json'
    change(file, lambda content: content['images'][0].update(file_name='../train2017/left/a.jpg'))
    load_config(coco, {'data_root': str(root)})
    assert '1 images are trained on and evaluated, e.g. ' in capsys.readouterr().out

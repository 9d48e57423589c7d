"""Pre-training by the command lines, its backbone in a detector, evaluation by several processes."""

import multiprocessing
import re
import sys
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, load_script
from hoyer_det.config import load_config
from hoyer_det.evaluation import TopKAccuracy
from mmdet.registry import MODELS
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from narrow import narrow_model

DIGITS = CONFIGS / 'pretrain' / 'digits_hoyer_vgg11.py'
NARROW = ['model.backbone.width=0.05', 'visualizer.name=pretrain']


def run_here(tool: str, *arguments: object) -> None:
    """Run a command line in this process, which has imported everything already."""
    module = load_script(f'tools/{tool}.py')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('LOCAL_RANK', '0')
        patch.setattr(sys, 'argv', [f'{tool}.py', *map(str, arguments)])
        module.main()


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after one epoch of a very narrow network on the digits."""
    folder = tmp_path_factory.mktemp('digits')
    steps = [
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
        'train_dataloader.batch_size=128',
    ]
    options = ['--cfg-options', *NARROW, *steps, 'experiment_name=pretrain']
    run_here('train', DIGITS, '--work-dir', folder, *options)
    return folder / 'epoch_1.pth'


def accuracies(folder: Path) -> list[tuple[str, str]]:
    logs = sorted(folder.rglob('*.log'), key=lambda file: file.stat().st_mtime)
    return [
        pair for log in logs for pair in re.findall(r'top1: (\S+)  top5: (\S+)', log.read_text())
    ]


def test_command_lines_train_and_evaluate_a_classifier(pretrained: Path, tmp_path: Path):
    options = ['--cfg-options', *NARROW, 'experiment_name=evaluation']
    out = tmp_path / 'out.pkl'
    run_here('test', DIGITS, pretrained, '--work-dir', tmp_path, '--out', out, *options)
    trained, tested = accuracies(pretrained.parent), accuracies(tmp_path)
    assert trained and trained == tested
    assert 0 <= float(tested[0][0]) <= float(tested[0][1]) <= 1
    assert out.is_file()
    wrong = [*options, 'model.head.num_classes=3', 'experiment_name=wrong']
    with pytest.raises(SystemExit, match='does not belong to'):
        run_here('test', DIGITS, pretrained, '--work-dir', tmp_path / 'wrong', *wrong)


def test_backbone_is_found_in_a_detector(pretrained: Path):
    cfg = load_config(CONFIGS / 'hoyer_ssd_shapes.py')
    source = torch.load(pretrained, weights_only=True)['state_dict']
    cfg.model.backbone.width = 0.05
    cfg.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(pretrained), prefix='backbone.'
    )
    cfg.model.neck.update(in_channels=(26, 51), out_channels=(26, 51, 32, 32))
    cfg.model.bbox_head.in_channels = (26, 51, 32, 32)
    model = MODELS.build(cfg.model)
    before = model.backbone.state_dict()['stages.0.0.conv.weight'].clone()
    model.init_weights()
    own = model.backbone.state_dict()
    shared = [name for name in source if name.startswith('backbone.')]
    assert len(shared) > 60
    for name in shared:
        assert torch.equal(own[name.removeprefix('backbone.')], source[name]), name
    # Trained, not only initialised: averages of norms and neurons have moved.
    assert source['backbone.stages.2.0.act.running_weight'].max() > 0.5
    assert not torch.equal(before, own['stages.0.0.conv.weight'])


EXPERIMENTS = ['hoyer_ssd_voc', 'hoyer_retinanet_r18_vocformat', 'hoyer_faster_rcnn_r50_coco']


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_every_kind_of_detector_takes_a_classifiers_backbone(name, tmp_path, voc_folder):
    options = {'data_root': str(voc_folder)} if 'vocformat' in name else {}
    cfg = load_config(CONFIGS / f'{name}.py', options)
    detector, _ = narrow_model(cfg)
    backbone = detector.backbone
    weights = {f'backbone.{k}': torch.randn(v.shape) for k, v in backbone.state_dict().items()}
    weights = {k: v for k, v in weights.items() if '.outputs.' not in k and 'batches' not in k}
    torch.save(
        dict(state_dict={**weights, 'head.fcs.0.weight': torch.zeros(1)}), tmp_path / 'a.pth'
    )
    backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'a.pth'), prefix='backbone.'
    )
    backbone._is_init = False
    backbone.init_weights()
    for key, value in weights.items():
        assert torch.equal(backbone.state_dict()[key.removeprefix('backbone.')], value), key


LABELS = torch.tensor([0, 1, 2, 0, 1])
LOGITS = torch.eye(3)[torch.tensor([0, 2, 1, 0, 0])]  # right at images 0 and 3


def evaluate_as(rank: int, store: str, results: SimpleQueue) -> None:
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{store}', rank=rank, world_size=2
    )
    evaluator = Evaluator(TopKAccuracy((1,)))
    mine = list(DefaultSampler(list(range(5)), shuffle=False))
    for index in mine:
        sample = dict(data_samples=LABELS[index][None])
        evaluator.process(list(LOGITS[index][None]), sample)
    results.put((len(mine), evaluator.evaluate(5)['top1']))


def test_two_processes_count_every_image_once(tmp_path: Path):
    context = multiprocessing.get_context('fork')
    results = context.SimpleQueue()
    processes = [
        context.Process(target=evaluate_as, args=(rank, str(tmp_path / 'store'), results))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        process.kill()
    # Six in all, one image twice: counted so it would be 3 of 6.
    assert [results.get() for _ in range(2)] == [(3, pytest.approx(0.4))] * 2
    alone = Evaluator(TopKAccuracy((1,)))
    alone.process(list(LOGITS), dict(data_samples=LABELS))
    assert alone.evaluate(5)['top1'] == pytest.approx(0.4)

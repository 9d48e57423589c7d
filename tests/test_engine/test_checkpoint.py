"""The checkpoint that a run is resumed from: the newest good one, and why others are passed over."""

import os
from pathlib import Path

import pytest
import torch
from hoyer_det.engine.checkpoint import check_fit, newest_good_checkpoint
from hoyer_det.weights.reading import Checkpoint

NAN = float('nan')


def write(folder: Path, name: str, age: int, value: float = 1.0, state: float = 0.0) -> Path:
    path = folder / name
    content = dict(
        state_dict=dict(a=torch.tensor([1.0, value])),
        optimizer=dict(state={0: dict(exp_avg=torch.tensor(state))}, param_groups=[]),
    )
    torch.save(content, path)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_newest_is_the_one_that_was_noted(tmp_path):
    noted = write(tmp_path, 'epoch_1.pth', age=5)
    write(tmp_path, 'epoch_2.pth', age=1)
    (tmp_path / 'last_checkpoint').write_text(f'{noted}\n')
    assert newest_good_checkpoint(tmp_path) == (str(noted), [])


@pytest.mark.parametrize('iterations', [False, True])
def test_bad_ones_are_passed_over_and_named(tmp_path, iterations):
    kind = 'iter' if iterations else 'epoch'
    good = write(tmp_path, f'{kind}_10.pth', age=9)
    write(tmp_path, f'{kind}_9.pth', age=10)
    nan = write(tmp_path, f'{kind}_11.pth', age=8, value=NAN)
    state = write(tmp_path, f'{kind}_12.pth', age=7, state=-float('inf'))
    truncated = write(tmp_path, f'{kind}_13.pth', age=6)
    truncated.write_bytes(truncated.read_bytes()[:200])
    os.utime(truncated, (1e9 - 6, 1e9 - 6))
    weights = tmp_path / f'{kind}_14.pth'
    torch.save(dict(state_dict={}), weights)
    write(tmp_path, 'best_coco_bbox_mAP_epoch_11.pth', age=0)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / f'{kind}_15.pth'))
    found, bad = newest_good_checkpoint(tmp_path)
    assert found == str(good)
    gone = tmp_path / f'{kind}_15.pth'
    expected = [(gone, 'no such'), (weights, 'holds no state of a training')]
    expected += [(truncated, 'cannot be read'), (state, 'optimizer.state.0.exp_avg holds NaN')]
    expected += [(nan, 'state_dict.a holds NaN or inf')]
    assert len(bad) == len(expected)
    for line, (path, reason) in zip(bad, expected, strict=True):
        assert line.startswith(f'{path}: ') and reason in line


def test_empty_folder_has_none(tmp_path):
    assert newest_good_checkpoint(tmp_path / 'missing') == (None, [])
    write(tmp_path, 'epoch_1.pth', age=0, value=NAN)
    found, bad = newest_good_checkpoint(tmp_path)
    assert found is None and len(bad) == 1


def test_copied_folder_goes_on_from_its_own_checkpoints(tmp_path):
    original, copy = tmp_path / 'original', tmp_path / 'copy'
    for folder in (original, copy):
        folder.mkdir()
        write(folder, 'epoch_1.pth', age=5)
        (folder / 'last_checkpoint').write_text(str(original / 'epoch_1.pth'))
    assert newest_good_checkpoint(copy) == (str(copy / 'epoch_1.pth'), [])
    (copy / 'last_checkpoint').write_text(str(original / 'epoch_2.pth'))
    write(original, 'epoch_2.pth', age=1)
    found, (passed_over,) = newest_good_checkpoint(copy)
    assert found == str(copy / 'epoch_1.pth')
    assert passed_over.startswith(f'{copy / "epoch_2.pth"}: no such checkpoint')


@pytest.mark.parametrize('now', [True, False])
def test_shortcuts_have_no_weights_but_are_compared(now):
    model = torch.nn.Module()
    model.backbone = torch.nn.Linear(1, 1)
    model.backbone.shortcut = now
    meta = dict(cfg="model = dict(type='SSD', backbone=dict(type='HoyerVGG', shortcut=True))\n")
    checkpoint = Checkpoint(model.state_dict(), [], meta, 'a.pth')
    if now:
        check_fit(checkpoint, model, 'b.py')
    else:
        with pytest.raises(ValueError, match='a.pth: .* b.py: trained with backbone.shortcut=True'):
            check_fit(checkpoint, model, 'b.py')


@pytest.mark.parametrize(
    'meta, classes',
    [
        (dict(dataset_meta=dict(classes=['a', 'b'], palette=[(1, 2, 3)] * 2)), ('a', 'b')),
        (dict(dataset_meta=dict(CLASSES=('a', 'b'))), ('a', 'b')),
        (dict(CLASSES=('a', 'b')), ('a', 'b')),
        (dict(dataset_meta=dict(classes='cell')), ('cell',)),
        (dict(epoch=1), ()),
    ],
)
def test_classes_of_a_checkpoint(meta, classes):
    found = Checkpoint({}, [], meta, 'a.pth').dataset_meta
    assert found['classes'] == classes
    assert found['palette'] == ([(1, 2, 3)] * 2 if 'palette' in str(meta) else 'random')

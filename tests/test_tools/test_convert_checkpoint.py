"""tools/convert_checkpoint.py: files there and back, refusals in one line."""

import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import load_script
from hoyer_det.spiking import HoyerSpike
from hoyer_det.weights import read_checkpoint
from torch import nn


class Spike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.rand(()) + 0.5)
        self.register_buffer('running_hoyer_thr', torch.rand(1))
        self.register_buffer('num_batches_tracked', torch.tensor(0))


def vgg11() -> dict[str, torch.Tensor]:
    """Weights of a narrow VGG11 in the authors' numbering."""
    layers, channels = [], 3
    for stage, convs in enumerate((1, 1, 2, 2, 2)):
        for conv in range(convs):
            width = 2 * min(2**stage, 8)
            layers += [nn.Conv2d(channels, width, 3, bias=False)]
            layers += [nn.MaxPool2d(2)] * (conv == convs - 1)
            layers += [nn.BatchNorm2d(width), Spike(), nn.Dropout()]
            channels = width
    net = nn.ModuleDict(
        dict(features=nn.Sequential(*layers), classifier=nn.Sequential(nn.Linear(16, 5)))
    )
    return net.state_dict()


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    module = load_script('tools/convert_checkpoint.py')

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, 'argv', ['convert_checkpoint.py', *map(str, arguments)])
        module.main()

    return run


@pytest.mark.parametrize(
    'wrap',
    [
        lambda w: w,
        lambda w: dict(state_dict=w, epoch=3),
        lambda w: dict(net={f'module.{key}': value for key, value in w.items()}, best=0.5),
    ],
    ids=['bare', 'state_dict', 'net and module.'],
)
def test_there_and_back(wrap, convert, tmp_path, capsys):
    before = vgg11()
    torch.save(wrap(before), tmp_path / 'theirs.pth')
    convert('from-authors', tmp_path / 'theirs.pth', tmp_path / 'deep' / 'ours.pth')
    output = capsys.readouterr().out
    assert "backbone=dict(type='HoyerVGG', depth=11, width=0.03125" in output
    assert ("entry 'epoch'" in output) == ('epoch' in wrap({}))
    convert('to-authors', tmp_path / 'deep' / 'ours.pth', tmp_path / 'back.pth')
    after = read_checkpoint(tmp_path / 'back.pth').weights
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_weights_without_counterpart_stop_the_tool_until_they_are_named(convert, tmp_path, capsys):
    source, target = tmp_path / 'theirs.pth', tmp_path / 'ours.pth'
    torch.save({**vgg11(), 'kd.weight': torch.zeros(2), 'other': torch.zeros(1)}, source)
    with pytest.raises(SystemExit) as stop:
        convert('from-authors', source, target, '--leave', 'kd.*')
    assert stop.value.code.startswith('error: ') and 'first: other' in stop.value.code
    output = capsys.readouterr().out
    assert 'no counterpart: kd.weight (2,)' in output and 'no counterpart: other (1,)' in output
    with pytest.raises(SystemExit, match=r'--leave k\.\*: fits none of the 2 weights'):
        convert('from-authors', source, target, '--leave', 'kd.*', 'other', 'k.*')
    assert not target.exists()
    convert('from-authors', source, target, '--leave', 'kd.*', 'other')
    neurons = read_checkpoint(target).meta['neurons']
    assert neurons['backbone.stages.0.0.act'] == dict(extremum='layer', saturated='exclude')


def test_a_model_of_the_zoo_is_a_source_too(convert, tmp_path):
    with pytest.raises(SystemExit, match='^error: ssd_shapes: .* weights have no counterpart'):
        convert('to-authors', 'ssd_shapes', tmp_path / 'theirs.pth')
    convert('to-authors', 'ssd_shapes', tmp_path / 'theirs.pth', '--leave', '*')
    assert 'features.0.weight' in read_checkpoint(tmp_path / 'theirs.pth').weights


def test_source_is_never_replaced_by_a_part_of_it(convert, tmp_path):
    source = tmp_path / 'theirs.pth'
    torch.save({**vgg11(), 'kd.weight': torch.zeros(2)}, source)
    before = source.read_bytes()
    (tmp_path / 'link.pth').symlink_to(source)
    for target in (source, tmp_path / 'link.pth'):
        with pytest.raises(SystemExit, match='source and target are the same file'):
            convert('from-authors', source, target, '--leave', 'kd.*')
    assert source.read_bytes() == before


def test_failed_writing_leaves_the_old_target(convert, tmp_path, monkeypatch):
    source, target = tmp_path / 'theirs.pth', tmp_path / 'ours.pth'
    torch.save(vgg11(), source)
    target.write_text('old')

    def fail(path, content) -> None:
        path.write_text('half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', fail)
    with pytest.raises(SystemExit, match=r"No space left on device: '.*ours\.pth'"):
        convert('from-authors', source, target)
    assert target.read_text() == 'old'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['ours.pth', 'theirs.pth']


class Payload:
    """Would write a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), 'w')


@pytest.mark.parametrize('nested', [True, False])
def test_no_code_of_a_checkpoint_runs(nested, convert, tmp_path):
    source, trace = tmp_path / 'evil.pth', tmp_path / 'trace'
    content = dict(state_dict=vgg11(), optimizer=Payload(trace)) if nested else Payload(trace)
    torch.save(content, source) if nested else source.write_bytes(pickle.dumps(content))
    with pytest.raises(SystemExit, match=r'evil\.pth: cannot be read as a checkpoint'):
        convert('from-authors', source, tmp_path / 'out.pth')
    assert not trace.exists()


@pytest.mark.parametrize(
    'content, message',
    [
        (None, 'no such checkpoint file'),
        ([1], 'holds a list'),
        ({}, 'no weights found'),
        (dict(epoch=1), 'no weights found.*epoch is no tensor'),
        ({'a.weight': torch.zeros(1)}, 'no classifier of the authors'),
    ],
)
def test_wrong_files_give_one_line(content, message, convert, tmp_path):
    if content is not None:
        torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(SystemExit) as stop:
        convert('from-authors', tmp_path / 'x.pth', tmp_path / 'out.pth')
    assert '\n' not in stop.value.code
    assert re.search(message, stop.value.code)


def test_neuron_of_ours_takes_the_converted_state(convert, tmp_path):
    torch.save(vgg11(), tmp_path / 'theirs.pth')
    convert('from-authors', tmp_path / 'theirs.pth', tmp_path / 'ours.pth')
    weights = read_checkpoint(tmp_path / 'ours.pth').weights
    prefix = 'backbone.stages.0.0.act.'
    neuron = HoyerSpike()
    neuron.load_state_dict(
        {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
    )
    average = weights[f'{prefix}running_extremum']
    level = average * neuron.threshold.detach()
    spikes = neuron.eval()(torch.stack([level * 0.99, level * 1.01])[None])
    assert spikes.flatten().tolist() == [0, 1]

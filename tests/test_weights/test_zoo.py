"""The models that come with the package, and how one gets there."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, load_script
from detector_file import CLASSES, save_detector
from hoyer_det import load
from hoyer_det.commands import zoo as command
from hoyer_det.inference import Detector
from hoyer_det.weights import zoo

ABSOLUTE = rb'(?<![\w.])/(work|tmp|home|root|mnt)/'


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch):
    """The maintainers' script, which puts what it makes into an empty zoo of the test's own."""
    return load_script('dev/publish_model.py')


@pytest.fixture
def empty_zoo(publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / 'zoo'
    folder.mkdir()
    (folder / 'models.json').write_text('[]')
    page = tmp_path / 'zoo.md'
    page.write_text(publish.PAGE.read_text())
    for module in (zoo, publish):
        monkeypatch.setattr(module, 'FOLDER', folder)
        monkeypatch.setattr(module, 'TABLE', folder / 'models.json')
    monkeypatch.setattr(publish, 'PAGE', page)
    return folder


@pytest.mark.parametrize('name', zoo.zoo_models())
def test_models(name):
    model = zoo.zoo_models()[name]
    content = model.check().read_bytes()
    assert len(content) == model.bytes <= 3_000_000
    assert not re.search(ABSOLUTE, content)
    assert (REPOSITORY / model.config).is_file()
    detector = load(name, 'cpu')
    assert list(detector.classes) == model.classes
    weights = torch.load(model.path, weights_only=True)
    assert weights.keys() == {'state_dict', 'meta'} and weights['meta']['neurons']


def test_page_is_that_of_the_table(publish, monkeypatch, tmp_path):
    page = tmp_path / 'zoo.md'
    page.write_text(publish.PAGE.read_text())
    before = page.read_text()
    monkeypatch.setattr(publish, 'PAGE', page)
    publish.write_page()
    assert page.read_text() == before


def test_list(capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['hoyer-det zoo'])
    command.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(zoo.zoo_models())


def test_publish(publish, empty_zoo, tmp_path, monkeypatch):
    source = tmp_path / 'epoch_1.pth'
    save_detector(source, {'data_root': str(tmp_path / 'pictures')})
    figures = iter([(80.0, 50.0), (79.9, 50.1)])
    monkeypatch.setattr(publish, 'evaluate', lambda *_: next(figures))
    arguments = [source, 'tiny', 'configs/x.py', '--description', 'shapes', '--data', 'none']
    monkeypatch.setattr(sys, 'argv', ['publish_model.py', *map(str, arguments)])
    publish.main()

    (row,) = json.loads((empty_zoo / 'models.json').read_text())
    assert (row['ap50'], row['ap50_trained'], row['ap']) == (79.9, 80.0, 50.1)
    assert row['command'] == 'hoyer-det train configs/x.py' and row['classes'] == list(CLASSES)
    assert '| `tiny` | shapes: circle' in publish.PAGE.read_text()
    file = empty_zoo / 'tiny.pth'
    assert file.stat().st_size == row['bytes'] < 0.7 * source.stat().st_size
    assert str(tmp_path).encode() not in file.read_bytes()
    content = torch.load(file, weights_only=True)
    assert "data_root='data/pictures/'" in content['meta']['cfg'] and 'work_dir' not in str(content)

    trained = torch.load(source, weights_only=True)['state_dict']
    for name, tensor in content['state_dict'].items():
        half = trained[name].ndim > 1
        assert tensor.dtype == (torch.float16 if half else trained[name].dtype)
        torch.testing.assert_close(
            tensor.to(trained[name].dtype), trained[name], rtol=1e-3, atol=1e-6
        )
    image = np.random.default_rng(0).integers(0, 255, (80, 96, 3), np.uint8)
    assert len(load('tiny', 'cpu').predict(image, 0.0)) == 1

    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match='is not the file that was published as tiny'):
        load('tiny')
    file.unlink()
    with pytest.raises(FileNotFoundError, match='missing; install hoyer_det again'):
        load('tiny')


def test_fewer_bits_where_the_file_would_be_too_large(publish, tmp_path, monkeypatch):
    source = str(tmp_path / 'epoch_1.pth')
    save_detector(Path(source))
    checkpoint = publish.read_finite(source)
    whole, parameters, bits = publish.published(checkpoint, source)
    assert bits == 11 and parameters > 0
    monkeypatch.setattr(publish, 'LIMIT', len(whole) - 1)
    monkeypatch.setattr(publish, 'SMALL', 500)
    smaller, _, bits = publish.published(checkpoint, source)
    assert bits == 10 and len(smaller) < len(whole)
    (tmp_path / 'small.pth').write_bytes(smaller)
    for name, tensor in torch.load(tmp_path / 'small.pth', weights_only=True)['state_dict'].items():
        if tensor.dtype == torch.float16:
            error = (tensor.float() - checkpoint.weights[name]).abs()
            assert (error <= checkpoint.weights[name].abs() * 2**-10 + 1e-7).all()
            if tensor.numel() <= 500:
                assert torch.equal(tensor, checkpoint.weights[name].half())
    monkeypatch.setattr(publish, 'LIMIT', 1000)
    with pytest.raises(ValueError, match='bytes with 8 bits, 1000 are allowed'):
        publish.published(checkpoint, source)


def test_publish_refuses_paths_of_the_machine(publish, empty_zoo, tmp_path, monkeypatch, capsys):
    source = tmp_path / 'epoch_1.pth'
    save_detector(source, {'train_dataloader.dataset.ann_file': '/home/me/list.txt'})
    arguments = [source, 'tiny', 'configs/x.py', '--description', 'shapes', '--data', 'none']
    monkeypatch.setattr(sys, 'argv', ['publish_model.py', *map(str, arguments)])
    with pytest.raises(SystemExit, match='names the absolute path /home/me/list.txt'):
        publish.main()
    assert [path.name for path in empty_zoo.iterdir()] == ['models.json']


def test_a_file_comes_before_a_name(empty_zoo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_detector(tmp_path / 'ssd_shapes')
    assert isinstance(load('ssd_shapes', 'cpu'), Detector)

"""A checkpoint is read as data, from wherever mmengine takes it, and by mmengine itself."""

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from hoyer_det.weights.reading import read_checkpoint, read_content
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner, checkpoint


class Attack:
    """Creates a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve ``good.pth`` and ``bad.pth``, which mmengine's lists name, too; yield the address."""
    folder = tmp_path / 'served'
    folder.mkdir()
    good = dict(state_dict={'backbone.a': torch.ones(1)}, meta=dict(epoch=1))
    torch.save(good, folder / 'good.pth')
    torch.save(good | dict(attack=Attack(tmp_path / 'ran')), folder / 'bad.pth')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}'
        listed = {name: f'{address}/{name}.pth' for name in ('good', 'bad', 'lost')}
        (tmp_path / 'open_mmlab.json').write_text(json.dumps(listed))
        monkeypatch.setattr(checkpoint, 'get_torchvision_models', lambda: listed)
        monkeypatch.setattr(checkpoint, 'get_mmcls_models', lambda: listed)
        yield address
        server.shutdown()


KINDS = ['{0}/{1}.pth', 'torchvision://{1}', 'open-mmlab://{1}', 'mmcls://{1}']


@pytest.mark.parametrize('kind', KINDS)
def test_addresses_are_read_as_data(kind: str, served: str, tmp_path: Path) -> None:
    found = read_checkpoint(kind.format(served, 'good'))
    name = 'a' if kind.startswith('mmcls') else 'backbone.a'  # mmengine takes the backbone alone
    assert found.weights == {name: torch.ones(1)}
    address = kind.format(served, 'bad')
    with pytest.raises(ValueError, match='cannot be read as a checkpoint') as error:
        read_content(address)
    line = str(error.value)
    assert line.startswith(f'{address}: ') and '\n' not in line and 'weights_only' not in line
    with pytest.raises(ConnectionError, match=r'lost\S*: cannot be downloaded \(HTTP Error 404'):
        read_content(kind.format(served, 'lost'))
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('kind', KINDS[1:])
def test_a_name_that_is_not_listed(kind: str, served: str) -> None:
    address = kind.format(served, 'nope')
    with pytest.raises(ValueError, match=f'^{address}: no weights of this name$'):
        read_content(address)


class Toy(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, inputs: list, mode: str = 'tensor') -> None:
        pass


def test_mmengine_itself_runs_nothing_of_an_address(served: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match='Weights only load failed'):
        CheckpointLoader.load_checkpoint(f'{served}/bad.pth')
    runner = Runner(
        Toy(), str(tmp_path / 'run'), load_from=f'{served}/bad.pth', experiment_name=tmp_path.name
    )
    with pytest.raises(Exception, match='Weights only load failed'):
        runner.load_or_resume()
    assert not (tmp_path / 'ran').exists()

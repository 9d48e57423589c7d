"""Checkpoints are whole or not there: disk full, no such folder."""

import resource
import signal
from pathlib import Path

import pytest
import torch
from mmengine.fileio import get_file_backend
from mmengine.runner import save_checkpoint
from processes import run_processes

BACKEND = dict(backend='atomic_local')


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_checkpoint_is_written_by_mmengine(tmp_path):
    path = tmp_path / 'new' / 'epoch_1.pth'
    save_checkpoint(dict(state_dict=dict(a=torch.ones(3))), str(path), backend_args=BACKEND)
    assert torch.equal(torch.load(path, weights_only=True)['state_dict']['a'], torch.ones(3))
    assert files(path.parent) == ['epoch_1.pth']


def _process(rank: int, path: str) -> None:
    """Write more than a file may have, and keep what was said."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    backend = get_file_backend(backend_args=BACKEND)
    try:
        backend.put(b'x' * 5000, path)
    except OSError as error:
        Path(path).with_name('said').write_text(str(error))


def test_full_disk_names_the_file_and_leaves_the_old_one(tmp_path):
    # A limit on the size of files fails in the same call as a full disk.
    path = tmp_path / 'epoch_2.pth'
    path.write_bytes(b'old')
    run_processes(_process, (str(path),), 1)
    assert (tmp_path / 'said').read_text().endswith(f"File too large: '{path}'")
    assert files(tmp_path) == ['epoch_2.pth', 'said'] and path.read_bytes() == b'old'


def test_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / 'work').write_text('')
    with pytest.raises(OSError, match=r'epoch_1\.pth'):
        get_file_backend(backend_args=BACKEND).put(b'', str(tmp_path / 'work' / 'epoch_1.pth'))

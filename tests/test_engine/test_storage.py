"""Files are whole or not there: killed while writing, disk full, no such folder."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hoyer_det.engine.storage import replacing
from mmengine.fileio import get_file_backend
from mmengine.runner import save_checkpoint

BACKEND = dict(backend='atomic_local')


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_checkpoint_is_written_by_mmengine(tmp_path):
    path = tmp_path / 'new' / 'epoch_1.pth'
    save_checkpoint(dict(state_dict=dict(a=torch.ones(3))), str(path), backend_args=BACKEND)
    assert torch.equal(torch.load(path, weights_only=True)['state_dict']['a'], torch.ones(3))
    assert files(path.parent) == ['epoch_1.pth']


def test_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_bytes(b'old')
    with pytest.raises(KeyboardInterrupt), replacing(path) as part:
        part.write_bytes(b'half')
        raise KeyboardInterrupt
    assert files(tmp_path) == ['a.pth'] and path.read_bytes() == b'old'


def _limit() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def test_full_disk_names_the_file_and_leaves_the_old_one(tmp_path):
    # A limit on the size of files fails in the same call as a full disk.
    path = tmp_path / 'epoch_2.pth'
    path.write_bytes(b'old')
    program = (
        'import hoyer_det; from mmengine.fileio import get_file_backend\n'
        "backend = get_file_backend(backend_args=dict(backend='atomic_local'))\n"
        f"try: backend.put(b'x' * 5000, {str(path)!r})\n"
        "except OSError as error: print('said:', error)"
    )
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, preexec_fn=_limit
    )
    said = [line for line in done.stdout.splitlines() if line.startswith('said:')]
    assert said and said[0].endswith(f"File too large: '{path}'"), done.stderr
    assert files(tmp_path) == ['epoch_2.pth'] and path.read_bytes() == b'old'


def test_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / 'work').write_text('')
    with pytest.raises(OSError, match=r'epoch_1\.pth'):
        get_file_backend(backend_args=BACKEND).put(b'', str(tmp_path / 'work' / 'epoch_1.pth'))

"""Files are whole or not there: killed while writing, two processes, long names."""

import json
import os

import pytest
from hoyer_det.files import replacing, write_json


def test_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_bytes(b'old')
    with pytest.raises(KeyboardInterrupt), replacing(path) as part:
        part.write_bytes(b'half')
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b'old'


def test_two_runs_that_write_the_same_results(tmp_path, monkeypatch):
    path, replace = tmp_path / 'detections.json', os.replace

    def meanwhile(part, target):
        monkeypatch.setattr(os, 'replace', replace)
        with monkeypatch.context() as other:
            other.setattr(os, 'getpid', lambda: 1)
            write_json(path, dict(run=2))
        return replace(part, target)

    monkeypatch.setattr(os, 'replace', meanwhile)
    write_json(path, dict(run=1))
    assert json.loads(path.read_text()) == dict(run=1) and list(tmp_path.iterdir()) == [path]


def test_a_name_as_long_as_can_be(tmp_path):
    names = [letter * 255 for letter in 'ab']
    with replacing(tmp_path / names[0]) as first, replacing(tmp_path / names[1]) as second:
        first.write_text('a')
        second.write_text('b')
    assert [(path.name, path.read_text()) for path in sorted(tmp_path.iterdir())] == [
        (names[0], 'a'),
        (names[1], 'b'),
    ]

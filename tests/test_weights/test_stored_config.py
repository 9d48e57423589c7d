"""The config of a checkpoint is read as data."""

import math

import pytest
from detector_file import CONFIG
from hoyer_det.weights.stored_config import stored_config
from mmengine.config import Config


def test_reads_what_mmengine_writes():
    cfg = Config.fromfile(CONFIG)
    cfg.more = dict(
        inf=[float('inf')],
        lowest=(float('-inf'), 1),
        none=None,
        keys={'a.b': 1, 2: (True,)},
        minus=-1.5,
        text='a"b\'c\n',
    )
    found = stored_config({'cfg': cfg.pretty_text}, 'x.pth')
    assert (
        found.to_dict()
        == Config.fromstring(cfg.pretty_text.replace('inf,', "float('inf'),"), '.py').to_dict()
    )
    (nan,) = stored_config({'cfg': Config(dict(a=[math.nan])).pretty_text}, 'x.pth').a
    assert math.isnan(nan)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('import os', 'line 1 is no assignment'),
        ("a = 1\nb = __import__('os').system('true')", 'line 2 holds more than plain data'),
        ('a = dict(**dict(b=1))', 'line 1 holds more'),
        ("a = [open('x', 'w')]", 'line 1 holds more'),
        ('a = -open', 'line 1 holds more'),
        ('a = (', 'cannot be read'),
        ("custom_imports = dict(imports=['no_such_module_here'])", 'no_such_module_here'),
        (None, 'holds no config'),
    ],
)
def test_refuses_what_is_no_data(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match='^x.pth: ') as error:
        stored_config({'cfg': text}, 'x.pth')
    assert message in str(error.value) and not list(tmp_path.iterdir())

"""``dev/make_voc_sample.py`` on a made-up VOC 2007."""

import subprocess
import sys
import xml.etree.ElementTree as ET

import cv2
import numpy as np
from conftest import REPOSITORY

SCRIPT = REPOSITORY / 'dev' / 'make_voc_sample.py'
XML = """<annotation><size><width>354</width><height>480</height><depth>3</depth></size>
<object><name>horse</name><difficult>0</difficult>
<bndbox><xmin>87</xmin><ymin>97</ymin><xmax>258</xmax><ymax>427</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>
</object></annotation>"""


def test_photograph_of_the_sample(tmp_path, monkeypatch):
    """Boxes as in the sample itself: 000010 of VOC 2007 is 354 x 480 there, 236 x 320 in the sample."""
    source, out, splits = tmp_path / 'VOC2007', tmp_path / 'out', tmp_path / 'splits'
    for folder in (source / 'JPEGImages', source / 'Annotations', splits):
        folder.mkdir(parents=True)
    (splits / 'test.txt').write_text('000010\n')
    (splits / 'trainval.txt').write_text('')
    cv2.imwrite(str(source / 'JPEGImages' / '000010.jpg'), np.zeros((480, 354, 3), np.uint8))
    (source / 'Annotations' / '000010.xml').write_text(XML)
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from make_voc_sample import make_sample

    make_sample(source, out, splits)
    assert cv2.imread(str(out / 'JPEGImages' / '000010.jpg')).shape == (320, 236, 3)
    tree = ET.parse(out / 'Annotations' / '000010.xml')
    assert [side.text for side in tree.find('size')] == ['236', '320', '3']
    (item,) = tree.findall('object')
    assert [end.text for end in item.find('bndbox')] == ['58.3', '65.0', '172.0', '284.7']
    assert not item.findall('part')
    assert (out / 'ImageSets' / 'Main' / 'test.txt').read_text() == '000010\n'


def test_split_is_that_of_the_documentation_and_missing_files_are_named(tmp_path):
    lists = {
        name: (SCRIPT.parent / 'voc_sample' / f'{name}.txt').read_text().split()
        for name in ('test', 'trainval')
    }
    assert {name: len(set(names)) for name, names in lists.items()} == dict(
        test=1000, trainval=3452
    )
    assert not {*lists['test']} & {*lists['trainval']}
    command = [sys.executable, SCRIPT, tmp_path / 'none', tmp_path / 'out']
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stderr.count('\n') == 1
    assert '000010.jpg: no such file; `python tools/download_data.py voc2007`' in ended.stderr
    assert not (tmp_path / 'out').exists()

"""Downloads from a server on this machine: resuming, checking, unpacking, clear errors."""

import hashlib
import io
import re
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hoyer_det.commands import download_data
from hoyer_det.datasets import download
from hoyer_det.datasets.download import (
    DATASETS,
    Archive,
    DownloadError,
    Part,
    download_datasets,
    fetch,
)

REPOSITORY = Path(__file__).parents[2]


class Server(ThreadingHTTPServer):
    """Serves ``files`` by path; ``requests`` records path and Range header of each request."""

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.ranges = True
        self.stop_after: int | None = None

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_address[1]}'


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get('Range')
        self.server.requests.append((self.path, wanted))
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        start = int(wanted[len('bytes=') : -1]) if wanted and self.server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(data) - 1}/{len(data)}')
        self.send_header('Content-Length', str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : self.server.stop_after])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def make_tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def make_zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def voc(server: Server, monkeypatch: pytest.MonkeyPatch) -> Part:
    """Serve a small VOC2007 in two tars that share folders, as the real ones do."""
    archives = []
    for split, number in (('trainval', 1), ('test', 2)):
        base = 'VOCdevkit/VOC2007'
        data = make_tar(
            {
                f'{base}/ImageSets/Main/{split}.txt': b'%06d' % number,
                f'{base}/JPEGImages/{number:06d}.jpg': b'x' * 5000,
                f'{base}/Annotations/{number:06d}.xml': b'<annotation/>',
            }
        )
        server.files[f'/voc/{split}.tar'] = data
        md5 = hashlib.md5(data).hexdigest()
        archives.append(Archive(f'{server.url}/voc/{split}.tar', len(data), md5))
    part = Part(
        tuple(archives),
        folder='VOCdevkit/VOC2007',
        inner='VOCdevkit/VOC2007',
        contents={
            'ImageSets/Main/trainval.txt': 1,
            'ImageSets/Main/test.txt': 1,
            'Annotations/*.xml': 2,
            'JPEGImages/*.jpg': 2,
        },
        unpacked=10_000,
    )
    monkeypatch.setitem(DATASETS, 'voc2007', (part,))
    return part


@pytest.fixture
def coco(server: Server, monkeypatch: pytest.MonkeyPatch) -> tuple[Part, ...]:
    """Serve a small COCO: annotations, and two images for each split."""
    parts = []
    for stem, files in {
        'annotations': ['annotations/instances_val2017.json'],
        'val2017': ['val2017/1.jpg', 'val2017/2.jpg'],
        'train2017': ['train2017/3.jpg', 'train2017/4.jpg'],
    }.items():
        data = make_zip({name: name.encode() * 50 for name in files})
        server.files[f'/{stem}.zip'] = data
        contents = {f'{stem}/*{Path(files[0]).suffix}': len(files)}
        md5 = hashlib.md5(data).hexdigest()
        archive = Archive(f'{server.url}/{stem}.zip', len(data), md5)
        parts.append(Part((archive,), 'coco', '.', contents, unpacked=1000))
    monkeypatch.setitem(DATASETS, 'coco', tuple(parts))
    return tuple(parts)


def tree(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob('*') if p.is_file())


VOC_TREE = [
    'VOCdevkit/VOC2007/Annotations/000001.xml',
    'VOCdevkit/VOC2007/Annotations/000002.xml',
    'VOCdevkit/VOC2007/ImageSets/Main/test.txt',
    'VOCdevkit/VOC2007/ImageSets/Main/trainval.txt',
    'VOCdevkit/VOC2007/JPEGImages/000001.jpg',
    'VOCdevkit/VOC2007/JPEGImages/000002.jpg',
]
COCO_TREE = [
    'coco/annotations/instances_val2017.json',
    'coco/train2017/3.jpg',
    'coco/train2017/4.jpg',
    'coco/val2017/1.jpg',
    'coco/val2017/2.jpg',
]


# ------------------------------------------------------------------------------------------------
# What is fetched
# ------------------------------------------------------------------------------------------------


def test_table_of_archives():
    archives = {a.name: a for parts in DATASETS.values() for p in parts for a in p.archives}
    assert {name: a.md5 for name, a in archives.items()} == {
        'VOCtrainval_06-Nov-2007.tar': 'c52e279531787c972589f7e41ab4ae64',
        'VOCtest_06-Nov-2007.tar': 'b6e924de25625d8de591ea690078ad9f',
        'VOCtrainval_11-May-2012.tar': '6cd6e144f989b92b3379bac3b3de84fd',
        'annotations_trainval2017.zip': 'f4bbac642086de4f52a3fdda2de5fa2c',
        'train2017.zip': 'cced6f7f71b7629ddf16f17bbcfab6b2',
        'val2017.zip': '442b8da7639aecaf257c1dceb8ba8c80',
    }
    counts = {k: v for parts in DATASETS.values() for p in parts for k, v in p.contents.items()}
    assert (counts['train2017/*.jpg'], counts['val2017/*.jpg']) == (118287, 5000)


def test_voc_layout_and_archives_removed(voc, tmp_path, capsys):
    download_datasets(['voc2007'], tmp_path)
    assert tree(tmp_path) == VOC_TREE
    assert sorted(p.name for p in tmp_path.iterdir()) == ['VOCdevkit']
    assert (tmp_path / VOC_TREE[2]).read_text() == '000002'


def test_coco_layout_with_archives_kept(coco, tmp_path):
    download_datasets(['coco'], tmp_path, keep_archives=True)
    archives = ['annotations.zip', 'train2017.zip', 'val2017.zip']
    assert tree(tmp_path) == COCO_TREE + [f'downloads/{name}' for name in archives]


def test_complete_set_is_left_alone(voc, server, tmp_path, capsys):
    download_datasets(['voc2007'], tmp_path)
    server.requests.clear()
    capsys.readouterr()
    download_datasets(['voc2007'], tmp_path)
    assert server.requests == []
    folder = tmp_path / 'VOCdevkit/VOC2007'
    assert capsys.readouterr().out == f'{folder}: already complete\n'


def test_only_missing_parts_are_fetched(coco, server, tmp_path):
    download_datasets(['coco'], tmp_path)
    (tmp_path / 'coco/train2017/3.jpg').unlink()
    (tmp_path / 'coco/train2017/mine.txt').write_text('stays')
    server.requests.clear()
    download_datasets(['coco'], tmp_path)
    assert [path for path, _ in server.requests] == ['/train2017.zip']
    assert tree(tmp_path) == sorted([*COCO_TREE, 'coco/train2017/mine.txt'])


def test_mirror_replaces_all_but_the_name(voc, server, tmp_path):
    server.files = {f'/other/deep/{Path(k).name}': v for k, v in server.files.items()}
    download_datasets(['voc2007'], tmp_path, mirror=f'{server.url}/other/deep/')
    assert tree(tmp_path) == VOC_TREE
    assert {p for p, _ in server.requests} == {'/other/deep/trainval.tar', '/other/deep/test.tar'}


def test_mirror_may_be_a_local_folder(voc, server, tmp_path):
    store = tmp_path / 'store'
    store.mkdir()
    for path, data in server.files.items():
        (store / Path(path).name).write_bytes(data)
    download_datasets(['voc2007'], tmp_path / 'data', mirror=store.as_uri())
    assert tree(tmp_path / 'data') == VOC_TREE
    assert len(tree(store)) == 2


def test_intact_archive_in_downloads_is_used(voc, server, tmp_path):
    (tmp_path / 'downloads').mkdir()
    (tmp_path / 'downloads/test.tar').write_bytes(server.files['/voc/test.tar'])
    download_datasets(['voc2007'], tmp_path)
    assert [path for path, _ in server.requests] == ['/voc/trainval.tar']


def test_shapes_come_from_the_generator(monkeypatch, tmp_path):
    roots = []
    monkeypatch.setattr(download, 'generate_shapes', lambda root: roots.append(root) or root)
    download_datasets(['shapes'], tmp_path)
    assert roots == [tmp_path / 'shapes']


# ------------------------------------------------------------------------------------------------
# Resuming
# ------------------------------------------------------------------------------------------------

DATA = bytes(range(256)) * 40


@pytest.mark.parametrize('ranges', [True, False])
def test_resumes_or_restarts(server, tmp_path, ranges):
    server.files['/file'] = DATA
    server.ranges = ranges
    # Without ranges these bytes must be replaced, so they may as well be wrong.
    (tmp_path / 'file.part').write_bytes(DATA[:1000] if ranges else b'?' * 1000)
    fetch(f'{server.url}/file', tmp_path / 'file', len(DATA))
    assert (tmp_path / 'file').read_bytes() == DATA
    assert server.requests == [('/file', 'bytes=1000-')]
    assert tree(tmp_path) == ['file']


def test_broken_connection_keeps_what_arrived(server, tmp_path):
    server.files['/file'] = DATA
    server.stop_after = 3000
    with pytest.raises(
        DownloadError, match=r'closed after 3000 of 10240 bytes.*run again to resume'
    ):
        fetch(f'{server.url}/file', tmp_path / 'file', len(DATA))
    assert tree(tmp_path) == ['file.part']
    server.stop_after = None
    fetch(f'{server.url}/file', tmp_path / 'file', len(DATA))
    assert server.requests[-1] == ('/file', 'bytes=3000-')
    assert (tmp_path / 'file').read_bytes() == DATA


@pytest.mark.parametrize(
    ('size', 'requests'), [(len(DATA), []), (len(DATA) + 1, [('/file', None)])]
)
def test_part_file_at_or_past_the_end(server, tmp_path, size, requests):
    server.files['/file'] = DATA
    (tmp_path / 'file.part').write_bytes((DATA + b'?')[:size])
    fetch(f'{server.url}/file', tmp_path / 'file', len(DATA))
    assert server.requests == requests
    assert (tmp_path / 'file').read_bytes() == DATA


# ------------------------------------------------------------------------------------------------
# What can go wrong
# ------------------------------------------------------------------------------------------------


def test_wrong_name_is_found_before_anything_is_fetched(voc, server, tmp_path):
    message = "^unknown data set 'voc': choose from voc2007, voc2012, coco, shapes$"
    with pytest.raises(ValueError, match=message):
        download_datasets(['voc2007', 'voc'], tmp_path)
    assert server.requests == [] and tree(tmp_path) == []


def test_wrong_checksum_removes_the_file(voc, server, tmp_path):
    data = server.files['/voc/test.tar']
    server.files['/voc/test.tar'] = data[:600] + b'?' + data[601:]
    with pytest.raises(
        DownloadError, match=rf'/voc/test\.tar.*md5 {voc.archives[1].md5}.*--mirror'
    ):
        download_datasets(['voc2007'], tmp_path)
    assert tree(tmp_path) == ['downloads/trainval.tar']


def test_wrong_size_removes_the_file(coco, server, tmp_path):
    server.files['/annotations.zip'] += b'?'
    with pytest.raises(DownloadError, match=f'md5 {coco[0].archives[0].md5}'):
        download_datasets(['coco'], tmp_path)
    assert tree(tmp_path) == []


def test_damaged_zip_is_removed_and_nothing_unpacked(coco, server, tmp_path, monkeypatch):
    data = server.files['/val2017.zip']
    at = data.index(b'val2017/2.jpgval2017/2.jpg') + 20  # within the stored bytes of the second
    data = server.files['/val2017.zip'] = data[:at] + b'?' + data[at + 1 :]
    # As if the publisher had packed it so: the checksum of the archive fits, that of a member does not.
    whole = Archive(coco[1].archives[0].url, len(data), hashlib.md5(data).hexdigest())
    part = Part((whole,), 'coco', '.', coco[1].contents, 1000)
    monkeypatch.setitem(DATASETS, 'coco', (coco[0], part))
    with pytest.raises(DownloadError, match=r'val2017\.zip was damaged .*CRC.*removed: run again'):
        download_datasets(['coco'], tmp_path)
    assert tree(tmp_path) == [COCO_TREE[0]]


@pytest.mark.parametrize('kind', ['tar', 'zip'])
def test_archive_that_would_write_elsewhere(server, tmp_path, monkeypatch, kind):
    data = dict(tar=make_tar, zip=make_zip)[kind]({'../../../out.txt': b'x', 'in.txt': b'x'})
    server.files[f'/evil.{kind}'] = data
    url = f'{server.url}/evil.{kind}'
    archive = Archive(url, len(data), hashlib.md5(data).hexdigest())
    monkeypatch.setitem(DATASETS, 'coco', (Part((archive,), 'coco', '.', {'in.txt': 1}, 1000),))
    root = tmp_path / 'deep' / 'down'
    if kind == 'tar':
        with pytest.raises(DownloadError, match=r'evil\.tar would write outside its folder'):
            download_datasets(['coco'], root)
    else:  # zipfile leaves the dots out
        download_datasets(['coco'], root)
    assert not [path for path in tmp_path.rglob('out.txt') if root / 'coco' not in path.parents]


def test_archive_with_too_few_files(coco, server, tmp_path, monkeypatch):
    part = Part(coco[1].archives, 'coco', '.', {'val2017/*.jpg': 3}, 1000)
    monkeypatch.setitem(DATASETS, 'coco', (part,))
    with pytest.raises(DownloadError, match=r'only 2 of 3 files val2017/\*\.jpg'):
        download_datasets(['coco'], tmp_path)
    assert not (tmp_path / 'coco').exists()


def test_interrupted_unpacking_does_not_look_complete(voc, server, tmp_path, monkeypatch):
    unpack = download._extract

    def interrupted(path: Path, folder: Path) -> None:
        unpack(path, folder)
        if path.name == 'test.tar':
            raise KeyboardInterrupt

    monkeypatch.setattr(download, '_extract', interrupted)
    with pytest.raises(KeyboardInterrupt):
        download_datasets(['voc2007'], tmp_path)
    assert tree(tmp_path) == ['downloads/test.tar', 'downloads/trainval.tar']
    monkeypatch.setattr(download, '_extract', unpack)
    server.requests.clear()
    download_datasets(['voc2007'], tmp_path)
    assert tree(tmp_path) == VOC_TREE and server.requests == []


def test_killed_while_moving_is_finished_by_the_next_run(voc, tmp_path):
    # Half of the files in place, the rest still in the temporary folder.
    for name in VOC_TREE[:3]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('old')
    left_over = tmp_path / 'VOCdevkit/VOC2007/.unpacking_trainval/VOCdevkit/VOC2007/junk'
    left_over.parent.mkdir(parents=True)
    left_over.write_text('')
    download_datasets(['voc2007'], tmp_path)
    assert tree(tmp_path) == VOC_TREE
    assert (tmp_path / VOC_TREE[2]).read_text() == '000002'


def test_no_space(voc, server, tmp_path, monkeypatch):
    needed = 10_000 + sum(archive.size for archive in voc.archives)
    usage = type('Usage', (), {'free': needed - 1})
    monkeypatch.setattr(download.shutil, 'disk_usage', lambda path: usage)
    root = tmp_path / 'not/yet/there'
    with pytest.raises(DownloadError, match=f'^not enough space in {re.escape(str(root))}: about'):
        download_datasets(['voc2007'], root)
    assert server.requests == [] and not root.exists()
    usage.free = needed
    download_datasets(['voc2007'], root)
    assert tree(root) == VOC_TREE


@pytest.mark.parametrize('mirror', ['/nothing/here', None, 'no-url'])
def test_network_failure_names_url_and_mirror(voc, server, tmp_path, mirror):
    if mirror is None:  # a port where nobody listens
        with Server() as closed:
            mirror = closed.url
    elif mirror.startswith('/'):
        mirror = server.url + mirror
    with pytest.raises(DownloadError) as caught:
        download_datasets(['voc2007'], tmp_path, mirror=mirror)
    message = str(caught.value)
    assert message.startswith(f'cannot download {mirror}/trainval.tar: ')
    assert '--mirror URL' in message and '\n' not in message
    assert tree(tmp_path) == []


def test_command_line_prints_one_line(tmp_path, warm):
    (ended,) = warm.run(['download-data', 'cocoa', '--root', tmp_path], tmp_path)
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == (
        "error: unknown data set 'cocoa': choose from voc2007, voc2012, coco, shapes"
    )
    assert 'Traceback' not in ended.err
    env = {'HOYER_DET_TRACEBACK': '1'}
    (ended,) = warm.run(['download-data', 'cocoa', '--root', tmp_path], tmp_path, env=env)
    assert ended.code == 1 and 'Traceback' in ended.err


def test_interruption_ends_as_that_of_every_command(monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(download_data, 'download_datasets', interrupt)
    monkeypatch.setattr(sys, 'argv', ['download-data', 'voc2007'])
    with pytest.raises(SystemExit) as stop:
        download_data.main()
    assert stop.value.code == 130
    assert capsys.readouterr().err == 'interrupted; run again to resume\n'

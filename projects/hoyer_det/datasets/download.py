"""Fetch VOC and COCO, or make the synthetic shapes, in the folders that MMDetection expects.

Downloads resume where they stopped, archives are checked before they are unpacked, and a data set
appears in its place only when all of its files are there.
"""

import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.utils import check_integrity
from torchvision.datasets.voc import DATASET_YEAR_DICT
from tqdm import tqdm

from .shapes import generate_shapes

ARCHIVE_FOLDER = 'downloads'
TIMEOUT = 60  # seconds without a single byte
CHUNK = 1 << 18


class DownloadError(OSError):
    """A data set could not be fetched; the message is one line and says what to do."""


@dataclass(frozen=True)
class Archive:
    """One file on a server.

    Attributes:
        url: Where it lies; a mirror replaces all but the file name.
        size: Its size in bytes.
        md5: Its checksum.
    """

    url: str
    size: int
    md5: str

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rsplit('/', 1)[-1]

    def is_intact(self, path: Path) -> bool:
        """Tell whether ``path`` holds this archive, whole."""
        return check_integrity(path, self.md5)


@dataclass(frozen=True)
class Part:
    """Archives that are unpacked together, and what must then be there.

    Attributes:
        archives: What to fetch.
        folder: Folder below the data root that receives the content.
        inner: Folder within the archives whose content goes there.
        contents: Glob pattern below ``folder`` -> least number of files that match.
        unpacked: Size of the content in bytes, about.
    """

    archives: tuple[Archive, ...]
    folder: str
    inner: str
    contents: dict[str, int]
    unpacked: int

    def missing(self, folder: Path) -> str | None:
        """Describe the first pattern that ``folder`` does not satisfy, None if it is complete.

        Counting needs no stamp file, so a data set that somebody else put there counts as well.
        More files than expected do not disturb anybody.
        """
        for pattern, expected in self.contents.items():
            found = sum(1 for _ in folder.glob(pattern))
            if found < expected:
                return f'{found} of {expected} files {pattern}'
        return None


def _voc_archive(key: str, size: int) -> Archive:
    """Return an archive of PASCAL VOC with the address and checksum that torchvision keeps."""
    entry = DATASET_YEAR_DICT[key]
    return Archive(url=entry['url'], size=size, md5=entry['md5'])


def _coco_part(path: str, size: int, md5: str, contents: dict[str, int], unpacked: int) -> Part:
    """Return one part of COCO 2017; each can be fetched without the others."""
    # The bucket behind images.cocodataset.org, whose certificate is not of that name.
    url = f'https://s3.amazonaws.com/images.cocodataset.org/{path}'
    archive = Archive(url=url, size=size, md5=md5)
    return Part((archive,), folder='coco', inner='.', contents=contents, unpacked=unpacked)


# Sizes in bytes as the servers give them. COCO publishes no checksums: these are those that PaddleDetection
# and others keep. VOC's server is asked without encryption, as torchvision does: the checksum decides.
DATASETS: dict[str, tuple[Part, ...]] = {
    'voc2007': (
        Part(
            archives=(
                _voc_archive('2007', 460_032_000),
                _voc_archive('2007-test', 451_020_800),
            ),
            folder='VOCdevkit/VOC2007',
            inner='VOCdevkit/VOC2007',
            contents={
                'ImageSets/Main/trainval.txt': 1,
                'ImageSets/Main/test.txt': 1,
                'Annotations/*.xml': 5_011 + 4_952,
                'JPEGImages/*.jpg': 5_011 + 4_952,
            },
            unpacked=910_000_000,
        ),
    ),
    'voc2012': (
        Part(
            archives=(_voc_archive('2012', 1_999_639_040),),
            folder='VOCdevkit/VOC2012',
            inner='VOCdevkit/VOC2012',
            contents={
                'ImageSets/Main/trainval.txt': 1,
                'Annotations/*.xml': 17_125,
                'JPEGImages/*.jpg': 17_125,
            },
            unpacked=2_000_000_000,
        ),
    ),
    'coco': (
        _coco_part(
            'annotations/annotations_trainval2017.zip',
            252_907_541,
            'f4bbac642086de4f52a3fdda2de5fa2c',
            {'annotations/instances_train2017.json': 1, 'annotations/instances_val2017.json': 1},
            unpacked=850_000_000,
        ),
        _coco_part(
            'zips/val2017.zip',
            815_585_330,
            '442b8da7639aecaf257c1dceb8ba8c80',
            {'val2017/*.jpg': 5_000},
            unpacked=820_000_000,
        ),
        _coco_part(
            'zips/train2017.zip',
            19_336_861_798,
            'cced6f7f71b7629ddf16f17bbcfab6b2',
            {'train2017/*.jpg': 118_287},
            unpacked=19_500_000_000,
        ),
    ),
}
NAMES = (*DATASETS, 'shapes')


def download_datasets(
    names: Sequence[str],
    root: str | Path = 'data',
    mirror: str | None = None,
    keep_archives: bool = False,
) -> None:
    """Bring data sets into ``root``; those already complete are left alone.

    Afterwards ``root`` holds ``VOCdevkit/VOC2007``, ``VOCdevkit/VOC2012``,
    ``coco/{annotations,train2017,val2017}`` and ``shapes``, as far as asked for. An archive that
    already lies in ``root/downloads`` is used.

    Args:
        names: Any of ``NAMES``.
        root: Folder for all data, made if absent.
        mirror: URL of a folder with the archives under their own names, ``file://`` included;
            None fetches from the publishers.
        keep_archives: Whether to keep the archives after unpacking.

    Raises:
        ValueError: A name is unknown.
        DownloadError: There is too little space, or fetching or unpacking failed.
    """
    for name in names:
        if name not in NAMES:
            raise ValueError(f'unknown data set {name!r}: choose from {", ".join(NAMES)}')
    root = Path(root)
    todo: list[Part] = []
    for name in names:
        parts = [p for p in DATASETS.get(name, ()) if p.missing(root / p.folder) is not None]
        if name != 'shapes' and not parts:
            print(f'{root / DATASETS[name][0].folder}: already complete')
        todo += (part for part in parts if part not in todo)
    _check_space(todo, root)
    new = not root.exists()
    try:
        for part in todo:
            _bring(part, root, mirror, keep_archives)
    finally:
        if new and root.exists():
            _remove_if_empty(root)
    if 'shapes' in names:
        print(f'{generate_shapes(root / "shapes")}: complete')


def _check_space(parts: Sequence[Part], root: Path) -> None:
    """Raise ``DownloadError`` if the archives still to fetch and their content do not fit."""
    needed = sum(part.unpacked for part in parts)
    for archive in (archive for part in parts for archive in part.archives):
        path = root / ARCHIVE_FOLDER / archive.name
        here = max((p.stat().st_size for p in (path, _partial(path)) if p.exists()), default=0)
        needed += max(archive.size - here, 0)
    existing = next(p for p in (root, *root.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DownloadError(
            f'not enough space in {root}: about {needed / 1e9:.1f} GB needed, '
            f'{free / 1e9:.1f} GB free; choose another place with --root'
        )


def _bring(part: Part, root: Path, mirror: str | None, keep_archives: bool) -> None:
    """Fetch, check and unpack one part."""
    paths = [root / ARCHIVE_FOLDER / archive.name for archive in part.archives]
    for archive, path in zip(part.archives, paths, strict=True):
        _obtain(archive, path, mirror)
    folder = root / part.folder
    folder.mkdir(parents=True, exist_ok=True)
    # Unpacked within its place, so that moving is renaming even where that is another disk.
    temporary = folder / f'.unpacking_{paths[0].stem}'
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
    try:
        for path in paths:
            _unpack(path, temporary)
        if (missing := part.missing(temporary / part.inner)) is not None:
            names = ' and '.join(str(path) for path in paths)
            raise DownloadError(f'{names} hold only {missing}: remove and try another source')
        _move(temporary / part.inner, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _remove_if_empty(folder)
    if not keep_archives:
        for path in paths:
            path.unlink()
        _remove_if_empty(root / ARCHIVE_FOLDER)
    print(f'{folder}: complete ({", ".join(part.contents)})')


def _obtain(archive: Archive, path: Path, mirror: str | None) -> None:
    """Make sure that ``path`` holds ``archive``, fetching it if need be."""
    if archive.is_intact(path):
        print(f'{path}: already downloaded')
        return
    url = archive.url if mirror is None else f'{mirror.rstrip("/")}/{archive.name}'
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        fetch(url, path, archive.size)
    except DownloadError:
        _remove_if_empty(path.parent)
        raise
    if not archive.is_intact(path):
        path.unlink()
        raise DownloadError(
            f'{url} is not the expected file (md5 {archive.md5}), it was removed: '
            'try again, or another source with --mirror URL'
        )


def _partial(path: Path) -> Path:
    """Return where the bytes that have arrived of ``path`` are kept."""
    return path.with_name(f'{path.name}.part')


def fetch(url: str, path: Path, size: int) -> None:
    """Download ``url`` to ``path``, going on where an earlier attempt stopped.

    Bytes are kept in ``<path>.part`` until all are there. A server that cannot continue in the
    middle sends everything again.

    Args:
        url: Address of the file.
        path: Where to put it; its folder must exist.
        size: Expected size in bytes.

    Raises:
        DownloadError: The server cannot be reached, has no such file, or stops too early.
    """
    part = _partial(path)
    start = part.stat().st_size if part.exists() else 0
    if start != size:
        start = start if start < size else 0  # more bytes than that are of another file
        headers = {'User-Agent': 'hoyer_det'} | ({'Range': f'bytes={start}-'} if start else {})
        try:
            request = urllib.request.Request(url, headers=headers)
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                _receive(response, part, start)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise DownloadError(
                f'cannot download {url}: {error}; run again to resume, '
                'or name another source with --mirror URL'
            ) from error
    os.replace(part, path)


def _receive(response: http.client.HTTPResponse, part: Path, start: int) -> None:
    """Append what ``response`` delivers to ``part``, or write it anew if it is the whole file."""
    if response.status != 206:  # not partial content: the range was ignored
        start = 0
    length = response.headers.get('Content-Length')
    total = None if length is None else start + int(length)
    with (
        part.open('ab' if start else 'wb') as file,
        tqdm(
            total=total,
            initial=start,
            unit='B',
            unit_scale=True,
            unit_divisor=1024,
            desc=part.stem,
        ) as bar,
    ):
        while chunk := response.read(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
        # http.client ends quietly when the connection breaks.
        if total is not None and file.tell() < total:
            raise ConnectionError(f'connection closed after {file.tell()} of {total} bytes')


def _unpack(path: Path, folder: Path) -> None:
    """Unpack an archive; a damaged one is removed, so that the next attempt fetches it again."""
    print(f'{path}: unpacking')
    try:
        _extract(path, folder)
    except getattr(tarfile, 'FilterError', ()) as error:
        raise DownloadError(
            f'{path} would write outside its folder ({error}): remove it'
        ) from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        path.unlink()
        raise DownloadError(f'{path} was damaged ({error}) and removed: run again') from error


def _extract(path: Path, folder: Path) -> None:
    """Unpack an archive by the standard library, which keeps its members within ``folder``."""
    if path.suffix == '.zip':
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        return
    if not hasattr(tarfile, 'data_filter'):
        raise DownloadError(f'{path}: to unpack it safely takes Python 3.10.12, 3.11.4 or newer')
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter='data')


def _move(source: Path, target: Path) -> None:
    """Rename ``source`` to ``target``; where both are folders, merge them file by file."""
    if source.is_dir() and target.is_dir():
        for child in source.iterdir():
            _move(child, target / child.name)
    else:
        os.replace(source, target)


def _remove_if_empty(folder: Path) -> None:
    """Remove ``folder`` unless something is in it."""
    if not any(folder.iterdir()):
        folder.rmdir()

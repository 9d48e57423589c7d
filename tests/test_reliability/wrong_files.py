"""Wrong inputs: annotations, images and checkpoints, and disks without space."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from coco_folder import change
from conftest import voc_object, write_voc_image
from wrong_inputs import Case

TRAIN = 'train {}.py --work-dir out'
TEST = 'test voc.py bad.pth --work-dir out'
START = TRAIN.format('voc') + ' --cfg-options load_from=bad.pth'
RESUME = TRAIN.format('voc') + ' --resume bad.pth'
ANALYZE = 'analyze voc.py bad.pth --out out'
DETECT = 'detect bad.pth voc/JPEGImages'
EXPORT = 'export voc.py bad.pth a.onnx'
CONVERT = 'convert to-authors bad.pth out.pth'
FILE = 'instances_train2017.json'
Spoil = Callable[[Path], object]


def voc(name: str, where: str, what: str, spoil: Spoil, **more: bool) -> Case:
    """A folder in Pascal VOC layout that is trained on."""
    return Case(f'voc: {name}', TRAIN.format('voc'), where, what, spoil, **more)


def coco(name: str, what: str, edit: Callable[[dict], object], where: str = FILE) -> Case:
    """An annotation file in COCO format that is trained on."""
    return _coco(name, what, lambda file: change(file, edit), where)


def coco_file(name: str, what: str, content: bytes) -> Case:
    """The whole annotation file in COCO format."""
    return _coco(name, what, lambda file: file.write_bytes(content), FILE)


def _coco(name: str, what: str, spoil: Spoil, where: str) -> Case:
    spoil_file = lambda folder: spoil(folder / 'coco' / 'annotations' / FILE)  # noqa: E731
    return Case(f'coco: {name}', TRAIN.format('coco'), where, what, spoil_file)


def first(key: str, **fields: object) -> Callable[[dict], object]:
    """Set fields of the first image, annotation or category of a file in COCO format."""
    return lambda content: content[key][0].update(fields)


def checkpoint(
    name: str, what: str, spoil: Spoil = lambda folder: None, command: str = TEST
) -> Case:
    """A checkpoint ``bad.pth`` that a command is given."""
    return Case(name, command, 'bad.pth', what, spoil)


def detected(name: str, file: str, what: str, text: str) -> Case:
    """A text in the place of an image or video."""
    return Case(f'detect: {name}', f'detect work/epoch_2.pth {file}', file, what, put(file, text))


def put(file: str, content: bytes | str) -> Spoil:
    """Replace a file."""
    content = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / file).write_bytes(content)


def remove(path: str) -> Spoil:
    """Remove a file or folder."""

    def spoil(folder: Path) -> None:
        shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()

    return spoil


def objects(*items: str, size: str = '96,80') -> Spoil:
    """Give image0 these objects."""
    width, height = size.split(',')
    shape = f'<size><width>{width}</width><height>{height}</height><depth>3</depth></size>'
    return put('voc/Annotations/image0.xml', f'<annotation>{shape}{"".join(items)}</annotation>')


def saved(content: object) -> Spoil:
    """Write ``bad.pth``: a file with this content."""
    return lambda folder: torch.save(content, folder / 'bad.pth')


def weights(edit: Callable[[dict[str, Any]], object]) -> Spoil:
    """Write ``bad.pth``: a checkpoint that was edited."""

    def spoil(folder: Path) -> None:
        content = torch.load(folder / 'work' / 'epoch_2.pth', weights_only=True)
        edit(content)
        torch.save(content, folder / 'bad.pth')

    return spoil


def meta(**fields: object) -> Spoil:
    """Write ``bad.pth``: a checkpoint that says something else of itself."""
    return weights(lambda content: content['meta'].update(fields))


def cut(source: str, target: str, size: int) -> Spoil:
    """Write the beginning of a file."""
    return lambda folder: (folder / target).write_bytes((folder / source).read_bytes()[:size])


def set_weight(end: str, value: float) -> Callable[[dict[str, Any]], object]:
    """Set the first number of the first weight whose name ends so."""

    def edit(content: dict[str, Any]) -> None:
        state = content['state_dict']
        state[next(name for name in state if name.endswith(end))].view(-1)[0] = value

    return edit


class Thief:
    """Would write a file where it is unpickled."""

    def __reduce__(self) -> tuple:
        return (os.mkdir, ('stolen',))


def other_size(folder: Path) -> None:
    write_voc_image(folder / 'voc', 'image0', [voc_object('cell')], size=(80, 96))


HALF = cut('work/epoch_2.pth', 'bad.pth', 9000)
NAN = weights(set_weight('conv.weight', float('nan')))
BOMB = (
    '<!DOCTYPE a [<!ENTITY x0 "lol">'
    + ''.join(f'<!ENTITY x{i + 1} "{f"&x{i};" * 10}">' for i in range(9))
    + ']><annotation><object><name>&x9;</name></object></annotation>'
)
XML, JPG = 'voc/Annotations/image0.xml', 'voc/JPEGImages/image0.jpg'
LIST = 'voc/ImageSets/Main/trainval.txt'
VOC = [
    voc('no folder', 'voc', 'no such folder', remove('voc')),
    voc('no annotations', 'voc/Annotations', 'no *.xml', remove('voc/Annotations')),
    voc('no lists', 'voc/ImageSets/Main', 'trainval.txt', remove('voc/ImageSets')),
    voc('no images', 'voc/JPEGImages', 'no such image', remove('voc/JPEGImages')),
    voc('list is empty', LIST, 'no image left', put(LIST, '')),
    voc('list has an empty line', LIST, 'empty line', put(LIST, 'image0\n\nimage1\n')),
    voc('list names a missing image', 'JPEGImages/lost', 'trainval.txt', put(LIST, 'lost\n')),
    voc('list is no text', LIST, 'utf-8', put(LIST, b'\xff\xfe\x00image0\n')),
    voc(
        'list of images without objects',
        LIST,
        'no image left',
        lambda f: (put(LIST, 'image0\n')(f), objects()(f)),
    ),
    voc('test list is empty', 'test.txt', 'no image left', put('voc/ImageSets/Main/test.txt', '')),
    voc('annotation missing', XML, 'lists image0', remove(XML)),
    voc('annotation cut off', XML, 'not a valid XML file', put(XML, '<annotation><object>')),
    voc('annotation empty', XML, 'not a valid XML file', put(XML, '')),
    voc('annotation is binary', XML, 'not a valid XML file', put(XML, b'\x00\x01\x02')),
    voc('annotation grows without end', XML, 'not a valid XML file', put(XML, BOMB)),
    voc('name of megabytes', XML, '3000000 characters', objects(voc_object('x' * 3_000_000))),
    voc(
        'names are empty',
        'voc/Annotations',
        'named object',
        lambda f: [
            p.write_text('<annotation><object><name> </name></object></annotation>')
            for p in (f / 'voc/Annotations').iterdir()
        ],
    ),
    voc('box without corners', XML, 'xmin', objects('<object><name>cell</name></object>')),
    voc('box in words', XML, "'left'", objects(voc_object('cell', 'left'))),
    voc('size of zero', XML, '0 x 80', objects(voc_object('cell'), size='0,80')),
    voc('size in words', XML, 'wide', objects(voc_object('cell'), size='wide,80')),
    voc('size of a turned image', JPG, 'says 80 x 96', other_size, starts=True),
    voc('image empty', JPG, 'empty file', put(JPG, b'')),
    voc('image is text', JPG, 'cannot be decoded', put(JPG, 'no image'), starts=True),
    voc('image missing', 'JPEGImages/image0', 'no such image', remove(JPG)),
    Case(
        'voc: class that is not given',
        TRAIN.format('voc') + ' --cfg-options train_dataloader.dataset.metainfo.classes=[cell,dot]',
        'image0.xml',
        "'ring'",
    ),
    Case(
        'voc: tested image is text',
        'test voc.py work/epoch_2.pth --work-dir out',
        'image4.jpg',
        'cannot be decoded',
        put('voc/JPEGImages/image4.jpg', 'x'),
        starts=True,
    ),
    Case(
        'voc: analyzed image is text',
        'analyze voc.py work/epoch_2.pth --out out',
        'image4.jpg',
        'cannot be decoded',
        put('voc/JPEGImages/image4.jpg', 'x'),
    ),
]
COCO = [
    coco_file('no json', 'not a valid JSON', b'images'),
    coco_file('cut off', 'not a valid JSON', b'{"images": ['),
    coco_file('empty', 'not a valid JSON', b''),
    coco_file('not UTF-8', 'not a valid JSON', b'\xff\xfe{}'),
    coco_file('nested without end', 'not a valid JSON', b'[' * 100_000),
    coco_file('a list', "'images'", b'[1, 2]'),
    coco_file('without images', "'images'", b'{"images": [], "annotations": [], "categories": []}'),
    coco('no categories', "'categories'", lambda c: c.pop('categories')),
    coco(
        'annotation without box',
        "annotations[0] lacks 'bbox'",
        lambda c: c['annotations'][0].pop('bbox'),
    ),
    coco('box of three numbers', 'annotations[0] has bbox', first('annotations', bbox=[1, 2, 3])),
    coco('box of words', 'annotations[0] has bbox', first('annotations', bbox=list('abcd'))),
    coco('area in words', 'annotations[0] has area', first('annotations', area='big')),
    coco('crowd in words', 'iscrowd', first('annotations', iscrowd='maybe')),
    coco('unknown category', 'category_id 99', first('annotations', category_id=99)),
    coco('unknown image', 'image_id 99', first('annotations', image_id=99)),
    coco('two images of one id', 'images have id 5', lambda c: c['images'][1].update(id=5)),
    coco(
        'two categories of one name',
        "name 'ring'",
        lambda c: c['categories'][1].update(name='ring'),
    ),
    coco('name is a number', 'category 7', first('categories', name=4)),
    coco('name of megabytes', '3000000 characters', first('categories', name='x' * 3_000_000)),
    coco('width of zero', 'images[0] has width 0', first('images', width=0)),
    coco('negative height', 'images[0] has height -80', first('images', height=-80)),
    coco('width in words', 'images[0] has width', first('images', width='wide')),
    coco(
        'image without a file',
        "images[0] lacks 'file_name'",
        lambda c: c['images'][0].pop('file_name'),
    ),
    coco(
        'image that is not there',
        'no such image',
        first('images', file_name='lost.jpg'),
        where='lost.jpg',
    ),
    coco(
        'crowds alone', 'no image left', lambda c: [a.update(iscrowd=1) for a in c['annotations']]
    ),
    coco(
        'other categories than in the tests',
        'classes are not those',
        first('categories', name='other'),
        where='instances_val2017.json',
    ),
    Case(
        'coco: image empty',
        TRAIN.format('coco'),
        'a.jpg',
        'empty file',
        put('coco/train2017/left/a.jpg', b''),
    ),
    Case(
        'coco: no such file',
        TRAIN.format('coco') + ' --cfg-options train_ann=lost.json',
        'lost.json',
        'no such annotation file',
    ),
    Case(
        'coco: file is a number',
        TRAIN.format('coco') + ' --cfg-options train_ann=3',
        'coco/3',
        'no such annotation file',
    ),
    Case(
        'coco: class that no file has',
        TRAIN.format('coco')
        + ' --cfg-options train_dataloader.dataset.metainfo.classes=[ring,star]',
        FILE,
        'star',
    ),
]
CHECKPOINTS = [
    checkpoint('test: no such checkpoint', 'no such checkpoint'),
    Case('test: checkpoint is a folder', 'test voc.py work --work-dir out', 'work', 'checkpoint'),
    checkpoint('test: checkpoint is text', 'cannot be read', put('bad.pth', 'text')),
    checkpoint('test: checkpoint is empty', 'cannot be read', put('bad.pth', '')),
    checkpoint('test: checkpoint cut off', 'cannot be read', HALF),
    checkpoint('test: checkpoint is a list', 'list', saved([1])),
    checkpoint('test: checkpoint without weights', 'no weights', saved(dict(epoch=3))),
    checkpoint(
        'test: checkpoint with code', 'cannot be read', saved(dict(state_dict={}, meta=Thief()))
    ),
    *(
        checkpoint(f'{name}: checkpoint with code', 'cannot be read', meta(more=Thief()), command)
        for name, command in (
            *(('train: start', START), ('train: resume', RESUME), ('analyze', ANALYZE)),
            *(('export', EXPORT), ('convert', CONVERT)),
        )
    ),
    checkpoint('test: NaN in a weight', 'conv.weight holds NaN', NAN),
    checkpoint(
        'test: inf in an extremum',
        'running_extremum holds NaN or inf',
        weights(set_weight('running_extremum', float('inf'))),
    ),
    checkpoint(
        'test: a weight is missing',
        '1 weights missing',
        weights(lambda c: c['state_dict'].pop('backbone.stages.0.0.conv.weight')),
    ),
    checkpoint(
        'test: a weight too many',
        '1 unexpected',
        weights(lambda c: c['state_dict'].update(more=torch.zeros(1))),
    ),
    checkpoint(
        'test: checkpoint of other classes',
        "('a', 'b', 'c')",
        weights(lambda c: c['meta']['dataset_meta'].update(classes=('a', 'b', 'c'))),
    ),
    Case(
        'test: checkpoint of another width',
        'test voc.py work/epoch_2.pth --work-dir out --cfg-options model.backbone.width=0.125',
        'epoch_2.pth',
        '(4, 3, 3, 3) instead of (8, 3, 3, 3)',
    ),
    Case(
        'train: start from another width',
        TRAIN.format('voc')
        + ' --cfg-options load_from=work/epoch_2.pth model.backbone.width=0.125',
        'epoch_2.pth',
        '(4, 3, 3, 3) instead of (8, 3, 3, 3)',
    ),
    checkpoint('train: start cut off', 'cannot be read', HALF, START),
    checkpoint('train: start is missing', 'no such checkpoint', command=START),
    Case('train: start is no path', START.replace('bad.pth', '3'), 'load_from', '3'),
    checkpoint(
        'train: start of an unknown network',
        'no weights',
        saved(dict(state_dict=dict(a=torch.zeros(1)))),
        START,
    ),
    Case(
        'train: start at an unknown address',
        TRAIN.format('voc') + ' --cfg-options load_from=torchvision://resnet9',
        'torchvision://resnet9',
        'no weights',
    ),
    checkpoint('train: resume from what is missing', 'no such checkpoint', command=RESUME),
    checkpoint(
        'train: resume without an optimizer',
        'no state of a training',
        weights(lambda c: c.pop('optimizer')),
        RESUME,
    ),
    Case(
        'train: resume with another rate',
        'train voc.py --work-dir work --resume --cfg-options optim_wrapper.optimizer.lr=0.5',
        'epoch_2.pth',
        'optim_wrapper.optimizer.lr=0.002',
    ),
    Case(
        'train: resume with another rate, by the key of MMEngine',
        'train voc.py --work-dir work --cfg-options resume=True optim_wrapper.optimizer.lr=0.5',
        'epoch_2.pth',
        'optim_wrapper.optimizer.lr=0.002',
    ),
    Case(
        'train: resume with another batch size',
        'train voc.py --work-dir work --resume --cfg-options train_dataloader.batch_size=1',
        'epoch_2.pth',
        'train_dataloader.batch_size=2, now it is 1',
    ),
    Case(
        'train: resume from damaged files alone',
        'train voc.py --work-dir work --resume',
        'epoch_2.pth',
        'cannot be read',
        lambda f: [p.write_bytes(b'x') for p in (f / 'work').glob('*.pth')],
    ),
    Case(
        'train: resume of another twin',
        TRAIN.format('voc') + ' --twin relu --resume work/epoch_2.pth',
        'epoch_2.pth',
        'leave --twin out',
    ),
    checkpoint('analyze: checkpoint cut off', 'cannot be read', HALF, ANALYZE),
    Case(
        'analyze: energy of a broken table',
        'analyze voc.py work/epoch_2.pth --out out --energy chip.json',
        'chip.json',
        'JSON',
        put('chip.json', '{'),
    ),
    Case(
        'analyze: energy of an empty table',
        'analyze voc.py work/epoch_2.pth --out out --energy chip.json',
        'chip.json',
        'name',
        put('chip.json', '{}'),
    ),
    checkpoint(
        'detect: checkpoint without config',
        'no config',
        weights(lambda c: c['meta'].pop('cfg')),
        DETECT,
    ),
    checkpoint(
        'detect: config with code', 'plain data', meta(cfg='model = open("stolen", "w")'), DETECT
    ),
    checkpoint(
        'detect: config with an import',
        'no assignment',
        meta(cfg='import os\nos.mkdir("stolen")'),
        DETECT,
    ),
    checkpoint(
        'detect: config without data',
        'no test_dataloader',
        meta(cfg="model = dict(type='SingleStageDetector')"),
        DETECT,
    ),
    checkpoint('detect: checkpoint with code', 'cannot be read', saved(Thief()), DETECT),
    detected('image is text', 'bad.jpg', 'read', 'text'),
    detected('image is empty', 'bad.jpg', 'read', ''),
    detected('video is text', 'bad.mp4', 'no frame', 'text'),
    Case('detect: folder of bad images', 'detect work/epoch_2.pth coco', 'coco', 'no images'),
    Case(
        'detect: exported file is text',
        'detect bad.onnx voc/JPEGImages',
        'bad.onnx',
        'no ONNX file',
        put('bad.onnx', 'text'),
    ),
    Case(
        'test: exported file is text',
        'test voc.py bad.onnx --work-dir out',
        'bad.onnx',
        'no ONNX file',
        put('bad.onnx', 'text'),
    ),
    checkpoint('export: checkpoint cut off', 'cannot be read', HALF, EXPORT),
    checkpoint('export: NaN in a weight', 'conv.weight holds NaN', NAN, EXPORT),
    Case(
        'export: checkpoint of another config',
        'export coco.py work/epoch_2.pth a.onnx --cfg-options model.backbone.depth=13',
        'epoch_2.pth',
        'does not belong',
    ),
    Case(
        'experiments: damaged result',
        'experiments probe --report --out out',
        'relu_seed0/result.json',
        'cannot be read',
        lambda f: (
            (f / 'out/relu_seed0').mkdir(parents=True),
            put('out/relu_seed0/result.json', '{')(f),
        ),
    ),
    checkpoint('convert: file cut off', 'cannot be read', HALF, CONVERT),
    Case(
        'convert: weights without counterpart',
        'convert to-authors work/epoch_2.pth out.pth',
        'epoch_2.pth',
        'no counterpart',
    ),
]
FULL = dict(largest_file=60_000)
WORKER = """
__import__('sys').path.insert(0, '.')
custom_imports = dict(imports=['hoyer_det', 'dying'], allow_failed_imports=False)
pipeline = [*_base_.train_dataloader.dataset.pipeline, dict(type='Dying')]
train_dataloader = dict(dataset=dict(pipeline=pipeline), num_workers=1,"""
DYING = """
import os, signal
from mmdet.registry import TRANSFORMS

@TRANSFORMS.register_module()
class Dying:
    def __call__(self, results):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def dying_worker(folder: Path) -> None:
    """Let a worker of the data loader die at its first image, as for want of memory."""
    (folder / 'dying.py').write_text(DYING)
    text = (folder / 'voc.py').read_text().replace('num_workers=0, ', '', 1)
    (folder / 'own.py').write_text(text.replace('\ntrain_dataloader = dict(', WORKER, 1))


MACHINE = [
    Case(
        'full disk: checkpoint',
        TRAIN.format('voc'),
        'out/epoch_1.pth',
        'File too large',
        starts=True,
        job=FULL,
    ),
    Case(
        'full disk: converted file',
        'convert to-authors ssd_shapes deep/out.pth --leave *',
        'deep/out.pth',
        'File too large',
        job=dict(largest_file=20_000),
    ),
    Case(
        'full disk: exported file',
        'export voc.py work/epoch_2.pth a.onnx',
        '.onnx',
        'File too large',
        slow=True,
        job=dict(largest_file=20_000),
    ),
    Case(
        'full disk: detections',
        'detect work/epoch_2.pth voc/JPEGImages/image0.jpg --out-dir out',
        'out/image0.jpg',
        'File too large',
        job=dict(largest_file=4000),
    ),
    Case(
        'full disk: report of check-data',
        'check-data voc.py --json a.json',
        'a.json',
        'File too large',
        put(LIST, ''.join(f'lost{i}\n' for i in range(200))),
        job=dict(largest_file=4000),
    ),
    Case(
        'full disk: report of analyze',
        'analyze voc.py work/epoch_2.pth --out out --runs 0 --maps stages.0 --map-images 1',
        'out',
        'File too large',
        job=dict(largest_file=40_000),
    ),
    Case(
        'killed worker',
        'train own.py --work-dir out',
        'train_dataloader',
        'exited unexpectedly',
        dying_worker,
        starts=True,
    ),
]
FILES = [*VOC, *COCO, *CHECKPOINTS, *MACHINE]

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
Spoil = Callable[[Path], object]


def voc(name: str, where: str, what: str, spoil: Spoil, **more: bool) -> Case:
    """A folder in Pascal VOC layout that is trained on."""
    return Case(f'voc: {name}', TRAIN.format('voc'), where, what, spoil, **more)


def coco(name: str, where: str, what: str, edit: Callable[[dict], object], **more: bool) -> Case:
    """An annotation file in COCO format that is trained on."""
    file = 'coco/annotations/instances_train2017.json'
    return Case(
        f'coco: {name}', TRAIN.format('coco'), where, what, lambda f: change(f / file, edit), **more
    )


def coco_file(name: str, where: str, what: str, content: bytes) -> Case:
    """The whole annotation file in COCO format."""
    file = 'coco/annotations/instances_train2017.json'
    spoil = lambda folder: (folder / file).write_bytes(content)  # noqa: E731
    return Case(f'coco: {name}', TRAIN.format('coco'), where, what, spoil)


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


def weights(edit: Callable[[dict[str, Any]], object], source: str = 'epoch_2.pth') -> Spoil:
    """Write ``bad.pth``: a checkpoint that was edited."""

    def spoil(folder: Path) -> None:
        content = torch.load(folder / 'work' / source, weights_only=True)
        edit(content)
        torch.save(content, folder / 'bad.pth')

    return spoil


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
    image = folder / 'voc' / 'JPEGImages' / 'image0.jpg'
    write_voc_image(folder / 'voc', 'image0', [voc_object('cell')], size=(80, 96))
    assert image.is_file()


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
FILE = 'instances_train2017.json'
COCO = [
    coco_file('no json', FILE, 'not a valid JSON', b'images'),
    coco_file('cut off', FILE, 'not a valid JSON', b'{"images": ['),
    coco_file('empty', FILE, 'not a valid JSON', b''),
    coco_file('not UTF-8', FILE, 'not a valid JSON', b'\xff\xfe{}'),
    coco_file('nested without end', FILE, 'not a valid JSON', b'[' * 100_000),
    coco_file('a list', FILE, "'images'", b'[1, 2]'),
    coco_file(
        'without images', FILE, "'images'", b'{"images": [], "annotations": [], "categories": []}'
    ),
    coco('no categories', FILE, "'categories'", lambda c: c.pop('categories')),
    coco(
        'annotation without box',
        FILE,
        "annotations[0] lacks 'bbox'",
        lambda c: c['annotations'][0].pop('bbox'),
    ),
    coco(
        'box of three numbers',
        FILE,
        'annotations[0] has bbox',
        lambda c: c['annotations'][0].update(bbox=[1, 2, 3]),
    ),
    coco(
        'box of words',
        FILE,
        'annotations[0] has bbox',
        lambda c: c['annotations'][0].update(bbox=list('abcd')),
    ),
    coco(
        'area in words',
        FILE,
        'annotations[0] has area',
        lambda c: c['annotations'][0].update(area='big'),
    ),
    coco('crowd in words', FILE, 'iscrowd', lambda c: c['annotations'][0].update(iscrowd='maybe')),
    coco(
        'unknown category',
        FILE,
        'category_id 99',
        lambda c: c['annotations'][0].update(category_id=99),
    ),
    coco('unknown image', FILE, 'image_id 99', lambda c: c['annotations'][0].update(image_id=99)),
    coco('two images of one id', FILE, 'images have id 5', lambda c: c['images'][1].update(id=5)),
    coco(
        'two categories of one name',
        FILE,
        "name 'ring'",
        lambda c: c['categories'][1].update(name='ring'),
    ),
    coco('name is a number', FILE, 'category 7', lambda c: c['categories'][0].update(name=4)),
    coco(
        'name of megabytes',
        FILE,
        '3000000 characters',
        lambda c: c['categories'][0].update(name='x' * 3_000_000),
    ),
    coco('width of zero', FILE, 'images[0] has width 0', lambda c: c['images'][0].update(width=0)),
    coco(
        'negative height',
        FILE,
        'images[0] has height -80',
        lambda c: c['images'][0].update(height=-80),
    ),
    coco(
        'width in words', FILE, 'images[0] has width', lambda c: c['images'][0].update(width='wide')
    ),
    coco(
        'image without a file',
        FILE,
        "images[0] lacks 'file_name'",
        lambda c: c['images'][0].pop('file_name'),
    ),
    coco(
        'image that is not there',
        'lost.jpg',
        'no such image',
        lambda c: c['images'][0].update(file_name='lost.jpg'),
    ),
    coco(
        'crowds alone',
        FILE,
        'no image left',
        lambda c: [a.update(iscrowd=1) for a in c['annotations']],
    ),
    coco(
        'other categories than in the tests',
        'instances_val2017.json',
        'classes are not those',
        lambda c: c['categories'][0].update(name='other'),
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
        'train_ann',
        'path',
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
    Case('test: no such checkpoint', TEST, 'bad.pth', 'no such checkpoint'),
    Case('test: checkpoint is a folder', 'test voc.py work --work-dir out', 'work', 'checkpoint'),
    Case('test: checkpoint is text', TEST, 'bad.pth', 'cannot be read', put('bad.pth', 'text')),
    Case('test: checkpoint is empty', TEST, 'bad.pth', 'cannot be read', put('bad.pth', '')),
    Case(
        'test: checkpoint cut off',
        TEST,
        'bad.pth',
        'cannot be read',
        cut('work/epoch_2.pth', 'bad.pth', 9000),
    ),
    Case(
        'test: checkpoint is a list',
        TEST,
        'bad.pth',
        'list',
        lambda f: torch.save([1], f / 'bad.pth'),
    ),
    Case(
        'test: checkpoint without weights',
        TEST,
        'bad.pth',
        'no weights',
        lambda f: torch.save(dict(epoch=3), f / 'bad.pth'),
    ),
    Case(
        'test: checkpoint with code',
        TEST,
        'bad.pth',
        'cannot be read',
        lambda f: torch.save(dict(state_dict={}, meta=Thief()), f / 'bad.pth'),
    ),
    *(
        Case(
            f'{name}: checkpoint with code',
            command,
            'bad.pth',
            'cannot be read',
            weights(lambda c: c['meta'].update(more=Thief())),
        )
        for name, command in (
            ('train: start', TRAIN.format('voc') + ' --cfg-options load_from=bad.pth'),
            ('train: resume', TRAIN.format('voc') + ' --resume bad.pth'),
            ('analyze', 'analyze voc.py bad.pth --out out'),
            ('export', 'export voc.py bad.pth a.onnx'),
            ('convert', 'convert to-authors bad.pth out.pth'),
        )
    ),
    Case(
        'test: NaN in a weight',
        TEST,
        'bad.pth',
        'conv.weight holds NaN',
        weights(set_weight('conv.weight', float('nan'))),
    ),
    Case(
        'test: inf in an extremum',
        TEST,
        'bad.pth',
        'running_extremum holds NaN or inf',
        weights(set_weight('running_extremum', float('inf'))),
    ),
    Case(
        'test: a weight is missing',
        TEST,
        'bad.pth',
        '1 weights missing',
        weights(lambda c: c['state_dict'].pop('backbone.stages.0.0.conv.weight')),
    ),
    Case(
        'test: a weight too many',
        TEST,
        'bad.pth',
        '1 unexpected',
        weights(lambda c: c['state_dict'].update(more=torch.zeros(1))),
    ),
    Case(
        'test: checkpoint of other classes',
        TEST,
        'bad.pth',
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
    Case(
        'train: start cut off',
        TRAIN.format('voc') + ' --cfg-options load_from=bad.pth',
        'bad.pth',
        'cannot be read',
        cut('work/epoch_2.pth', 'bad.pth', 9000),
    ),
    Case(
        'train: start is missing',
        TRAIN.format('voc') + ' --cfg-options load_from=bad.pth',
        'bad.pth',
        'no such checkpoint',
    ),
    Case(
        'train: start is no path',
        TRAIN.format('voc') + ' --cfg-options load_from=3',
        'load_from',
        '3',
    ),
    Case(
        'train: start of an unknown network',
        TRAIN.format('voc') + ' --cfg-options load_from=bad.pth',
        'bad.pth',
        'no weights',
        lambda f: torch.save(dict(state_dict=dict(a=torch.zeros(1))), f / 'bad.pth'),
    ),
    Case(
        'train: start at an unknown address',
        TRAIN.format('voc') + ' --cfg-options load_from=torchvision://resnet9',
        'torchvision://resnet9',
        'no weights',
    ),
    Case(
        'train: resume from what is missing',
        TRAIN.format('voc') + ' --resume bad.pth',
        'bad.pth',
        'no such checkpoint',
    ),
    Case(
        'train: resume without an optimizer',
        TRAIN.format('voc') + ' --resume bad.pth',
        'bad.pth',
        'no state of a training',
        weights(lambda c: c.pop('optimizer')),
    ),
    Case(
        'train: resume with another rate',
        'train voc.py --work-dir work --resume --cfg-options optim_wrapper.optimizer.lr=0.5',
        'epoch_2.pth',
        'optim_wrapper.optimizer.lr=0.002',
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
    Case(
        'analyze: checkpoint cut off',
        'analyze voc.py bad.pth --out out',
        'bad.pth',
        'cannot be read',
        cut('work/epoch_2.pth', 'bad.pth', 9000),
    ),
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
    Case(
        'detect: checkpoint without config',
        'detect bad.pth voc/JPEGImages',
        'bad.pth',
        'no config',
        weights(lambda c: c['meta'].pop('cfg')),
    ),
    Case(
        'detect: config with code',
        'detect bad.pth voc/JPEGImages',
        'bad.pth',
        'plain data',
        weights(lambda c: c['meta'].update(cfg='model = open("stolen", "w")')),
    ),
    Case(
        'detect: config with an import',
        'detect bad.pth voc/JPEGImages',
        'bad.pth',
        'no assignment',
        weights(lambda c: c['meta'].update(cfg='import os\nos.mkdir("stolen")')),
    ),
    Case(
        'detect: config without data',
        'detect bad.pth voc/JPEGImages',
        'bad.pth',
        'no test_dataloader',
        weights(lambda c: c['meta'].update(cfg="model = dict(type='SingleStageDetector')")),
    ),
    Case(
        'detect: checkpoint with code',
        'detect bad.pth voc/JPEGImages',
        'bad.pth',
        'cannot be read',
        lambda f: torch.save(Thief(), f / 'bad.pth'),
    ),
    Case(
        'detect: image is text',
        'detect work/epoch_2.pth bad.jpg',
        'bad.jpg',
        'read',
        put('bad.jpg', 'text'),
    ),
    Case(
        'detect: image is empty',
        'detect work/epoch_2.pth bad.jpg',
        'bad.jpg',
        'read',
        put('bad.jpg', ''),
    ),
    Case(
        'detect: video is text',
        'detect work/epoch_2.pth bad.mp4',
        'bad.mp4',
        'no frame',
        put('bad.mp4', 'text'),
    ),
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
    Case(
        'export: checkpoint cut off',
        'export voc.py bad.pth a.onnx',
        'bad.pth',
        'cannot be read',
        cut('work/epoch_2.pth', 'bad.pth', 9000),
    ),
    Case(
        'export: NaN in a weight',
        'export voc.py bad.pth a.onnx',
        'bad.pth',
        'conv.weight holds NaN',
        weights(set_weight('conv.weight', float('nan'))),
    ),
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
    Case(
        'convert: file cut off',
        'convert to-authors bad.pth out.pth',
        'bad.pth',
        'cannot be read',
        cut('work/epoch_2.pth', 'bad.pth', 9000),
    ),
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
        'convert to-authors work/epoch_2.pth deep/out.pth --leave *',
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
        'analyze voc.py work/epoch_2.pth --out out --runs 0',
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

"""Wrong inputs: flags and arguments of each command."""

from wrong_inputs import Case


def flags(command: str, where: str, what: str) -> Case:
    """A command line that is wrong by itself."""
    return Case(command, command, where, what)


GOOD = 'voc.py work/epoch_2.pth'
WITHOUT_VALIDATION = '--cfg-options val_dataloader=None val_cfg=None val_evaluator=None'
COMMANDS = [
    flags('trian voc.py', 'trian', 'did you mean'),
    flags('paint voc.py', 'paint', 'no such command'),
    flags('train', 'config', 'required'),
    flags('train voc.py --fast', '--fast', 'unrecognized'),
    flags('train voc.py --twin tanh', '--twin', 'tanh'),
    flags('train voc.py --amp', '--amp', 'CPU'),
    flags('train voc.py --launcher rocket', '--launcher', 'rocket'),
    flags(
        'train voc.py --launcher pytorch', '--launcher pytorch', 'start the command with torchrun'
    ),
    flags('train voc.py --twin-share 0.5', '--twin-share', '--from-twin'),
    flags('train voc.py --no-teacher', '--no-teacher', '--from-twin'),
    flags('train voc.py --from-twin --twin relu', '--twin', '--from-twin'),
    flags('train voc.py --from-twin --twin-share 2', '--twin-share', '2'),
    flags('train voc.py --from-twin --twin-share half', '--twin-share', 'half'),
    flags('train voc.py --from-twin --resume work/epoch_1.pth', '--resume', '--from-twin'),
    flags('train voc.py --object-epochs 5', '--object-epochs', '--from-objects'),
    flags('train voc.py --from-objects --object-epochs 0', '--object-epochs', 'at least 1'),
    flags('train voc.py --from-objects --from-twin', '--from-twin', '--from-objects'),
    flags('train voc.py --from-objects --work-dir work', 'epoch_2.pth', 'without --from-objects'),
    flags(f'train voc.py --from-twin {WITHOUT_VALIDATION}', 'val_dataloader=None', '--from-twin'),
    flags(f'train voc.py --from-objects {WITHOUT_VALIDATION}', 'val_dataloader=None', 'each stage'),
    flags(
        'train voc.py --from-objects --cfg-options load_from=work/epoch_2.pth',
        "load_from='work/epoch_2.pth'",
        '--from-objects',
    ),
    flags(
        'train voc.py --from-objects --cfg-options train_dataloader.batch_size=4',
        'train_dataloader.batch_size=16',
        '8 objects',
    ),
    flags('train voc.py --work-dir voc.py', 'voc.py', 'is a file'),
    flags('train voc.py --work-dir voc.py/deep', 'voc.py', 'is a file'),
    flags('test voc.py', 'checkpoint', 'required'),
    flags(f'test {GOOD} --out result.json', '--out', '.pkl'),
    flags(f'test {GOOD} --engine onnxruntime', '--engine', 'exported'),
    flags(f'test {GOOD} --threads 2', '--threads', 'exported'),
    flags(f'test {GOOD} --wait-time long', '--wait-time', 'long'),
    flags(f'test {GOOD} --twin relu', 'epoch_2.pth', 'leave --twin out'),
    flags(f'test {GOOD} --work-dir voc.py', 'voc.py', 'is a file'),
]
ANALYZE = [
    flags(f'analyze {GOOD} --images 0', '--images', 'at least 1'),
    flags(f'analyze {GOOD} --images some', '--images', 'some'),
    flags(f'analyze {GOOD} --runs -1', '--runs', '0 or more'),
    flags(f'analyze {GOOD} --map-images 0', '--map-images', 'at least 1'),
    flags(f'analyze {GOOD} --noise -1', '--noise', '0 or more'),
    flags(f'analyze {GOOD} --noise nan', '--noise', '0 or more'),
    flags(f'analyze {GOOD} --energy 3nm', '3nm', '45nm'),
    flags(f'analyze {GOOD} --out voc.py', '--out', 'is a file'),
    flags(f'analyze {GOOD} --maps no_layer', 'no_layer', 'layer'),
    flags(f'analyze {GOOD} --names a b', '--names', '1'),
    flags(f'analyze {GOOD} --data train --evaluate', '--evaluate', 'val or test'),
    flags(f'analyze {GOOD} --compare voc.py lost.pth', 'lost.pth', 'no such checkpoint'),
    flags(f'analyze {GOOD} --compare {GOOD}', '--compare', '--names'),
    flags(f'analyze {GOOD} --compare-twin tanh work/epoch_2.pth', 'tanh', 'known are'),
    flags('analyze voc.py lost.pth', 'lost.pth', 'no such checkpoint'),
]
DETECT = [
    flags('detect work/epoch_2.pth', 'INPUT', 'required'),
    flags('detect work/epoch_2.pth lost.jpg', 'lost.jpg', 'no such image'),
    flags('detect work/epoch_2.pth "lost*.jpg"', 'lost*.jpg', 'no image'),
    flags('detect work/epoch_2.pth work', 'work', 'no images'),
    flags('detect lost.pth voc/JPEGImages', 'lost.pth', 'no such checkpoint'),
    flags('detect ssd_shape voc/JPEGImages', 'ssd_shape', 'ssd_shapes'),
    flags('detect work voc/JPEGImages', 'work', 'is a folder'),
    flags('detect voc.py voc/JPEGImages', 'voc.py', 'checkpoint'),
    flags('detect ssd_shapes voc/JPEGImages --score-thr 2', '--score-thr', 'from 0 to 1'),
    flags('detect ssd_shapes voc/JPEGImages --score-thr nan', '--score-thr', 'from 0 to 1'),
    flags('detect ssd_shapes voc/JPEGImages --out-dir voc.py', '--out-dir', 'is a file'),
    flags('detect ssd_shapes voc/JPEGImages --out-dir voc/JPEGImages', 'image0.jpg', '--out-dir'),
    flags('detect ssd_shapes voc/JPEGImages --device toaster', 'toaster', 'device'),
    flags('detect ssd_shapes voc/JPEGImages --engine onnxruntime', 'onnxruntime', 'exported'),
    flags('detect ssd_shapes voc/JPEGImages --engine coal', '--engine', 'coal'),
    flags('detect ssd_shapes 99', 'camera 99', 'no frame'),
    flags('detect lost.onnx voc/JPEGImages', 'lost.onnx', 'no such'),
]
OTHERS = [
    flags(f'export {GOOD} out.pth', 'out.pth', '.onnx'),
    flags(f'export {GOOD} out.onnx --weights 1', '--weights 1', 'from 2 to 8'),
    flags(f'export {GOOD} out.onnx --weights 9', '--weights 9', 'from 2 to 8'),
    flags(f'export {GOOD} out.onnx --engine coal', '--engine', 'coal'),
    flags(f'export {GOOD} out.onnx --float --weights 3', 'weights=3', 'no effect'),
    flags(f'export {GOOD} out.onnx --calibration-images 8', '--calibration-images', '--twin relu'),
    flags(f'export {GOOD} out.onnx --shape 0 0', '--shape 0 0', 'at least 1'),
    flags(f'export {GOOD} out.onnx --shape 160', '--shape', '2'),
    flags('export voc.py lost.pth out.onnx', 'lost.pth', 'no such checkpoint'),
    flags(f'export {GOOD} voc.py/out.onnx', 'voc.py', 'is a file'),
    flags('check-data lost.py', 'lost.py', 'no such config'),
    flags('check-data voc.py --workers 0', '--workers', 'at least 1'),
    flags('check-data voc.py --write-clean voc', '--write-clean', 'exists'),
    flags('check-data voc.py --json voc', 'voc', 'irectory'),
    flags('check-data voc.py --cfg-options data_root=lost', 'lost', 'no such folder'),
    flags('convert from-authors lost.pth out.pth', 'lost.pth', 'no such checkpoint'),
    flags('convert sideways a.pth b.pth', 'sideways', 'from-authors'),
    flags('convert from-authors voc.py out.pth', 'voc.py', 'cannot be read as a checkpoint'),
    flags('convert from-authors work/epoch_2.pth work/epoch_2.pth', 'epoch_2.pth', 'same file'),
    flags('convert from-authors work/epoch_2.pth out.pth', 'epoch_2.pth', 'no classifier'),
    flags('convert-labels pascal voc new', 'format', 'pascal'),
    flags('convert-labels yolo lost new', 'lost', 'no such folder'),
    flags('convert-labels yolo voc new', 'voc', 'has no data.yaml'),
    flags('convert-labels yolo voc coco', 'coco', 'exists already'),
    flags('zoo ssd_shapes', 'ssd_shapes', 'unrecognized'),
    flags('configs lost', 'lost', 'no such config'),
    flags('run lost_tool', 'lost_tool', 'neither a file nor a tool'),
    flags('run', 'tool', 'required'),
    flags('experiments lost', 'lost', 'voc_sample'),
    flags('experiments probe --seeds 0', '--seeds', 'at least 1'),
    flags('experiments probe --report --out lost', '--out lost', 'no training there has a result'),
    flags('experiments probe --report --out voc.py', 'voc.py', 'is a file'),
    flags('download-data mnist', 'mnist', 'choose from'),
    flags('download-data shapes --root voc.py', 'voc.py', 'File exists'),
    flags('download-data voc2007 --mirror file:///nowhere/', 'file:///nowhere/', 'cannot download'),
]
FLAGS = [*COMMANDS, *ANALYZE, *DETECT, *OTHERS]

"""Put a trained model into the package: ``python dev/publish_model.py CHECKPOINT NAME CONFIG ...``.

The weights are kept in fp16, large kernels with fewer significant bits where the file would be too large,
without the state of the training, and evaluated before and after by ``tools/test.py``. Written are
``NAME.pth`` and the model's row in ``projects/hoyer_det/weights/models``, and the table of docs/zoo.md.
``--page`` writes the table alone.
"""

import argparse
import dataclasses
import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import torch
from hoyer_det.commands.errors import one_line_errors
from hoyer_det.config import move_data
from hoyer_det.engine.checkpoint import build_trained, read_finite
from hoyer_det.engine.finite_hook import first_nonfinite
from hoyer_det.engine.neuron_settings import neuron_settings
from hoyer_det.files import write_json
from hoyer_det.weights.reading import Checkpoint, drop_starts
from hoyer_det.weights.stored_config import stored_config
from hoyer_det.weights.zoo import FOLDER, TABLE, ZooModel, zoo_models
from mmengine.config import Config
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / 'docs' / 'zoo.md'
LIMIT = 3_000_000  # bytes of a file
BITS = (11, 10, 9, 8)  # significant ones of a weight, as many as fit; fp16 has 11
SMALL = (
    2**17
)  # weights of a kernel that keeps 11: little of the file, and early layers, which all others read
_MARK = '<!-- models: python dev/publish_model.py --page -->\n'
# Of the training: the machine's folders, and what a run goes on from.
_DROPPED = ('work_dir', 'load_from', 'resume', 'launcher')


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', nargs='?', help='checkpoint of `hoyer-det train`')
    parser.add_argument('name', nargs='?', help='name in the zoo: letters, digits and _')
    parser.add_argument('config', nargs='?', help='its config, from the root of the repository')
    parser.add_argument('--description', help='what it detects, in one line')
    parser.add_argument('--data', help='what it was trained and evaluated on, in one line')
    parser.add_argument('--command', help='command of the training (hoyer-det train CONFIG)')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='of the evaluation, such as data_root=FOLDER'
    )
    parser.add_argument('--page', action='store_true', help='only write the table of docs/zoo.md')
    args = parser.parse_args()
    if not args.page:
        if not (args.config and args.description and args.data):
            parser.error('needs CHECKPOINT NAME CONFIG --description TEXT --data TEXT')
        if not re.fullmatch(r'[a-z0-9_]+', args.name):
            parser.error(f'NAME {args.name}: lower-case letters, digits and _ only')
    return args


def portable_config(cfg: Config, path: str) -> str:
    """Return the text of a config without paths of the machine that it was trained on.

    An absolute ``data_root`` becomes ``data/`` and its last folder, wherever it occurs.

    Raises:
        ValueError: If another absolute path is left.
    """
    for key in _DROPPED:
        cfg.pop(key, None)
    drop_starts(cfg.model)  # of which nothing is left in the weights
    root = cfg.get('data_root')
    if root and Path(root).is_absolute():
        move_data(cfg, f'data/{Path(root).name}/', path)
        cfg.data_root = f'data/{Path(root).name}/'
    text = cfg.pretty_text
    left = re.findall(r"""['"]((?:/|~|[A-Za-z]:[\\/])[^'"]*)['"]""", text)
    if left:
        raise ValueError(f'{path}: its config names the absolute path {left[0]}')
    return text


def to_half(weights: dict[str, Tensor], bits: int = 11) -> dict[str, Tensor]:
    """Return weights with kernels and matrices in fp16.

    What has one dimension stays: norms and firing levels decide where a neuron fires, and are small.

    Args:
        weights: Tensors by name.
        bits: Significant bits to round kernels of more than ``SMALL`` weights to; fp16 has 11.
    """

    def half(tensor: Tensor) -> Tensor:
        if tensor.numel() <= SMALL:
            return tensor.half()
        mantissa, exponent = torch.frexp(tensor.float())
        return torch.ldexp(torch.round(mantissa * 2**bits) / 2**bits, exponent).half()

    return {
        name: half(tensor) if tensor.is_floating_point() and tensor.ndim > 1 else tensor.clone()
        for name, tensor in weights.items()
    }


def packed(content: dict[str, Any]) -> bytes:
    """Return what ``torch.save`` would write, deflated; ``torch.load`` reads it like any other."""
    plain, small = io.BytesIO(), io.BytesIO()  # a file would keep its name within
    torch.save(content, plain)
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(small, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as target,
    ):
        for name in source.namelist():
            target.writestr(zipfile.ZipInfo(name), source.read(name), zipfile.ZIP_DEFLATED)
    return small.getvalue()


def published(checkpoint: Checkpoint, path: str) -> tuple[bytes, int, int]:
    """Return the file to publish, its number of trained weights, and their significant bits.

    Raises:
        ValueError: If a weight is too large for fp16, the file is too large, or see
            :func:`portable_config`.
    """
    cfg = stored_config(checkpoint.meta, path)
    model = build_trained(cfg, checkpoint)
    meta = dict(
        cfg=portable_config(cfg, path),
        dataset_meta=checkpoint.meta['dataset_meta'],
        neurons=checkpoint.meta.get('neurons') or neuron_settings(model),
        epoch=checkpoint.meta.get('epoch'),
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    for bits in BITS:
        weights = to_half(checkpoint.weights, bits)
        wrong = first_nonfinite(weights)
        if wrong:
            raise ValueError(f'{path}: {wrong} is too large for fp16')
        content = packed(dict(state_dict=weights, meta=meta))
        if len(content) <= LIMIT:
            return content, parameters, bits
    raise ValueError(f'{path}: {len(content)} bytes with {bits} bits, {LIMIT} are allowed')


def evaluate(config: str, checkpoint: str, options: list[str]) -> tuple[float, float]:
    """Return AP at 0.5 and at 0.5 to 0.95 in per cent, as ``tools/test.py`` measures them."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(REPOSITORY / 'tools/test.py'), config, checkpoint]
        command += ['--work-dir', folder]
        command += ['--cfg-options', *options] if options else []
        subprocess.run(command, check=True, cwd=REPOSITORY)
        (file,) = Path(folder).glob('*/*.json')
        metrics = json.loads(file.read_text())
    ap50 = metrics.get('pascal_voc/AP50', metrics.get('coco/bbox_mAP_50'))
    return round(100 * ap50, 1), round(100 * metrics['coco/bbox_mAP'], 1)


def publish(args: argparse.Namespace) -> None:
    """Write the file and its row."""
    checkpoint = read_finite(args.checkpoint)
    content, parameters, bits = published(checkpoint, args.checkpoint)
    ap50_trained, ap_trained = evaluate(args.config, args.checkpoint, args.cfg_options)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f'{args.name}.pth')
        file.write_bytes(content)
        ap50, ap = evaluate(args.config, str(file), args.cfg_options)
    row = ZooModel(
        name=args.name,
        description=args.description,
        config=args.config,
        data=args.data,
        command=args.command or f'hoyer-det train {args.config}',
        classes=list(checkpoint.meta['dataset_meta']['classes']),
        parameters=parameters,
        significant_bits=bits,
        ap50=ap50,
        ap=ap,
        ap50_trained=ap50_trained,
        ap_trained=ap_trained,
        date=date.today().isoformat(),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    (FOLDER / f'{args.name}.pth').write_bytes(content)
    rows: list[dict[str, Any]] = [
        dataclasses.asdict(model) for model in ({**zoo_models(), args.name: row}).values()
    ]
    write_json(TABLE, rows)
    print(
        f'{args.name}: {len(content)} bytes, AP@0.5 {ap50_trained} -> {ap50}, AP {ap_trained} -> {ap}'
    )


def page_rows() -> str:
    """Return the table of docs/zoo.md."""
    lines = [
        '| name | detects | data | AP@0.5 | AP@0.5:0.95 | weights | file | config |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for model in zoo_models().values():
        lines.append(
            f'| `{model.name}` | {model.description}: {", ".join(model.classes)} | {model.data} '
            f'| {model.ap50:.1f} ({model.ap50_trained:.1f}) | {model.ap:.1f} ({model.ap_trained:.1f}) '
            f'| {model.parameters / 1e6:.2f} M, {model.significant_bits} bits | {model.bytes / 1e6:.2f} MB '
            f'| `{model.config}`, {model.date} |'
        )
    lines += ['', 'Trained by:', '', '```bash']
    lines += [f'{model.command}  # {model.name}' for model in zoo_models().values()]
    return '\n'.join([*lines, '```', ''])


def write_page() -> None:
    """Write the table into docs/zoo.md, between its two marks."""
    before, _, after = PAGE.read_text(encoding='utf-8').split(_MARK)
    PAGE.write_text(f'{before}{_MARK}{page_rows()}{_MARK}{after}', encoding='utf-8')


def main() -> None:
    """Publish."""
    args = parse_args()
    with one_line_errors():
        if not args.page:
            publish(args)
        write_page()


if __name__ == '__main__':
    main()

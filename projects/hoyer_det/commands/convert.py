"""``hoyer-det convert from-authors IN OUT``: convert checkpoints of the authors' classifiers."""

import argparse
import io
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from ..files import replacing
from ..weights import from_authors, read_checkpoint, to_authors
from ..weights.reading import Checkpoint
from ..weights.stored_config import stored_config
from ..weights.zoo import checkpoint_file
from .errors import one_line_errors


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description="Convert checkpoints of the authors' classifiers.")
    parser.add_argument(
        'direction',
        choices=['from-authors', 'to-authors'],
        help='from their layout to a SpikingClassifier of configs/pretrain, or back',
    )
    parser.add_argument('source', help='checkpoint file, or a model of the zoo')
    parser.add_argument('target', help='file to write')
    parser.add_argument(
        '--leave',
        nargs='+',
        default=[],
        metavar='PATTERN',
        help="weights without counterpart that may be left out, such as 'neck.*'",
    )
    parser.add_argument(
        '--no-final-pool',
        action='store_true',
        help='to-authors: number the layers as in the CIFAR VGG, which ends without a pooling',
    )
    return parser.parse_args()


def convert(args: argparse.Namespace) -> None:
    """Convert the file, and say what was left out.

    Raises:
        ValueError: If weights without a counterpart are not named by ``--leave``, or a pattern of it fits
            none of them; if a network has shortcuts, which the authors' have not; or if the target is the
            source, which has more in it.
    """
    source = checkpoint_file(args.source)
    if Path(args.target).exists() and '://' not in source and Path(args.target).samefile(source):
        raise ValueError(f'{args.target}: source and target are the same file; name another target')
    checkpoint = read_checkpoint(source)
    if args.direction == 'to-authors':
        _check_network(checkpoint, source)
    meta = {}
    try:
        if args.direction == 'from-authors':
            converted = from_authors(checkpoint.weights)
            # Where dropout counts among their layers the numbers differ: keep them for the way back.
            meta = dict(
                backbone=converted.backbone,
                authors_names=converted.names,
                neurons=converted.neurons,
            )
        else:
            converted = to_authors(
                checkpoint.weights,
                checkpoint.meta.get('authors_names'),
                not args.no_final_pool,
                checkpoint.meta.get('neurons'),
            )
    except ValueError as error:
        raise ValueError(f'{args.source}: {error}') from error
    for name in converted.left:
        print(f'no counterpart: {name} {tuple(checkpoint.weights[name].shape)}')
    for name in checkpoint.others:
        if name != 'meta':
            print(f'left out: entry {name!r} of the file')
    for pattern in args.leave:
        if not any(fnmatchcase(name, pattern) for name in converted.left):
            raise ValueError(
                f'--leave {pattern}: fits none of the {len(converted.left)} weights without counterpart; '
                'nothing was written'
            )
    unnamed = [name for name in converted.left if not any(fnmatchcase(name, p) for p in args.leave)]
    if unnamed:
        raise ValueError(
            f'{args.source}: {len(unnamed)} weights have no counterpart (first: {unnamed[0]}); nothing '
            'was written. To leave them out, name them: --leave PATTERN'
        )
    content = io.BytesIO()  # as PyTorch does not say that a disk is full
    torch.save(dict(state_dict=converted.weights, **({'meta': meta} if meta else {})), content)
    with replacing(args.target) as part:
        part.write_bytes(content.getvalue())
    print(f'{args.target}: {len(converted.weights)} tensors')
    if converted.backbone:
        settings = ', '.join(f'{key}={value!r}' for key, value in converted.backbone.items())
        print(f'backbone=dict({settings})')


def _check_network(checkpoint: Checkpoint, source: str) -> None:
    """Make sure by its config that the authors' networks can stand for a network; weights do not tell.

    Raises:
        ValueError: If it has shortcuts, or neurons of an ``extremum_scale`` that the file does not name.
    """
    if 'cfg' in checkpoint.meta:
        model = stored_config(checkpoint.meta, source).get('model') or {}
        if (model.get('backbone') or {}).get('shortcut'):
            raise ValueError(
                f"{source}: model.backbone.shortcut=True has no counterpart in the authors' networks"
            )
        if 'neurons' not in checkpoint.meta and 'extremum_scale' in str(model):
            raise ValueError(
                f'{source}: has an extremum_scale in its config, but no meta.neurons that says which neurons '
                'have it; train on with NeuronSettingsHook, which writes it'
            )
    elif 'backbone' not in checkpoint.meta:  # which from-authors writes
        print(
            f'{source}: holds no config; converted as a network without shortcuts, extremum_scale=1 unless '
            'meta.neurons says otherwise'
        )


def main() -> None:
    """Convert."""
    args = parse_args()
    with one_line_errors():
        convert(args)

"""Count operations and estimate energy: ``python tools/analyze.py CONFIG CHECKPOINT --images 32``."""

import argparse
import itertools

import hoyer_det  # noqa: F401  registers the modules, mends the pinned packages
from hoyer_det.analysis import ENERGY_45NM, count_operations, energy
from hoyer_det.cli import add_config_options, one_line_errors
from hoyer_det.config import check_data, load_config
from hoyer_det.engine.checkpoint import check_checkpoint
from mmdet.apis import init_detector
from mmengine.runner import Runner


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--images', type=int, default=32, help='number of test images (32)')
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    """Print a line a layer and the totals."""
    args = parse_args()
    with one_line_errors():
        if args.images < 1:
            raise ValueError(f'--images {args.images}: must be at least 1')
        cfg = load_config(args.config, args.cfg_options)
        check_data(cfg, ('test_dataloader',))
        check_checkpoint(cfg, args.checkpoint)
        model = init_detector(cfg, args.checkpoint, palette='random', device='cpu')
        cfg.test_dataloader.update(batch_size=1, num_workers=0, persistent_workers=False)
        loader = Runner.build_dataloader(cfg.test_dataloader)
        batches = itertools.islice(loader, args.images)
        images = (model.data_preprocessor(batch)['inputs'] for batch in batches)
        layers = count_operations(model, lambda x: model(x, mode='tensor'), images)

    width = max(len(layer.name) for layer in layers)
    print(f'{"layer":<{width}}  {"dense MMAC":>10}  {"active":>7}  input')
    for layer in layers:
        print(
            f'{layer.name:<{width}}  {layer.dense / layer.images / 1e6:>10.2f}  '
            f'{layer.effective / layer.dense:>7.1%}  {"0/1" if layer.binary else "real"}'
        )
    dense = sum(layer.dense for layer in layers)
    binary = sum(layer.dense for layer in layers if layer.binary)
    print(
        f'{layers[0].images} images: {dense / layers[0].images / 1e6:.1f} dense MMAC an image, '
        f'{binary / dense:.1%} of them on inputs that are exactly 0 or 1; '
        f'{energy(layers):.1f} microjoules an image, computation alone ({ENERGY_45NM.source})'
    )


if __name__ == '__main__':
    main()

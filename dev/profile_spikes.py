"""Says where the spike engine spends its time, layer by layer.

    python dev/profile_spikes.py ssd.onnx --rounds 20

Of each layer: the median of its milliseconds, the share of its inputs that are active, the
multiply-accumulates of the dense layer, and how many of those a second that makes. One image of noise,
without reading it and NMS.
"""

import argparse
import statistics
from collections import defaultdict
from datetime import date

import numpy as np
from hoyer_det.analysis.timing import describe_processor
from hoyer_det.commands.errors import one_line_errors
from hoyer_det_runtime.description import read_description
from hoyer_det_runtime.spikes.engine import SpikeEngine
from hoyer_det_runtime.spikes.layers import RealConv, RealStem, SpikingConv, StemConv
from hoyer_det_runtime.spikes.native import INSTRUCTIONS
from hoyer_det_runtime.spikes.weights import choose_kind

_KINDS = ('float32', 'int16', '6 bits', '5 bits')


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', metavar='FILE.onnx')
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--instructions', choices=INSTRUCTIONS, default='native')
    args = parser.parse_args()
    with one_line_errors():
        size = read_description(args.model)['input']['size']
        engine = SpikeEngine(args.model, args.threads, instructions=args.instructions)
        keeping = SpikeEngine(args.model, args.threads, True, args.instructions)
    image = np.random.default_rng(0).integers(0, 256, (1, 3, *size), np.uint8)
    times: dict[str, list[float]] = defaultdict(list)
    for number in range(args.rounds + 1):
        in_strips: dict[str, float] = defaultdict(float)
        for name, seconds in engine.timed(image):
            in_strips[name] += 1e3 * seconds  # a call for each
        for name, milliseconds in in_strips.items():
            if number:
                times[name].append(milliseconds)
    keeping(image)
    rates = keeping.rates(1)
    layers = {layer.output: layer for layer in engine.layers}
    whole = sum(map(statistics.median, times.values()))
    print(f'{describe_processor()}, {args.instructions}, {args.threads} threads, {date.today()}')
    print(
        '| layer | made of | ms | share | active inputs | MMAC | GMAC/s |\n|---|---|---|---|---|---|---|'
    )
    for name, found in times.items():
        ms, layer = statistics.median(found), layers.get(name)
        row = [
            name,
            type(layer).__name__ if layer else 'ONNX Runtime',
            f'{ms:.2f}',
            f'{ms / whole:.1%}',
        ]
        row += [f'{rates[layer.inputs[0]]:.1%}' if layer and layer.inputs[0] in rates else '']
        if isinstance(layer, SpikingConv | RealConv | StemConv | RealStem):
            if isinstance(layer, SpikingConv | RealConv):
                row[1] += f', {_KINDS[choose_kind(layer.weight)]}'
            places = np.prod(engine.shape(name)[2:])
            macs = layer.weight.size * places / 1e6
            row += [f'{macs:.0f}', f'{macs / ms:.0f}']
        else:
            row += ['', '']
        print('| ' + ' | '.join(row) + ' |')
    print(f'{whole:.1f} ms in all')


if __name__ == '__main__':
    main()

"""Measure speed and memory of spiking networks against their ReLU twins.

Every figure is a ratio of two things measured in turn in the same run. See docs/benchmarks.md. On
CUDA the experimental kernels run; ``--kernels plain`` measures PyTorch's operations instead.
"""

import argparse
import importlib
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from exported_detectors import exported_detectors
from hoyer_det.backbones import HoyerVGG
from hoyer_det.config import load_config
from hoyer_det.files import write_json
from hoyer_det.kernels import LEVELS, FastHoyerSpike, norm_spike, set_kernels
from hoyer_det.spiking import record_hoyer_squares
from hoyer_det.training.memory import keep_freed_memory
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn
from turns import add, alternate, load, machine, table

ROOT = Path(__file__).resolve().parents[1]
# Spiking config, image side.
NETWORKS = {
    'HoyerVGG16-SSD300': ('hoyer_ssd_voc', 300),
    'HoyerResNet18-RetinaNet': ('hoyer_retinanet_r18_voc', 320),
    'HoyerYOLOv3': ('hoyer_yolov3_voc', 320),
}
SECTIONS = ('neuron', 'detectors', 'memory', 'scaling', 'lif', 'inference')
# What a section imports, and how to install it.
NEEDS = {
    'lif': ('spikingjelly.activation_based.neuron', 'spikingjelly'),
    'inference': ('onnxruntime.quantization', "-e '.[deploy]'"),
}
LIF_STEPS = 4
HOYER_WEIGHT = 1e-8
KERNELS = os.environ.get('BENCHMARK_KERNELS', 'experimental')


class Lif(nn.Module):
    """SpikingJelly's LIF neuron in its multi-step mode, time steps in front within the batch."""

    def __init__(self) -> None:
        super().__init__()
        from spikingjelly.activation_based import neuron, surrogate

        self.node = neuron.LIFNode(
            surrogate_function=surrogate.ATan(), detach_reset=True, step_mode='m'
        )

    def forward(self, x: Tensor) -> Tensor:
        """Turn potentials (T * N, ...) into spikes."""
        self.node.reset()
        return self.node(x.unflatten(0, (LIF_STEPS, -1))).flatten(0, 1)


def main() -> None:
    """Run everything and write table, JSON and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--quick', action='store_true', help='small sizes, two rounds')
    parser.add_argument('--rounds', type=int, help='repetitions of every step')
    parser.add_argument('--batch', type=int, help='images in a batch of the detectors')
    parser.add_argument('--only', nargs='+', choices=SECTIONS, default=SECTIONS)
    parser.add_argument('--kernels', choices=LEVELS, default='experimental')
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs' / 'benchmarks')
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: PyTorch sees no CUDA device; use --device cpu')
    for section, (module, package) in NEEDS.items():
        if section in args.only:
            try:
                importlib.import_module(module)
            except ImportError as error:
                rest = ' '.join(name for name in args.only if name != section) or 'neuron'
                parser.error(
                    f'section {section}: {error}; `pip install {package}`, or `--only {rest}`'
                )
    global KERNELS
    KERNELS = os.environ['BENCHMARK_KERNELS'] = args.kernels  # for the processes it starts, too
    device = torch.device(args.device)
    on_gpu = args.device == 'cuda'
    rounds = args.rounds or (2 if args.quick else 20 if on_gpu else 5)
    batch = args.batch or (16 if on_gpu else 2)
    torch.manual_seed(0)
    init_default_scope('mmdet')
    keep_freed_memory()  # as tools/train.py
    report = {'date': time.strftime('%Y-%m-%d %H:%M %Z'), 'machine': machine(device)}

    rows: list[dict] = []
    if 'neuron' in args.only:
        neuron(rows, device, args.quick, 3 if args.quick else 30)
    if 'detectors' in args.only:
        for name, (config, size) in NETWORKS.items():
            # SSD's extra levels need their 300 px.
            side = 128 if args.quick and size != 300 else size
            detector(rows, name, config, side, batch, rounds, device)
    if 'memory' in args.only:
        memory(rows, 'HoyerVGG16-SSD300', 300, args.batch or (2 if args.quick else 8), device)
    if 'scaling' in args.only:
        scaling(rows, device, args.quick, rounds)
    if 'lif' in args.only:
        lif(rows, device, args.quick, rounds)
    if 'inference' in args.only and not on_gpu:
        exported_detectors(rows, args.quick, rounds)

    report |= {'load_at_end': load(), 'rows': rows}
    write_json(args.out / f'{args.device}.json', report)
    title = f'{report["date"]}, {report["machine"]}, {report["load_at_end"]:.1f} at the end'
    plot(rows, args.out / f'{args.device}.png', title)
    print(f'\n{title}\n')
    print(table(rows))


def neuron(rows: list[dict], device: torch.device, quick: bool, rounds: int) -> None:
    """Measure the neuron alone, forward and backward, with and without batch norm before it."""
    for shape in ((2, 16, 75, 75),) if quick else ((2, 64, 150, 150), (8, 64, 150, 150)):
        neuron_at(rows, shape, device, rounds)


def neuron_at(rows: list[dict], shape: tuple[int, ...], device: torch.device, rounds: int) -> None:
    """Measure the neuron alone for a potential of one shape."""
    u = torch.randn(shape, device=device).mul_(2).requires_grad_()
    grad, target = torch.randn_like(u), torch.empty_like(u)
    spike, relu = FastHoyerSpike(kernels=KERNELS).to(device), nn.ReLU()
    plain = FastHoyerSpike(kernels='plain').to(device)
    norm = nn.BatchNorm2d(shape[1]).to(device)

    def both(forward: Callable[[], Tensor], neuron: nn.Module = spike) -> Callable[[], None]:
        def run() -> None:
            u.grad = None
            with record_hoyer_squares(neuron) as squares:
                out = forward()
            torch.autograd.backward(
                [out, *squares], [grad] + [torch.full_like(s, HOYER_WEIGHT) for s in squares]
            )

        return run

    def copy() -> None:
        with torch.no_grad():
            target.copy_(u)

    cases = {
        'neuron': both(lambda: spike(u)),
        'plain': both(lambda: plain(u), plain),
        'relu': both(lambda: relu(u)),
        'copy': copy,
        'norm+neuron': both(lambda: norm_spike(norm, spike, u)),
        'norm+neuron, plain': both(lambda: plain(norm(u)), plain),
        'norm+relu': both(lambda: relu(norm(u))),
    }
    times = alternate(cases, rounds, device)
    size = 'x'.join(map(str, shape))
    # Forward: u read, spikes written. Backward: u and a gradient read, a gradient written.
    limit = 2.5
    section = f'forward+backward at {size}'
    add(rows, section, 'neuron / copies of its 20 bytes an entry', times, 'neuron', 'copy', limit)
    add(rows, section, 'ReLU / copies of its 20 bytes an entry', times, 'relu', 'copy', limit)
    add(rows, section, "neuron / PyTorch's operations", times, 'neuron', 'plain')
    add(rows, section, 'neuron / ReLU', times, 'neuron', 'relu')
    add(rows, section, 'norm+neuron / norm+ReLU', times, 'norm+neuron', 'norm+relu')
    add(
        rows,
        section,
        "norm+neuron / PyTorch's operations",
        times,
        'norm+neuron',
        'norm+neuron, plain',
    )


def build(config: str, device: torch.device, twin: str | None = None) -> nn.Module:
    """Build the detector of a config, or a twin of it."""
    cfg = load_config(config, twin=twin, complete=False)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    set_kernels(model, KERNELS)
    return model.to(device).train()


def batch_of(size: int, count: int, device: torch.device) -> tuple[Tensor, list[DetDataSample]]:
    """Return noise and a few boxes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, size, size, generator=generator).to(device)
    samples = []
    for _ in range(count):
        corner = torch.rand(6, 2, generator=generator) * 0.5
        boxes = torch.cat([corner, corner + 0.1 + 0.4 * torch.rand(6, 2, generator=generator)], 1)
        shape = (size, size)
        sample = DetDataSample(
            metainfo=dict(
                img_shape=shape,
                pad_shape=shape,
                ori_shape=shape,
                batch_input_shape=shape,
                scale_factor=(1.0, 1.0),
            )
        )
        labels = torch.randint(0, 20, (6,), generator=generator)
        sample.gt_instances = InstanceData(
            bboxes=(boxes * size).to(device), labels=labels.to(device)
        )
        samples.append(sample)
    return images, samples


def trainer(model: nn.Module, images: Tensor, samples: list[DetDataSample]) -> Callable[[], None]:
    """Return a function that runs a training step, with the Hoyer term where there are neurons."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with record_hoyer_squares(model) as squares:
            losses = model(images, samples, mode='loss')
        loss, _ = model.parse_losses(losses)
        if squares:
            loss = loss + HOYER_WEIGHT * torch.stack(squares).sum()
        loss.backward()
        optimizer.step()

    return run


def detector(
    rows: list[dict],
    name: str,
    config: str,
    size: int,
    count: int,
    rounds: int,
    device: torch.device,
) -> None:
    """Measure training and inference of a detector against its twin."""
    models = {'spiking': build(config, device), 'relu': build(config, device, 'relu')}
    images, samples = batch_of(size, count, device)
    steps = {key: trainer(model, images, samples) for key, model in models.items()}
    times = alternate(steps, rounds, device)
    add(rows, 'training step', f'{name}, {count}x{size} px', times, 'spiking', 'relu')

    def infer(model: nn.Module) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                model(images, samples, mode='tensor')

        return run

    for model in models.values():
        model.eval()
    times = alternate({key: infer(model) for key, model in models.items()}, rounds, device)
    add(rows, 'inference', f'{name}, {count}x{size} px', times, 'spiking', 'relu')
    rows[-1]['images_per_second'] = count / rows[-1]['value'] * 1e3


def memory(rows: list[dict], name: str, size: int, count: int, device: torch.device) -> None:
    """Measure the peak memory of training, each network in a process of its own."""
    config, _ = NETWORKS[name]
    # Large blocks go back to the system at once, so that the resident memory follows what is in use.
    os.environ['MALLOC_MMAP_THRESHOLD_'] = '65536'
    context = multiprocessing.get_context('spawn')

    def peak(twin: str | None, lean: bool) -> float:
        results = context.Queue()
        process = context.Process(
            target=_peak, args=(results, config, twin, size, count, device.type, lean)
        )
        process.start()
        value = results.get()
        process.join()
        return value

    ours = peak(None, False)
    for lean, pools in ((False, "PyTorch's"), (True, 'lean too')):
        base = peak('relu', lean)
        rows.append(
            dict(
                section='peak training memory',
                what=f"{name}, {count}x{size} px, twin's max pooling {pools}",
                value=ours,
                unit='MB',
                base=base,
                ratio=ours / base,
            )
        )
        print(table(rows[-1:]), flush=True)


def _peak(
    results: multiprocessing.Queue,
    config: str,
    twin: str | None,
    size: int,
    count: int,
    device: str,
    lean: bool,
) -> None:
    """Put the MB of two training steps, model included, into a queue."""
    torch.set_num_threads(1)
    init_default_scope('mmdet')
    if lean:
        from hoyer_det.backbones import vgg
        from hoyer_det.kernels import LeanMaxPool2d

        vgg.build_max_pool = lambda act_cfg, *args, **kwargs: LeanMaxPool2d(*args, **kwargs)
    before = _status('VmRSS')
    images, samples = batch_of(size, count, torch.device(device))
    step = trainer(build(config, torch.device(device), twin), images, samples)
    for _ in range(2):
        step()
    if device == 'cuda':
        results.put(torch.cuda.max_memory_allocated() / 2**20)
    else:
        results.put(_status('VmHWM') - before)


def _status(key: str) -> float:
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def backbone_step(net: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a function that runs a backbone forward and backward."""

    def run() -> None:
        net.zero_grad(set_to_none=True)
        sum(out.mean() for out in net(x)).backward()

    return run


def scaling(rows: list[dict], device: torch.device, quick: bool, rounds: int) -> None:
    """Measure how the cost depends on batch, image and depth, on a narrow VGG."""
    default = dict(batch=4, size=150, depth=16)
    changes = [dict(batch=1), dict(), dict(batch=8), dict(size=300), dict(depth=11)]
    for change in changes[:2] if quick else changes:
        point = default | change
        x = torch.randn(point['batch'], 3, point['size'], point['size'], device=device)
        cases = {}
        for act in ('HoyerSpike', 'ReLU'):
            net = HoyerVGG(point['depth'], 0.25, act_cfg=dict(type=act)).to(device).train()
            set_kernels(net, KERNELS)
            cases[act] = backbone_step(net, x)
        times = alternate(cases, rounds, device)
        what = 'depth {depth}, batch {batch}, {size} px'.format(**point)
        add(rows, 'VGG of width 0.25, training step', what, times, 'HoyerSpike', 'ReLU')


def lif(rows: list[dict], device: torch.device, quick: bool, rounds: int) -> None:
    """Measure against LIF neurons of several time steps in the same VGG."""
    section = f'LIF of {LIF_STEPS} time steps (SpikingJelly) / HoyerSpike'
    try:
        import spikingjelly  # noqa: F401
    except ImportError:
        print(f'{section}: skipped, SpikingJelly is not installed (pip install spikingjelly)')
        return
    size, width = (64, 0.125) if quick else (300, 0.25)
    x = torch.randn(2, 3, size, size, device=device)
    ours = HoyerVGG(16, width).to(device).train()
    set_kernels(ours, KERNELS)
    theirs = HoyerVGG(16, width, act_cfg=dict(type='ReLU'))
    for module in list(theirs.modules()):
        if isinstance(getattr(module, 'act', None), nn.ReLU):
            module.act = Lif()
    theirs = theirs.to(device).train()
    cases = {
        'ours': backbone_step(ours, x),
        'lif': backbone_step(theirs, x.repeat(LIF_STEPS, 1, 1, 1)),
    }
    times = alternate(cases, rounds, device)
    add(rows, section, f'VGG16 of width {width}, 2x{size} px, training step', times, 'lif', 'ours')


def plot(rows: list[dict], file: Path, title: str) -> None:
    """Draw all ratios as bars with their quartiles."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 0.3 * len(rows) + 1.2), layout='constrained')
    rows = rows[::-1]
    ratios = [row['ratio'] for row in rows]
    spreads = [[row['ratio'] - row.get('low', row['ratio']) for row in rows]]
    spreads += [[row.get('high', row['ratio']) - row['ratio'] for row in rows]]
    bars = axes.barh(
        [f'{row["section"]}: {row["what"]}' for row in rows],
        ratios,
        xerr=spreads,
        color='tab:blue',
        error_kw=dict(elinewidth=0.8, capsize=2),
    )
    axes.bar_label(bars, fmt='%.2f', padding=4, fontsize=7)
    axes.axvline(1, color='black', linewidth=0.8)
    axes.margins(x=0.08, y=0.01)
    axes.set_xlabel('ratio to the twin, or to what the label names behind "/"; lines: quartiles')
    figure.suptitle(title, fontsize=8)
    axes.tick_params(axis='y', labelsize=7)
    figure.savefig(file, dpi=110)
    plt.close(figure)


if __name__ == '__main__':
    main()

"""``hoyer-det analyze``: files agree with each other, the page needs nothing else, errors are one line."""

import csv
import hashlib
import json
import sys
import uuid
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, write_split
from hoyer_det.analysis import analyze, plots
from hoyer_det.commands.analyze import main
from hoyer_det.config import load_config
from hoyer_det.spiking import HoyerSpike
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

CONFIG = REPOSITORY / 'configs' / 'hoyer_ssd_vocformat.py'
NARROW = {
    # Without the additions of a stream, which only the observed network has.
    'model.backbone.shortcut': False,
    'model.backbone.out_stream': False,
    'model.neck.shortcut': False,
    'model.backbone.width': 1 / 16,
    'model.neck.in_channels': (32, 64),
    'model.neck.out_channels': (32, 64, 32, 16),
    'model.bbox_head.in_channels': (32, 64, 32, 16),
}
Tool = Callable[..., str]


def save(
    path: Path, root: Path, twin: str | None = None, seed: int = 0, fires: bool = True
) -> Path:
    """Save an untrained narrow network that fires as after training, if it is to."""
    cfg = load_config(CONFIG, {'data_root': str(root), **NARROW}, twin)
    init_default_scope('mmdet')
    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    for layer in model.modules():
        if fires and isinstance(layer, HoyerSpike):
            layer.running_weight.fill_(1.0)
            layer.running_extremum.fill_(0.8)
    path.parent.mkdir(exist_ok=True, parents=True)
    torch.save(dict(state_dict=model.state_dict(), meta=dict()), path)
    return path


def options(root: Path) -> list[str]:
    """Point the config to a folder and to a network that takes no time."""
    narrow = [f'{key}={value}' for key, value in NARROW.items()]
    loader = [f'val_dataloader.{key}' for key in ('num_workers=0', 'persistent_workers=False')]
    data = f'data_root={root}'
    return [
        '--cfg-options',
        data,
        f'experiment_name={uuid.uuid4().hex}',
        *(item.replace(' ', '') for item in narrow),
        *loader,
    ]


@pytest.fixture
def tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Tool:
    """Run the tool in a folder of its own; return what it prints."""
    folder = tmp_path / 'run'
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv('HOYER_DET_TRACEBACK', raising=False)

    def run(*arguments: object) -> str:
        monkeypatch.setattr('sys.argv', ['analyze', *map(str, arguments)])
        main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def fails(tool: Tool, tmp_path: Path) -> Tool:
    """Run the tool; return its one line of error. Nothing may be left."""

    def run(*arguments: object) -> str:
        before = sorted((tmp_path / 'run').rglob('*'))
        with pytest.raises(SystemExit) as exit_info:
            tool(*arguments)
        message = str(exit_info.value.code)
        assert message.startswith('error: ') and '\n' not in message
        assert sorted((tmp_path / 'run').rglob('*')) == before
        return message

    return run


class Page(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            if key in ('src', 'href', 'data'):
                self.addresses.append(value)
            if key == 'id':
                self.ids.add(value)


def test_files_agree_and_the_page_stands_alone(
    tool: Tool, voc_folder: Path, tmp_path: Path
) -> None:
    first = save(tmp_path / 'a' / 'net.pth', voc_folder)
    second = save(tmp_path / 'b' / 'net.pth', voc_folder, seed=1)
    relu = save(tmp_path / 'relu.pth', voc_folder, 'relu')
    chip = tmp_path / 'chip.json'
    constants = dict(multiply_accumulate=1.0, accumulate=0.5)
    memory = dict(weights=1.0, activations=2.0, note='ours')
    chip.write_text(
        json.dumps(
            dict(name='<chip>', source='sheet', fp32=constants, int8=constants, memory=memory)
        )
    )
    flags = [
        '--out',
        'report',
        '--energy',
        chip,
        '--compare',
        CONFIG,
        second,
        '--compare-twin',
        'relu',
        relu,
    ]
    flags += ['--names', '<i>ours</i>', 'seed $1$', 'relu', '--images', '8', '--runs', '2']
    flags += options(voc_folder)
    printed = tool(CONFIG, first, *flags)
    assert '<i>ours</i>, 2 images: an image takes' in printed
    assert 'seed $1$, int8 weights' in printed and 'ReLU twin, fp32' in printed
    names = sorted(path.name for path in Path('report').iterdir())
    assert names == ['layers.csv', 'neurons.csv', 'report.html', 'summary.json']

    summary = json.loads(Path('report/summary.json').read_text())
    totals = summary['models']['<i>ours</i>']['totals']
    with open('report/layers.csv') as file:
        layers = list(csv.DictReader(file))
    assert layers[0]['input'] == 'real' and {row['input'] for row in layers[1:]} == {'0/1'}
    for key in ('dense_macs', 'accumulates', 'remaining_macs', 'weight_bytes_int8'):
        assert sum(float(row[key]) for row in layers) == pytest.approx(totals[key])
    binary = sum(float(row['dense_macs']) for row in layers if row['input'] == '0/1')
    assert totals['binary_share'] == pytest.approx(binary / totals['dense_macs'])
    energy = {row['network']: row['<chip>'] for row in summary['energy']}
    ours = energy['<i>ours</i>, fp32']
    # The one layer that multiplies, without its padding.
    stem = float(layers[0]['effective_operations'])
    operations = stem * 1.0 + totals['accumulates'] * 0.5
    assert ours['compute_uj'] == pytest.approx(operations * 1e-6)
    moved = totals['weight_bytes_fp32'] * 1.0 + totals['activation_bytes_fp32'] * 2.0
    assert ours['memory_uj'] == pytest.approx(moved * 1e-6)
    assert ours['total_uj'] == pytest.approx(ours['compute_uj'] + ours['memory_uj'])
    # The network that is really a ReLU network costs what the twin was estimated to.
    for cost in ('compute_uj', 'memory_uj'):
        assert energy['relu, fp32'][cost] == pytest.approx(energy['ReLU twin, fp32'][cost])
        assert energy['relu, int8'][cost] == pytest.approx(energy['ReLU twin, int8'][cost])
    # Its zeros are its own, measured: every layer multiplies where its input is not 0.
    found = summary['models']['relu']
    active = sum(row['effective_operations'] for row in found['layers'])
    assert 0 < active < 0.9 * found['totals']['dense_macs']
    skipped = energy['relu, zeros skipped, fp32']
    assert skipped['compute_uj'] == pytest.approx(active * 1e-6)
    assert skipped['memory_uj'] == energy['relu, fp32']['memory_uj']
    with open('report/neurons.csv') as file:
        neurons = list(csv.DictReader(file))
    assert sum(int(row['dead_channels']) for row in neurons) == totals['dead_channels']
    assert float(neurons[0]['firing_level']) == pytest.approx(0.8)

    text = Path('report/report.html').read_text()
    page = Page(text)
    assert 'script' not in page.tags and 'link' not in page.tags
    for address in page.addresses:
        if address.startswith('#'):
            assert address[1:] in page.ids
        else:
            assert address.startswith('data:image/')
    assert page.tags.count('img') == 4 + 2  # maps of each of the two images
    assert '&lt;chip&gt;' in text and '<chip>' not in text
    assert '&lt;i&gt;ours' in text and 'i' not in page.tags
    assert summary['facts']['parameters'] in text and summary['facts']['mAP'] == 'not known'
    assert hashlib.sha256(first.read_bytes()).hexdigest()[:12] in text
    assert len(text) < 5_000_000
    for name in ('<i>ours</i>', 'seed $1$', 'relu'):
        timed = summary['models'][name]['milliseconds']
        assert 0 < timed['least'] <= timed['median'] and timed['runs'] == 2
    assert summary['facts']['time'] in text and 'VNNI' in summary['facts']['machine']
    assert summary['facts']['code'] in text
    # The stem and whatever pooling made denser are explained where they stand.
    assert 'it reads the image' in text and '"#layer-1"' in text


def test_evaluated_map_of_both_networks_stands_in_the_head(
    tool: Tool, voc_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, 'data_uri', lambda figure, kind='svg': 'data:image/png;base64,')
    net, relu = save(tmp_path / 'net.pth', voc_folder), save(tmp_path / 'r.pth', voc_folder, 'relu')
    flags = ['--evaluate', '--images', '1', '--runs', '0', '--compare-twin', 'relu', relu]
    picture = Path('report/noise.png')  # of the user, not of an earlier report
    picture.parent.mkdir()
    picture.touch()
    tool(CONFIG, net, *flags, '--out', 'report', *options(voc_folder))
    assert picture.exists()
    summary = json.loads(Path('report/summary.json').read_text())
    for found in summary['models'].values():
        value, source = found['accuracy'].split(' ', 1)
        assert 0 <= float(value) <= 1 and source == '(pascal_voc/mAP on val, evaluated here)'
        assert found['milliseconds'] is None
    assert summary['facts']['time'] == 'not measured'
    assert summary['facts']['mAP'] in Path('report/report.html').read_text()


def test_noise_curve_of_two_networks(
    tool: Tool, voc_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What takes the time is to draw the pictures of the page; the test above does.
    monkeypatch.setattr(plots, 'data_uri', lambda figure, kind='svg': 'data:image/png;base64,')
    first = save(tmp_path / 'net.pth', voc_folder)
    second = save(tmp_path / 'onebit.pth', voc_folder, 'onebit')
    flags = ['--noise', '2', '--compare-twin', 'onebit', second, '--images', '1', '--runs', '0']
    printed = tool(CONFIG, first, *flags, '--maps', 'stages.0', *options(voc_folder))
    folder = Path('work_dirs/hoyer_ssd_vocformat/analysis')
    assert (folder / 'noise.png').read_bytes().startswith(b'\x89PNG')
    noise = json.loads((folder / 'summary.json').read_text())['noise']
    assert noise['metric'].endswith('mAP') and noise['seed'] == 0
    assert list(noise['curves']) == ['hoyer_ssd_vocformat', 'hoyer_ssd_vocformat_onebit']
    assert list(noise['curves']['hoyer_ssd_vocformat']) == ['0.0', '2.0']
    assert 'under noise, hoyer_ssd_vocformat_onebit: 0: ' in printed
    assert 'Noise on the membrane potentials' in (folder / 'report.html').read_text()
    tool(CONFIG, first, '--images', '1', '--runs', '0', *options(voc_folder))
    assert sorted(path.name for path in folder.iterdir()) == [
        'layers.csv',
        'neurons.csv',
        'report.html',
        'summary.json',
    ]


def test_preprocessor_beside_the_model_is_the_models(voc_folder: Path, tmp_path: Path) -> None:
    net = save(tmp_path / 'net.pth', voc_folder)
    cfg = load_config(CONFIG, {'data_root': str(voc_folder), **NARROW})
    found = []
    for name in ('inside.py', 'beside.py'):
        cfg.dump(tmp_path / name)
        (measured,) = analyze(str(tmp_path / name), str(net), images=2, runs=0).models.values()
        found.append({k: layer.fired.tolist() for k, layer in measured.neurons.items()})
        cfg.data_preprocessor = cfg.model.pop('data_preprocessor', None)
    assert found[0] == found[1] and sum(map(sum, found[0].values())) > 0


@pytest.mark.parametrize('name', ['summary.json', 'noise.png'])
def test_folder_in_the_place_of_an_output_is_refused_before_measuring(
    fails: Tool, tmp_path: Path, name: str
) -> None:
    place = tmp_path / 'out' / name
    place.mkdir(parents=True)
    line = fails(CONFIG, 'lost.pth', '--out', place.parent)
    assert line == f'error: {place}: is a folder; remove it, or choose another --out'


def test_wrong_networks(fails: Tool, voc_folder: Path, tmp_path: Path) -> None:
    good = save(tmp_path / 'net.pth', voc_folder)
    relu = save(tmp_path / 'relu.pth', voc_folder, 'relu')
    flags = options(voc_folder)
    line = fails(CONFIG, relu, '--twin', 'relu', *flags)
    assert 'hoyer_ssd_vocformat_relu.py: its model has no HoyerSpike layer' in line
    assert line.endswith(f'give this one with --compare-twin relu {relu}')
    # Names that a row of another network has.
    for names in (['a', 'ReLU twin'], ['a', 'a, zeros skipped']):
        line = fails(CONFIG, good, '--compare-twin', 'relu', relu, '--names', *names, *flags)
        assert f'--names: {names[1]!r} would label a row' in line
    line = fails(CONFIG, good, '--compare-twin', 'relu', relu, '--noise', '0.1', *flags)
    assert 'hoyer_ssd_vocformat_relu.py has no HoyerSpike layer' in line and '--noise' in line
    assert 'does not belong to' in fails(CONFIG, relu, *flags)
    assert 'does not belong to' in fails(CONFIG, good, '--compare-twin', 'relu', good, *flags)
    named = tmp_path / 'named.pth'
    torch.save(
        dict(torch.load(good), meta=dict(cfg=load_config(CONFIG, complete=False).pretty_text)),
        named,
    )
    line = fails(CONFIG, good, '--compare-twin', 'relu', named, *flags)
    assert line.endswith('not of the relu twin; leave --compare-twin out')
    assert f'{tmp_path}: is a folder' in fails(CONFIG, tmp_path, *flags)
    assert 'nearest names are ssd_bccd' in fails(
        CONFIG, good, '--compare', CONFIG, 'ssd_bcdd', *flags
    )
    # A model of the zoo is found; it has another width.
    line = fails(CONFIG, good, '--compare', CONFIG, 'ssd_bccd', *flags)
    assert 'ssd_bccd.pth: does not belong to' in line


def test_no_images(fails: Tool, voc_folder: Path, tmp_path: Path) -> None:
    good = save(tmp_path / 'net.pth', voc_folder)
    flags = options(voc_folder)
    write_split(voc_folder, 'test', [])
    assert 'test.txt' in fails(CONFIG, good, *flags)
    assert 'lost_folder' in fails(CONFIG, good, *options(Path('lost_folder')))


@pytest.mark.parametrize(
    'flags, part',
    [
        (['--noise', '0.1', '--data', 'train'], '--data val or test'),
        (['--noise-seed', '18446744073709551616'], '--noise-seed 18446744073709551616: must be'),
        (['--out', '/proc/report'], '--out /proc/report: nothing can be written in /proc'),
    ],
)
def test_wrong_flags(
    fails: Tool, voc_folder: Path, tmp_path: Path, flags: list[str], part: str
) -> None:
    assert part in fails(
        CONFIG, save(tmp_path / 'net.pth', voc_folder), *flags, *options(voc_folder)
    )


@pytest.mark.parametrize(
    'option, part',
    [
        ('model.backbone.foo=1', 'hoyer_ssd_vocformat.py: model: TypeError: '),
        (
            'val_dataloader.dataset.type=NoSuch',
            'vocformat.py: val_dataloader.dataset: KeyError: NoSuch',
        ),
        ('val_dataloader.dataset.pipeline=[]', 'vocformat.py: val_dataloader.dataset.pipeline: '),
        (
            'val_dataloader.persistent_workers=True',
            'vocformat.py: val_dataloader: persistent_workers',
        ),
    ],
)
def test_wrong_settings_are_named_before_anything_is_measured(
    fails: Tool, voc_folder: Path, tmp_path: Path, monkeypatch, option: str, part: str
) -> None:
    monkeypatch.setattr('hoyer_det.analysis.run.measure', None)
    good = save(tmp_path / 'net.pth', voc_folder)
    assert part in fails(CONFIG, good, '--evaluate', *options(voc_folder), option)


def test_cross_check_needs_its_package_at_once(
    fails: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'spikingjelly', None)
    line = fails('lost.py', 'lost.pth', '--cross-check')
    assert '--cross-check: SpikingJelly 2.0 is not installed' in line


def test_what_was_not_measured_is_no_number_and_untrained_networks_are_named(
    tool: Tool, voc_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, 'data_uri', lambda figure, kind='svg': 'data:image/png;base64,')
    # Those of the LIF twin lie elsewhere.
    monkeypatch.setattr(sys.modules[__name__], 'NARROW', {})
    net = save(tmp_path / 'net.pth', voc_folder, fires=False)
    lif = save(tmp_path / 'lif.pth', voc_folder, 'lif')
    flags = ['--images', '1', '--runs', '0', '--compare-twin', 'lif', lif, '--names', 'net', 'lif']
    printed = tool(CONFIG, net, *flags, '--out', 'report', *options(voc_folder))
    summary = json.loads(Path('report/summary.json').read_text())
    ours, leaky = (summary['models'][name]['totals'] for name in ('net', 'lif'))
    for key in ('neurons', 'spikes', 'spike_rate', 'near_level', 'channels', 'dead_channels'):
        assert leaky[key] is None and ours[key] is not None
    text = Path('report/report.html').read_text()
    row = text.split('<td>lif</td>')[1].split('</tr>')[0]
    assert row.count('<td>-</td>') == 4  # spike rate, dead, near, ms
    warning = summary['facts']['warning']
    assert warning.startswith('net: 14 HoyerSpike layers have no firing level from training')
    assert f'warning: {warning}' in printed and warning in text


def test_text_is_printed_where_the_report_cannot_be_written(
    tool: Tool,
    voc_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, 'No space left on device', 'layers.csv')

    monkeypatch.setattr('hoyer_det.commands.analyze.write_report', full)
    flags = ['--images', '1', '--runs', '0', *options(voc_folder)]
    with pytest.raises(SystemExit, match='error: .*No space left'):
        tool(CONFIG, save(tmp_path / 'net.pth', voc_folder), *flags)
    assert 'Microjoules an image' in capsys.readouterr().out

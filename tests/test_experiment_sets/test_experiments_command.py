"""hoyer-det experiments: a set of tiny runs from data to table; what is done is not done again."""

import json
import os
import shlex
import subprocess
from collections import defaultdict
from datetime import datetime
from types import SimpleNamespace

import pytest
import torch
from hoyer_det import config_path
from hoyer_det.config import load_config
from hoyer_det.experiments.calling import alone
from hoyer_det.experiments.costs import OTHERS, measure_costs
from hoyer_det.experiments.costs_report import write_costs_report
from hoyer_det.experiments.deployed import deploy_all
from hoyer_det.experiments.deployed_report import write_deployed_report
from hoyer_det.experiments.report import write_report
from hoyer_det.experiments.running import command as run_line
from hoyer_det.experiments.running import read_curve, read_loss, read_seconds, run_all, work_dir
from hoyer_det.experiments.sets import SETS, ExperimentSet, Run
from hoyer_det.spiking import HoyerSpike
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

_TINY = {
    'train_cfg.max_epochs': 2,
    'train_cfg.val_interval': 2,
    'train_dataloader.batch_size': 2,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False,
}
_SSD = 'hoyer_ssd_vocformat'


@pytest.mark.slow
def test_tiny_set_from_the_twin_to_the_table(tmp_path, voc_folder, monkeypatch):
    runs = (
        Run('relu', _SSD, _TINY, ('--twin', 'relu')),
        Run('from_twin', _SSD, _TINY, ('--from-twin', '--twin-share', '0.5')),
        Run('later', _SSD, _TINY),
    )
    tiny, out = ExperimentSet('Tiny', runs[:2], 'data/none'), tmp_path / 'out'
    run_all(tiny, out, str(voc_folder), seeds=1)
    results = [json.loads((work_dir(out, run, 0) / 'result.json').read_text()) for run in runs[:2]]
    # The figure of a run by way of its twin is that of its last stage.
    assert [[epoch for epoch, _ in result['curve']] for result in results] == [[2], [1]]
    # Done is done: nothing is trained a second time.
    monkeypatch.setattr('subprocess.run', lambda *args, **kwargs: pytest.fail('trained again'))
    run_all(tiny, out, str(voc_folder), seeds=1)
    table = write_report(ExperimentSet('Tiny', runs, 'data/none'), out, seeds=1)
    assert '| later | not run |' in table and '| from_twin | 0.' in table
    assert (out / 'plot.png').is_file()
    assert (out / 'commands.sh').read_text().count('hoyer-det train') == 2


@pytest.mark.slow
def test_tiny_set_is_exported_evaluated_and_timed(tmp_path, voc_folder):
    runs = Run('relu', _SSD, _TINY, ('--twin', 'relu')), Run('spiking', _SSD, _TINY)
    tiny = ExperimentSet('Tiny', runs, 'data/none', deployed=True, costed=True)
    out = tmp_path / 'out'
    run_all(tiny.only(['relu']), out, str(voc_folder), seeds=1)
    measure_costs(tiny, out, str(voc_folder), seeds=1, images=2)  # beside the spiking one: later
    deploy_all(tiny, out, str(voc_folder), seeds=1, rounds=2)
    rows = json.loads((out / 'deployed.json').read_text())['rows']
    assert [row['form'] for row in rows] == ['relu_int8', 'relu_float32']
    assert not [*out.glob('*/costs.json')]
    run_all(tiny, out, str(voc_folder), seeds=1)
    deploy_all(tiny, out, str(voc_folder), seeds=1, rounds=2)
    rows = json.loads((out / 'deployed.json').read_text())['rows']
    assert [row['form'] for row in rows] == ['relu_int8', 'relu_float32', 'spiking']
    assert [row['spike_rate'] is None for row in rows] == [True, True, False]
    assert all(row['milliseconds'] > 0 and 0 <= row['metric'] <= 1 for row in rows)
    assert 'ReLU twin, int8' in write_deployed_report(tiny, out)
    measure_costs(tiny, out, str(voc_folder), seeds=1, images=2)
    costs = [json.loads((work_dir(out, run, 0) / 'costs.json').read_text()) for run in runs]
    assert costs[0]['spike_rate'] is None and 0 < costs[1]['spike_rate'] < 1
    assert costs[0]['compute_uj'] > costs[1]['compute_uj'] > 0
    assert 'coco/bbox_mAP' in costs[1]['figures']


def test_table_gives_mean_spread_and_share(tmp_path):
    runs = (Run('first', _SSD), Run('second', _SSD), Run('third', _SSD, reference='second'))
    for run, figures in zip(runs, ((0.2, 0.4), (0.1, 0.2), (0.3, 0.3)), strict=True):
        for seed, figure in enumerate(figures):
            folder = work_dir(tmp_path, run, seed)
            folder.mkdir()
            line = shlex.join(run_line(run, folder, seed, 'any'))
            result = dict(command=line, seconds=3600, curve=[(1, 0.0), (2, figure)])
            if run.name == 'second':
                result['loss'] = 5 + seed
            (folder / 'result.json').write_text(json.dumps(result))
    table = write_report(ExperimentSet('Two', runs, ''), tmp_path, seeds=2)
    assert '| first | 0.300 ± 0.141 | 2 |  |  | 1.00 |' in table
    assert '| second | 0.150 ± 0.071 | 2 | 0.50 of first | 5.500 ± 0.707 | 1.00 |' in table
    assert '| third | 0.300 ± 0.000 | 2 | 2.00 of second |  | 1.00 |' in table
    # Of seeds that the reference has not: the share is that of the others.
    (work_dir(tmp_path, runs[0], 0) / 'result.json').unlink()
    (work_dir(tmp_path, runs[1], 0) / 'result.json').unlink()
    table = write_report(ExperimentSet('Two', runs, ''), tmp_path, seeds=2)
    assert '| second | 0.200 | 1 | 0.50 of first |' in table
    assert '| third | 0.300 ± 0.000 | 2 | 1.50 of second |' in table


def test_runs_of_other_settings_or_data_are_not_taken_for_the_wanted(tmp_path, monkeypatch):
    monkeypatch.setattr('subprocess.run', lambda *args, **kwargs: pytest.fail('trained'))
    run = Run('spiking', _SSD, {'train_cfg.max_epochs': 20})
    one, folder = ExperimentSet('One', (run,), ''), work_dir(tmp_path, run, 0)
    folder.mkdir()
    line = shlex.join(run_line(run, tmp_path / 'moved' / 'since', 0, 'A'))
    done = folder / 'result.json'
    done.write_text(json.dumps(dict(command=line, seconds=1, curve=[(20, 0.5)])))
    run_all(one, tmp_path, 'A', seeds=1)
    assert '| spiking | 0.500 |' in write_report(one, tmp_path, seeds=1)
    with pytest.raises(ValueError, match='other settings or data .*data_root=A.*data_root=B'):
        run_all(one, tmp_path, 'B', seeds=1)
    other = ExperimentSet('Other', (Run('spiking', _SSD, {'train_cfg.max_epochs': 4}),), '')
    for report in (run_all, write_report):
        with pytest.raises(
            ValueError, match=r'result.json: .*epochs=20.*max_epochs=4.*another --out'
        ):
            report(other, tmp_path, *(['A'] if report is run_all else []), seeds=1)
    done.rename(folder / 'run.json')  # begun only
    with pytest.raises(ValueError, match='run.json: is of other settings'):
        run_all(other, tmp_path, 'A', seeds=1)


def test_a_training_that_fails_has_said_why(tmp_path, monkeypatch):
    code = SimpleNamespace(returncode=1)
    monkeypatch.setattr('subprocess.run', lambda *args, **kwargs: code)
    one, out = ExperimentSet('One', (Run('spiking', _SSD),), ''), tmp_path / 'out'
    with pytest.raises(SystemExit) as ended, alone(out):
        run_all(one, out, 'none', seeds=1)
    assert ended.value.code == 1 and not out.exists()  # nothing is left of what did not begin
    code.returncode = -9
    with pytest.raises(ChildProcessError, match='hoyer-det train .*: was killed by signal 9'):
        run_all(one, out, 'none', seeds=1)


def test_time_of_a_run_is_that_of_all_its_parts(tmp_path):
    for part, seconds in (('objects/20261129_100000', 60), ('20261129_120000', 30), ('other', 9)):
        file = tmp_path / part / 'vis_data' / 'scalars.json'
        file.parent.mkdir(parents=True)
        file.write_text('')
        if part != 'other':
            began = datetime.strptime(part[-15:], '%Y%m%d_%H%M%S').timestamp()
            os.utime(file, (began + seconds, began + seconds))
    assert read_seconds(tmp_path) == 90


def test_report_of_costs(tmp_path):
    runs = Run('relu', _SSD, flags=('--twin', 'relu')), Run('spiking', _SSD), Run('later', _SSD)
    for run, rate, energy in zip(runs, (None, 0.25), (400.0, 100.0), strict=False):
        for seed, figure in enumerate((0.2, 0.4)):
            folder = work_dir(tmp_path, run, seed)
            folder.mkdir()
            figures = {'pascal_voc/mAP': figure, 'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_50': 0.3}
            costs = dict(figures=figures, spike_rate=rate, compute_uj=50, total_uj=energy)
            (folder / 'costs.json').write_text(json.dumps(costs))
    table = write_costs_report(ExperimentSet('Three', runs, ''), tmp_path, seeds=2)
    figures = '0.300 ± 0.141 | 0.100 ± 0.000 | 2'
    assert f'| relu | {figures} |  | 50 ± 0 | 400 ± 0 | 0.075 ± 0.035 |' in table
    assert f'| spiking | {figures} | 25.0% ± 0.0% | 50 ± 0 | 100 ± 0 | 0.300 ± 0.141 |' in table
    assert 'later' not in table and (tmp_path / 'costs.png').is_file()
    assert write_costs_report(ExperimentSet('Not run', (), ''), tmp_path, seeds=1) == ''


def test_report_of_exported_files(tmp_path):
    rows = [
        dict(run='relu', seed=0, form='relu_int8', metric=0.81, spike_rate=None),
        dict(run='weight_1e-06', seed=0, form='spiking', metric=0.8, spike_rate=0.125),
    ]
    for row in rows:
        row.update(milliseconds=2.5, quartiles=[2.25, 3.0])
    (tmp_path / 'deployed.json').write_text(json.dumps(dict(processor='a CPU', rows=rows)))
    table = write_deployed_report(ExperimentSet('Two', (), '', deployed=True), tmp_path)
    assert '| weight_1e-06 | 0 | spiking, 5-bit weights, spike engine | 0.800 | 12.5% |' in table
    assert '| 0.810 |  | 2.50 | 2.25 to 3.00 |' in table and 'a CPU' in table
    assert (tmp_path / 'deployed.png').is_file()
    assert write_deployed_report(ExperimentSet('Not run', (), ''), tmp_path / 'other') == ''


def test_curve_of_a_resumed_run_is_whole(tmp_path):
    # Three iterations an epoch; the second run validates what the first one did not come to.
    runs = {
        '1': [{'step': 2, 'epoch': 1}, {'step': 3, 'mAP': 0.1}, {'step': 5, 'epoch': 2}],
        '2': [{'step': 6, 'mAP': 0.3}, {'step': 8, 'epoch': 3}, {'step': 9, 'mAP': 0.4}],
    }
    for name, lines in runs.items():
        file = tmp_path / name / 'vis_data' / 'scalars.json'
        file.parent.mkdir(parents=True)
        file.write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
    assert read_curve(tmp_path, 'mAP') == [(1, 0.1), (2, 0.3), (3, 0.4)]
    file.write_text(json.dumps({'step': 1, 'mAP': 0.2}))
    with pytest.raises(ValueError, match='before any training step; remove the folder'):
        read_curve(tmp_path, 'mAP')


def test_loss_is_that_of_the_last_epoch_without_what_the_spikes_add(tmp_path):
    assert read_loss(tmp_path) is None
    parts = {
        '1': [dict(step=50, epoch=1, loss=9.0), dict(step=100, epoch=2, loss=5.0, loss_cls=3.0)],
        # Resumed at the second epoch: its first lines count once.
        '2': [
            dict(step=100, epoch=2, loss=5.25, loss_hoyer=0.25, loss_distill=1.0),
            dict(step=150, epoch=2, loss=3.5, loss_hoyer=0.5),
            {'step': 160, 'pascal_voc/mAP': 0.5},
        ],
    }
    for name, lines in parts.items():
        file = tmp_path / name / 'vis_data' / 'scalars.json'
        file.parent.mkdir(parents=True)
        file.write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
    assert read_loss(tmp_path) == (4.0 + 3.0) / 2


def test_damaged_logs_and_figures_are_named(tmp_path):
    file = tmp_path / 'spiking_seed0' / '1' / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('{"step": 1, "epoch": 1}\n{"st')
    with pytest.raises(ValueError, match=r'scalars.json: line 2 cannot be read'):
        read_curve(tmp_path / 'spiking_seed0', 'mAP')
    (tmp_path / 'spiking_seed0' / 'costs.json').write_text('{')
    with pytest.raises(ValueError, match=r'costs.json: cannot be read .*; remove it'):
        write_costs_report(ExperimentSet('One', (Run('spiking', _SSD),), ''), tmp_path, seeds=1)


def test_one_process_a_folder_also_when_its_parent_is_gone(tmp_path):
    with alone(tmp_path):
        with pytest.raises(ValueError, match='another process is at work there'), alone(tmp_path):
            pass
        child = subprocess.Popen(['sleep', '60'], close_fds=False)
    with pytest.raises(ValueError, match='another process is at work there'), alone(tmp_path):
        pass
    child.kill()
    child.wait()
    with alone(tmp_path), alone(tmp_path / 'new'):
        assert (tmp_path / 'new').is_dir()
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('name', SETS)
def test_runs_of_a_config_have_the_same_epochs_and_differ(name):
    epochs, runs = defaultdict(set), set()
    for run in SETS[name].runs:
        twin = run.flags[1] if '--twin' in run.flags else None
        cfg = load_config(config_path(run.config), dict(run.options), twin, complete=False)
        epochs[run.config].add(cfg.train_cfg.max_epochs)
        logged = {'pascal_voc/mAP': 'VOCMetric', 'coco/bbox_mAP': 'CocoMetric'}
        assert logged[SETS[name].metric] in str(cfg.val_evaluator)
        init_default_scope('mmdet')
        with torch.device('meta'):
            model = MODELS.build(cfg.model)
        neurons = [(m.extremum, m.saturated) for m in model.modules() if isinstance(m, HoyerSpike)]
        way = run.flags if '--from-twin' in run.flags else ()
        runs.add(f'{way} {model} {neurons} {cfg.custom_hooks}')
    assert all(len(found) == 1 for found in epochs.values())
    assert len(runs) == len(SETS[name].runs)
    if SETS[name].costed:  # some twins are analysed beside their spiking network
        spiking = [run.options for run in SETS[name].runs if not run.flags]
        assert all(run.options in spiking for run in SETS[name].runs if run.flags in OTHERS)

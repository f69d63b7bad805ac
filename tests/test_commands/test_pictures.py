"""mmfss pictures: from methods and checkpoints to a figure, on a tiny benchmark."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from tiny_runs import write_config, write_shapes

from mmfss.checkpoints.record import describe_run
from mmfss.commands import pictures
from mmfss.commands.command_lines import PicturesArguments, Request
from mmfss.commands.test import evaluate
from mmfss.datasets.folds import get_split
from mmfss.evaluation.picking import iou_of

pytestmark = pytest.mark.usefixtures('no_variables')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Config and two checkpoints of random weights, tested with --out and --csv."""
    root = tmp_path_factory.mktemp('pictures')
    config = write_config(root / 'pictured.py', write_shapes(root / 'shapes'))
    cfg = Config.fromfile(config)
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = MODELS.build(cfg.model)
        model.init_weights()
        meta = describe_run(get_split('shapes-5i', 0), 'base', 1, model.arch, set())
        paths.append(root / f'seed{seed}.pth')
        torch.save(dict(state_dict=model.state_dict(), meta=dict(mmfss=meta)), paths[-1])
    request = Request(
        config, [str(paths[0])], episodes=8, out=str(root / 'first'), csv=str(root / 'csv'),
        work_dir=str(root / 'work'),
    )  # fmt: skip
    report = evaluate(request)
    return root, config, [str(path) for path in paths], report.runs[0].counts


def draw(trained, *columns, out, **settings):
    config = trained[1]
    options = {'episodes': 8, 'work_dir': str(trained[0] / 'work'), **settings}
    pictures.run(PicturesArguments(config, columns, out=[str(path) for path in out], **options))


def test_two_checkpoints_side_by_side(trained, tmp_path, capsys):
    _, _, paths, counts = trained
    out = tmp_path / 'new/a.pdf', tmp_path / 'a.svg'
    draw(trained, *paths, out=out, pick=['worst:2', 'differ:1'], maps=True)
    said = capsys.readouterr().out.splitlines()
    worst = sorted((iou_of(row), row.episode) for row in counts if row.union[1])[:2]
    for line, (iou, number) in zip([line for line in said if line.startswith('episode ')], worst):
        assert line.startswith(f'episode {number}: ')
        assert f'pictured seed0.pth {iou:.1f}, pictured seed1.pth ' in line
    assert said[-1].endswith(f'episodes drawn to {out[0]}, {out[1]}')
    text = out[1].read_text()
    for name in ('pictured seed0.pth', f'{worst[0][1]}: ', f'IoU {worst[0][0]:.1f} %',
                 'refined prior (pictured seed1.pth): pseudo ae after'):  # fmt: skip
        assert name in text, name
    assert out[0].read_bytes().startswith(b'%PDF')


@pytest.mark.parametrize('kind', ['first.json', 'csv'])
def test_results_that_are_there_are_picked_by(trained, kind, tmp_path, capsys, monkeypatch):
    root, _, paths, counts = trained
    monkeypatch.setattr(pictures, 'evaluate', None)  # nothing is tested
    out = tmp_path / 'a.png'
    draw(trained, paths[0], out=[out], pick=['best:1'], results=[str(root / kind)])
    best = min((-iou_of(row), row.episode) for row in counts if row.union[1])[1]
    assert f'episode {best}: ' in capsys.readouterr().out and out.stat().st_size > 1000


def test_named_episodes_need_no_figures(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pictures, 'evaluate', None)
    draw(trained, trained[2][0], out=[tmp_path / 'a.png'], pick=['number:3,1'], errors=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('episode')]
    assert [line.split(':')[0] for line in lines] == ['episode 3', 'episode 1']
    assert not any(',' in line for line in lines)


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(pick=['finest:2']), '--pick must be worst:N'),
        (dict(pick=['worst:1', 'number:8']), r'there are episodes 0\.\.7, got 8'),
        (dict(pick=['differ:1']), 'differ needs two methods or more, got pictured'),
        (dict(pick=['worst:1'], out=['a.eps']), 'a figure must end in .png, .pdf, .svg, got'),
        (dict(pick=['worst:1'], width=0.1), 'width of a panel must be 0.4 to 4.0 inches'),
        (dict(pick=['worst:1'], results=['a', 'b']), r'a file for each of the 1 columns, got 2'),
        (dict(pick=['worst:1'], results=['none.json']), 'results not found: none.json'),
        (dict(pick=['worst:1'], seed=4, results=['JSON']), 'no run of seed0.pth, 1-shot, fold 0, '),
        (dict(pick=['worst:1'], fold='1'), 'novel classes of shapes-5i fold 1'),
    ],
)  # fmt: skip
def test_what_is_refused(trained, settings, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root, _, paths, _ = trained
    settings = {'out': ['a.png'], **settings}
    monkeypatch.setattr(pictures, 'evaluate', None)  # it is said before anything is tested
    if settings.get('results') == ['JSON']:
        settings['results'] = [str(root / 'first.json')]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        draw(trained, paths[0], **settings)
    assert not list(tmp_path.rglob('a.*'))


def test_results_of_other_weights_are_refused(trained, tmp_path):
    root, _, paths, _ = trained
    with pytest.raises(
        ValueError, match='first.json: 1-shot, fold 0, seed 0 is of other weights t'
    ):
        draw(trained, paths[1], out=[tmp_path / 'a.png'], pick=['worst:1'],
             results=[str(root / 'first.json')])  # fmt: skip


def test_columns_and_their_names():
    def names(*given):
        args = PicturesArguments('configs/x.py', given, pick=['worst:1'], out=['a.pdf'])
        return {
            name: (one.config, one.method, list(one.checkpoints))
            for name, one in pictures.columns(args).items()
        }

    assert names() == {'x': ('configs/x.py', None, [])}
    assert names('a.pth') == {'x': ('configs/x.py', None, ['a.pth'])}
    assert list(names('density', 'a.pth')) == ['density', 'x']  # as given: the first one ranks
    assert names('density', 'fssam=b.pth', 'own/y.py=1/c.pth,2/d.pth') == {
        'density': ('configs/x.py', 'density', []),
        'fssam': ('configs/x.py', 'fssam', ['b.pth']),
        'y c.pth': ('own/y.py', None, ['1/c.pth']),
        'y d.pth': ('own/y.py', None, ['2/d.pth']),
    }
    with pytest.raises(ValueError, match='need different names, got density twice'):
        names('density', 'density')

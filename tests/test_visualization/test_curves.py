"""Training curves: files of a resumed run joined, smoothed, drawn."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from mmfss.commands import plot_curves
from mmfss.visualization.curves import plot, run_names, smooth, write_curves
from mmfss.visualization.scalars import find_scalars, join, read_history


def train_line(step: int, loss: float, per_epoch: int = 10, **more) -> dict:
    epoch = (step - 1) // per_epoch + 1
    return dict(lr=1e-3, loss=loss, loss_dice=loss, epoch=epoch, iter=step, step=step, **more)


def val_line(epoch: int, miou: float) -> dict:
    return {
        'mIoU': miou,
        'FB-IoU': 50.0,
        'IoU/star': miou,
        'data_time': 0.1,
        'classes': 4,
        'step': epoch,
    }


def write(work_dir, stamp: str, lines: list[dict], end: str = '\n'):
    path = work_dir / stamp / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(json.dumps(line) for line in lines) + end)
    return path


@pytest.fixture
def resumed(tmp_path):
    """Killed in epoch 3 at iteration 25, resumed from epoch 2 (iteration 20)."""
    work_dir = tmp_path / 'fss' / 'fold0'
    first = [train_line(s, 1.0) for s in (5, 10)] + [val_line(1, 10)]
    first += [train_line(s, 1.0) for s in (15, 20)] + [val_line(2, 20), train_line(25, 1.0)]
    path = write(work_dir, '20260101_000000', first)
    path.write_text(path.read_text() + '{"lr": 0.001, "loss": 0.')
    second = [train_line(s, 0.5) for s in (25, 30)] + [val_line(3, 30)]
    write(work_dir, '20260102_000000', second)
    (work_dir / '20260103_000000').mkdir()  # a test: it logs no scalars
    return work_dir


def test_starts_are_joined_in_order_and_later_ones_win(resumed):
    history = read_history(resumed)
    assert list(history.train['loss']) == [5, 10, 15, 20, 25, 30]
    assert list(history.train['loss'].values()) == [1.0] * 4 + [0.5] * 2
    assert history.val['mIoU'] == {1: 10, 2: 20, 3: 30}
    assert (history.name, history.val_unit) == ('fold0', 'epoch')
    assert set(history.train) == {'lr', 'loss', 'loss_dice'}
    (note,) = history.notes
    assert note.endswith('000000/vis_data/scalars.json: the last line was cut off and is left out')


def test_what_is_done_again_is_dropped():
    """A later start that logs at other steps, and one that only validates."""
    first = [train_line(s, 1.0) for s in (10, 20, 30)] + [val_line(3, 5)]
    second = [train_line(s, 2.0) for s in (16, 23)]
    history = join([first, second, [val_line(1, 7)], []], 'run')
    assert history.train['loss'] == {10: 1.0, 16: 2.0, 23: 2.0}
    assert history.val['mIoU'] == {1: 7.0}


def test_iterations_where_there_are_no_epochs():
    lines = [dict(loss=1.0, iter=50, step=50), dict(mIoU=3.0, step=100)]
    history = join([lines], 'run')
    assert history.val_unit == 'iteration' and history.val['mIoU'] == {100: 3.0}


def test_text_and_truth_values_are_no_scalars():
    history = join([[dict(loss=1, note='x', flag=True, iter=1, step=1)]], 'run')
    assert history.train == {'loss': {1: 1.0}}


def test_smooth_against_a_loop():
    values = np.random.default_rng(0).normal(size=40)
    out = smooth(values, 7)
    for i in range(40):
        near = [values[j] for j in range(40) if abs(i - j) <= 3]
        assert out[i] == pytest.approx(sum(near) / len(near))
    line = np.arange(40.0)
    assert smooth(line, 9)[4:-4] == pytest.approx(line[4:-4])  # straight lines stay
    assert smooth(values, 1) == pytest.approx(values)
    assert smooth([1, np.nan, 3], 3).tolist()[1] == 2
    assert np.isnan(smooth([np.nan], 3)[0])


def test_run_names_are_as_short_as_can_be():
    assert run_names(['/a/x/fold0', '/a/x/fold1/']) == ['fold0', 'fold1']
    assert run_names(['/a/x/fold0', '/a/y/fold0']) == ['x/fold0', 'y/fold0']
    with pytest.raises(ValueError, match='a run is named twice: /a, /a/'):
        run_names(['/a', '/a/'])


def panels_of(figure) -> dict[str, list[int]]:
    """Title -> number of points of each line."""
    shown = [axes for axes in figure.axes if axes.get_visible()]
    return {axes.get_title(): [len(line.get_xdata()) for line in axes.lines] for axes in shown}


def test_panels_lines_and_legends(resumed):
    history = read_history(resumed)
    figure = plot([history])
    # the loss twice: as logged, and smoothed; two metrics
    assert panels_of(figure) == {'loss': [6, 6], 'learning rate': [6], 'validation': [3, 3]}
    assert [axes.get_xlabel() for axes in figure.axes] == ['iteration', 'iteration', 'epoch']
    assert [text.get_text() for text in figure.legends[0].texts] == ['fold0']
    inner = [text.get_text() for text in figure.axes[2].get_legend().texts]
    assert inner == ['mIoU', 'FB-IoU']
    assert figure.axes[2].lines[0].get_ydata().tolist() == [10, 20, 30]
    assert panels_of(plot([history, history], window=1))['loss'] == [6, 6]


def test_keys_choose(resumed):
    history = read_history(resumed)
    assert panels_of(plot([history], ['IoU/*', 'mIoU'])) == {'validation': [3, 3]}
    assert panels_of(plot([history], ['classes'])) == {'classes': [3]}
    assert panels_of(plot([history], ['loss_dice', 'IoU/star'])) == {
        'loss': [6, 6],
        'IoU/star': [3],
    }


def test_picture_is_written(resumed, tmp_path, capsys):
    out = tmp_path / 'new' / 'curves.png'
    plot_curves.main([str(resumed), '--out', str(out)])
    picture = cv2.imread(str(out))
    assert picture.shape == (round(3.4 * 120), round(3 * 4.6 * 120), 3)
    blue = np.abs(picture.astype(int) - (0xB2, 0x72, 0x00)).max(axis=2) < 30
    assert blue.sum() > 300  # the run's colour
    assert [path.name for path in out.parent.iterdir()] == ['curves.png']
    said = capsys.readouterr().out.splitlines()
    assert said[0] == 'fold0: 30 iterations, 3 validations' and 'cut off' in said[1]
    assert said[2] == f'drawn to {out}'
    write_curves([resumed / '20260102_000000'], tmp_path / 'one.svg')
    assert (tmp_path / 'one.svg').read_text().startswith('<?xml')


def test_folder_of_several_runs(resumed, tmp_path):
    with pytest.raises(FileNotFoundError, match=f'several runs; name them: {resumed}$'):
        find_scalars(resumed.parent)


def test_broken_line_in_the_middle(tmp_path):
    path = write(tmp_path, '1', [train_line(1, 1.0)], end='\n{"loss": \n{"step": 1}\n')
    with pytest.raises(ValueError, match=f'{path}, line 2 cannot be read: .*; delete the line'):
        read_history(tmp_path)


def test_nothing_but_a_torn_line(tmp_path):
    write(tmp_path, '1', [], end='{"loss"')
    with pytest.raises(ValueError, match='holds no whole line; the run logged nothing'):
        read_history(tmp_path)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(out='x.gif'), r"the picture must end in \.png, \.pdf, \.svg, got 'x\.gif'"),
        (dict(window=-1), 'the window must be >= 0 points .*, got -1'),
        (dict(work_dirs=[]), 'at least one run to draw, got none'),
        (dict(keys=['mIuO']), "no run has a scalar 'mIuO'; there are lr, loss, loss_dice, mIoU"),
    ],
)
def test_bad_input_is_named(resumed, tmp_path, arguments, message):
    arguments = {'work_dirs': [resumed], 'out': tmp_path / 'x.png', **arguments}
    with pytest.raises(ValueError, match=message):
        write_curves(**arguments)
    assert not (tmp_path / 'x.png').exists()


def test_folders_without_scalars(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match='nowhere is no folder; give the work directory'):
        read_history(tmp_path / 'nowhere')
    with pytest.raises(SystemExit):
        plot_curves.main([str(tmp_path), '--out', str(tmp_path / 'x.png')])
    assert 'give the work directory of a training; LocalVisBackend' in capsys.readouterr().err

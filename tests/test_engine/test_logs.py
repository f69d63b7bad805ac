"""What runs say on the console, and in their log file."""

from __future__ import annotations

import logging

import pytest
from toy_run import ToyData, ToyModel  # noqa: F401

from mmfss.engine.logs import ConsoleFilter, ToolRunner, shorten_console


def of_runner(text: str, level: int = logging.INFO) -> logging.LogRecord:
    path = '/somewhere/mmengine/runner/runner.py'
    return logging.LogRecord('mmengine', level, path, 1, text, None, None)


@pytest.mark.parametrize(
    'text, level, shown',
    [
        ('\n-----\nSystem environment:\n  sys.platform: linux\n-----\n', logging.INFO, False),
        ('Config:\nmodel = dict()', logging.INFO, False),
        ('two lines\nthat warn', logging.WARNING, True),
        ('Load checkpoint from a.pth', logging.INFO, True),
        ('Exp name: a_20260101', logging.INFO, False),
        ('Epoch(train) [1][10/30]  loss: 0.3175', logging.INFO, True),
        ('"FileClient" will be deprecated in future. ...', logging.WARNING, False),
    ],
)
def test_what_is_shown(text, level, shown):
    assert ConsoleFilter().filter(of_runner(text, level)) == shown


def test_lists_of_others_are_shown():
    table = logging.LogRecord('mmengine', logging.INFO, 'a.py', 1, 'classes\na 1\nb 2', None, None)
    assert ConsoleFilter().filter(table)


@pytest.mark.parametrize('level', ['INFO', 'DEBUG'])
def test_a_run_is_short_on_the_console_and_whole_in_the_file(level, tmp_path, capsys):
    runner = ToolRunner(
        model=dict(type='ToyModel'),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=dict(type='ToyData'), batch_size=2, num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=2), checkpoint=None),
        log_level=level,
        experiment_name=f'console_{level}',
        cfg=dict(made_up_entry=12345),
        default_scope='mmseg',
    )  # fmt: skip
    runner.train()
    shown = capsys.readouterr().out
    whole = next(tmp_path.rglob('*.log')).read_text()
    assert 'log with environment and config: ' in shown and 'loss: ' in shown
    assert 'Epoch(train) [1][2/4]' in shown and 'Epoch(train) [2][4/4]' in shown
    for text in ('System environment:', 'made_up_entry', 'before_train_epoch:', 'Exp name: '):
        assert text in whole and (text in shown) == (level == 'DEBUG'), text
    lines = [line for line in shown.splitlines() if line]
    assert (len(lines) < 8) == (level == 'INFO')


def test_handlers_are_filtered_once():
    logger = logging.Logger('mine')
    stream, file = logging.StreamHandler(), logging.FileHandler('/dev/null')
    for handler in (stream, file):
        handler.setLevel(logging.INFO)
        logger.addHandler(handler)
    for _ in range(2):
        shorten_console(logger)
    assert [len(handler.filters) for handler in (stream, file)] == [1, 0]

"""How commands end: in one line for what a user can mend, and after ctrl-C and SIGTERM."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import types

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS

from mmfss.commands import cli, ending
from mmfss.commands.command_lines import DemoArguments
from mmfss.commands.ending import INTERRUPTED, TERMINATED, mendable


@pytest.fixture
def command(monkeypatch):
    """Makes a function the command 'demo' and runs it; gives its exit status."""

    def run(function) -> int | str | None:
        module = types.ModuleType('mmfss.commands.made_up')
        module.run = lambda args: function()
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.COMMANDS, 'demo', (DemoArguments, 'made_up:run', ''))
        with pytest.raises(SystemExit) as stop:
            cli.run('demo', [])
        return stop.value.code

    monkeypatch.delenv(ending.SHOW, raising=False)
    monkeypatch.delenv('WORLD_SIZE', raising=False)
    return run


def failing(error: BaseException):
    def fail():
        raise error

    return fail


def stopped_by(number: int):
    def stop():
        os.kill(os.getpid(), number)
        for _ in range(1000):
            pass  # Python handles signals between instructions

    return stop


def test_errors_end_in_one_line(command, capsys, monkeypatch):
    monkeypatch.setattr(ending, '_log', lambda error: None)
    for error, line in (
        (ValueError('fold must be 0..3, got 9'), 'error: fold must be 0..3, got 9\n'),
        (FileNotFoundError('no /x'), 'error: no /x\n'),
        (ModuleNotFoundError('pip install peft'), 'error: pip install peft\n'),
        (ValueError(), 'error: ValueError\n'),
    ):
        assert command(failing(error)) == 1
        assert capsys.readouterr().err == line
    monkeypatch.setenv(ending.SHOW, '1')
    assert command(failing(ValueError('a'))) == 1
    said = capsys.readouterr().err
    assert said.startswith('Traceback') and said.endswith('\nValueError: a\nerror: a\n')
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('RANK', '1')
    assert command(failing(ValueError('a'))) == 1
    assert capsys.readouterr().err.endswith('error: process 1 of 2: a\n')


def test_faults_of_the_program_keep_their_traceback(monkeypatch):
    for error in (RuntimeError('a'), KeyError('b'), AssertionError(), TypeError('c')):
        with pytest.raises(type(error)), ending.ends_in_one_line():
            raise error


def test_what_can_be_mended():
    with pytest.raises(KeyError) as nowhere:
        MODELS.build(dict(type='NoSuchModel'))
    assert mendable(nowhere.value).startswith('NoSuchModel is not in the ')
    assert mendable(torch.OutOfMemoryError('CUDA out of memory.')).endswith(
        'make batches smaller, or take --amp'
    )
    assert 'free some space on the disk of /a, then' in mendable(
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/a/b')
    )
    worker = (
        'Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call '
        'last):\n  File "x.py", line 1, in f\n    raise ValueError(\nValueError: cannot read a.png'
    )
    assert mendable(ValueError(worker)) == 'cannot read a.png'


def test_the_traceback_is_in_the_log(command, capsys, tmp_path, monkeypatch):
    file = tmp_path / 'run.log'
    logger = MMLogger(name='test_ending', log_file=str(file), log_level=logging.WARNING)
    monkeypatch.setattr(MMLogger, 'get_current_instance', lambda: logger)
    assert command(failing(ValueError('bad root'))) == 1
    assert capsys.readouterr().err == f'error: bad root (traceback: {file})\n'
    written = file.read_text()
    assert 'the run ended with an error\nTraceback (most recent call last):' in written
    assert ', in fail\n' in written and written.endswith('ValueError: bad root\n')


@pytest.mark.parametrize(
    ('number', 'status'), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)]
)
def test_ctrl_c_and_sigterm_say_the_same(command, capsys, number, status):
    before = signal.getsignal(signal.SIGTERM)
    assert command(stopped_by(number)) == status
    said = 'interrupted: no file is half-written; run the same command again\n'
    assert capsys.readouterr().err == said
    assert signal.getsignal(signal.SIGTERM) is before

    def says_it_itself() -> int:
        try:
            stopped_by(number)()
        except KeyboardInterrupt:
            print('it goes on', file=sys.stderr)
        return INTERRUPTED

    assert command(says_it_itself) == status
    assert capsys.readouterr().err == 'it goes on\n'


def test_processes_of_a_launcher_end_at_once_by_sigterm(command, monkeypatch):
    """A handler of Python would wait for the end of a collective."""
    monkeypatch.setenv('WORLD_SIZE', '2')
    found = []
    command(lambda: found.append(signal.getsignal(signal.SIGTERM)) or 7)
    assert found == [signal.SIG_DFL]

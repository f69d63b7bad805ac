"""Command lines: what they give, what they refuse, and that help is there at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from mmfss import compat
from mmfss.commands.cli import COMMANDS
from mmfss.commands.command_lines import (
    CurvesArguments,
    FreezeArguments,
    LabelArguments,
    Launcher,
    PromptArguments,
    Request,
    TrainArguments,
    WebuiArguments,
    parse,
)
from mmfss.commands.prepare import COMMANDS as DATASETS

REPO = Path(__file__).resolve().parents[2]
SLOW = {'torch', 'mmengine', 'mmcv', 'mmseg', 'sam2', 'gradio', 'cv2', 'scipy', 'matplotlib'}
#: run a script or module as a program, then say what it has imported
PROGRAM = """
import runpy, sys
kind, program, *sys.argv[1:] = sys.argv[1:]
run = runpy.run_path if kind == 'script' else runpy.run_module
try:
    run(program, run_name='__main__', **({} if kind == 'script' else dict(alter_sys=True)))
except SystemExit as stop:
    print('\\nstatus', stop.code, *sys.modules)
"""
TOOLS = sorted(
    path.relative_to(REPO).as_posix()
    for path in (REPO / 'tools').rglob('*.py')
    if 'mmfss.commands.cli' in path.read_text(encoding='utf-8')
)


def program(*argv: str) -> tuple[str, str, set[str]]:
    """What a program prints, its exit status, and the packages that it has imported."""
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, *argv], cwd=REPO, capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': str(REPO), 'COLUMNS': '200'},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    output, _, end = done.stdout.rpartition('\nstatus ')
    status, *modules = end.split()
    return (
        output + done.stderr,
        status,
        {
            module.partition('.')[0]
            for module in modules
            if module != 'mmcv._ext'  # a stand-in
        },
    )


# ------------------------------------------------------------------------------------------ help
@pytest.mark.smoke
@pytest.mark.parametrize('words', [(), *((name,) for name in COMMANDS)], ids=' '.join)
def test_help_of_every_command_imports_nothing_slow(words):
    text, status, packages = program('module', 'mmfss', *words, '--help')
    assert status == '0' and sorted(packages & SLOW) == []
    assert text.startswith(' '.join(['usage: mmfss', *words]))


@pytest.mark.parametrize('name', DATASETS)
def test_help_of_every_dataset_imports_nothing_slow(name):
    text, status, packages = program('module', 'mmfss', 'prepare', name, '--help')
    assert status == '0' and sorted(packages & SLOW) == []
    assert text.startswith(f'usage: mmfss prepare {name}')


@pytest.mark.parametrize('tool', TOOLS)
def test_help_of_every_tool_imports_nothing_slow(tool):
    text, status, packages = program('script', tool, '--help')
    assert status == '0' and sorted(packages & SLOW) == []
    assert text.startswith('usage: ') and Path(tool).name in text.splitlines()[0]


def test_tools_and_commands_are_the_same():
    assert len(TOOLS) == len(COMMANDS) == 14
    called = {(REPO / tool).read_text().split("run('")[1].split("')")[0] for tool in TOOLS}
    assert called == set(COMMANDS)


def test_wrong_commands_and_options_are_told_at_once():
    text, status, packages = program('module', 'mmfss', 'tran')
    assert status == '2' and "invalid choice: 'tran' (choose from" in text
    text, status, packages = program('script', 'tools/train.py', 'x.py', '--work_dri', 'y')
    assert status == '2' and sorted(packages & SLOW) == []
    assert 'Unrecognized options: --work_dri, y' in text and '--work-dir DIR' in text


def test_versions_are_told():
    assert program('module', 'mmfss', '--version')[:2] == ('mmfss 0.1.0\n', '0')


# ------------------------------------------------------------------------------------- arguments
def refused(capsys, arguments, *argv: str) -> str:
    with pytest.raises(SystemExit) as stop:
        parse(arguments, argv)
    assert stop.value.code == 2
    return ' '.join(capsys.readouterr().err.replace('│', ' ').split())


def test_training():
    assert parse(TrainArguments, ['c.py']) == TrainArguments('c.py')
    argv = 'c.py --amp --launcher pytorch --local_rank=3 --work-dir w --feature-cache None'
    expected = TrainArguments(
        'c.py', amp=True, launcher='pytorch', local_rank=3, work_dir='w', feature_cache='None'
    )
    assert parse(TrainArguments, argv.split()) == expected
    assert parse(TrainArguments, ['--local-rank', '2', 'c.py']).local_rank == 2
    assert set(get_args(Launcher)) == set(compat.LAUNCHERS)


@pytest.mark.parametrize(
    ('argv', 'resume'),
    [('c.py', None), ('c.py --resume', 'auto'), ('c.py --resume a.pth --amp', 'a.pth'),
     ('--resume --amp c.py', 'auto')],
)  # fmt: skip
def test_resuming_takes_a_checkpoint_or_none(argv, resume):
    args = parse(TrainArguments, argv.split())
    assert (args.config, args.resume) == ('c.py', resume)


def test_overrides_are_read_as_mmengine_reads_them_and_add_up():
    argv = ['c.py', '--cfg-options', 'a.b=4', 'lr=1e-3', 'flag=True', 'none=None', "name='x=y'",
            'list=[1,(2,3),[4.5,u]]', 'pair=1,2', '--amp', '--cfg_options', 'a.b=5']  # fmt: skip
    args = parse(TrainArguments, argv)
    assert args.amp and args.cfg_options == {
        'a.b': 5, 'lr': 1e-3, 'flag': True, 'none': None, 'name': 'x=y',
        'list': [1, (2, 3), [4.5, 'u']], 'pair': [1, 2],
    }  # fmt: skip


def test_dicts_among_overrides_are_dicts():
    given = {
        "custom_hooks=[dict(type='EMAHook')]": [dict(type='EMAHook')],
        'h=[dict(type=EMAHook, begin=1), 3]': [dict(type='EMAHook', begin=1), 3],
        "p=dict(type='A', b=-1.5, c=[1, (2, dict(d=None))], e=true)": dict(
            type='A', b=-1.5, c=[1, (2, dict(d=None))], e=True),
        'q={"type": "x", "n": {}}': dict(type='x', n={}),
        'file=frozen/{fold}_{seed}.json': 'frozen/{fold}_{seed}.json',
        'one={fold}.json': '{fold}.json',
        'name=dict': 'dict',
        "code=dict(a=__import__('os'))": "dict(a=__import__('os'))",  # a text, as for mmengine
    }  # fmt: skip
    for text, value in given.items():
        args = parse(TrainArguments, ['c.py', '--cfg-options', text])
        assert args.cfg_options == {text.split('=')[0]: value}, text


def test_overrides_of_another_form_are_refused(capsys):
    for argv in (['a'], ['a=1', 'b'], []):
        message = refused(capsys, TrainArguments, 'c.py', '--cfg-options', *argv)
        wrong = argv[-1] if argv else 'nothing'
        assert f'--cfg-options: KEY=VALUE is needed, got {wrong}' in message
    assert 'Imbalanced' in refused(capsys, TrainArguments, 'c.py', '--cfg-options', 'a=[1,(2]')
    text = 'a=dict(type=A, b=c())'  # mmengine never comes back from it
    assert 'write a dict as KEY=dict(' in refused(
        capsys, TrainArguments, 'c.py', '--cfg-options', text
    )


def test_testing():
    argv = "c.py a_{fold}.pth b*.pth --folds 0 1 --seeds 3 --shots 1 5 --episodes 9 --out r.md"
    args = parse(Request, argv.split())
    assert args == Request(
        'c.py', ['a_{fold}.pth', 'b*.pth'], folds=[0, 1], seeds=[3], shots=[1, 5], episodes=9,
        out='r.md',
    )  # fmt: skip
    assert args.base == 'r' and parse(Request, ['c.py', 'a.pth']).folds is None
    assert parse(Request, ['c.py', '--episodes', '9']) == Request('c.py', [], episodes=9)


def test_testing_says_what_is_wrong(capsys):
    assert 'at least one value is needed' in refused(capsys, Request, 'c.py', 'k', '--folds')
    assert "int() with base 10: 'x'" in refused(capsys, Request, 'c.py', 'k', '--folds', '0', 'x')
    assert "invalid choice 'x'" in refused(capsys, Request, 'c.py', 'k', '--launcher', 'x')
    assert 'CONFIG' in refused(capsys, Request) and "'None'" in refused(
        capsys, Request, 'c.py', 'k', '--episodes', 'None'
    )


def test_labelling(capsys):
    assert parse(LabelArguments, ['s', 'i', 'o']) == LabelArguments('s', 'i', 'o')
    argv = 's i o --threshold 0.3 --threshold cat=0.4 --no-overlays --batch-size 4 --pairs 2'
    expected = LabelArguments(
        's', 'i', 'o', threshold=('0.3', 'cat=0.4'), overlays=False, batch_size=4, pairs=2
    )
    assert parse(LabelArguments, argv.split()) == expected
    assert 'OUT' in refused(capsys, LabelArguments, 's', 'i')


@pytest.mark.parametrize(
    ('arguments', 'rest'), [(TrainArguments, ()), (Request, ([],)), (FreezeArguments, ('f.json',))]
)
def test_what_configs_read_from_the_environment_are_options(arguments, rest):
    given = dict(method='prototype', benchmark='shapes_5i', fold='1')
    argv = [text for name, value in given.items() for text in (f'--{name}', value)]
    assert parse(arguments, ['c.py', *(r for r in rest if r), *argv]) == arguments(
        'c.py', *rest, **given
    )
    assert (unset := parse(arguments, ['c.py', *(r for r in rest if r)])).fold is None
    assert unset.method is None and unset.benchmark is None


def test_others(capsys):
    assert parse(WebuiArguments, ['--port', '-1', '--host', '::1']).port == -1
    assert parse(PromptArguments, []) == PromptArguments()
    assert parse(PromptArguments, ['c', 'w', '--out', 'o']) == PromptArguments(
        'c', 'w', out=Path('o')
    )
    args = parse(CurvesArguments, ['a', 'b', '--keys', 'loss', 'IoU/*', '--smooth', '3'])
    assert args == CurvesArguments(['a', 'b'], keys=['loss', 'IoU/*'], smooth=3)
    assert parse(FreezeArguments, ['c', 'f', '--folds', '1', '--seed', '2']) == FreezeArguments(
        'c', 'f', folds=[1], seed=2
    )

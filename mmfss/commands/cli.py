"""The ``mmfss`` command, and the parts of it that the scripts in ``tools/`` are.

A command line is understood before anything is imported that takes long.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pkgutil import resolve_name

import mmfss
from mmfss.commands import command_lines
from mmfss.commands.ending import ends_in_one_line

COMMANDS: dict[str, tuple[type | None, str, str]] = {
    'train': (command_lines.TrainArguments, 'train:run', 'train on the base classes of a fold'),
    'test': (command_lines.Request, 'test:evaluate', 'test on its novel classes; tables of papers'),
    'table': (command_lines.TableArguments, 'table:run', 'test several methods and compare them'),
    'compare': (command_lines.CompareArguments, 'compare:run',
                'say which of several results is better, on the same episodes'),
    'pictures': (command_lines.PicturesArguments, 'pictures:run',
                 'draw the worst, best or named episodes, methods side by side'),
    'label': (command_lines.LabelArguments, 'label:run', 'label a folder of images'),
    'export': (command_lines.ExportArguments, 'export:run',
               'write a method as graphs that run without torch'),
    'check': (command_lines.CheckArguments, 'check:run', 'check the marked images by themselves'),
    'runtimes': (command_lines.RuntimesArguments, 'runtime_agreement:run',
                 'compare what OpenVINO gives with what torch gives'),
    'prepare': (None, 'prepare:main', 'bring a dataset into form; makes the generated example'),
    'webui': (command_lines.WebuiArguments, 'webui:run', 'the same in a browser'),
    'serve': (command_lines.ServeArguments, 'serve:run', 'behind Label Studio and X-AnyLabeling'),
    'weights': (command_lines.WeightsArguments, 'weights:run', 'list and fetch official weights'),
    'freeze-episodes': (command_lines.FreezeArguments, 'freeze_episodes:run',
                        'write test episodes to a file'),
    'train-prompts': (command_lines.PromptArguments, 'train_prompts:run',
                      'train heads for boxes, points and scribbles'),
    'convert-fssam': (command_lines.ConvertArguments, 'convert_fssam:run',
                      'turn a published checkpoint into one of mmfss'),
    'convert-sansa': (command_lines.ConvertAdaptersArguments, 'convert_sansa:run',
                      'turn published adapters into a checkpoint of mmfss'),
    'convert-fs-sam2': (command_lines.ConvertFSSAM2Arguments, 'convert_fs_sam2:run',
                        'the same for FS-SAM2'),
    'fold-lora': (command_lines.FoldArguments, 'fold_lora:run',
                  'add LoRA to the weights that it belongs to'),
    'plot-curves': (command_lines.CurvesArguments, 'plot_curves:run', 'draw training curves'),
    'demo': (command_lines.DemoArguments, 'demo:run', 'train, test and draw FSSAM on shapes'),
}  # fmt: skip
"""Name -> class of its arguments, function of them in this package, and what it does.

Without a class the function takes the command line and the name of the program.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mmfss COMMAND ...``.

    Args:
        argv: The command line without the program; None takes the process's.

    Raises:
        SystemExit: See :func:`run`.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog='mmfss',
        description='Few-shot segmentation; mmfss COMMAND --help lists the options of a command.',
        epilog='\n'.join(f'  {name:{width}}  {what}' for name, (_, _, what) in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'mmfss {mmfss.__version__}')
    parser.add_argument('command', choices=COMMANDS, metavar='COMMAND', help='one of those below')
    name = parser.parse_args(given[:1]).command
    run(name, given[1:], f'mmfss {name}')


def run(name: str, argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run one command.

    Args:
        name: One of :data:`COMMANDS`.
        argv: Its command line without the program; None takes the process's.
        prog: Name of the program in messages; None takes the process's.

    Raises:
        SystemExit: With the command's status where that is not 0; with 2 for a wrong command line,
            0 after ``--help``; see :func:`mmfss.commands.ending.ends_in_one_line`.
    """
    arguments, function, _ = COMMANDS[name]
    given = (argv, prog) if arguments is None else (command_lines.parse(arguments, argv, prog),)
    with ends_in_one_line():
        result = resolve_name(f'mmfss.commands.{function}')(*given)
        if isinstance(result, int) and result != 0:
            sys.exit(result)


def label() -> None:
    """The command ``mmfss-label``."""
    run('label')

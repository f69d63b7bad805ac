"""The command line of ``mmfss export``; what it writes is in tests/test_export."""

from __future__ import annotations

import json

import pytest
from tiny_models import METHODS

from mmfss.commands.export import main
from mmfss.export.formats import NEEDS


@pytest.fixture
def export(tmp_path, capsys):
    """Exports a tiny method; status, what was printed, and the folder."""
    for package in NEEDS['openvino']:
        pytest.importorskip(package, reason='mmfss[export] has it')

    def call(method: str, *argv: str, **changes):
        model, out = dict(METHODS[method], **changes), tmp_path / 'out'
        text = f'model = {model!r}\ncustom_imports = dict(imports=["mmfss"])\n'
        (tmp_path / 'a_method.py').write_text(text)
        try:
            main([str(tmp_path / 'a_method.py'), 'none', str(out), *argv])
            status = 0
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out + printed.err, out

    return call


def test_an_export_is_written_and_how_it_is_run_is_said(export):
    status, said, out = export('PrototypeMatcher', '--shots', '2')
    assert status == 0 and f'python {out / "runner.py"} PHOTOS LABELS --support SUPPORT' in said
    assert json.loads((out / 'manifest.json').read_text())['shots'] == 2


def test_of_supports_without_a_graph_no_command_is_said(export):
    status, said, out = export('DensityMatcher', refine=None)
    assert status == 0 and (out / 'runner.py').is_file()
    assert 'its supports have no static graph' in said and 'export it with --support' in said
    assert 'PHOTOS LABELS' not in said


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['--shots', '0'], '--shots must be an integer >= 1, got 0'),
        (['--shots', '-1'], '--shots must be an integer >= 1, got -1'),
        (['--format', 'coreml'], "--format must be one of ['openvino', 'onnx'], got 'coreml'"),
    ],
)
def test_wrong_arguments_have_status_2(export, argv, message):
    status, said, out = export('PrototypeMatcher', *argv)
    assert status == 2 and message in said and not out.exists()

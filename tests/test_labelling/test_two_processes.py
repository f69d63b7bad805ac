"""Two processes of one gloo group write what one writes."""

from __future__ import annotations

import os

from two_processes import in_two_processes

from mmfss.commands.label import label
from mmfss.labelling.records import Records


def test_two_processes_write_what_one_writes(case, tmp_path, files_of):
    out = tmp_path / 'out'
    assert in_two_processes(label, case.arguments(out)) == [0, 0]
    assert files_of(out) == files_of(case.reference)
    records = Records(out / 'records')
    shares = [sum(e.file == i for e in records.entries.values()) for i in range(3)]
    assert shares == [0, 5, 4]  # the first file is that of the plan


def test_errors_end_both(case, tmp_path, capfd):
    out = tmp_path / 'out'
    assert in_two_processes(label, case.arguments(out, '--threshold', 'dog=1')) == [2, 2]
    assert capfd.readouterr().err.count("there is no class 'dog'") == 1
    (tmp_path / 'images').mkdir()
    arguments = case.arguments(out, images=tmp_path / 'images')
    assert in_two_processes(label, arguments) == [2, 2]
    assert capfd.readouterr().err.count('holds no image') == 1
    assert in_two_processes(label, case.arguments(out, '--device', 'cpu:0')) == [2, 2]
    assert '--device cpu:0 would be shared by 2 processes' in capfd.readouterr().err


def _with_a_full_disk(arguments):
    real = os.replace

    def replace(source, target):
        if str(target).endswith('ann_dir/05.png'):
            raise OSError(28, 'No space left on device', str(target))
        real(source, target)

    os.replace = replace
    return label(arguments)


def test_a_full_disk_in_one_process_ends_both(case, tmp_path, files_of):
    arguments = case.arguments(tmp_path / 'out')
    assert in_two_processes(_with_a_full_disk, arguments) == [2, 2]
    assert not (tmp_path / 'out/annotations.json').exists()
    assert label(arguments) == 0
    assert files_of(tmp_path / 'out') == files_of(case.reference)

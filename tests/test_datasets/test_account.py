"""What was left out, by reason: merged, as a table, as a sentence, as a CSV that is read again."""

from __future__ import annotations

import csv
import pickle

import pytest

from mmfss.datasets.account import FILE, Account, Reason, Row

BOX = Reason('box without an outline, left out', 'draw outlines')
SMALL = Reason('less than 256 pixels', 'lower --min-area')
CROWD = Reason('iscrowd 1, read as an object', lost=False)


def _account() -> Account:
    account = Account()
    for number in range(3):
        account.add(BOX, 'bolt', f'annotation {number}', f'b{number}.jpg')
    account.add(BOX, 'nut', 'annotation 9', 'n.jpg')
    account.add(CROWD, 'nut', 'annotation 8', 'n.jpg')
    account.add(SMALL, '', '', 'a.jpg')
    return account


def test_parts_of_processes_are_merged():
    whole, part = _account(), Account()
    part.add(SMALL, 'bolt', 'annotation 4', 'c.jpg')
    whole.merge(pickle.loads(pickle.dumps(part)))
    assert [whole.count(reason) for reason in (BOX, SMALL, CROWD, None)] == [4, 2, 1, 7]
    assert part.count() == 1
    assert whole.rows[SMALL] == [
        Row('', '', 'a.jpg'),
        Row('bolt', 'annotation 4', 'c.jpg'),
    ]


def test_the_table_has_a_line_for_each_reason():
    assert _account().table() == [
        'number  reason                            classes        first of them',
        '     4  box without an outline, left out  bolt 3, nut 1  '
        'annotation 0 in b0.jpg, annotation 1 in b1.jpg',
        '     1  iscrowd 1, read as an object      nut 1          annotation 8 in n.jpg',
        '     1  less than 256 pixels                             a.jpg',
    ]
    assert Account().table() == []


@pytest.mark.parametrize(('reasons', 'lines'), [(1, 2), (9, 10), (10, 10), (40, 10)])
def test_the_table_has_at_most_ten_lines_and_counts_all(reasons, lines):
    account = Account()
    for number in range(reasons):
        for _ in range(number + 1):
            account.add(Reason(f'reason {number}'), f'class {number}', 'x\n' * 50, 'a\x1b[2J\n.jpg')
    table = account.table()
    assert len(table) == lines
    assert sum(int(line.split()[0]) for line in table[1:]) == account.count()
    assert all(line.isprintable() and len(line) < 200 for line in table)


def test_what_is_lost_is_a_sentence_with_remedies():
    assert _account().because() == (
        '4 x box without an outline, left out (bolt 3, nut 1): annotation 0 in b0.jpg, annotation '
        '1 in b1.jpg -> draw outlines; 1 x less than 256 pixels: a.jpg -> lower --min-area'
    )
    read_only = Account()
    read_only.add(CROWD, 'nut')
    assert read_only.because() == Account().because() == ''


def test_what_was_lost_of_a_class():
    part = _account().of(['nut'])
    assert dict(part.rows) == {
        BOX: [Row('nut', 'annotation 9', 'n.jpg')],
        SMALL: [Row('', '', 'a.jpg')],
    }


def test_the_csv_has_a_line_for_each_thing_and_is_read_again(tmp_path):
    account = _account()
    account.add(SMALL, 'a, "b"\nc', 'annotation é', 'folder/x, y.jpg')
    assert account.write(tmp_path) == tmp_path / FILE
    with open(tmp_path / FILE, encoding='utf-8', newline='') as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == account.count() == 7
    assert lines[3] == dict(
        reason=BOX.text,
        left_out='yes',
        what='annotation 9',
        file='n.jpg',
        remedy='draw outlines',
        **{'class': 'nut'},
    )
    assert Account.read(tmp_path).rows == account.rows


def test_no_csv_where_there_is_nothing_to_say(tmp_path):
    assert _account().write(tmp_path) is not None
    assert Account().write(tmp_path) is None
    assert not (tmp_path / FILE).exists()
    assert not Account.read(tmp_path)


def test_names_that_are_no_utf8_do_not_stop_the_csv(tmp_path):
    account = Account()
    account.add(SMALL, '', '', 'a\udcff.jpg')
    assert account.write(tmp_path) is not None
    assert r'a\udcff.jpg' in (tmp_path / FILE).read_text(encoding='utf-8')


@pytest.mark.parametrize('text', ['', 'a,b\n', 'reason,left_out,class,what,file,remedy\nx,yes\n'])
def test_a_csv_of_another_form_is_refused(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match='must have the columns reason,left_out'):
        Account.read(tmp_path)

from __future__ import annotations

import pytest

from mmfss.checkpoints.patterns import labels, resolve


@pytest.fixture
def folder(in_tmp_path):
    for name in ('fold0/best_3.pth', 'fold1/best_9.pth', 'fold1/last.pth', 'all/a[1].pth'):
        (in_tmp_path / name).parent.mkdir(exist_ok=True)
        (in_tmp_path / name).write_text('')
    return in_tmp_path


def test_one_file_per_fold_and_pattern(folder):
    assert resolve(['fold{fold}/best_*.pth', 'all/a[1].pth'], [1, 0]) == {
        ('fold{fold}/best_*.pth', 0): 'fold0/best_3.pth',
        ('fold{fold}/best_*.pth', 1): 'fold1/best_9.pth',
        ('all/a[1].pth', 0): 'all/a[1].pth',  # a file of that name, no wildcard
        ('all/a[1].pth', 1): 'all/a[1].pth',
    }
    assert resolve(['**/last.pth'], [1]) == {('**/last.pth', 1): 'fold1/last.pth'}


def test_addresses_are_taken_as_they_are():
    pattern = 'https://host/fold{fold}.pth?x=*'
    assert resolve([pattern], [2]) == {(pattern, 2): 'https://host/fold2.pth?x=*'}


def test_all_problems_are_listed(folder):
    with pytest.raises(FileNotFoundError) as error:
        resolve(['fold{fold}/*.pth'], [0, 1, 2])
    text = str(error.value)
    assert 'fold 2: fold2/*.pth matches no file' in text
    assert 'fold 1: fold1/*.pth matches 2 files: fold1/best_9.pth, fold1/last.pth' in text
    assert 'fold 0' not in text
    with pytest.raises(ValueError, match='exactly one file per fold; fold 1: .* matches 2 files'):
        resolve(['fold{fold}/*.pth'], [0, 1])
    with pytest.raises(FileNotFoundError, match='checkpoint none.pth does not exist'):
        resolve(['none.pth'], [0])
    with pytest.raises(FileNotFoundError, match=r'fold 0: fol[?]0 matches no file'):
        resolve(['fol?{fold}'], [0])  # a folder is no file


def test_names_of_rows():
    assert labels(['a/fold{fold}/best_*.pth', 'a/fold{fold}/last.pth']) == {
        'a/fold{fold}/best_*.pth': 'best_*.pth',
        'a/fold{fold}/last.pth': 'last.pth',
    }
    assert labels(['a/last.pth', 'b/last.pth']) == {
        'a/last.pth': 'a/last.pth',
        'b/last.pth': 'b/last.pth',
    }

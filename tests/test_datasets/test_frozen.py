"""Episodes frozen to a file: replayed exactly, refused on anything else."""

from __future__ import annotations

import json
import shutil

import pytest
from episode_cases import build
from PIL import Image

from mmfss.datasets.frozen import freeze


def write(dataset, path):
    episodes = [dataset.episode(i) for i in range(len(dataset))]
    freeze(path, episodes, dataset.split, dataset.role, dataset.protocol, dataset.index)
    return episodes


@pytest.fixture
def frozen(big_voc, tmp_path):
    """A dataset, its episodes and their file."""
    dataset = build(big_voc, shots=2, sampler='balanced', num_episodes=12)
    return dataset, write(dataset, tmp_path / 'fold0_2shot.json'), tmp_path / 'fold0_2shot.json'


def test_replayed_with_any_sampler_and_seed_on_a_copy_of_the_data(big_voc, tmp_path, frozen):
    _, episodes, path = frozen
    shutil.copytree(big_voc, tmp_path / 'copy')  # other folder, other times of change
    replay = build(tmp_path / 'copy', shots=2, seed=99, num_episodes=None, episodes_file=str(path))
    assert len(replay) == 12 and [replay.episode(i) for i in range(12)] == episodes
    assert replay.protocol['sampler'] == 'frozen' and replay.protocol['seed'] is None
    content = json.loads(path.read_text())
    content['episodes'][0][1:] = content['episodes'][0][:0:-1]  # query and supports swapped
    path.write_text(json.dumps(content))
    edited = build(big_voc, shots=2, num_episodes=None, episodes_file=str(path))
    assert edited.protocol['episodes_digest'] != replay.protocol['episodes_digest']
    write(frozen[0], path)
    first = build(
        big_voc,
        shots=2,
        num_episodes=5,
        episodes_file=f'{tmp_path}/fold{{fold}}_{{shots}}shot.json',
    )
    assert [first.episode(i) for i in range(5)] == episodes[:5]


def test_protocol_is_in_the_file(frozen):
    dataset, _, path = frozen
    content = json.loads(path.read_text())
    assert content['protocol'] == json.loads(json.dumps(dataset.protocol))
    assert (content['protocol']['sampler'], content['protocol']['seed']) == ('balanced', 5)


def test_protocol_of_a_replay_is_that_of_the_draw(big_voc, tmp_path):
    """Not the sampler and the areas that the replaying dataset would have drawn with."""
    path = tmp_path / 'episodes.json'
    drawn = build(big_voc, sampler='uniform_class', seed=7, min_area=30, support_min_area=25)
    write(drawn, path)
    replay = build(big_voc, seed=1, num_episodes=None, episodes_file=str(path)).protocol
    assert (replay['query_min_area'], replay['support_min_area']) == (30, 25)
    assert replay['frozen_from'] == dict(sampler='uniform_class', order=None, seed=7)
    assert replay['seed'] is None and replay['order'] is None
    content = json.loads(path.read_text())
    del content['protocol']
    path.write_text(json.dumps(content))
    replay = build(big_voc, num_episodes=None, episodes_file=str(path)).protocol
    assert replay['query_min_area'] is None  # not known


def test_replay_asks_nothing_of_the_areas(big_voc, tmp_path):
    """The file says which episodes; the areas of the config are for drawing them."""
    path = tmp_path / 'episodes.json'
    episodes = write(build(big_voc, shots=2), path)
    replay = build(big_voc, shots=2, num_episodes=None, min_area=10**6, episodes_file=str(path))
    assert [replay.episode(i) for i in range(len(replay))] == episodes
    assert set(replay.absent_classes) == {
        name for c, name in zip(replay.split.novel, replay.split.novel_names)
        if all(e.class_id != c for e in episodes)
    }  # fmt: skip


def test_seed_in_the_name_of_the_file(big_voc, tmp_path):
    folder = tmp_path / '{odd}'
    episodes = {s: write(build(big_voc, seed=s), folder / f'seed{s}.json') for s in (1, 2)}
    for seed in (1, 2):
        file = f'{folder}/seed{{seed}}.json'
        replay = build(big_voc, seed=seed, num_episodes=None, episodes_file=file)
        assert [replay.episode(i) for i in range(len(replay))] == episodes[seed]


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(shots=1), r"is of \{'shots': 2\}, the dataset is of \{'shots': 1\}"),
        (dict(fold=1, shots=2), r"is of \{'fold': 0, 'classes': \['aeroplane', .*'fold': 1"),
        (dict(split='base', shots=2), r"is of \{'role': 'novel', .*'role': 'base'"),
        (dict(shots=2, num_episodes=13), 'has 12 episodes, num_episodes is 13; lower it'),
    ],
)
def test_other_settings_are_refused(big_voc, frozen, options, message):
    with pytest.raises(ValueError, match=message):
        build(big_voc, **{'num_episodes': None, **options, 'episodes_file': str(frozen[2])})


def test_other_data_are_refused(big_voc, tmp_path, frozen):
    shutil.copytree(big_voc, tmp_path / 'copy')
    mask = tmp_path / 'copy/SegmentationClassAug/im003.png'
    label = Image.open(mask)
    label.putpixel((5, 5), 0 if label.getpixel((5, 5)) else 1)  # one pixel of one mask
    label.save(mask)
    with pytest.raises(ValueError, match='was frozen on other data: .*150 images here.* freeze'):
        build(tmp_path / 'copy', shots=2, episodes_file=str(frozen[2]))


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda rows: rows[3].__setitem__(0, 19), r'episode 3 is \[19, .*expected a class of'),
        (lambda rows: rows[4].__setitem__(2, rows[4][1]), 'episode 4 is .*different images'),
        (lambda rows: rows[5].__setitem__(1, 'im999'), 'episode 5 is .*im999'),
        (lambda rows: rows[6].pop(), 'episode 6 is .*a query and 2 supports'),
        (lambda rows: rows.clear(), 'has no episodes'),
    ],
)
def test_rows_that_no_sampler_gives(big_voc, frozen, change, message):
    content = json.loads(frozen[2].read_text())
    change(content['episodes'])
    frozen[2].write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        build(big_voc, shots=2, num_episodes=None, episodes_file=str(frozen[2]))


def test_cut_off_or_missing_file(big_voc, frozen):
    path = frozen[2]
    path.write_text(path.read_text()[:-40])
    with pytest.raises(ValueError, match='cut off or damaged'):
        build(big_voc, shots=2, episodes_file=str(path))
    with pytest.raises(FileNotFoundError, match='not found: .*none.json; make it with'):
        build(big_voc, shots=2, episodes_file=str(path.with_name('none.json')))

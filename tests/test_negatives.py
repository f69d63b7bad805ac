"""What is marked as not the class, through every door: API, support file, folder, command, mmseg,
page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import segmentor_cases
import torch
from mmseg.registry import MODELS
from PIL import Image
from prepared_checks import save
from tiny_models import FULL, METHODS, randomised
from webui_steps import painted

from mmfss.apis import FewShotInferencer, FewShotSegmentor, SupportSet
from mmfss.commands import prepare
from mmfss.commands.label import label
from mmfss.labelling.plan import support_digest
from mmfss.methods.base import FewShotModel
from mmfss.webui.folders import VisitorFolder
from mmfss.webui.limits import Limits
from mmfss.webui.session import Session
from mmfss.webui.views import shot_list, support_summary
from mmfss.webui.worker import ModelWorker

SIZES = ((64, 64), (50, 90))


def build(name: str = 'PrototypeMatcher') -> FewShotModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return randomised(MODELS.build(METHODS[name])).eval()


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Supports of two classes, negatives of one (an image, a marked part), images, the folder."""
    root = tmp_path_factory.mktemp('negatives')
    support = segmentor_cases.support(root / 'support')
    image, shown = segmentor_cases.scene(50, (60, 80), ('bar',))
    paths = [str(root / 'look_alike.png'), str(root / 'marked.png')]
    Image.fromarray(image[..., ::-1]).save(paths[0])
    save(Path(paths[1]), (shown > 0).astype(np.uint8))
    other = str(root / 'without.png')
    Image.fromarray(segmentor_cases.scene(51, (50, 50), ())[0][..., ::-1]).save(other)
    negatives = {'disc': [tuple(paths), other]}
    return support, negatives, segmentor_cases.images(root, SIZES), root


@pytest.fixture(scope='module')
def plain(files) -> FewShotInferencer:
    inferencer = FewShotInferencer(build(), threshold=0.0)
    inferencer.set_support(files[0])
    return inferencer


@pytest.fixture(scope='module')
def shown(files) -> FewShotInferencer:
    inferencer = FewShotInferencer(build(), threshold=0.0)
    inferencer.set_support(files[0], files[1])
    return inferencer


def test_they_change_their_own_class_alone(files, plain, shown):
    for path in files[2]:
        one, other = plain(path), shown(path)
        assert (one.logits[0] >= other.logits[0]).all() and (one.logits[0] > other.logits[0]).any()
        np.testing.assert_allclose(one.logits[1], other.logits[1], atol=1e-5)


def test_a_file_gives_the_same_and_runs_are_told_apart(files, plain, shown, tmp_path):
    shown.save_support(tmp_path / 'support.safetensors')
    again = FewShotInferencer(build(), threshold=0.0)
    again.load_support(tmp_path / 'support.safetensors')
    for path in files[2]:
        np.testing.assert_array_equal(again(path).logits, shown(path).logits)
    assert support_digest(again.support) == support_digest(shown.support)
    fewer = SupportSet.build(files[0], 64, negatives={'disc': files[1]['disc'][:1]})
    other = SupportSet.build(files[0], 64, negatives={'bar': files[1]['disc']})
    digests = {support_digest(one) for one in (shown.support, plain.support, fewer, other)}
    assert len(digests) == 4


def test_methods_that_take_none_say_which_do(files):
    inferencer = FewShotInferencer(build('PseudoMask'), threshold=0.0)
    inferencer.set_support(files[0])
    before = inferencer.support
    message = 'PseudoMask takes no negatives .*PrototypeMatcher.* do. Use one of them, or leave'
    with pytest.raises(ValueError, match=message):
        inferencer.set_support(files[0], files[1])
    assert inferencer.support is before and inferencer(files[2][0]).scores.shape == (2,)
    with pytest.raises(ValueError, match='given with a SupportSet, which has its own'):
        inferencer.set_support(before, files[1])


def test_in_mmseg(files, shown):
    held = FewShotSegmentor(build(), files[0], 0.0, negatives=files[1]).eval()
    held._has_weights = True  # random ones
    image = np.array(Image.open(files[2][0]))
    logits = held.encode_decode(torch.from_numpy(image).permute(2, 0, 1)[None].float())
    np.testing.assert_array_equal(logits.argmax(1)[0].numpy(), shown(files[2][0]).labels)
    with pytest.raises(
        ValueError, match=r'model\.negatives goes with a model\.support that is a d'
    ):
        FewShotSegmentor(build(), shown.support, negatives=files[1])


def write_folder(root: Path, files) -> Path:
    for name, shots in files[0].items():
        for i, (image, mask) in enumerate(shots):
            save(root / name / 'images' / f'{i}.png', np.array(Image.open(image)))
            save(root / name / 'masks' / f'{i}.png', np.array(Image.open(mask)))
    (marked, mask), alone = files[1]['disc']
    save(root / 'disc/images/not/0.png', np.array(Image.open(marked)))
    save(root / 'disc/masks/not/0.png', np.array(Image.open(mask)))
    save(root / 'disc/images/not/1.png', np.array(Image.open(alone)))
    return root


def test_label_command(files, shown, tmp_path, capsys):
    folder = write_folder(tmp_path / 'support', files)
    config = tmp_path / 'tiny.py'
    config.write_text(
        "custom_imports = dict(imports=['mmfss'], allow_failed_imports=False)\n"
        f"default_scope = 'mmseg'\nmodel = {METHODS['PrototypeMatcher']!r}\n"
    )
    out = tmp_path / 'out'
    images = str(files[3] / 'images')
    line = ['--config', str(config), '--threshold', '0', '--device', 'cpu']

    def run(support: Path, out: Path, *more: str) -> int:
        with torch.random.fork_rng():  # the encoder's weights are random
            torch.manual_seed(0)
            return label([str(support), images, str(out), *line, *more])

    assert run(folder, out) == 0
    assert 'images of what a class is not: disc 2\n' in capsys.readouterr().out
    assert json.loads((out / 'run.json').read_text())['info']['negatives'] == {'disc': 2}
    kept = SupportSet.load(out / 'support.safetensors')
    assert support_digest(kept) != support_digest(SupportSet(kept.shots, kept.image_size))
    assert [len(some) for some in kept.negatives.values()] == [2]
    np.testing.assert_array_equal(
        kept.negatives['disc'][0].mask, shown.support.negatives['disc'][0].mask
    )
    assert run(out / 'support.safetensors', tmp_path / 'again') == 0
    for path in sorted((out / 'ann_dir').iterdir()):
        assert path.read_bytes() == (tmp_path / 'again/ann_dir' / path.name).read_bytes()
    (folder / 'disc/images/not/1.png').unlink()
    assert run(folder, out) == 2  # other supports, other folder
    assert 'made with other values' in (said := capsys.readouterr().err) and 'support' in said
    config.write_text(config.read_text().split('model =')[0] + f'model = {FULL!r}\n')
    weights = tmp_path / 'tiny.pth'
    torch.save(dict(state_dict=MODELS.build(FULL).state_dict(), meta={}), weights)
    assert run(folder, tmp_path / 'none', '--weights', str(weights)) == 2
    assert 'FSSAM takes no negatives' in capsys.readouterr().err
    assert not (tmp_path / 'none').exists()


def test_prepared_folders_leave_them_out(tmp_path, capsys):
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 40, 3), np.uint8)
        mask = np.zeros((40, 40), np.uint8)
        mask[5:30, 5:30] = 255
        for folder in ('cup', 'cup/not'):
            save(tmp_path / f'photos/{folder}/images' / f'{i}.png', pixels)
            save(tmp_path / f'photos/{folder}/masks' / f'{i}.png', mask)
    for kind in ('images', 'masks'):  # photos/cup/images/not, as the negatives of this form lie
        (tmp_path / f'photos/cup/not/{kind}').rename(tmp_path / f'photos/cup/{kind}/not')
    (tmp_path / 'photos/cup/not').rmdir()
    assert not prepare.main(['folder', str(tmp_path / 'photos'), str(tmp_path / 'out')])
    said = capsys.readouterr().out
    assert "3 images in folders 'not' left out" in said and '3 images (layout classes)' in said
    listed = (tmp_path / 'out/splits/all.txt').read_text()
    assert len(listed.splitlines()) == 3 and 'not/' not in listed


def test_page(files, shown, tmp_path):
    worker = ModelWorker(FewShotInferencer(build(), threshold=0.0))
    session = Session(worker, Limits(), VisitorFolder.below(tmp_path))

    def mark(name: str, image: str, mask: str | None, negative: bool = False) -> None:
        session.add_photos([(Path(image), Path(image).name)])
        session.choose_photo(len(session.photos) - 1)
        paint = '' if mask is None else painted(np.array(Image.open(mask)) > 0)
        session.use_mask(name, paint, negative)

    try:
        (image, mask), alone = files[1]['disc']
        with pytest.raises(ValueError, match='no disc is marked yet; mark an object of it first'):
            mark('disc', image, mask, True)
        mark('disc', *files[0]['disc'][0])
        mark('disc', image, mask, True)
        mark('Disc', alone, None, True)
        mark('disc', *files[0]['disc'][1])
        mark('bar', *files[0]['bar'][0])
        assert session.supports.classes == ('disc', 'bar')
        assert 'disc: 2, not: 2</span>' in support_summary(session)
        captions = [caption for _, caption in shot_list(session)]
        assert [text.split(' (')[0] for text in captions] == ['disc'] * 2 + ['not disc'] * 2 + [
            'bar'
        ]
        session.add_queries([(Path(path), Path(path).name) for path in files[2]])
        session.label()
        for query, path in zip(session.queries, files[2], strict=True):
            np.testing.assert_array_equal(query.whole().labels, shown(path).labels)
        saved = tmp_path / 'support.safetensors'
        session.supports.as_set(64).save(saved)
        other = Session(worker, Limits(), VisitorFolder.below(tmp_path))
        assert other.add_photos([(saved, 'mine.safetensors')]) == []
        assert support_summary(other) == support_summary(session)
        few = Session(worker, Limits(max_shots=4), VisitorFolder.below(tmp_path))
        assert 'has 5 marked objects, 4 are' in few.add_photos([(saved, 'mine.safetensors')])[0]
        for _ in range(2):
            session.drop_shot(0)
        with pytest.raises(ValueError, match='of disc only what it is not is marked; mark one'):
            session.label()
        other.close(), few.close()
    finally:
        session.close()
        worker.close()


def test_page_of_a_method_that_takes_none(files, tmp_path):
    worker = ModelWorker(FewShotInferencer(build('PseudoMask'), threshold=0.0))
    session = Session(worker, Limits(), VisitorFolder.below(tmp_path))
    try:
        session.add_photos([(Path(files[2][0]), 'a.png')])
        with pytest.raises(ValueError, match='PseudoMask takes no negatives'):
            session.use_mask('disc', '', True)
        assert not session.supports
    finally:
        session.close()
        worker.close()

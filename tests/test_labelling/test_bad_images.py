"""Images of every kind, names of every kind: labelled, or in failed.csv with the reason."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmfss.apis.images import as_bgr
from mmfss.commands.label import label
from mmfss.datasets.io import read_mask
from mmfss.labelling import plan
from mmfss.labelling.records import OVERLAY_SIDE


def picture(height: int = 40, width: int = 60) -> Image.Image:
    rows = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
    return Image.fromarray(rows.astype(np.uint8))


def failures(out: Path) -> dict[str, str]:
    with open(out / 'failed.csv', encoding='utf-8', newline='') as file:
        return {row['image']: row['error'] for row in csv.DictReader(file)}


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with broken images and good ones of unusual form."""
    root = tmp_path / 'odd'
    (root / 'ordner mit ümläut').mkdir(parents=True)
    picture().save(root / 'cmyk.jpg')
    Image.open(root / 'cmyk.jpg').convert('CMYK').save(root / 'cmyk.jpg')
    Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 20).save(root / 'deep.png')
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    picture().save(root / 'turned.jpg', exif=exif)
    picture(1, 1).save(root / 'pixel.png')
    picture(1, 300).save(root / 'thin.png')
    picture().convert('RGBA').save(root / 'alpha.webp')
    picture(900, 2 * OVERLAY_SIDE).save(root / 'large.jpg')
    picture().save(root / 'ordner mit ümläut' / '猫 \U0001f408, "b".png')
    picture().save(root / ('l' * 251 + '.png'))
    (root / 'empty.jpg').write_bytes(b'')
    data = (root / 'large.jpg').read_bytes()
    (root / 'torn.jpg').write_bytes(data[: len(data) // 2])
    (root / 'text.png').write_text('no image')
    frames = [picture(), picture(40, 60).rotate(90)]
    frames[0].save(root / 'moving.gif', save_all=True, append_images=frames[1:])
    picture().save(root / 'blank .png')
    picture().save(os.fsencode(root) + b'/latin\xe9.png')
    for link, target in (('self', 'self'), ('one', 'other'), ('other', 'one'), ('gone', 'none')):
        os.symlink(f'{target}.jpg', root / f'{link}.jpg')
    return root


def test_a_folder_of_odd_images(case, odd, tmp_path, capsys):
    out = tmp_path / 'out'
    assert label(case.arguments(out, images=odd)) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith('9 labelled') and ' 10 failed\n' in printed.out
    assert 'what failed, and why: ' in printed.out and printed.err.count('failed: ') == 10
    failed, nowhere = failures(out), ('self.jpg', 'one.jpg', 'other.jpg', 'gone.jpg')
    for name in nowhere:
        link = f'image file not found: {odd / name} (a link to nothing, or to itself)'
        assert failed.pop(name) == link
    assert sorted(failed) == [
        'blank .png', 'empty.jpg', 'latin\\udce9.png', 'moving.gif', 'text.png', 'torn.jpg'
    ]  # fmt: skip
    for name in ('empty.jpg', 'text.png', 'torn.jpg'):
        assert f'{odd / name}: it is truncated, damaged or not an image' in failed[name]
    assert 'has 2 frames or pages, allowed are still images' in failed['moving.gif']
    assert 'is not of UTF-8; rename the file' in failed['latin\\udce9.png']
    assert 'a blank at its begin or before its ending' in failed['blank .png']
    inferencer = case.inferencer()
    for name, size in {
        'cmyk.jpg': (40, 60), 'deep.png': (40, 60), 'turned.jpg': (60, 40), 'pixel.png': (1, 1),
        'thin.png': (1, 300), 'alpha.webp': (40, 60), 'large.jpg': (900, 2 * OVERLAY_SIDE),
        'l' * 251 + '.png': (40, 60), 'ordner mit ümläut/猫 \U0001f408, "b".png': (40, 60),
    }.items():  # fmt: skip
        labels = read_mask((out / 'ann_dir' / name).with_suffix('.png'))
        assert labels.shape == size == as_bgr(odd / name).shape[:2]
        np.testing.assert_array_equal(labels, inferencer(odd / name).labels)
    with Image.open(out / 'overlays/large.jpg') as overlay:
        assert overlay.width == OVERLAY_SIDE and 450 < overlay.height < 520  # and its legend

    (odd / 'torn.jpg').write_bytes((odd / 'large.jpg').read_bytes())
    for name in ('empty.jpg', 'text.png', 'moving.gif', 'blank .png'):
        (odd / name).unlink()
    os.unlink(os.fsencode(odd) + b'/latin\xe9.png')
    for name in nowhere:
        (odd / name).unlink()
    assert label(case.arguments(out, images=odd)) == 0
    assert capsys.readouterr().out.startswith('1 labelled')
    assert failures(out) == {}
    assert read_mask(out / 'ann_dir/torn.png').shape == (900, 2 * OVERLAY_SIDE)


def test_names_too_long_for_the_labels(case, tmp_path):
    """Only a name without an ending gets longer."""
    images = tmp_path / 'images'
    images.mkdir()
    long = 'x' * 253
    for name in (long, 'short'):
        picture().save(images / name, 'PNG')
    (tmp_path / 'list.txt').write_text(f'images/{long}\nimages/short\nimages/gone.jpg\n')
    out = tmp_path / 'out'
    assert label(case.arguments(out, images=tmp_path / 'list.txt')) == 1
    failed = failures(out)
    assert sorted(failed) == ['gone.jpg', long]
    assert f'{long} is too long for the file system of {out}; rename the image' in failed[long]
    assert 'file not found' in failed['gone.jpg']
    assert (out / 'lists/none.txt').read_text() == 'short\n'


def test_too_little_memory_is_the_fault_of_one_image(case, tmp_path, monkeypatch):
    images = tmp_path / 'images'
    images.mkdir()
    for height in (20, 30, 40):
        picture(height).save(images / f'{height}.png')

    def read(path, *how):
        if Path(path).name == '30.png':
            raise MemoryError
        return as_bgr(path, *how)

    monkeypatch.setattr('mmfss.labelling.run.as_bgr', read)
    assert label(case.arguments(tmp_path / 'out', images=images)) == 1
    assert failures(tmp_path / 'out') == {
        '30.png': f'image {images / "30.png"} does not fit into memory; make it smaller'
    }


def test_two_images_of_one_label_are_refused(case, tmp_path, capsys):
    images = tmp_path / 'images'
    images.mkdir()
    for name in ('a.jpg', 'b.jpg', 'b.png'):
        picture().save(images / name)
    assert label(case.arguments(tmp_path / 'out', images=images)) == 2
    assert 'b.jpg and b.png would both be labelled as ann_dir/b.png' in capsys.readouterr().err
    with pytest.raises(ValueError, match=r'label of x.jpg, ann_dir/x.png, is where the folder'):
        plan.check_distinct(['x.jpg', 'x.png/y.jpg'])


def test_folders_within_each_other_are_refused(case, tmp_path):
    images = tmp_path / 'images'
    (images / 'below').mkdir(parents=True)
    picture().save(images / 'a.jpg')
    os.symlink(images, tmp_path / 'link')
    for out in (images, images / 'out', tmp_path, tmp_path / 'link/out'):
        with pytest.raises(ValueError, match='lie in each other; then results would be labelled'):
            plan.find_images(images, out)
    (tmp_path / 'list.txt').write_text('images/a.jpg\n')
    with pytest.raises(ValueError, match=r'a.jpg lies in the output'):
        plan.find_images(tmp_path / 'list.txt', images)
    found = plan.find_images(tmp_path / 'list.txt', images / 'below')
    assert (found.root, found.names) == (images, ('a.jpg',))


def test_folders_and_lists_without_images(case, tmp_path, capsys):
    images = tmp_path / 'images'
    images.mkdir()
    assert label(case.arguments(tmp_path / 'out', images=images)) == 2
    assert f'folder {images} holds no image' in capsys.readouterr().err
    listing = tmp_path / 'list.txt'
    for content, message in (
        (b'\n \n', 'lists no image; put the path of one on each line'),
        (b'a.jpg\nb.jpg\n', 'none of the 2 images in'),
        (b'\xff\xd8\xff\xe0', 'neither a folder nor a text file of UTF-8'),
    ):
        listing.write_bytes(content)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            plan.find_images(listing, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()

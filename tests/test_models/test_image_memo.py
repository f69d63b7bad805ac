"""ImageMemo: encoded once, equal to the encoder, within its budget."""

import pytest
import torch

from mmfss.models.image_memo import ImageMemo


class Counting:
    """Encoder that counts the images it saw."""

    def __init__(self):
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return [images * 2, images.sum((1, 2, 3), keepdim=True)]


def test_each_image_is_encoded_once_and_outputs_are_the_encoders():
    images, encode, memo = torch.rand(3, 2, 4, 4), Counting(), ImageMemo(10**6)
    first = memo(encode, images)
    again = memo(encode, images.flip(0))
    assert encode.seen == 3
    assert (memo.hits, memo.misses) == (3, 3)
    for ours, theirs in zip(first, Counting()(images)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    for ours, flipped in zip(first, again):
        assert torch.equal(ours, flipped.flip(0))


def test_one_changed_bit_or_another_dtype_is_another_image():
    image, encode, memo = torch.rand(1, 2, 4, 4), Counting(), ImageMemo(10**6)
    changed = image.clone()
    changed[0, 1, 3, 3] = torch.nextafter(changed[0, 1, 3, 3], torch.tensor(2.0))
    memo(encode, image)
    assert torch.equal(memo(encode, changed)[0], changed * 2)
    memo(encode, image.double())
    assert encode.seen == 3
    with torch.autocast('cpu', torch.bfloat16):
        memo(encode, image)
    assert encode.seen == 4


def test_budget_is_kept_and_the_oldest_goes_first():
    images, encode = torch.rand(3, 2, 4, 4), Counting()
    entry = (32 + 1) * 4  # bytes of one image's outputs
    memo = ImageMemo(2 * entry)
    memo(encode, images)
    assert memo.bytes == 2 * entry and len(memo.entries) == 2
    memo(encode, images[1:])
    assert encode.seen == 3
    memo(encode, images[:1])
    assert encode.seen == 4


def test_no_budget_keeps_nothing_and_encodes_the_batch_at_once():
    images, encode, memo = torch.rand(3, 2, 4, 4), Counting(), ImageMemo(0)
    memo(encode, images)
    memo(encode, images)
    assert encode.seen == 6 and not memo.entries


def test_negative_budget_is_refused():
    with pytest.raises(ValueError, match='cache_bytes must be >= 0, got -1'):
        ImageMemo(-1)

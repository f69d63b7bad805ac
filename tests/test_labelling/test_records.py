"""Record files survive what happens to them."""

from __future__ import annotations

from mmfss.labelling.records import Records, RecordWriter, next_run


def record(name: str, certainty: float = 0.5) -> dict:
    return dict(image=name, ok=True, stat=[3, 4], label=[5, 6], certainty=certainty)


def test_every_torn_or_damaged_line_is_left_out(tmp_path):
    names = ['a.jpg', 'ü b.jpg', 'c.jpg']
    with RecordWriter(tmp_path, 1, 0) as writer:
        for name in names:
            writer.add(record(name))
    file = tmp_path / '000001-0000.jsonl'
    data = file.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    for cut in range(len(data) + 1):
        file.write_bytes(data[:cut])
        # a line that lacks nothing but its end holds
        assert list(Records(tmp_path).entries) == names[: sum(cut >= end - 1 for end in ends)]
    for place in range(0, ends[0] - 1):
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert list(Records(tmp_path).entries) == names[1:]


def test_the_last_record_of_an_image_counts(tmp_path):
    assert next_run(tmp_path) == 1
    for run, rank, certainty in ((1, 0, 0.1), (1, 1, 0.2), (2, 0, 0.3)):
        with RecordWriter(tmp_path, run, rank) as writer:
            writer.add(record('a.jpg', certainty))
            writer.add(record(f'{run}{rank}.jpg'))
    records = Records(tmp_path)
    assert records.read('a.jpg') == record('a.jpg', 0.3)
    assert sorted(records.entries) == ['10.jpg', '11.jpg', '20.jpg', 'a.jpg']
    assert records.entries['a.jpg'].stat == (3, 4) and records.entries['a.jpg'].label == (5, 6)
    assert next_run(tmp_path) == 3

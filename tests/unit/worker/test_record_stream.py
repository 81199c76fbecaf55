import pytest

from servery_common.contracts import frames
from servery_worker.record_stream import RecordStream

RECORDS = [(frames.READY, 0, {"mlflow": "3"}, b""), (frames.RESULT, 7, {"status": 200}, b"x" * 1000)]
STREAM = b"".join(frames.encode(*record) for record in RECORDS)


@pytest.mark.parametrize("step", [1, 7, 16, len(STREAM)])
def test_records_come_out_whole_however_the_bytes_are_cut(step: int):
    stream = RecordStream(1000)
    seen: list[tuple[int, int, object, bytes]] = []
    for at in range(0, len(STREAM), step):
        seen += [
            (record.kind, record.id, frames.read_head(record.head), bytes(record.body))
            for record in stream.feed(STREAM[at : at + step])
        ]
    assert seen == RECORDS


def test_a_record_that_would_fill_the_memory_is_an_error():
    header = frames.HEADER.pack(frames.RESULT, 0, 0, 2**32 - 1, 1)
    with pytest.raises(frames.FrameError):
        RecordStream(1000).feed(header)

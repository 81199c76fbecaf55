from servery_worker.model_log import KEPT_LINES, LONGEST_LINE, LogPipe, ModelLog


def test_the_newest_lines_are_kept():
    log = ModelLog()
    for number in range(KEPT_LINES + 5):
        log.append(str(number))
    assert len(log.tail()) == KEPT_LINES
    assert log.tail(2) == [str(KEPT_LINES + 3), str(KEPT_LINES + 4)]
    assert log.tail(0) == []


def test_lines_are_put_together_from_pieces_and_the_last_needs_no_end():
    seen: list[str] = []
    pipe = LogPipe(ModelLog(seen.append))
    pipe.data_received(b"fir")
    pipe.data_received(b"st\r\nsecond\nthi")
    assert seen == ["first", "second"]
    pipe.connection_lost(None)
    assert seen == ["first", "second", "thi"]


def test_a_line_without_end_takes_no_more_memory_than_a_long_line():
    seen: list[str] = []
    pipe = LogPipe(ModelLog(seen.append))
    for _ in range(10):
        pipe.data_received(b"x" * LONGEST_LINE)
    pipe.connection_lost(None)
    assert [len(line) for line in seen] == [LONGEST_LINE]


def test_bytes_that_are_no_text_are_kept_readable():
    log = ModelLog()
    LogPipe(log).data_received(b"caf\xff\n")
    assert log.tail() == ["caf\ufffd"]

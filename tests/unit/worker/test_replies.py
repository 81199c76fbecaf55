from servery_worker.replies import packed


def test_records_of_one_tick_leave_together():
    assert packed([b"a", b"b", b"c"], 10) == [b"abc"]


def test_a_message_stays_below_the_limit_and_keeps_the_order():
    assert packed([b"aaa", b"bbb", b"c"], 4) == [b"aaa", b"bbbc"]


def test_a_record_longer_than_the_limit_travels_alone():
    assert packed([b"a", b"bbbbbb", b"c"], 4) == [b"a", b"bbbbbb", b"c"]


def test_nothing_to_send_is_no_message():
    assert packed([], 4) == []

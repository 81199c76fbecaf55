from servery_local.logs import LONGEST_LINE, LineLog


class Memory:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def line_log() -> tuple[LineLog, Memory, Memory]:
    own, combined = Memory(), Memory()
    return LineLog("nats", own, combined), own, combined


def test_lines_cut_anywhere_come_out_whole() -> None:
    log, own, combined = line_log()
    for part in (b"one\ntw", b"", b"o\nthr"):
        log.feed(part)
    assert own.data == b"one\ntwo\n"
    assert combined.data == b"nats       | one\nnats       | two\n"


def test_the_last_words_of_a_component_are_kept_without_an_end_of_line() -> None:
    log, own, _ = line_log()
    log.feed(b"Killed")
    log.end()
    log.end()
    assert own.data == b"Killed\n"


def test_output_without_line_ends_does_not_grow_in_memory() -> None:
    log, own, _ = line_log()
    log.feed(b"x" * (LONGEST_LINE + 1))
    assert len(own.data) == LONGEST_LINE + 2

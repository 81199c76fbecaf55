import array
import os
import socket

from servery_runner import control


def test_messages_are_cut_wherever_the_stream_was():
    lines = control.Lines()
    stream = control.encode(control.FORKED, id=1, pid=2) + control.encode(control.EXITED, pid=2, status=0)
    seen = [message for byte in stream for message in lines.feed(bytes([byte]))]
    assert seen == [{"what": "forked", "id": 1, "pid": 2}, {"what": "exited", "pid": 2, "status": 0}]


def test_each_fork_order_gets_the_descriptors_that_came_with_it():
    ours, theirs = socket.socketpair()
    reader = control.OrderReader(theirs)
    read_end, write_end = os.pipe()
    rights = array.array("i", [read_end, write_end]).tobytes()
    ours.sendmsg([control.encode(control.FORK, id=5)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    [order] = reader.receive() or []
    received_read, received_write = order["fds"]
    os.write(received_write, b"x")
    assert os.read(received_read, 1) == b"x"
    ours.close()
    assert reader.receive() is None
    theirs.close()
    for fd in (read_end, write_end, received_read, received_write):
        os.close(fd)

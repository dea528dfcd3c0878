#!/usr/bin/python3
"""Does for podsecd what systemd does for podsecd.socket: holds the sockets, starts podsecd when somebody comes, and again
when it has ended (sd_listen_fds(3)).

    activate.py STREAM PACKET [NAME=VALUE...]     NAME=VALUE: sets LISTEN_PID or LISTEN_FDS wrongly, and starts at once

Leaves the pid in /run/podsec-tests/daemon.pid and prints how each podsecd ended.
"""
import os, select, signal, socket, sys

stream, packet, wrong = sys.argv[1], sys.argv[2], dict(word.split("=") for word in sys.argv[3:])
listeners = []
for path, kind in (packet, socket.SOCK_SEQPACKET), (stream, socket.SOCK_STREAM):
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(path)
    os.chmod(path, 0o666)
    listener.listen(512)
    listener.set_inheritable(True)
    listeners.append(listener)
assert [listener.fileno() for listener in listeners] == [3, 4]
child = 0
signal.signal(signal.SIGTERM, lambda *_: (child and os.kill(child, signal.SIGTERM), sys.exit(0)))
while True:
    if not wrong:
        select.select(listeners, [], [])
    child = os.fork()
    if child == 0:
        environment = {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid()), **wrong}
        os.execve("/usr/libexec/podsec/podsecd", ["podsecd"], environment)
    with open("/run/podsec-tests/daemon.pid", "w") as file:
        file.write(f"{child}\n")
    status = os.waitpid(child, 0)[1]
    child = 0
    print("ended", os.waitstatus_to_exitcode(status), flush=True)
    if wrong:
        break

"""Two programs that talk over 127.0.0.1, a scene each. What they print is the same on plain sockets and on the shm lane.

    scenes.py SCENE serve|ask DIRECTORY

The two find each other through files of DIRECTORY. `both` in place of a role: one process plays both.
"""

import signal
import sys

import left
import lies
import many
import others
import traffic
from common import Lines, meet, say

SCENES = {name: scene for module in (traffic, others, left, lies, many) for name, scene in vars(module).items()}

# Scenes that see to it themselves that the connection comes to the lane, or does not.
COLD = ("strangers", "urgent_unread", "lent")


def main():
    name, role, directory = sys.argv[1:4]
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if name == "stranger":
        lies.stranger(role, directory)
        return
    if role == "both":
        SCENES[name](directory)
    else:
        serves = role == "serve"
        lines = Lines(serves, directory)
        s = meet(serves, lines, cold=name in COLD)
        SCENES[name](serves, s, lines)
    say("over and out")


main()

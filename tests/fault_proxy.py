"""Runs the fault proxy (microburst) as a child process that cannot outlive its parent.

    python fault_proxy.py PORT UPSTREAM SEED

The same seed gives the same faults for the same sequence of calls. The proxy stops when standard input ends, which
happens when the parent ends for whatever reason.
"""

import os
import random
import sys
import threading

from microburst.cli import main


def watch_parent() -> None:
    while sys.stdin.buffer.raw.read(4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    port, upstream, seed = sys.argv[1:]
    random.seed(int(seed))
    threading.Thread(target=watch_parent, daemon=True).start()
    sys.exit(main(["--upstream", upstream, "--port", port, "--host", "127.0.0.1", "--no-resign"]))

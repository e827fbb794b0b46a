"""Executes a program that the kernel terminates if localmesh dies: `python launch.py PID PROGRAM ARGUMENT...`.

PID is that of localmesh. PR_SET_PDEATHSIG (Linux, prctl(2)) must be set in the new process. Setting it between fork
and exec in localmesh would be unsafe, because gRPC has threads there. So each child starts as this script, which needs
only the standard library, and the setting survives the exec.

A dying localmesh ends its threads one after the other, and the kernel may send the signal for each of them. So a child
may get SIGTERM more than once, and our services then skip their drain.

Other systems have no such setting: there, a killed localmesh leaves its children running.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Never returns: the process becomes the program, or exits."""
    parent, program, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):
            sys.exit("localmesh exited before its child started")
    try:
        os.execv(program, [program, *arguments])
    except OSError as error:
        sys.exit(f"{program}: {error.strerror}")


if __name__ == "__main__":
    main()

"""Becomes the program it is given, after asking the kernel to stop that program should localmesh die.

`python launch.py PID PROGRAM ARGUMENT...`: PID is localmesh. It runs before every child, as a script that needs
nothing but the standard library, because PR_SET_PDEATHSIG (Linux, prctl(2)) has to be set inside the new process
and survives only an exec; to set it between fork and exec in localmesh itself is unsafe beside gRPC's threads.
The kernel sends the signal as each thread of localmesh ends that the child is handed on to, so a child may see SIGTERM
more than once, and our services then hurry.

Elsewhere than on Linux there is no such request, and a killed localmesh leaves its children running.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Never returns: the process is the program afterwards, or has ended."""
    parent, program, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):
            sys.exit("localmesh ended before its child began")
    try:
        os.execv(program, [program, *arguments])
    except OSError as error:
        sys.exit(f"{program}: {error.strerror}")


if __name__ == "__main__":
    main()

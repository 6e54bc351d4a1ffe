"""What Android's kernel forbids an app, forbidden to a command and all that it starts.

Run by root: ``sandbox.py UID COMMAND...``

No hard links: Android's SELinux policy denies them (EACCES). No system calls that proot 5.1, Debian's,
does not know to translate: C libraries do without, as on an older kernel (ENOSYS).
"""

import ctypes
import errno
import os
import platform
import shutil
import struct
import sys

# By machine: linkat and link; statx, faccessat2, fchmodat2 (syscalls(2)).
_LINKS = {"x86_64": (265, 86), "aarch64": (37,)}
_UNKNOWN = {"x86_64": (332, 439, 452), "aarch64": (291, 439, 452)}
MACHINES = frozenset(_LINKS)
# seccomp(2), bpf(4): load the number of the call; if it is that, the next; the answer.
_LOAD, _IF_EQUAL, _ANSWER = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2


def forbid() -> None:
    """From now on, for this process and those it starts.

    Raises:
        OSError: the kernel does not take it.
    """
    machine = platform.machine()
    lines = [(_LOAD, 0, 0, 0)]
    for numbers, error in ((_LINKS[machine], errno.EACCES), (_UNKNOWN[machine], errno.ENOSYS)):
        for number in numbers:
            lines += [(_IF_EQUAL, 0, 1, number), (_ANSWER, 0, 0, _ERRNO | error)]
    lines.append((_ANSWER, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    program = struct.pack("@HP", len(lines), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for words in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0)):
        if libc.prctl(*words):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    # Before the change of user, who may not be able to read Python's files.
    command = shutil.which(sys.argv[2]) or sys.argv[2]
    forbid()
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
    os.execv(command, sys.argv[2:])

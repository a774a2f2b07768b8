"""Runs a program as on a Linux from before 5.15, which has no links for probes: bpf(2) refuses to make one
as it refuses what it doesn't know.

    old_linux.py PROGRAM ARGUMENT...
"""

import ctypes
import errno
import os
import platform
import struct
import sys

SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
BPF_LINK_CREATE = 28
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


def instruction(code, value, if_true=0, if_false=0):
    return struct.pack("=HBBI", code, if_true, if_false, value)


# struct seccomp_data: the call's number is at 0, its first argument at 16.
program = b"".join([
    instruction(LOAD_WORD, 0),
    instruction(JUMP_IF_EQUAL, SYS_BPF, 0, 3),
    instruction(LOAD_WORD, 16),
    instruction(JUMP_IF_EQUAL, BPF_LINK_CREATE, 0, 1),
    instruction(RETURN, ERRNO | errno.EINVAL),
    instruction(RETURN, ALLOW),
])
code = ctypes.create_string_buffer(program, len(program))
# struct sock_fprog
filter_ = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_, 0, 0):
    sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[1], sys.argv[1:])

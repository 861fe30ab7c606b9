#!/usr/bin/python3
"""Starts a program as a service manager does that listens for it: activate.py SOCKET PROGRAM ARGUMENTS...

The program finds a listening socket as file descriptor 3 and LISTEN_FDS, LISTEN_PID in its environment.
"""

import os
import socket
import sys


def main():
    path, command = sys.argv[1], sys.argv[2:]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    os.dup2(listener.fileno(), 3)
    os.set_inheritable(3, True)
    # The program keeps this process's id, so it can be told beforehand.
    environment = dict(os.environ, LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="nbd")
    os.execve(command[0], command, environment)


if __name__ == "__main__":
    main()

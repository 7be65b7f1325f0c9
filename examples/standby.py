"""Warm on every node, at work on the one that leads: metad run --standby -- python3 standby.py"""
import json
import os
import socket
import sys
import time


def notify(state):
    address = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.sendto(state.encode(), address)


def main():
    promotion = os.fdopen(int(os.environ["METAD_PROMOTE_FD"]))
    time.sleep(1)  # what takes long and changes nothing: connections, caches, a model
    notify("READY=1")
    line = promotion.readline()  # until this node leads
    if not line:
        sys.exit("metad is gone")
    token = json.loads(line)["token"]
    while True:  # whatever it does, with the token, until SIGTERM
        print(f"{os.environ['METAD_NODE_ID']} works under token {token}", flush=True)
        time.sleep(1)


main()

"""A server of HTTP/2 without TLS by the h2 package, on 127.0.0.1.

Usage: h2c.py PLAN      prints its port, answers until stdin ends

A connection begins with HTTP/2's preface, or with a request of HTTP/1.1 that asks for the upgrade of RFC 7540
section 3.2. PLAN is JSON: for each value of x-demo-id the reply's status, content type and pieces of text.
"""

import json
import os
import socket
import sys
import threading

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, WindowUpdated

replies = json.load(open(sys.argv[1]))


class Server:
    def __init__(self, sock):
        self.sock = sock
        self.http2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.ids, self.pieces = {}, {}

    def flush(self):
        self.sock.sendall(self.http2.data_to_send())

    def upgrade(self, start):
        """Reads the whole request of HTTP/1.1, agrees, and returns what was read after it."""
        while b"\r\n\r\n" not in start:
            start += self.sock.recv(65536)
        head, rest = start.split(b"\r\n\r\n", 1)
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        fields = {name.lower(): value for name, value in fields.items()}
        assert fields["upgrade"] == "h2c", fields
        left = int(fields["content-length"])
        while len(rest) < left:
            rest += self.sock.recv(65536)
        self.http2.initiate_upgrade_connection(fields["http2-settings"])
        self.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        self.answer(1, fields["x-demo-id"])
        return rest[left:]

    def answer(self, stream, name):
        reply = replies[name]
        self.http2.send_headers(stream, [(":status", str(reply["status"])), ("content-type", reply["content_type"])])
        self.pieces[stream] = [piece.encode() for piece in reply["pieces"]]
        self.send()

    def send(self):
        """Sends what the windows allow, each piece as frames of its own."""
        for stream, pieces in list(self.pieces.items()):
            while pieces:
                room = min(self.http2.local_flow_control_window(stream), self.http2.max_outbound_frame_size)
                if room == 0:
                    break
                self.http2.send_data(stream, pieces[0][:room])
                pieces[0] = pieces[0][room:]
                if not pieces[0]:
                    pieces.pop(0)
                self.flush()
            if not pieces:
                self.http2.end_stream(stream)
                del self.pieces[stream]
        self.flush()

    def serve(self):
        data = self.sock.recv(65536)
        if data.startswith(b"PRI "):
            self.http2.initiate_connection()
        elif data:
            data = self.upgrade(data)
        self.flush()
        while True:
            for event in self.http2.receive_data(data):
                if isinstance(event, RequestReceived):
                    self.ids[event.stream_id] = dict(event.headers)["x-demo-id"]
                elif isinstance(event, DataReceived):
                    self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    # Stream 1 of an upgraded connection was asked by HTTP/1.
                    if event.stream_id in self.ids:
                        self.answer(event.stream_id, self.ids.pop(event.stream_id))
                elif isinstance(event, WindowUpdated):
                    self.send()
            self.flush()
            data = self.sock.recv(65536)
            if not data:
                return self.sock.close()


def accept(listener):
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock,), daemon=True).start()


def serve(sock):
    try:
        Server(sock).serve()
    except ConnectionResetError:
        # curl leaves without reading what was acknowledged last.
        sock.close()


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=accept, args=(listener,), daemon=True).start()
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
os._exit(0)

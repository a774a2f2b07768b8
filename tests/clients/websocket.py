"""A WebSocket client and its server on the system's TLS library, both by hand: no package is needed.

Usage: websocket.py KEY CERTIFICATE TRACEPARENT takeover|plain COUNT
Each of COUNT responses is asked for and answered with events, compressed where asked for.
"""

import base64
import hashlib
import json
import os
import socket
import ssl
import struct
import sys
import threading
import zlib

key, certificate, traceparent, mode, count = sys.argv[1:5] + [int(sys.argv[5])]


class Side:
    """Frames of one side, and those that it reads."""

    def __init__(self, tls, masks):
        self.tls, self.masks, self.buffer = tls, masks, b""
        self.deflate = zlib.compressobj(wbits=-15) if mode == "takeover" else None
        self.inflate = zlib.decompressobj(wbits=-15)

    def take(self, size):
        while len(self.buffer) < size:
            piece = self.tls.recv(65536)
            if not piece:
                sys.exit("the peer is gone")
            self.buffer += piece
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def head(self):
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self.tls.recv(65536)
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        return head.decode()

    def frame(self, first, payload):
        size, mask = len(payload), os.urandom(4) if self.masks else b""
        bit = 128 if self.masks else 0
        if size < 126:
            head = struct.pack("!BB", first, bit | size)
        elif size < 65536:
            head = struct.pack("!BBH", first, bit | 126, size)
        else:
            head = struct.pack("!BBQ", first, bit | 127, size)
        if self.masks:
            long = (mask * (size // 4 + 1))[:size]
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(long, "big")).to_bytes(size, "big")
        return head + mask + payload

    def text(self, event):
        data = json.dumps(event).encode()
        if not self.deflate:
            return self.frame(0x81, data)
        data = self.deflate.compress(data) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
        return self.frame(0xC1, data[:-4])

    def send(self, *frames):
        self.tls.sendall(b"".join(frames))

    def receive(self):
        """The next message, or None at the end."""
        while True:
            first, second = self.take(2)
            size = second & 127
            if size == 126:
                (size,) = struct.unpack("!H", self.take(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self.take(8))
            mask = self.take(4) if second & 128 else None
            data = self.take(size)
            if mask:
                data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
            if first & 15 == 8:
                return None
            if first & 15 in (9, 10):
                continue
            if first & 64:
                data = self.inflate.decompress(data + b"\0\0\xff\xff")
            return json.loads(data)


def serve(listener):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    tls = context.wrap_socket(listener.accept()[0], server_side=True)
    side = Side(tls, False)
    fields = dict(line.split(": ", 1) for line in side.head().split("\r\n")[1:])
    accept = hashlib.sha1((fields["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    extension = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if mode == "takeover" else ""
    tls.sendall(
        f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{extension}"
        f"Sec-WebSocket-Accept: {base64.b64encode(accept).decode()}\r\n\r\n".encode()
    )
    number = 0
    while (asked := side.receive()) is not None:
        number += 1
        response = {"id": f"resp_{number}", "model": asked["model"] + "-1", "status": "in_progress"}
        side.send(side.text({"type": "response.created", "response": response}))
        for word in ["all ", "work"] * 20:
            side.send(side.text({"type": "response.output_text.delta", "output_index": 0, "delta": word}))
        usage = {"input_tokens": 100 + number, "output_tokens": number, "total_tokens": 100 + 2 * number}
        done = {**response, "status": "completed", "output": [], "usage": usage}
        side.send(side.frame(0x89, b""), side.text({"type": "response.completed", "response": done}))
    side.send(side.frame(0x88, struct.pack("!H", 1000)))
    tls.close()


listener = socket.create_server(("127.0.0.1", 0))
server = threading.Thread(target=serve, args=(listener,))
server.start()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
client = Side(context.wrap_socket(socket.create_connection(listener.getsockname())), True)
client.tls.sendall(
    "GET /v1/responses HTTP/1.1\r\nHost: api.openai.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
    f"Sec-WebSocket-Extensions: permessage-deflate\r\ntraceparent: {traceparent}\r\n\r\n".encode()
)
assert client.head().startswith("HTTP/1.1 101 ")
for number in range(1, count + 1):
    client.send(client.text({"type": "response.create", "model": "gpt-5", "input": "word " * (4000 * (number % 3))}))
    while client.receive()["type"] != "response.completed":
        pass
client.send(client.frame(0x88, struct.pack("!H", 1000)))
assert client.receive() is None
server.join()
client.tls.close()

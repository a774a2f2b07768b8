"""The mock: HTTPS on port 443 of a network namespace of its own, for every host that the SDKs know.

    serve.py CERT KEY     prints "ready" once it listens
"""

import socket
import ssl
import sys
import threading
import time

import anthropic
import bedrock
import cohere
import gemini
import mistral
import ollama
import openai
from reply import Reply, Request

BODY_BYTES_MAX = 16 << 20


def api(request):
    host, path = request.host, request.path
    if "anthropic" in host or "/anthropic/" in path or "/publishers/anthropic/" in path:
        return anthropic
    if host.startswith("bedrock"):
        return bedrock
    if host.endswith("googleapis.com"):
        return gemini
    if "cohere" in host:
        return cohere
    if "mistral" in host:
        return mistral
    if "ollama" in host:
        return ollama
    return openai


def read_request(stream):
    start = stream.readline().decode().split()
    if len(start) != 3:
        return None
    fields = {}
    while line := stream.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    if fields.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int(stream.readline().split(b";")[0], 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    else:
        length = int(fields.get("content-length", 0))
        assert length <= BODY_BYTES_MAX
        body = stream.read(length)
    return Request(start[0], fields.get("host", "").split(":")[0], start[1], fields, body)


def write_reply(connection, reply):
    head = [f"HTTP/1.1 {reply.status} -"] + [f"{name}: {value}" for name, value in reply.fields.items()]
    if reply.pieces is None:
        head.append(f"content-length: {len(reply.body)}")
        connection.sendall("\r\n".join([*head, "", ""]).encode() + reply.body)
        return
    head.append("transfer-encoding: chunked")
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    for piece in reply.pieces:
        time.sleep(0.001)
        connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    connection.sendall(b"0\r\n\r\n")


def serve(connection, context):
    try:
        with context.wrap_socket(connection, server_side=True) as connection:
            stream = connection.makefile("rb")
            while request := read_request(stream):
                try:
                    reply = api(request).answer(request)
                except (KeyError, ValueError) as error:
                    # The client fails by it, and says of which call.
                    reply = Reply(500, {"content-type": "text/plain"}, repr(error).encode())
                write_reply(connection, reply.coded(request.fields.get("accept-encoding", "")))
    except OSError:
        # A client that goes away is not the mock's fault.
        pass


def main(cert, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with socket.create_server(("127.0.0.1", 443), backlog=64) as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(connection, context), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])

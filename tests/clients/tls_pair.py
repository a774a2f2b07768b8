# Serves prepared replies over TLS and sends the requests to itself: for places that no mock is in.
#
# The TLS library is loaded when the plan says so, long after the process has begun.
import json, socket, sys, threading, time

plan = json.load(sys.stdin)
time.sleep(plan.get("delay", 0))
import ssl

# A busy machine may take a moment to attach; how soon it does is measured elsewhere.
time.sleep(0.5)

server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(plan["certificate"], plan["key"])
client = ssl._create_unverified_context()
listener = socket.create_server(("127.0.0.1", 0))


def serve():
    raw, _ = listener.accept()
    with server.wrap_socket(raw, server_side=True) as served:
        for job in plan["jobs"]:
            left = len(open(job["request"], "rb").read())
            while left > 0:
                left -= len(served.recv(65536))
            served.sendall(open(job["reply"], "rb").read())
        served.recv(1)


threading.Thread(target=serve, daemon=True).start()
raw = socket.create_connection(listener.getsockname())
with client.wrap_socket(raw, server_hostname="localhost") as tls:
    for job in plan["jobs"]:
        tls.sendall(open(job["request"], "rb").read())
        left = job["reply_size"]
        while left > 0:
            data = tls.recv(65536)
            assert data, "the reply ends early"
            left -= len(data)

# Sends prepared requests over plain sockets, each by other system calls, and checks the replies.
#
# A job has the request, and with `reply` it is served by this very process, over a UNIX socket.
import ctypes, json, os, socket, sys, tempfile, threading

plan = json.load(sys.stdin)
libc = ctypes.CDLL(None, use_errno=True)


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("name_size", ctypes.c_uint), ("vectors", ctypes.POINTER(Vector)),
                ("count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t),
                ("flags", ctypes.c_int), ("pad", ctypes.c_int), ("moved", ctypes.c_uint)]


def cut(data, parts):
    size = max(1, -(-len(data) // parts))
    return [data[at:at + size] for at in range(0, len(data), size)]


def batch(buffers):
    """An array of messages of two buffers each, and what has to live as long as it does."""
    pairs = [buffers[at:at + 2] for at in range(0, len(buffers), 2)]
    messages = (Message * len(pairs))()
    kept = []
    for message, pair in zip(messages, pairs):
        kept.append((Vector * len(pair))(*[Vector(ctypes.addressof(b), len(b)) for b in pair]))
        message.vectors = ctypes.cast(kept[-1], ctypes.POINTER(Vector))
        message.count = len(pair)
    return messages, kept


def sendmmsg(sock, data):
    buffers = [ctypes.create_string_buffer(part, len(part)) for part in cut(data, 7)]
    messages, kept = batch(buffers)
    sent = libc.sendmmsg(sock.fileno(), messages, len(messages), 0)
    assert sent == len(messages), (sent, ctypes.get_errno())


def recvmmsg(sock):
    buffers = [ctypes.create_string_buffer(100) for _ in range(4)]
    messages, kept = batch(buffers)
    # MSG_WAITFORONE
    got = libc.recvmmsg(sock.fileno(), messages, len(messages), 0x10000, None)
    assert got > 0, ctypes.get_errno()
    data = b""
    for index in range(got):
        pair = b"".join(buffer.raw for buffer in buffers[2 * index:2 * index + 2])
        data += pair[:messages[index].moved]
    return data


def recvmsg(sock):
    buffers = [bytearray(100), bytearray(5000)]
    size = sock.recvmsg_into(buffers)[0]
    return b"".join(buffers)[:size]


def readv(sock):
    buffers = [bytearray(10), bytearray(0), bytearray(5000)]
    size = os.readv(sock.fileno(), buffers)
    return b"".join(buffers)[:size]


def peeking(sock):
    sock.recv(50, socket.MSG_PEEK)
    return sock.recv(5000)


def writev(sock, data):
    done = 0
    while done < len(data):
        done += os.writev(sock.fileno(), cut(data[done:], 300))


WAYS = [
    (lambda sock, data: sock.sendall(data), lambda sock: sock.recv(65536)),
    (lambda sock, data: os.write(sock.fileno(), data), lambda sock: os.read(sock.fileno(), 4096)),
    (writev, readv),
    (lambda sock, data: sock.sendmsg(cut(data, 5)), recvmsg),
    (sendmmsg, recvmmsg),
    (lambda sock, data: [sock.send(part) for part in cut(data, 9)], peeking),
]


def exchange(sock, job, way):
    send, receive = way
    send(sock, open(job["request"], "rb").read())
    size = job["reply_size"]
    reply = b""
    while len(reply) < size:
        data = receive(sock)
        assert data, "the reply ends early"
        reply += data
    assert len(reply) == size and reply.startswith(b"HTTP/1.1 "), reply[:100]
    print(job["id"], flush=True)


def connect():
    return socket.create_connection((plan["address"], plan["port"]), timeout=60)


def calls():
    """Every job by other calls, all over one connection."""
    sock = connect()
    sock.settimeout(None)
    for index, job in enumerate(plan["jobs"]):
        exchange(sock, job, WAYS[index % len(WAYS)])
    sock.close()


def descriptors():
    """Descriptors that are duplicated, inherited, and used again for other connections."""
    for index, job in enumerate(plan["jobs"]):
        sock = connect()
        if index % 3 == 0:
            copy = sock.dup()
            sock.close()
            sock = copy
        if index % 3 == 1:
            child = os.fork()
            if child == 0:
                exchange(sock, job, WAYS[0])
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        else:
            exchange(sock, job, WAYS[0])
        sock.close()


def unix():
    """Both ends in this process."""
    path = os.path.join(tempfile.mkdtemp(), "llm.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve():
        served, _ = listener.accept()
        for job in plan["jobs"]:
            left = os.path.getsize(job["request"])
            while left > 0:
                left -= len(served.recv(65536))
            served.sendall(open(job["reply"], "rb").read())

    threading.Thread(target=serve, daemon=True).start()
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    for index, job in enumerate(plan["jobs"]):
        exchange(sock, job, WAYS[index % len(WAYS)])
    sock.close()


globals()[plan["mode"]]()

# Sends prepared requests over TLS in the way that the plan asks for, and tells what came back.
#
# A plan has connections, each a list of requests to be sent over it one after the other. For every
# reply one line of JSON is printed.
import asyncio, json, os, socket, ssl, sys, threading, time

plan = json.load(open(sys.argv[1]))
context = ssl.create_default_context(cafile=plan["ca"]) if plan["ca"] else None
cpus = sorted(os.sched_getaffinity(0))
output = threading.Lock()


def complete(reply, ended):
    head, mark, body = bytes(reply[:65536]).partition(b"\r\n\r\n")
    if not mark:
        return False
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    start = len(head) + 4
    if fields.get(b"transfer-encoding") == b"chunked":
        if not reply.endswith(b"0\r\n\r\n"):
            return False
        while True:
            end = reply.find(b"\r\n", start)
            if end < 0:
                return False
            length = int(reply[start:end], 16)
            start = end + 2 + length + 2
            if length == 0:
                return True
    if b"content-length" in fields:
        return len(reply) >= start + int(fields[b"content-length"])
    return ended


def tell(job, reply):
    with output:
        words = bytes(reply[:64]).split(b" ")
        status = int(words[1]) if len(words) > 1 else None
        print(json.dumps({"id": job["id"], "status": status, "bytes": len(reply)}), flush=True)


def pieces(job):
    data = open(job["request"], "rb").read()
    size = max(1, -(-len(data) // job["pieces"]))
    return [data[i:i + size] for i in range(0, len(data), size)]


def connect(job):
    raw = socket.create_connection((plan["address"], plan["port"]), timeout=60)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(raw, server_hostname=job["host"]) if context else raw


def receive(tls, stop_early=False):
    reply = bytearray()
    ended = False
    while not complete(reply, ended) and not ended:
        try:
            data = tls.recv(65536)
        except OSError:
            data = b""
        ended = not data
        reply += data
        if stop_early and b"data: " in reply:
            break
    return reply


def exchange(tls, job):
    for piece in pieces(job):
        tls.sendall(piece)
    tell(job, receive(tls))


def one_after_the_other(jobs):
    tls = connect(jobs[0])
    for job in jobs:
        exchange(tls, job)
    tls.close()


def run_threads(work, items):
    threads = [threading.Thread(target=work, args=(item,)) for item in items]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def threads():
    run_threads(one_after_the_other, plan["connections"])


def hopping():
    """Every thread goes to another CPU before each write and each reply."""
    def work(numbered):
        number, jobs = numbered
        step = number
        tls = connect(jobs[0])
        for job in jobs:
            for piece in pieces(job):
                os.sched_setaffinity(threading.get_native_id(), {cpus[step % len(cpus)]})
                step += 1
                tls.sendall(piece)
            os.sched_setaffinity(threading.get_native_id(), {cpus[step % len(cpus)]})
            step += 1
            tell(job, receive(tls))
        tls.close()

    run_threads(work, list(enumerate(plan["connections"])))


def interleaved():
    """One thread writes to all connections in turn, piece by piece, and reads them in reverse order."""
    connections = [(connect(jobs[0]), jobs) for jobs in plan["connections"]]
    for round_ in range(max(len(jobs) for _, jobs in connections)):
        current = [(tls, jobs[round_]) for tls, jobs in connections if round_ < len(jobs)]
        queues = [(tls, pieces(job)) for tls, job in current]
        while any(queue for _, queue in queues):
            for tls, queue in queues:
                if queue:
                    tls.sendall(queue.pop(0))
        for tls, job in reversed(current):
            tell(job, receive(tls))
    for tls, _ in connections:
        tls.close()


def handed_on():
    """Each write and each reply of a connection is done by a thread of its own."""
    def in_a_thread(work):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    for jobs in plan["connections"]:
        tls = connect(jobs[0])
        for job in jobs:
            for piece in pieces(job):
                in_a_thread(lambda: tls.sendall(piece))
            in_a_thread(lambda: tell(job, receive(tls)))
        tls.close()


def pipelined():
    """All requests of a connection are written before the first reply is read."""
    for jobs in plan["connections"]:
        tls = connect(jobs[0])
        for job in jobs:
            for piece in pieces(job):
                tls.sendall(piece)
        replies = bytearray()
        for job in jobs:
            while True:
                end = next((n for n in ends(replies) if complete(replies[:n], False)), None)
                if end is not None:
                    break
                data = tls.recv(65536)
                if not data:
                    raise EOFError
                replies += data
            tell(job, replies[:end])
            del replies[:end]
        tls.close()


def ends(replies):
    """Where the first reply may end: before another one, or at the end."""
    at = replies.find(b"HTTP/1.1 ", 1)
    while at > 0:
        yield at
        at = replies.find(b"HTTP/1.1 ", at + 1)
    yield len(replies)


def cancelling():
    """Hangs up as soon as the first event is there."""
    for jobs in plan["connections"]:
        for job in jobs:
            tls = connect(job)
            for piece in pieces(job):
                tls.sendall(piece)
            tell(job, receive(tls, stop_early=True))
            tls.close()


def vanishing():
    """Ends the process with the request sent and no reply read."""
    for jobs in plan["connections"]:
        for job in jobs:
            tls = connect(job)
            for piece in pieces(job):
                tls.sendall(piece)
            tell(job, b"")
    os._exit(0)


def waiting():
    """Sends the first request of every connection, waits for a line on stdin, then sends the others."""
    connections = [(connect(jobs[0]), jobs) for jobs in plan["connections"]]
    for tls, jobs in connections:
        exchange(tls, jobs[0])
    print("waiting", flush=True)
    sys.stdin.readline()
    for tls, jobs in connections:
        for job in jobs[1:]:
            exchange(tls, job)
        tls.close()


def looping():
    """Goes on with the same requests until a line comes in on stdin, and prints how many were answered."""
    done = threading.Event()
    counts = {"answered": 0, "failed": 0}

    def work(jobs):
        tls = connect(jobs[0])
        while not done.is_set():
            for job in jobs:
                for piece in pieces(job):
                    tls.sendall(piece)
                right = receive(tls).startswith(b"HTTP/1.1 200")
                with output:
                    counts["answered" if right else "failed"] += 1
        tls.close()

    def stop():
        sys.stdin.readline()
        done.set()

    print("looping", flush=True)
    threading.Thread(target=stop).start()
    run_threads(work, plan["connections"])
    print(json.dumps(counts), flush=True)


def tasks():
    """asyncio: one task a connection. Its TLS goes over memory, not over a socket that OpenSSL knows."""
    async def work(jobs):
        reader, writer = await asyncio.open_connection(
            plan["address"], plan["port"], ssl=context, server_hostname=jobs[0]["host"])
        for job in jobs:
            for piece in pieces(job):
                writer.write(piece)
                await writer.drain()
            reply = bytearray()
            ended = False
            while not complete(reply, ended) and not ended:
                data = await reader.read(65536)
                ended = not data
                reply += data
            tell(job, reply)
        writer.close()

    async def everything():
        await asyncio.gather(*(work(jobs) for jobs in plan["connections"]))

    asyncio.run(everything())


globals()[plan["mode"]]()

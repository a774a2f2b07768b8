"""One client of the matrix: makes the calls of a plan, those of a connection in turn, connections at once.

Usage: matrix.py CLIENT PLAN. The plan has the mock's address and port, the file of its certificate (none
where it speaks plain HTTP), and connections, each a list of calls: id, host, path, headers, body (a file),
reply_bytes (of its body), and address and port where they aren't those of the plan. Prints the ids of the calls
that were answered, with their status.

With `delay` it waits so many seconds before a TLS library is loaded; with `server` it starts that first, a
command that prints its port, for a place that the mock is not in.
"""

import json, os, subprocess, sys, threading, time

client, plan = sys.argv[1], json.load(open(sys.argv[2]))
server = subprocess.Popen(plan["server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) if "server" in plan else None
address, port = plan["address"], int(server.stdout.readline()) if server else plan["port"]
time.sleep(plan.get("delay", 0))


def head_of(call, length, connection="close"):
    fields = {"host": call["host"], **call["headers"], "content-length": str(length), "connection": connection}
    lines = [f"POST {call['path']} HTTP/1.1"] + [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def peer_of(call):
    return call.get("address", address), call.get("port", port)


def by_wget(call):
    # It takes the status for its exit code, which is not asked here.
    command = ["wget", "--quiet", "--no-config", "--no-proxy", "--no-check-certificate", "--tries=1", "--content-on-error"]
    command += ["--server-response", f"--post-file={call['body']}", f"--header=host: {call['host']}", "--output-document=-"]
    command += [f"--header={name}: {value}" for name, value in call["headers"].items()]
    done = subprocess.run(command + [url(call)], capture_output=True, timeout=60)
    statuses = [line.split()[1] for line in done.stderr.decode().splitlines() if line.strip().startswith("HTTP/1.1 ")]
    return int(statuses[-1]), len(done.stdout)


def by_curl(version):
    """All calls of a connection by one run of curl, which keeps it."""

    def run(calls):
        command = ["curl", "--silent", "--show-error", "--disable", "--noproxy", "*"]
        for index, call in enumerate(calls):
            command += ["--next"] if index else []
            command += [f"--{version}", "--insecure", "--max-time", "60", "--data-binary", f"@{call['body']}", "--output", "/dev/null"]
            command += ["--write-out", json.dumps({"id": call["id"], "status": 0}).replace(" 0}", " %{http_code}}") + "\n"]
            command += [part for name, value in call["headers"].items() for part in ("--header", f"{name}: {value}")]
            command += ["--header", f"host: {call['host']}", url(call)]
        done = subprocess.run(command, capture_output=True, timeout=120)
        sys.stderr.write(done.stderr.decode())
        sys.stdout.write(done.stdout.decode())
        sys.stdout.flush()

    return run


def look(seen, call):
    """Where the reply and its body begin, and whether all of it is there."""
    start = seen.find(b"HTTP/1.1 ")
    end = seen.find(b"\r\n\r\n", start)
    is_chunked = b"chunked" in seen[start:end]
    return start, end, end >= 0 and (seen.endswith(b"\r\n0\r\n\r\n") if is_chunked else len(seen) - end - 4 >= call["reply_bytes"])


def through(command, call):
    """A program that sends its stdin and prints what comes back."""
    body = open(call["body"], "rb").read()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdin.write(head_of(call, len(body)) + body)
    process.stdin.flush()
    seen = b""
    while True:
        piece = process.stdout.read1(65536)
        seen += piece
        start, end, whole = look(seen, call)
        if not piece or whole:
            break
    process.stdin.close()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return int(seen[start + 9 : start + 12]), len(seen) - end - 4


def by_gnutls_cli(call):
    address, port = peer_of(call)
    return through(["gnutls-cli", "--insecure", "--sni-hostname", call["host"], "-p", str(port), address], call)


def by_tstclnt(call):
    address, port = peer_of(call)
    command = ["tstclnt", "-4", "-h", address, "-a", call["host"], "-p", str(port), "-d", f"sql:{plan['nssdb']}", "-o"]
    return through(command, call)


def report(call, status):
    # In one piece: connections are threads.
    sys.stdout.write(json.dumps({"id": call["id"], "status": status}) + "\n")
    sys.stdout.flush()


def one_by_one(make):
    def run(calls):
        send = make()
        for call in calls:
            report(call, send(call)[0])

    return run


def in_threads(run):
    threads = [threading.Thread(target=run, args=[calls]) for calls in plan["connections"]]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]


def url(call):
    address, port = peer_of(call)
    return f"{'https' if plan['ca'] else 'http'}://{address}:{port}{call['path']}"


def make_requests():
    import requests, urllib3

    urllib3.disable_warnings()
    session = requests.Session()
    session.trust_env, session.verify = False, False

    def send(call):
        headers = {"host": call["host"], **call["headers"]}
        reply = session.post(url(call), data=open(call["body"], "rb").read(), headers=headers, timeout=60)
        return reply.status_code, len(reply.content)

    return send


def make_httpx():
    import httpx

    session = httpx.Client(verify=False, trust_env=False, timeout=60)

    def send(call):
        headers = {"host": call["host"], **call["headers"]}
        with session.stream("POST", url(call), content=open(call["body"], "rb").read(), headers=headers) as reply:
            return reply.status_code, sum(len(piece) for piece in reply.iter_raw())

    return send


def make_libssl():
    """A shared library of any version of OpenSSL or BoringSSL, by its C interface; every second call by the
    functions of 1.1.1, where it has them. Its functions' names may have a `prefix`."""
    import ctypes, socket

    class Prefixed:
        def __init__(self, lib):
            self.lib = lib

        def __getattr__(self, name):
            return getattr(self.lib, plan.get("prefix", "") + name)

    ctypes.CDLL(plan["libcrypto"], ctypes.RTLD_GLOBAL)
    lib = Prefixed(ctypes.CDLL(plan["libssl"]))
    has = lambda name: getattr(lib, name, None) is not None
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    if has("SSL_library_init"):
        lib.SSL_library_init()
    method = lib.TLS_client_method if has("TLS_client_method") else lib.SSLv23_client_method
    for function in (method, lib.SSL_CTX_new, lib.SSL_new):
        function.restype, function.argtypes = pointer, [pointer] * (function is not method)
    context = lib.SSL_CTX_new(method())
    buffer, count = ctypes.create_string_buffer(65536), size()

    def open_connection(call):
        raw = socket.create_connection(peer_of(call), 60)
        raw.settimeout(None)
        ssl = pointer(lib.SSL_new(pointer(context)))
        lib.SSL_set_fd(ssl, raw.fileno())
        name = ctypes.c_char_p(call["host"].encode())
        if has("SSL_set_tlsext_host_name"):  # a macro in OpenSSL, a function in BoringSSL
            lib.SSL_set_tlsext_host_name(ssl, name)
        else:
            lib.SSL_ctrl(ssl, 55, ctypes.c_long(0), name)
        assert lib.SSL_connect(ssl) == 1, "no handshake"
        return raw, ssl

    def write(ssl, data, ex):
        while data:
            if ex:
                assert lib.SSL_write_ex(ssl, data, size(len(data)), ctypes.byref(count)) == 1
                data = data[count.value :]
            else:
                done = lib.SSL_write(ssl, data, len(data))
                assert done > 0
                data = data[done:]

    def read(ssl, ex):
        if ex:
            done = count.value if lib.SSL_read_ex(ssl, buffer, size(65536), ctypes.byref(count)) == 1 else 0
        else:
            done = max(0, lib.SSL_read(ssl, buffer, 65536))
        return buffer.raw[:done]

    connection, calls = [], iter(range(1 << 30))

    def send(call):
        if not connection:
            connection.extend(open_connection(call))
        ssl, ex, body = connection[1], next(calls) % 2 == 1 and has("SSL_read_ex"), open(call["body"], "rb").read()
        write(ssl, head_of(call, len(body), "keep-alive") + body, ex)
        seen, whole = b"", False
        while not whole:
            piece = read(ssl, ex)
            seen += piece
            start, end, whole = look(seen, call)
            if not piece:
                break
        if not piece or b"connection: close" in seen[start:end].lower():
            lib.SSL_shutdown(ssl)
            lib.SSL_free(ssl)
            connection.pop(0).close()
            connection.clear()
        assert whole, seen[:200]
        return int(seen[start + 9 : start + 12]), len(seen) - end - 4

    return send


def in_processes(run):
    """Old versions want to be told how threads lock."""
    children = []
    for calls in plan["connections"]:
        child = os.fork()
        if child == 0:
            run(calls)
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)


def by_aiohttp():
    import aiohttp, asyncio

    async def run(calls):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False, limit=1)) as session:
            for call in calls:
                headers = {"host": call["host"], **call["headers"]}
                body = open(call["body"], "rb").read()
                async with session.post(url(call), data=body, headers=headers) as reply:
                    await reply.read()
                    report(call, reply.status)

    async def run_all():
        await asyncio.gather(*(run(calls) for calls in plan["connections"]))

    asyncio.run(run_all())


def by_httpx_async():
    import asyncio, httpx

    async def run(calls):
        async with httpx.AsyncClient(verify=False, trust_env=False, timeout=60) as session:
            for call in calls:
                headers = {"host": call["host"], **call["headers"]}
                reply = await session.post(url(call), content=open(call["body"], "rb").read(), headers=headers)
                report(call, reply.status_code)

    async def run_all():
        await asyncio.gather(*(run(calls) for calls in plan["connections"]))

    asyncio.run(run_all())


def in_disorder():
    """All connections on one thread, by memory BIOs. In the first two rounds requests have one length, and
    several are encrypted before any is sent, in another order; in the third each is sent at once."""
    import socket, ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    lanes = []

    def attempt(lane, operation):
        raw, incoming, outgoing, tls = lane
        while True:
            try:
                return operation(tls)
            except ssl.SSLWantReadError:
                if outgoing.pending:
                    raw.sendall(outgoing.read())
                incoming.write(raw.recv(65536))

    for calls in plan["connections"]:
        raw, incoming, outgoing = socket.create_connection(peer_of(calls[0]), 60), ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname=calls[0]["host"])
        lanes.append((raw, incoming, outgoing, tls))
        attempt(lanes[-1], lambda tls: tls.do_handshake())
        raw.sendall(outgoing.read())

    def finish(lane, call):
        seen, whole = b"", False
        while not whole:
            seen += attempt(lane, lambda tls: tls.read(65536))
            start, _, whole = look(seen, call)
        report(call, int(seen[start + 9 : start + 12]))

    for number, at_once in enumerate([3, 8, 1, 3, 8]):
        round = list(zip(lanes, (calls[number] for calls in plan["connections"])))
        bodies = [open(call["body"], "rb").read() for _, call in round]
        heads = [head_of(call, len(body), "keep-alive") for (_, call), body in zip(round, bodies)]
        longest = max(len(head) + len(body) for head, body in zip(heads, bodies)) + 20
        if at_once == 1:
            time.sleep(1.1)  # Writes that weren't told apart are forgotten.
        for first in range(0, len(round), at_once):
            group = range(first, min(first + at_once, len(round)))
            for index in group:
                head, body = heads[index], bodies[index]
                if number < 2:
                    padding = b"x-padding: ".ljust(longest - len(head) - len(body), b"x")
                    head = head[:-2] + padding + b"\r\n\r\n"
                round[index][0][3].write(head + body)
            for index in reversed(group):
                raw, _, outgoing, _ = round[index][0]
                raw.sendall(outgoing.read())
            for index in group:
                finish(*round[index])


if client == "aiohttp":
    by_aiohttp()
elif client == "disorder":
    in_disorder()
elif client == "httpx-async":
    by_httpx_async()
elif client == "libssl" and "LD_LIBRARY_PATH" not in os.environ:
    # Not all libraries of old wheels say where those are that they need.
    os.environ["LD_LIBRARY_PATH"] = os.path.dirname(plan["libssl"])
    os.execv(sys.executable, [sys.executable, *sys.argv])
elif client == "libssl":
    in_processes(one_by_one(make_libssl))
elif client.startswith("curl-"):
    in_threads(by_curl(client.removeprefix("curl-")))
elif client in ("requests", "httpx"):
    in_threads(one_by_one({"requests": make_requests, "httpx": make_httpx}[client]))
else:
    sends = {"wget": by_wget, "gnutls-cli": by_gnutls_cli, "tstclnt": by_tstclnt}
    in_threads(one_by_one(lambda: sends[client]))
if server:
    server.stdin.close()
    server.wait()

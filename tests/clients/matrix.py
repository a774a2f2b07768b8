"""One client of the matrix: makes the calls of a plan, those of a connection in turn, connections at once.

Usage: matrix.py CLIENT PLAN. The plan has the mock's address and port, the file of its certificate, and
connections, each a list of calls: id, host, path, headers, body (a file), reply (how many bytes the
reply's body has). Prints the ids of the calls that were answered, with their status.
"""

import asyncio, json, subprocess, sys, threading

client, plan = sys.argv[1], json.load(open(sys.argv[2]))
address, port = plan["address"], plan["port"]


def head_of(call, length):
    fields = {"host": call["host"], **call["headers"], "content-length": str(length), "connection": "close"}
    lines = [f"POST {call['path']} HTTP/1.1"] + [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def by_wget(call):
    # It takes the status for its exit code, which is not asked here.
    command = ["wget", "--quiet", "--no-config", "--no-proxy", "--no-check-certificate", "--tries=1", "--content-on-error"]
    command += ["--server-response", f"--post-file={call['body']}", f"--header=host: {call['host']}", "--output-document=-"]
    command += [f"--header={name}: {value}" for name, value in call["headers"].items()]
    done = subprocess.run(command + [f"https://{address}:{port}{call['path']}"], capture_output=True, timeout=60)
    statuses = [line.split()[1] for line in done.stderr.decode().splitlines() if line.strip().startswith("HTTP/1.1 ")]
    return int(statuses[-1]), len(done.stdout)


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
        start = seen.find(b"HTTP/1.1 ")
        end = seen.find(b"\r\n\r\n", start)
        whole = end >= 0 and (b"\r\n0\r\n\r\n" in seen[end:] or len(seen) - end - 4 >= call["reply"] and b"chunked" not in seen[start:end])
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
    return through(["gnutls-cli", "--insecure", "--sni-hostname", call["host"], "-p", str(port), address], call)


def by_tstclnt(call):
    command = ["tstclnt", "-4", "-h", address, "-a", call["host"], "-p", str(port), "-d", f"sql:{plan['nssdb']}", "-o"]
    return through(command, call)


def report(call, status):
    # In one piece: connections are threads.
    sys.stdout.write(json.dumps({"id": call["id"], "status": status}) + "\n")
    sys.stdout.flush()


def in_threads(make):
    def run(calls):
        send = make()
        for call in calls:
            report(call, send(call)[0])

    threads = [threading.Thread(target=run, args=[calls]) for calls in plan["connections"]]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]


def url(call):
    return f"https://{address}:{port}{call['path']}"


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


async def by_aiohttp():
    import aiohttp

    async def run(calls):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False, limit=1)) as session:
            for call in calls:
                headers = {"host": call["host"], **call["headers"]}
                body = open(call["body"], "rb").read()
                async with session.post(url(call), data=body, headers=headers) as reply:
                    await reply.read()
                    report(call, reply.status)

    await asyncio.gather(*(run(calls) for calls in plan["connections"]))


if client == "aiohttp":
    asyncio.run(by_aiohttp())
elif client in ("requests", "httpx"):
    in_threads({"requests": make_requests, "httpx": make_httpx}[client])
else:
    in_threads(lambda: {"wget": by_wget, "gnutls-cli": by_gnutls_cli, "tstclnt": by_tstclnt}[client])

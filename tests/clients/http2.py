# HTTP/2 by httpx over the system's libssl: sends the plan that http2.mjs describes.
#
#   http2.py PLAN CERT PORT     waits for a line on stdin before each phase, prints "done" after it
import asyncio, base64, json, signal, ssl, sys

import httpx

plan = [json.loads(line) for line in open(sys.argv[1])]
context = ssl.create_default_context(cafile=sys.argv[2])
context.check_hostname = False
port = int(sys.argv[3])
CONCURRENT = 16
# A test that hangs fails instead.
signal.alarm(120)


async def body(message):
    data = base64.b64decode(message["body"])
    at = 0
    for size in message["pieces"]:
        yield data[at:at + size]
        at += size
        await asyncio.sleep(0)
    yield data[at:]


async def send(client, exchange):
    request = exchange["request"]
    headers = [(name.lower(), value) for name, value in request["fields"]] + [("host", request["authority"])]
    url = f"https://127.0.0.1:{port}{request['path']}"
    message = client.build_request(request["method"], url, headers=headers, content=body(request))
    reply = await client.send(message, stream=True)
    received = 0
    async for data in reply.aiter_raw():
        received += len(data)
    await reply.aclose()
    expected = len(base64.b64decode(exchange["response"]["body"]))
    if (reply.http_version, reply.status_code, received) != ("HTTP/2", exchange["response"]["status"], expected):
        raise AssertionError((exchange["id"], reply.http_version, reply.status_code, received, expected))


async def phase(clients, number):
    queues = {}
    for exchange in plan:
        if exchange["phase"] == number:
            queues.setdefault(exchange["connection"], []).append(exchange)

    async def work(client, queue):
        while queue:
            await send(client, queue.pop(0))

    tasks = []
    for connection, queue in queues.items():
        if connection not in clients:
            clients[connection] = httpx.AsyncClient(http1=False, http2=True, verify=context, timeout=60)
        tasks += [work(clients[connection], queue) for _ in range(CONCURRENT)]
    await asyncio.gather(*tasks)


async def everything():
    clients = {}
    phases = 1 + max(exchange["phase"] for exchange in plan)
    print("waiting", flush=True)
    for number in range(phases):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        await phase(clients, number)
        if number + 1 == phases:
            for client in clients.values():
                await client.aclose()
        print("done", flush=True)


asyncio.run(everything())

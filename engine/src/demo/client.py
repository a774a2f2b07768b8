# Sends the demo's exchanges with Python's http.client, over ssl where there is a certificate; one connection a host, kept alive.
import http.client, json, socket, ssl, sys

plan = json.load(sys.stdin)
context = ssl.create_default_context(cafile=plan["ca"]) if plan["ca"] else None
connections = {}
for job in plan["jobs"]:
    outcome = {"id": job["id"]}
    try:
        connection = connections.get(job["host"])
        if connection is None or connection.sock is None:
            connection = http.client.HTTPConnection(job["host"])
            raw = socket.create_connection((plan["address"], plan["port"]), timeout=30)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sock = context.wrap_socket(raw, server_hostname=job["host"]) if context else raw
            connections[job["host"]] = connection
        with open(job["body"], "rb") as body:
            connection.request(job["method"], job["path"], body.read(), job["headers"])
        reply = connection.getresponse()
        outcome["status"] = reply.status
        while reply.read(65536):
            pass
    except Exception as error:
        connections.pop(job["host"], None)
        outcome["error"] = repr(error)
    print(json.dumps(outcome), flush=True)

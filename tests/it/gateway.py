"""A gateway that behaves as the real ones do (CONTRACT.md § 8) and prints what it sees as JSON lines.

usage: gateway.py HOST:PORT GATEWAY_ID API_KEY

- It asks for /internal/gateway/.well-known without a key first, and posts its manifest once it is connected.
- The acknowledgement must be the first message, within 5 s.
- Only pings count as life: 35 s without one and it leaves.
- Each event is handled inside the read loop, with a fetch of the API's zip for a deployment; pongs leave after what
  came before them was handled.
- A deployment is answered with a deployment.ack as a text message.
"""

import io
import json
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
import zipfile

from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.uri import parse_uri

ACK_TIMEOUT_S = 5
PING_TIMEOUT_S = 35

TLS = ssl._create_unverified_context()


def say(**what):
    print(json.dumps(what), flush=True)


class Gateway:
    def __init__(self, address, gateway_id, api_key):
        self.address, self.gateway_id, self.api_key = address, gateway_id, api_key

    def call(self, path, key=True, **request):
        """Status and body, whatever the status is."""
        headers = {"api-key": self.api_key} if key else {}
        headers.update(request.pop("headers", {}))
        request = urllib.request.Request(f"https://{self.address}{path}", headers=headers, **request)
        try:
            with urllib.request.urlopen(request, context=TLS, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read()

    def run(self):
        status, _ = self.call("/internal/gateway/.well-known", key=False)
        say(wellKnown=status)
        self.connect()
        manifest = json.dumps({"policies": []}).encode()
        path = f"/api/internal/v1/gateways/{self.gateway_id}/manifest"
        status, _ = self.call(path, data=manifest, headers={"content-type": "application/json"})
        say(manifest=status)
        while True:
            self.read()

    def connect(self):
        url = f"wss://{self.address}/api/internal/v1/ws/gateways/connect"
        host, port = self.address.rsplit(":", 1)
        self.socket = TLS.wrap_socket(socket.create_connection((host, int(port))), server_hostname="localhost")
        self.protocol = ClientProtocol(parse_uri(url))
        request = self.protocol.connect()
        request.headers["api-key"] = self.api_key
        self.protocol.send_request(request)
        self.acked, self.last_ping = False, time.monotonic()
        self.flush()
        while not self.acked:
            self.read()

    def read(self):
        limit = PING_TIMEOUT_S if self.acked else ACK_TIMEOUT_S
        left = self.last_ping + limit - time.monotonic()
        if left <= 0:
            self.leave("no ping" if self.acked else "no acknowledgement")
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(4096)
        except TimeoutError:
            return
        if not data:
            self.leave("closed")
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            self.handle(event)
        # Pongs wait here until what came before them was handled.
        self.flush()

    def handle(self, event):
        opcode = getattr(event, "opcode", None)
        if opcode is None:
            if self.protocol.handshake_exc:
                self.leave(str(self.protocol.handshake_exc))
        elif opcode == Opcode.PING:
            self.last_ping = time.monotonic()
            say(ping=bytes(event.data).decode())
        elif opcode == Opcode.TEXT:
            self.message(json.loads(bytes(event.data)))
        elif opcode == Opcode.CLOSE:
            self.leave(f"close {int.from_bytes(bytes(event.data)[:2], 'big')}")

    def message(self, message):
        if not self.acked:
            if message["type"] != "connection.ack":
                self.leave("the first message is no acknowledgement")
            self.acked = True
            return say(ack=message)
        if not isinstance(message["timestamp"], str):
            self.leave("a timestamp must be text")
        say(event=message, files=self.deployed(message) if message["type"] == "api.deployed" else None)

    def deployed(self, event):
        payload = event["payload"]
        status, body = self.call(f"/api/internal/v1/apis/{payload['apiId']}", headers={"accept": "application/zip"})
        files = None
        if status == 200:
            with zipfile.ZipFile(io.BytesIO(body)) as archive:
                files = {name: archive.read(name).decode() for name in archive.namelist()}
        ack = {
            "deploymentId": payload.get("deploymentId", ""),
            "artifactId": payload["apiId"],
            "resourceType": "api",
            "action": "deploy",
            "status": "success" if files else "failed",
            "performedAt": payload.get("performedAt", event["timestamp"]),
        }
        self.protocol.send_text(json.dumps({"type": "deployment.ack", "payload": ack}).encode())
        return files

    def flush(self):
        self.socket.settimeout(10)
        for data in self.protocol.data_to_send():
            if data:
                self.socket.sendall(data)

    def leave(self, why):
        say(left=why)
        sys.exit(1)


Gateway(*sys.argv[1:]).run()

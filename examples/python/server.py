"""Keeps customers that are PUT, with nothing but the standard library."""

import base64
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# A call has at most the mapping's batch.maxBytes of bodies, 4 MiB unless it says otherwise.
MAX_BODY = 16 << 20


def body_of(event):
    """Returns the request's body: JSON is in data, any other body in data_base64, an empty one in neither."""
    if "data_base64" in event:
        return base64.b64decode(event["data_base64"]).decode(errors="replace")
    return json.dumps(event["data"]) if "data" in event else ""


def store(event):
    """Prints a customer; write yours to a database by event["id"], so that a record that comes again changes nothing."""
    if not event.get("customer"):
        raise ValueError("no customer")
    print(
        event["weirmethod"], event["subject"], "customer=" + event["customer"], "tenant=" + event["tenant"],
        "lang=" + event.get("lang", ""), body_of(event), flush=True,
    )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        size = int(self.headers.get("Content-Length", 0))
        if size > MAX_BODY:
            self.close_connection = True
            return self.answer(413, {"error": "too large"})
        body = self.rfile.read(size)  # before answering
        try:
            events = json.loads(body)
        except ValueError:
            return self.answer(400, {"error": "not a batch of CloudEvents"})  # permanent: the batch is bisected
        failed = []
        for event in events:
            try:
                store(event)
            except Exception as err:  # it alone comes again
                failed.append({"itemIdentifier": event["id"], "reason": str(err)})
        self.answer(200, {"batchItemFailures": failed})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    port = int(os.environ.get("PORT", 8080))  # Knative sets it
    try:
        ThreadingHTTPServer((os.environ.get("HOST", ""), port), Handler).serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)

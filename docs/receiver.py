#!/usr/bin/env python3
"""A receiver of share batches, see backend.md: python3 receiver.py ADDRESS PORT BOOK SECRET_FILE"""
import base64, hmac, http.server, json, sqlite3, sys, threading, time

texts = open(sys.argv[4]).read().split()
keys = [base64.b64decode(t[6:]) if t.startswith("whsec_") else t.encode() for t in texts]
book, lock = sqlite3.connect(sys.argv[3], check_same_thread=False), threading.Lock()
book.execute("""CREATE TABLE IF NOT EXISTS shares (share_id TEXT PRIMARY KEY NOT NULL,
    share_hash TEXT UNIQUE NOT NULL, miner_id TEXT NOT NULL, work TEXT NOT NULL)""")

def is_believed(headers, body):
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    ours = [b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256")) for key in keys]
    theirs = headers["webhook-signature"].encode().split()[:8]
    age = abs(time.time() - int(headers["webhook-timestamp"]))
    return age <= 300 and any(hmac.compare_digest(a, b) for a in ours for b in theirs)

def credit(share):  # A row stays as it is if its share comes again, or its hash under another id.
    row = [share[name] for name in ("share_id", "share_hash", "miner_id", "work")]
    book.execute("INSERT INTO shares VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
    mine = book.execute("SELECT 1 FROM shares WHERE share_id = ? AND share_hash = ?", row[:2])
    is_mine = mine.fetchone() is not None
    return {"share_id": row[0], "accepted": is_mine} | ({} if is_mine else {"reason": "duplicate"})

class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version, timeout = "HTTP/1.1", 30

    def do_POST(self):  # Whatever raises an error here gets no answer and is sent again.
        body = self.rfile.read(min(int(self.headers["content-length"]), 1 << 20))
        if not is_believed(self.headers, body):
            return self.answer(401, {"error": "signature_wrong"})
        try:
            batch = json.loads(body)
            with lock, book:  # One transaction, on the disk before it is answered.
                results = [credit(share) for share in batch["shares"]]
            self.answer(200, {"batch_id": batch["batch_id"], "results": results})
        except (sqlite3.IntegrityError, KeyError, TypeError, ValueError) as error:
            self.answer(422, {"error": "unusable_batch", "detail": repr(error)})

    def do_HEAD(self):
        self.answer(200, None)

    def answer(self, status, value):
        text = b"" if value is None else json.dumps(value).encode()
        self.close_connection |= status >= 400  # What was not read is not taken for a request.
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Receiver)
print("listening on port", server.server_port, flush=True)
server.serve_forever()

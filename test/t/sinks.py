"""sinks.py DIRECTORY: a webhook and a mail server on loopback for tests; keeps what they receive, and behaves as it is told.

Writes DIRECTORY/ports ("http smtp"). A line of DIRECTORY/http.behaviour or smtp.behaviour is what the next request meets, else
"ok"; a line is used up. Each request that arrived whole is a line of JSON in DIRECTORY/http.log or smtp.log, written before
the answer. HTTP: ok, a status (redirects go to /elsewhere), hold (ok once DIRECTORY/release is there), hang (then no answer),
close (none at all), cut (closed while the request is read: it is not kept). SMTP: ok, reject (550 for the receiver), temporary
(451 after the content), hold, hang, close (after the content), cut (in the middle of it).
"""
import http.server
import json
import os
import socketserver
import sys
import threading
import time

directory = sys.argv[1]
lock = threading.Lock()


def behaviour(sink):
    """Takes the next line of the script of a sink."""
    path = os.path.join(directory, sink + ".behaviour")
    with lock:
        try:
            with open(path, encoding="ascii") as file:
                lines = file.read().split()
        except FileNotFoundError:
            return "ok"
        with open(path + ".new", "w", encoding="ascii") as file:
            file.write("".join(line + "\n" for line in lines[1:]))
        os.replace(path + ".new", path)
        return lines[0] if lines else "ok"


def keep(sink, request):
    """Adds a request to the log of a sink."""
    with lock, open(os.path.join(directory, sink + ".log"), "a", encoding="ascii") as file:
        file.write(json.dumps(request) + "\n")


def wait_for_release():
    """Until somebody releases it, or a minute is over."""
    for _ in range(1200):
        if os.path.exists(os.path.join(directory, "release")):
            return
        time.sleep(0.05)


class Http(http.server.BaseHTTPRequestHandler):
    """One webhook, any path."""

    def do_POST(self):
        """Keeps the request, then behaves."""
        todo = behaviour("http")
        if todo == "cut":
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(int(self.headers["Content-Length"])).decode("utf-8")
        keep("http", {"path": self.path, "headers": dict(self.headers), "body": body, "met": todo})
        if todo in ("hold", "hang"):
            wait_for_release()
        if todo in ("hang", "close"):
            self.close_connection = True
            return
        status = 200 if todo in ("ok", "hold") else int(todo)
        self.send_response(status)
        if status // 100 == 3:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_GET = do_POST

    def log_message(self, *_):
        """Says nothing."""


class Smtp(socketserver.StreamRequestHandler):
    """One mail server: enough of SMTP for one sender of plain mails, with AUTH PLAIN."""

    def answer(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def content(self):
        """The lines after DATA, up to the point."""
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines).decode("ascii", "backslashreplace")

    def handle(self):
        todo = behaviour("smtp")
        mail = {"to": [], "met": todo}
        self.answer("220 sink")
        while line := self.rfile.readline().decode("ascii", "replace").rstrip("\r\n"):
            verb = line.split()[0].upper()
            if verb == "EHLO":
                self.answer("250-sink\r\n250 AUTH PLAIN")
            elif verb == "AUTH":
                if len(line.split()) < 3:
                    self.answer("334 ")
                    line = "AUTH PLAIN " + self.rfile.readline().decode().strip()
                mail["auth"] = line.split()[2]
                self.answer("235 welcome")
            elif verb == "MAIL":
                mail["from"] = line
                self.answer("250 ok")
            elif verb == "RCPT":
                mail["to"].append(line)
                self.answer("550 nobody of that name" if todo == "reject" else "250 ok")
            elif verb == "DATA":
                self.answer("354 go on")
                if todo == "cut":
                    self.rfile.readline()
                    return
                mail["content"] = self.content()
                keep("smtp", mail)
                if todo in ("hold", "hang"):
                    wait_for_release()
                if todo in ("hang", "close"):
                    return
                self.answer("451 later" if todo == "temporary" else "250 taken")
            elif verb == "QUIT":
                self.answer("221 bye")
                return
            else:
                self.answer("250 ok")


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection; ends with the process."""

    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        """A client that went away is no error of a sink."""


servers = [Server(("127.0.0.1", 0), Http), Server(("127.0.0.1", 0), Smtp)]
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
with open(os.path.join(directory, "ports.new"), "w", encoding="ascii") as ports:
    ports.write(" ".join(str(server.server_address[1]) for server in servers))
os.replace(os.path.join(directory, "ports.new"), os.path.join(directory, "ports"))
parent = os.getppid()
while os.getppid() == parent:   # a test that died takes its sinks along
    time.sleep(0.2)

"""Runs the local AWS (MiniStack) as a child process that cannot outlive its parent.

    python local_aws.py PORT FOLDER [--tls CERTIFICATE KEY] [--functions-endpoint URL] [--no-auth]

With a self-signed certificate in PEM, the server speaks TLS. With an endpoint for the functions, they call AWS there.
Without authentication, a proxy at that endpoint may change requests.

The child gets its own session, so that the functions that it starts end with it. All of its files are under FOLDER,
which is deleted at the end, unless the child ended by itself: then its log is needed. It is stopped on SIGINT, on
SIGTERM, and when standard input ends, which happens when the parent ends for whatever reason.
"""

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 5.0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--tls", nargs=2)
    parser.add_argument("--functions-endpoint")
    parser.add_argument("--no-auth", action="store_true")
    arguments = parser.parse_args()
    port, folder = arguments.port, arguments.folder.resolve()
    environment = {
        key: value
        for key, value in os.environ.items()
        # The local AWS must not use the user's credentials and proxies.
        if not key.startswith(("AWS_", "MINISTACK_")) and key.lower() not in ("http_proxy", "https_proxy", "all_proxy")
    }
    # Otherwise the functions would query the network for instance credentials.
    environment["AWS_EC2_METADATA_DISABLED"] = "true"
    environment["GATEWAY_PORT"] = str(port)
    environment["BIND_HOST"] = "127.0.0.1"
    environment["AUTH"] = "false" if arguments.no_auth else "true"
    # Every call is recorded for the tests.
    environment["CLOUDTRAIL_RECORDING"] = "1"
    scheme = "http"
    if arguments.tls:
        certificate, key = arguments.tls
        scheme = "https"
        environment.update(USE_SSL="1", MINISTACK_SSL_CERT=certificate, MINISTACK_SSL_KEY=key, SSL_CERT_FILE=certificate)
    # Functions inherit the server's environment, so the server must have the endpoint too.
    environment["AWS_ENDPOINT_URL"] = arguments.functions_endpoint or f"{scheme}://127.0.0.1:{port}"
    for variable, name in (("S3_DATA_DIR", "s3"), ("STATE_DIR", "state"), ("TMPDIR", "tmp")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        environment[variable] = str(folder / name)

    over = threading.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda *_: over.set())
    ministack = pathlib.Path(sys.executable).with_name("ministack")
    child = subprocess.Popen([str(ministack)], env=environment, stdin=subprocess.DEVNULL, start_new_session=True)

    def watch_child() -> None:
        child.wait()
        over.set()

    def watch_parent() -> None:
        while sys.stdin.buffer.raw.read(4096):
            pass
        over.set()

    watcher = threading.Thread(target=watch_child, daemon=True)
    watcher.start()
    threading.Thread(target=watch_parent, daemon=True).start()
    over.wait()

    # The child leads its own group (see above), so the processes that it started end with it.
    asked = watcher.is_alive()
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sign)
        except ProcessLookupError:
            break
        watcher.join(GRACE_SECONDS)
    if asked:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if asked else 1


if __name__ == "__main__":
    sys.exit(main())

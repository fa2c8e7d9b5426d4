"""A real Chromium without a window, driven through its DevTools socket, and a server for the pages that it opens."""

import asyncio
import functools
import http.server
import itertools
import json
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from websockets.asyncio.client import connect

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Pages:
    """Serves a folder on a port of its own: an origin."""

    def __init__(self, folder):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.origin = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Browser:
    """One browser with one tab."""

    async def __aenter__(self):
        assert PROGRAM, "no chromium here: apt-get install chromium"
        self.profile = Path(tempfile.mkdtemp(prefix="bellwire-chromium-"))
        self.process = subprocess.Popen(
            [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--no-first-run", "--remote-debugging-port=0",
             f"--user-data-dir={self.profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = self.profile / "DevToolsActivePort"
        async with asyncio.timeout(40):
            while not port.exists() or "\n" not in port.read_text():
                assert self.process.poll() is None, "chromium ended"
                await asyncio.sleep(0.05)
        number, path = port.read_text().split("\n")[:2]
        self.numbers, self.waiting = itertools.count(1), {}
        self.socket = await connect(f"ws://127.0.0.1:{number}{path}", max_size=None)
        self.reading = asyncio.create_task(self._read())
        self.session = None
        pages = await self.command("Target.getTargets")
        page = next(target for target in pages["targetInfos"] if target["type"] == "page")
        attached = await self.command("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.session = attached["sessionId"]
        await self.command("Page.enable")
        return self

    async def __aexit__(self, *_):
        self.reading.cancel()
        await self.socket.close()
        self.process.terminate()
        await asyncio.to_thread(self.process.wait, 10)
        await asyncio.to_thread(shutil.rmtree, self.profile, True)

    async def _read(self):
        async for text in self.socket:
            answer = json.loads(text)
            if answer.get("id") in self.waiting:
                self.waiting.pop(answer["id"]).set_result(answer)

    async def command(self, method, **parameters):
        number = next(self.numbers)
        answer = self.waiting[number] = asyncio.get_running_loop().create_future()
        command = {"id": number, "method": method, "params": parameters}
        if self.session is not None:
            command["sessionId"] = self.session
        await self.socket.send(json.dumps(command))
        answer = await asyncio.wait_for(answer, 30)
        assert "error" not in answer, answer
        return answer["result"]

    async def open(self, url):
        await self.command("Page.navigate", url=url)

    async def value(self, expression):
        """What a JavaScript expression gives in the page, as JSON."""
        answer = await self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression, seconds=20):
        async with asyncio.timeout(seconds):
            while not await self.value(expression):
                await asyncio.sleep(0.05)

"""The two example clients of bins/gateway/clients, as they stand there: a program in Python, a page in a real browser."""

import asyncio
import json
import signal
import sys
from urllib.parse import quote

from browser import Browser, Pages
from harness import check
from processes import ROOT, Site, notice, text_of, token, trade

CLIENTS = ROOT / "bins" / "gateway" / "clients"


class Program:
    """bellwire.py, running."""

    def __init__(self, site, name="anna", ttl=600):
        self.site, self.user = site, name
        self.token, self.state = site.dir / f"{name}.jwt", site.dir / f"{name}.json"
        self.renew(ttl)
        self.lines, self.words = [], ""

    def renew(self, ttl=600):
        self.token.write_text(token(self.user, ttl=ttl))

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, CLIENTS / "bellwire.py", self.site.url, "--token-file", self.token, "--state", self.state,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        self.lines.append([])
        self.reading = [asyncio.create_task(self._out(self.lines[-1])), asyncio.create_task(self._words())]
        return self

    async def _out(self, lines):
        async for line in self.process.stdout:
            if line.endswith(b"\n"):
                lines.append(json.loads(line))

    async def _words(self):
        async for line in self.process.stderr:
            self.words += line.decode()

    async def kill(self):
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()
        await asyncio.gather(*self.reading)

    async def until(self, condition, seconds=20):
        async with asyncio.timeout(seconds):
            while not condition():
                assert self.process.returncode is None, self.words
                await asyncio.sleep(0.02)

    def got(self, stream="user"):
        """What came, over all its lives; what a life repeats of the one before is left out, what it repeats itself is not."""
        texts, highest = [], 0
        for life in self.lines:
            begun = highest
            for line in life:
                if line["stream"] == stream and line["seq"] > begun:
                    texts.append(text_of(line["data"]))
                    highest = line["seq"]
        return texts


@check
async def the_python_client_gets_everything_once_through_kills_of_both_sides():
    with Site() as site:
        program = await Program(site).start()
        try:
            await program.until(lambda: "joined" in program.words)
            for round_ in range(3):
                publishing = asyncio.create_task(site.publish(
                    *(trade("anna", f"{round_} {number}") for number in range(400)), notice(str(round_))))
                await program.until(lambda: len(program.got()) > 400 * round_ + 50)
                site.kill()
                await publishing
                await program.kill()
                site.start()
                await program.start()
                await program.until(lambda: len(program.got()) >= 400 * (round_ + 1))
            await program.until(lambda: len(program.got("all")) >= 3)
        finally:
            await program.kill()
        assert program.got() == [f"{round_} {number}" for round_ in range(3) for number in range(400)]
        assert program.got("all") == ["0", "1", "2"]
        assert sum(len(life) for life in program.lines) <= 1203 + 3, "killed clients repeat one notification at most"


@check
async def the_python_client_renews_its_token_in_the_session_and_stops_when_it_is_refused():
    with Site() as site:
        program = await Program(site, "berta", ttl=4).start()
        try:
            await program.until(lambda: "joined" in program.words)
            program.renew(600)
            await program.until(lambda: "token renewed" in program.words)
            await asyncio.sleep(4)
            await site.publish(trade("berta", "after the first token's end"))
            await program.until(lambda: program.got() == ["after the first token's end"])
            assert program.words.count("joined") == 1
            program.token.write_text("nonsense")
            site.kill()
            site.start()
            async with asyncio.timeout(20):
                assert await program.process.wait() == 1
            await asyncio.gather(*program.reading)
            assert "refused: 4502" in program.words, program.words
        finally:
            await program.kill()


@check
async def the_browser_client_gets_everything_once_through_kills_and_reloads():
    # The page that is tested is the example, with an ear in it.
    with Pages(CLIENTS) as pages, Pages(CLIENTS) as foreign, Site(listen_origins=[pages.origin]) as site:
        async with Browser() as browser:
            place = f"example.html#url={quote(site.url)}&token={token('anna')}"
            ear = """
                window.onBellwire = (stream, seq, { payload }) => {
                    const all = JSON.parse(localStorage.got ?? "[]");
                    all.push([stream, seq, payload.reason ?? payload.title, String(payload.timestamp)]);
                    localStorage.got = JSON.stringify(all);
                };"""
            await browser.command("Page.addScriptToEvaluateOnNewDocument", source=ear)
            await browser.open(f"{pages.origin}/{place}")
            await browser.until("document.getElementById('state')?.textContent === 'live'")
            for round_ in range(3):
                burst = [trade("anna", f"{round_} {number}") for number in range(150)]
                for one in burst:
                    one["payload"]["timestamp"] = 1793041234567890123
                publishing = asyncio.create_task(site.publish(*burst, notice(str(round_))))
                await browser.until(f"JSON.parse(localStorage.got ?? '[]').length > {151 * round_ + 20}")
                site.kill()
                await publishing
                if round_ == 1:
                    await browser.command("Page.reload")
                site.start()
                await browser.until(f"JSON.parse(localStorage.got).length >= {151 * (round_ + 1)}")
            await asyncio.sleep(0.3)
            got = json.loads(await browser.value("localStorage.got"))
            shown = await browser.value("document.querySelectorAll('li').length")
            # The negative control: the same page from an origin that is not listed gets nothing.
            await browser.open(f"{foreign.origin}/{place}")
            await browser.until("document.getElementById('state')?.textContent.startsWith('waiting: 1006')")
            assert await browser.value("localStorage.got ?? null") is None
        user = [(seq, text) for stream, seq, text, _ in got if stream == "user"]
        assert user == [(index + 1, f"{index // 150} {index % 150}") for index in range(450)], user
        assert [text for stream, _, text, _ in got if stream == "all"] == ["0", "1", "2"]
        assert {time for stream, _, _, time in got if stream == "user"} == {"1793041234567890123"}, "rounded"
        assert 0 < shown <= 453

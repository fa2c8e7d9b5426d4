"""The page itself: its client runs, its example is what the gateway would say, its codes are complete."""

import asyncio
import json
import re

import page
from client import Client
from harness import check
from processes import ROOT, Site, notice, text_of, token, trade


@check
async def the_python_client_of_the_page_gets_everything_once_through_kills():
    module = {}
    exec(compile(page.python_client(), "PROTOCOL.md", "exec"), module)
    got, at = [], {}
    with Site() as site:
        listening = asyncio.create_task(module["listen"](
            site.url, lambda: token("anna"), lambda stream, seq, data: got.append((stream, seq, data)), at))
        while not at:  # it is joined
            await asyncio.sleep(0.02)
        for round_ in range(3):
            await site.publish(*(trade("anna", f"{round_} {number}") for number in range(200)), notice(str(round_)))
            site.kill()
            await site.publish(*(trade("anna", f"{round_} {number}") for number in range(200, 400)))
            site.start()
        async with asyncio.timeout(20):
            while len(got) < 1203:
                assert not listening.done(), listening.exception()
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        assert [text_of(data) for stream, _, data in got if stream == "user"] \
            == [f"{round_} {number}" for round_ in range(3) for number in range(400)]
        assert [text_of(data) for stream, _, data in got if stream == "all"] == ["0", "1", "2"]
        # A position that cannot be: it starts afresh. A token that is refused: it stops.
        listening.cancel()
        at["user"] = {"epoch": at["user"]["epoch"], "seq": 5000}
        tokens = iter([token("anna"), token("anna")])
        listening = asyncio.create_task(module["listen"](
            site.url, lambda: next(tokens, "bad"), lambda *_: None, at))
        async with asyncio.timeout(15):
            while at.get("user", {}).get("seq") != 1200:
                assert not listening.done(), listening.exception()
                await asyncio.sleep(0.02)
        site.kill()
        site.start()
        async with asyncio.timeout(15):
            try:
                await listening
                raise AssertionError("it went on")
            except module["ConnectionClosed"] as closed:
                assert closed.rcvd.code == 4502


@check
async def the_rule_is_put_to_the_test_a_missing_frame_is_seen():
    # The negative control of everything here: without any one of these frames, the client objects.
    with Site() as site:
        client = await Client.subscribed(site.url, token("anna"))
        await site.publish(*(trade("anna", str(number)) for number in range(5)))
        await client.until_got(5)
        await client.until("heartbeat")
        await client.ws.close()
    joined = next(index for index, frame in enumerate(client.frames) if frame["op"] == "subscribed")
    moving = [index for index, frame in enumerate(client.frames) if frame["op"] == "notification"]
    assert len(moving) == 5
    for missing in (None, *moving):
        again = Client(None)
        try:
            for index, frame in enumerate(client.frames[joined:], joined):
                if index != missing:
                    again._take(frame)
            assert missing is None, "a missing frame was not seen"
        except AssertionError as gap:
            assert missing is not None and "gap in user" in str(gap)


@check
async def the_example_session_follows_its_own_rule_and_has_the_frames_of_this_gateway():
    shapes, reader = {}, Client(None)
    for who, text in page.example_frames():
        frame = json.loads(text)
        if who == "S":
            reader._take(frame)
            shapes.setdefault(frame["op"], []).append(list(frame))
    # Every frame of the example has the keys, in the order, that this gateway gives it.
    with Site() as site:
        client = await Client.subscribed(site.url, token("anna", ttl=50))
        await site.publish(trade("anna", "x"))
        await client.until_got(1)
        await client.subscribe(snapshot=True, resume={"user": {"epoch": client.positions["user"][0], "seq": 0}})
        await client.until("snapshot")
        await client.subscribe(resume={"user": {"epoch": "0", "seq": 0}})
        await client.until("resync")
        await client.send(op="unsubscribe", id=1)
        await client.send(op="list", id=1)
        await client.send(op="ping", id=1)
        await client.send(op="dance", id=1)
        await client.until("error")
        await client.until("heartbeat")
        site.terminate()
        await client.until_closed()
        ours = {}
        for frame in client.frames:
            ours.setdefault(frame["op"], []).append(list(frame))
    for op, listed in shapes.items():
        assert all(keys in ours[op] for keys in listed), (op, listed, ours[op])
    assert set(ours) - set(shapes) <= {"auth_expiring"}
    assert all(f"`{op}`" in page.TEXT for op in ours)


@check
async def the_codes_of_the_page_are_those_of_the_gateway():
    # The one look into the gateway's code: a code that is added there shall be explained here.
    source = (ROOT / "bins" / "gateway" / "src" / "protocol" / "codes.rs").read_text()
    known = {int(code) for code in re.findall(r"(?:=>|=) (\d{4})[,\n]", source)}
    documented = page.close_codes()
    assert known - set(documented) == set(), "not on the page"
    assert set(documented) - known == set(), "on the page only"
    for code, reason in documented.items():
        assert f'"{reason}"' in source

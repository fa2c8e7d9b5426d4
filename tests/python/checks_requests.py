"""Requests: answers, errors, limits."""

import asyncio
import json

from websockets.exceptions import InvalidStatus

from client import PATIENCE, Client, Raw, journalled
from harness import check
from processes import Site, text_of, token, trade


@check
async def hello_says_what_the_limits_are_and_times_are_strings():
    with Site(session_heartbeat_ms=300, listen_name="gw-7") as site:
        async with await Client.open(site.url) as client:
            hello = await client.until("hello")
            assert list(hello) == ["op", "v", "conn", "gateway", "version", "time", "auth_within_ms", "heartbeat_ms", "idle_ms",
                                   "max_frame"]
            assert (hello["v"], hello["gateway"], hello["auth_within_ms"], hello["heartbeat_ms"], hello["idle_ms"],
                    hello["max_frame"]) == (1, "gw-7", 5000, 300, 300_000, 4096)
            assert isinstance(hello["time"], str) and int(hello["time"]) > 1.7e18
            assert client.ws.protocol.extensions == [], "no compression is agreed"


@check
async def requests_before_auth_are_refused_but_ping_is_not():
    with Site() as site:
        async with await Client.open(site.url) as client:
            await client.until("hello")
            for index, op in enumerate(["subscribe", "unsubscribe", "list"]):
                await client.send(op=op, id=index)
                error = await client.until("error")
                assert (error["id"], error["code"], error["reason"]) == (index, 4513, "not_authenticated")
            await client.send(op="ping", id="early")
            pong = await client.until("pong")
            assert pong["id"] == "early" and isinstance(pong["time"], str)
            await site.publish(trade("anna", "x"))
            await client.quiet(0.2)
            await client.send(op="auth", id=5, token=token("anna"))
            await client.until("auth_ok", id=5)


@check
async def what_is_no_request_is_an_error_and_not_a_close():
    with Site() as site:
        async with await Client.login(site.url, token("anna")) as client:
            for text, id_ in [
                ('{"op":"dance","id":1}', 1), ('{"op":"dance","id":"two"}', "two"), ('{"id":3}', None), ("{}", None),
                ("[]", None), ("7", None), ("", None), ("nonsense", None), ('{"op":"ping"', None), ('{"op":7}', None),
                ('{"op":"auth","id":4}', 4), ('{"op":"subscribe","channels":"trade"}', None),
                ('{"op":"subscribe","resume":{"user":{"epoch":"e","seq":-1}}}', None),
                ('{"op":"ping","id":"' + "x" * 65 + '"}', None), ('{"op":"ping","id":1.5}', None),
            ]:
                await client.ws.send(text)
                error = await client.until("error")
                assert (error["code"], error["reason"], error.get("id")) == (4500, "bad_request", id_), (text, error)
                assert error["retryable"] is False and error["msg"]
            # Unknown fields are ignored, null is no field, ids come back as they were.
            for id_ in (0, -1, 2**63 - 1, "\U0001f514\"\\", "x" * 64, ""):
                await client.send(op="ping", id=id_, colour="red", more={"deep": [1, 2, {}]})
                assert (await client.until("pong"))["id"] == id_
            await client.send(op="list", id=None, channels=None)
            assert list(await client.until("subscriptions")) == ["op", "channels"]


@check
async def an_unknown_or_forbidden_channel_changes_nothing():
    with Site() as site:
        async with await Client.login(site.url, token("anna", channels=["trade", "risk"])) as client:
            assert client.frames[-1]["channels"] == ["trade", "risk"]
            await client.subscribe(channels=["trade"])
            for op in ("subscribe", "unsubscribe"):
                for names, code, reason in (
                        (["risk", "trades"], 4510, "unknown_channel"), (["trade", "TRADE"], 4510, "unknown_channel"),
                        (["trade", "system"], 4512, "forbidden_channel"), (["risk", ""], 4510, "unknown_channel")):
                    await client.send(op=op, id=3, channels=names)
                    error = await client.until("error")
                    assert (error["id"], error["code"], error["reason"]) == (3, code, reason)
                    await client.send(op="list", id=4)
                    assert (await client.until("subscriptions"))["channels"] == ["trade"]
            # Without a list: what the token permits.
            assert (await client.subscribe())["channels"] == ["trade", "risk"]


@check
async def requests_sent_in_one_go_are_answered_in_order():
    with Site() as site:
        await site.publish(trade("anna", "x"))
        await journalled(site.url, token("anna"), user=1)
        async with await Client.open(site.url, bearer=token("anna")) as client:
            # The token came with the handshake: nothing needs to be waited for.
            await client.send(op="subscribe", id=1, channels=["trade"], snapshot=True)
            await client.send(op="list", id=2)
            await client.send(op="unsubscribe", id=3)
            await client.send(op="subscribe", id=4)
            await client.send(op="ping", id=5)
            await client.until("pong")
            answers = [(frame["op"], frame.get("id")) for frame in client.frames
                       if frame["op"] not in ("heartbeat", "snapshot")]
            assert answers == [("hello", None), ("auth_ok", None), ("subscribed", 1), ("subscriptions", 2),
                               ("unsubscribed", 3), ("subscribed", 4), ("pong", 5)]


@check
async def sub_protocols_are_chosen_in_the_clients_order_and_unsupported_ones_are_http_400():
    with Site() as site:
        v1, bare = "bellwire.v1.json", "bellwire.bare.json"
        for offered, chosen in (((v1,), v1), (("mqtt", v1), v1), ((bare, v1), bare), ((v1, bare), v1), ((), None)):
            async with await Client.open(site.url, offered, bearer=token("anna")) as client:
                assert client.ws.subprotocol == chosen
                if chosen != "bellwire.bare.json":
                    await client.until("auth_ok")
        for offered in (("mqtt",), ("bellwire.v2.json", "mqtt"), ("mqtt", f"bearer.{token('anna')}")):
            try:
                await Client.open(site.url, offered)
                raise AssertionError("not refused")
            except InvalidStatus as refused:
                assert refused.response.status_code == 400


@check
async def frames_that_break_the_rules_are_closed_with_the_standards_codes():
    def frame_too_long():
        return json.dumps({"op": "ping", "x": "x" * 4096})

    with Site() as site:
        async def code_after(*messages, **options):
            client = await Client.login(site.url, token("anna"))
            for message in messages:
                await client.ws.send(message, **options)
            return await client.until_closed()

        assert await code_after(b"binary") == 1003
        assert await code_after(b"", text=False) == 1003
        assert await code_after(b"\xff\xfe", text=True) == 1007
        assert await code_after(b'{"op":"ping","id":"\xed\xa0\x80"}', text=True) == 1007  # a lone surrogate
        assert await code_after(frame_too_long()) == 1009
        assert await code_after(iter([frame_too_long()[:3000], frame_too_long()[3000:]])) == 1009
        # As long as allowed, in one piece and in several.
        exactly = '{"op":"ping","id":1,"x":"' + "x" * (4096 - 27) + '"}'
        assert len(exactly) == 4096
        async with await Client.login(site.url, token("anna")) as client:
            await client.ws.send(exactly)
            await client.until("pong", id=1)
            await client.ws.send(iter([exactly[:1], exactly[1:4000], "", exactly[4000:]]))
            await client.until("pong", id=1)
            # WebSocket pings are answered with their bytes (the library compares them).
            await (await client.ws.ping(b"are you there"))
        # What no library sends: no mask, reserved bits, a continuation of nothing, a long ping, half a close code.
        for first, payload, mask in (
                (0x81, b"{}", False), (0xC1, b"{}", True), (0x80, b"{}", True), (0x89, b"x" * 126, True),
                (0x88, b"\x03", True), (0x83, b"", True), (0x09, b"", True)):
            raw = await Raw.open(site.url)
            raw.send(first, payload, mask)
            assert (await raw.close_code())[0] == 1002, (first, payload)
            raw.close()


@check
async def a_client_that_closes_gets_its_code_back():
    with Site() as site:
        for code in (1000, 1001, 4321):
            client = await Client.login(site.url, token("anna"))
            await client.ws.close(code)
            assert client.ws.protocol.close_rcvd.code == code


@check
async def too_many_frames_are_an_error_first_and_a_close_then():
    with Site(limits_frames_burst=20, limits_frames_per_second=1) as site:
        client = await Client.login(site.url, token("anna"))
        for number in range(60):
            try:
                await client.send(op="ping", id=number)
            except Exception:
                break
        assert await client.until_closed() == 4005
        errors = [frame for frame in client.frames if frame["op"] == "error"]
        assert [(error["code"], error["reason"], error["retryable"], error.get("id")) for error in errors] \
            == [(4005, "rate_limited", True, None)]
        answered = [frame["id"] for frame in client.frames if frame["op"] == "pong"]
        assert 38 <= len(answered) <= 42
        assert answered != list(range(len(answered))), "the frame that was too much is dropped"


@check
async def too_many_sessions_of_a_user_are_4506_and_of_an_address_429_and_in_all_503():
    with Site(limits_sessions_per_user=2, limits_sessions_per_address=4, limits_sessions_total=5) as site:
        one, two = [await Client.login(site.url, token("anna")) for _ in range(2)]
        third = await Client.open(site.url, bearer=token("anna"))
        error = await third.until("error")
        assert (error["code"], error["reason"]) == (4506, "session_limit")
        assert await third.until_closed() == 4506
        other = await Client.login(site.url, token("bert"))
        # Whoever leaves makes room.
        await one.ws.close()
        async with await Client.login(site.url, token("anna")):
            fourth = await Client.login(site.url, token("cora"))
            try:
                await Client.open(site.url)
                raise AssertionError("not refused")
            except InvalidStatus as refused:
                assert refused.response.status_code == 429
        for client in (two, other, fourth):
            await client.ws.close()
    with Site(limits_sessions_total=1) as site:
        async with await Client.login(site.url, token("anna")):
            try:
                await Client.open(site.url)
                raise AssertionError("not refused")
            except InvalidStatus as refused:
                assert refused.response.status_code == 503


@check
async def a_heartbeat_comes_within_its_time_and_moves_the_position():
    with Site(session_heartbeat_ms=200) as site:
        async with await Client.subscribed(site.url, token("anna"), channels=["risk"]) as client:
            await site.publish(*(trade("anna", "x") for _ in range(7)))
            while client.positions["user"][1] < 7:
                beat = await client.until("heartbeat")
            assert isinstance(beat["time"], str) and set(beat["streams"]) == {"user", "all"}
            await site.publish(trade("anna", "y"))
            while client.positions["user"][1] < 8:
                await client.until("heartbeat")
            await client.subscribe(channels=["trade"])
            await site.publish(trade("anna", "z"))
            assert [text_of(data) for data in await client.until_got(1)] == ["z"]


async def answer_to(url, request):
    """What a connection gets that says only this, to its end."""
    host, port = url.removeprefix("ws://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@check
async def what_takes_too_long_for_a_handshake_is_closed_without_an_answer():
    with Site(limits_handshake_ms=300) as site:
        for request in (b"", b"GET / HTTP/1.1\r\nUpgrade: web"):
            assert await answer_to(site.url, request) == b"", request


@check
async def a_request_that_is_no_handshake_is_told_what_is_served_here():
    with Site() as site:
        answer = await answer_to(site.url, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 426 ") and b"\r\nupgrade: websocket\r\n" in answer, answer
        answer = await answer_to(site.url, b"what is this\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 "), answer


@check
async def a_client_that_asks_and_does_not_read_the_answers_is_closed_with_4002():
    with Site(limits_frames_burst=10**6, limits_frames_per_second=10**6) as site:
        raw = await Raw.open(site.url, [f"Authorization: Bearer {token('anna')}"], window=16_384)
        frame = b"\x81\x8d" + bytes(4) + b'{"op":"ping"}'  # a mask of zeros
        raw.writer.write(frame * 200_000)
        try:
            await asyncio.wait_for(raw.writer.drain(), PATIENCE)
        except ConnectionError:
            pass
        await asyncio.sleep(2)  # the answers to all of them are more than the kernel holds
        heard = bytearray()
        try:
            while more := await asyncio.wait_for(raw.reader.read(1 << 16), PATIENCE):
                heard += more
        except ConnectionResetError:
            pass
        reason = b"slow_consumer"
        assert (4002).to_bytes(2, "big") + reason in heard, bytes(heard[-100:])
        raw.close()

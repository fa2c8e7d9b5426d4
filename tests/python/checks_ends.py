"""How sessions end, and which ones stay."""

import asyncio
import time

from client import Client, Raw
from harness import check
from processes import Site, text_of, token, trade


@check
async def sigterm_delivers_what_was_published_says_goodbye_and_ends_in_order():
    with Site() as site:
        clients = [await Client.subscribed(site.url, token("anna")) for _ in range(5)]
        bare = await Client.open(site.url, ("bellwire.bare.json",), bearer=token("anna"))
        anonymous = await Client.open(site.url)
        await site.publish(*(trade("anna", str(number)) for number in range(500)))
        site.terminate()
        after = []
        for client in clients:
            assert await client.until_closed() == 4001
            goodbye = client.frames[-1]
            assert (goodbye["op"], goodbye["code"], goodbye["reason"]) == ("goodbye", 4001, "drain")
            after.append(goodbye["reconnect_after_ms"])
            assert [text_of(data) for _, _, data in client.got] == [str(number) for number in range(500)]
        assert len(set(after)) == 5 and all(0 < ms < 10_000 for ms in after), after
        assert await anonymous.until_closed() == 4001
        # The bare session has it all, too, and a close without words.
        for _ in range(500):
            await bare.ws.recv()
        try:
            await bare.ws.recv()
            raise AssertionError("more than was published")
        except Exception:
            assert bare.ws.close_code == 4001
        assert await site.exit_code() == 0, site.log()
        # What they had is what there is: nobody gets anything twice after the restart.
        site.start()
        client = await Client.subscribed(site.url, token("anna"), clients[0].positions)
        await client.until("replay_end", stream="user")
        assert client.got == []
        await client.ws.close()


@check
async def a_client_that_does_not_authenticate_in_time_is_closed_with_4501():
    with Site(limits_auth_within_ms=400) as site:
        client = await Client.open(site.url)
        await client.send(op="ping")
        begun = time.monotonic()
        assert await client.until_closed() == 4501
        assert time.monotonic() - begun > 0.3


@check
async def a_silent_client_is_closed_with_4003_although_things_are_sent_to_it_and_a_pong_keeps_another():
    with Site(session_idle_ms=900, session_heartbeat_ms=100) as site:
        bearer = f"Authorization: Bearer {token('anna')}"
        silent = await Raw.open(site.url, [bearer])
        ponging = await Client.subscribed(site.url, token("anna"))  # its library answers pings by itself

        async def keep_publishing():
            while True:
                await site.publish(trade("anna", "x"))

        publishing = asyncio.create_task(keep_publishing())
        listening = asyncio.create_task(ponging.until("pong"))
        try:
            code, before = await silent.close_code()
            assert code == 4003 and 9 in before and before.count(1) > 3, (code, before)
            silent.close()
            await asyncio.sleep(1.0)
            await ponging.send(op="ping", id=1)
            await listening
            # Text frames alone are a sign of life, too.
            raw = await Raw.open(site.url, [bearer])
            begun = time.monotonic()
            while time.monotonic() - begun < 2:
                raw.send(0x81, b'{"op":"list"}')
                opcode, _ = await raw.frame()
                assert opcode != 8
                await asyncio.sleep(0.1)
            raw.close()
            await ponging.ws.close()
        finally:
            publishing.cancel()
            listening.cancel()

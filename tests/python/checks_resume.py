"""Coming back: exactly what was missed, or the plain word that it is not to be had."""

import asyncio

from client import Client, connected, journalled
from harness import check
from processes import Site, account, notice, risk, text_of, token, trade


def texts(client, stream="user"):
    return [text_of(data) for of, _, data in client.got if of == stream]


@check
async def a_resume_delivers_exactly_what_was_missed():
    with Site() as site:
        client = await Client.subscribed(site.url, token("anna"))
        await site.publish(*(trade("anna", str(number)) for number in range(10)))
        await client.until_got(10)
        positions = client.positions
        await client.ws.close()
        both = ((trade("anna", str(number)), trade("bert", "x")) for number in range(10, 500))
        await site.publish(*(one for pair in both for one in pair), notice("missed"))
        await journalled(site.url, token("anna"), user=500, all=1)
        client = await Client.subscribed(site.url, token("anna"), positions)
        joined = client.frames[-1]["streams"]
        assert joined["user"] == {"epoch": positions["user"][0], "recovered": True, "seq": 10, "to": 500}
        assert joined["all"] == {"epoch": positions["all"][0], "recovered": True, "seq": 0, "to": 1}
        await site.publish(*(trade("anna", str(number)) for number in range(500, 520)))
        await client.until_got(511)
        assert texts(client) == [str(number) for number in range(10, 520)] and texts(client, "all") == ["missed"]
        ends = [frame for frame in client.frames if frame["op"] == "replay_end"]
        assert sorted(end["stream"] for end in ends) == ["all", "user"]
        batches = [frame for frame in client.frames if frame["op"] == "batch"]
        for batch in batches:
            assert 1 <= len(batch["items"]) <= 100 and batch["replay"] is True
            assert batch["seq"] == batch["items"][-1]["seq"]
        # Within a stream, replay comes before live.
        order = [frame["op"] for frame in client.frames if frame.get("stream") == "user"]
        assert order == sorted(order, key=["batch", "replay_end", "notification"].index)
        # At the head there is nothing to replay, but an end of it; and a live session may go back.
        again = await Client.subscribed(site.url, token("anna"), client.positions)
        end = await again.until("replay_end")
        assert (end["prev"], end["seq"]) == (520, 520)
        await again.subscribe(resume={"user": {"epoch": positions["user"][0], "seq": 517}})
        await again.until("replay_end")
        assert texts(again) == ["517", "518", "519"]
        await client.ws.close()
        await again.ws.close()


@check
async def a_resume_on_some_channels_has_no_false_gaps():
    with Site() as site:
        both = ((trade("anna", str(number)), risk("anna", str(number))) for number in range(100))
        await site.publish(*(one for pair in both for one in pair))
        await journalled(site.url, token("anna"), user=200)
        epoch = (await Client.login(site.url, token("anna"))).frames[-1]["streams"]["user"]["epoch"]
        for channels, count in (["risk"], 100), (["trade", "risk"], 200), (["system"], 0):
            client = await Client.login(site.url, token("anna"))
            client.positions["user"] = (epoch, 0)
            await client.subscribe(channels=channels, resume={"user": {"epoch": epoch, "seq": 0}})
            end = await client.until("replay_end")
            assert len(client.got) == count and end["seq"] == 200
            await client.ws.close()


@check
async def after_sigkill_and_restart_nothing_is_lost_or_doubled_and_the_epoch_is_the_same():
    with Site() as site:
        client = await Client.subscribed(site.url, token("anna"))
        seen, epochs, published = [], set(), 0
        for round_ in range(4):
            burst = [trade("anna", str(number)) for number in range(published, published + 300)]
            published += 300
            # Killed in the middle of it: while the publisher is publishing, or just after.
            publishing = asyncio.create_task(site.publish(*burst, notice(f"round {round_}")))
            try:
                while len(client.got) < 50:
                    await client.next()
                site.kill()
            finally:
                await publishing
            await client.until_closed()
            seen += client.got
            epochs.add((client.positions["user"][0], client.positions["all"][0]))
            site.start()
            client = await Client.subscribed(site.url, token("anna"), client.positions)
            assert all(joined["recovered"] for joined in client.frames[-1]["streams"].values())
        await client.until_got(4 * 301 - len(seen))
        seen += client.got
        await client.quiet()
        assert [text_of(data) for of, _, data in seen if of == "user"] == [str(number) for number in range(1200)]
        assert [text_of(data) for of, _, data in seen if of == "all"] == [f"round {round_}" for round_ in range(4)]
        assert len({data["message_id"] for _, _, data in seen}) == 1204
        assert len(epochs) == 1, epochs
        await client.ws.close()


@check
async def an_unknown_epoch_is_a_resync():
    with Site() as site:
        await site.publish(*(trade("anna", str(number)) for number in range(5)))
        await journalled(site.url, token("anna"), user=5)
        for epoch in ("0", "ffffffff", "no epoch at all", ""):
            client = await Client.login(site.url, token("anna"))
            now = client.frames[-1]["streams"]["user"]
            joined = (await client.subscribe(resume={"user": {"epoch": epoch, "seq": 2}}))["streams"]
            assert joined["user"] == {"epoch": now["epoch"], "recovered": False, "seq": 5, "to": 5}
            assert "recovered" not in joined["all"]
            resync = await client.until("resync")
            assert (resync["stream"], resync["epoch"], resync["head"]) == ("user", now["epoch"], 5)
            assert resync["why"] == "epoch_changed"
            await client.ws.close()
        # A journal that was lost, the gateway not knowing.
        site.kill()
        for file in (site.dir / "journal").iterdir():
            file.unlink()
        site.start()
        await site.publish(*(trade("anna", str(number)) for number in range(9)))
        client = await Client.subscribed(site.url, token("anna"), {"user": (now["epoch"], 5)})
        resync = await client.until("resync")
        assert resync["why"] == "epoch_changed" and resync["epoch"] != now["epoch"]
        await client.ws.close()


@check
async def what_has_left_the_journal_is_a_resync_and_the_rest_can_be_had():
    with Site(journal_retain_bytes=2 << 20) as site:
        client = await Client.login(site.url, token("anna"))

        async def stream(user="anna"):
            await client.send(op="auth", token=token(user))
            return (await client.until("auth_ok"))["streams"]["user"]

        await site.publish(*(trade("anna", str(number)) for number in range(5)))
        await journalled(site.url, token("anna"), user=5)
        was = await stream()
        assert (was["oldest"], was["head"]) == (1, 5)
        # Other things, and now and then one of hers, so that her stream lives on.
        while (now := await stream())["oldest"] < 4:
            await site.publish(*(trade("bert", "x" * 30_000) for _ in range(20)), trade("anna", str(now["head"])))
            await journalled(site.url, token("anna"), user=now["head"] + 1)
        assert now["epoch"] == was["epoch"] and now["oldest"] < now["head"]
        joined = (await client.subscribe(resume={"user": {"epoch": was["epoch"], "seq": 2}}))["streams"]["user"]
        assert joined["recovered"] is False and joined["seq"] == now["head"]
        resync = await client.until("resync")
        assert (resync["why"], resync["head"], resync["epoch"]) == ("too_old", now["head"], was["epoch"])
        # Everything that is kept, by `oldest - 1`.
        rest = await Client.subscribed(site.url, token("anna"), {"user": (now["epoch"], now["oldest"] - 1)})
        assert rest.frames[-1]["streams"]["user"]["recovered"] is True
        await rest.until("replay_end")
        assert texts(rest) == [str(number) for number in range(now["oldest"] - 1, now["head"])]
        # When her last one has left, her numbering begins anew, under another epoch.
        while (gone := await stream())["epoch"] == was["epoch"]:
            await site.publish(*(trade("bert", "x" * 30_000) for _ in range(40)))
        await site.publish(trade("anna", "anew"))
        await journalled(site.url, token("anna"), user=1)
        again = await Client.subscribed(site.url, token("anna"), {"user": (was["epoch"], now["head"])})
        assert (await again.until("resync"))["why"] == "epoch_changed"
        assert again.positions["user"] == (gone["epoch"], 1)
        for one in (client, rest, again):
            await one.ws.close()


@check
async def a_seq_beyond_the_head_is_error_4511_and_changes_nothing():
    with Site() as site:
        await site.publish(*(trade("anna", str(number)) for number in range(3)))
        await journalled(site.url, token("anna"), user=3)
        client = await Client.login(site.url, token("anna"))
        epoch = client.frames[-1]["streams"]["user"]["epoch"]
        await client.send(op="subscribe", id=7, resume={"user": {"epoch": epoch, "seq": 4}})
        error = await client.until("error")
        assert (error["id"], error["code"], error["reason"], error["retryable"]) == (7, 4511, "bad_resume", False)
        await client.send(op="list", id=8)
        assert (await client.until("subscriptions"))["channels"] == []
        await site.publish(trade("anna", "3"))
        await journalled(site.url, token("anna"), user=4)
        await client.quiet()
        await client.subscribe(resume={"user": {"epoch": epoch, "seq": 3}})
        assert [text_of(data) for data in await client.until_got(1)] == ["3"]
        await client.ws.close()


@check
async def unsubscribing_ends_a_replay_too():
    with Site() as site:
        await site.publish(*(trade("anna", f"{number} " + "x" * 5_000) for number in range(3000)))
        await journalled(site.url, token("anna"), user=3000)
        client = await Client.login(site.url, token("anna"), max_queue=1)
        epoch = client.frames[-1]["streams"]["user"]["epoch"]
        await client.subscribe(resume={"user": {"epoch": epoch, "seq": 0}})
        await client.send(op="unsubscribe", id=3)
        await client.until("unsubscribed", id=3)
        assert len(client.got) < 3000
        await client.quiet()
        await client.ws.close()


async def slow(url, user):
    """A client with a small window, that is not read from."""
    return await Client.subscribed(url, token(user), sock=connected(url, 16_384), max_queue=1)


@check
async def a_slow_client_is_closed_with_4002_and_resumes_without_a_loss_while_a_fast_one_notices_nothing():
    with Site(limits_pending_max=500) as site:
        client, fast = await slow(site.url, "anna"), await Client.subscribed(site.url, token("anna"))
        for number in range(0, 3000, 100):
            await site.publish(*(trade("anna", f"{number + one} " + "x" * 6_000) for one in range(100)))
            await fast.until_got(number + 100)
        assert await client.until_closed() == 4002
        assert len(client.got) < 3000, "it was not slow"
        again = await Client.subscribed(site.url, token("anna"), client.positions)
        await again.until_got(3000 - len(client.got))
        assert client.got + again.got == fast.got
        await again.ws.close()
        await fast.ws.close()


@check
async def a_lagging_sessions_account_updates_are_conflated_and_its_trades_are_not():
    with Site() as site:
        client = await slow(site.url, "anna")
        padded = "account " + "x" * 5_000  # another account than the user's own name
        burst = []
        for number in range(3000):
            burst.append(account(padded, float(number)) | {"user_id": "anna"})
            if number % 10 == 9:
                burst.append(trade("anna", str(number // 10)))
        await site.publish(*burst)
        while client.positions["user"][1] < 3300:
            await client.next()
        updates = [frame for frame in client.frames
                   if frame["op"] == "notification" and frame["data"]["message_type"] == "account_update"]
        conflated = sum(frame.get("conflated", 0) for frame in updates)
        assert conflated > 0, "it was not slow"
        assert len(updates) + conflated == 3000
        assert updates[-1]["data"]["payload"]["balance"] == 2999.0
        trades = [frame for frame in client.frames if frame.get("data", {}).get("message_type") == "order_canceled"]
        assert [text_of(frame["data"]) for frame in trades] == [str(number) for number in range(300)]
        assert not any("conflated" in frame for frame in trades)
        await client.ws.close()

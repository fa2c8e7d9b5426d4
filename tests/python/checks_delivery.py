"""What arrives: every type, every text, and to whom."""

import asyncio
import json
import math
import uuid

import page
from client import Client, journalled
from harness import check
from processes import Site, account, notice, position, risk, text_of, token, trade

BIG_TIME = 1_793_041_234_567_890_123  # beyond 2^53


def samples(user):
    """One notification of each type, every field with a value of its own."""
    values, count = page.values(), 0
    made = {}
    for name, (_, _, fields) in page.notifications().items():
        payload = {"type": name}
        for field, kind in fields:
            count += 1
            if kind == "text":
                payload[field] = user if field == "user_id" else f"{field} {count} \u00fc\u2028\"\\"
            elif kind == "number":
                payload[field] = count + 0.1
            elif kind == "integer":
                payload[field] = 4_294_967_295 - count
            elif kind == "time":
                payload[field] = BIG_TIME + count
            else:
                payload[field] = values[kind][count % len(values[kind])]
        payload["timestamp"] = BIG_TIME - count
        made[name] = payload
    return made


@check
async def every_one_of_the_19_types_arrives_with_exactly_the_published_fields_in_order():
    table, made = page.notifications(), samples("anna")
    assert len(made) == 19, sorted(made)
    with Site() as site:
        published = {}
        for index, (name, payload) in enumerate(made.items()):
            published[name] = {
                "message_id": str(uuid.uuid4()), "message_type": name, "user_id": "anna", "priority": (index + 1) % 4,
                "timestamp": BIG_TIME + index, "source": f"Source {index}", "payload": payload}
        async with await Client.subscribed(site.url, token("anna")) as client:
            # As published, the priority of each given; then with everything left out that may be.
            await site.publish(*published.values())
            await client.until_got(19)
            ids = await site.publish(*({"user_id": "anna", "payload": payload} for payload in made.values()))
            await client.until_got(38)
        pairs = [json.loads(raw, object_pairs_hook=list) for raw in client.raw if '"notification"' in raw]
        by_type = {}
        for frame in pairs:
            data = dict(frame)["data"]
            by_type.setdefault(dict(data)["message_type"], []).append(data)
        assert sorted(by_type) == sorted(table)
        for name, (full, short) in by_type.items():
            expected = [(key, list(value.items()) if key == "payload" else value)
                        for key, value in published[name].items()]
            assert as_pairs(full) == expected, f"{name}: {full}"
            short = dict(as_pairs(short))
            assert list(short) == [key for key, _ in expected]
            assert short["priority"] == table[name][0] and short["source"] == ""
            assert short["payload"] == expected[-1][1]
            assert uuid.UUID(short["message_id"]).version == 7 and short["message_id"] in ids
            assert isinstance(short["timestamp"], int) and short["timestamp"] > 2**53


def as_pairs(data):
    return [(key, [tuple(pair) for pair in value] if key == "payload" else value) for key, value in data]


@check
async def each_type_comes_on_its_channel_and_on_no_other():
    table, made = page.notifications(), samples("anna")
    channels = {channel for _, channel, _ in table.values()}
    assert channels == {"trade", "account", "position", "risk", "system"}
    with Site() as site:
        clients = {}
        for channel in channels:
            clients[channel] = await Client.subscribed(site.url, token("anna"), channels=[channel])
        await site.publish(*({"user_id": "anna", "payload": payload} for payload in made.values()))
        for channel, client in clients.items():
            expected = {name for name, (_, of, _) in table.items() if of == channel}
            assert {data["message_type"] for data in await client.until_got(len(expected))} == expected
        for client in clients.values():
            while client.positions["user"][1] < 19:  # over the other channels, without a gap
                await client.until("heartbeat")
            await client.ws.close()


@check
async def hostile_texts_come_through_to_the_byte():
    texts = [
        "", "\"", "\\", "\\\\\"\\", "\"}],\"op\":\"auth_ok\",\"x\":[{\"", "</script><!--",
        "\u0000", "\u007f\u0080\u009f",
        "".join(map(chr, range(32))), "\u2028\u2029\u0085\ufeff\ufffe\uffff",
        "\U0001f514\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "e\u0301 is not \u00e9", "\u202eabc\u202c", "\U0010ffff", "\ud7ff\ue000", "x" * 32 * 1024,
        "\u0001\"\\" * (32 * 1024 // 3), "\U0001f514" * (32 * 1024 // 4), "a" * 65_000, "\u0001" * 65_000]
    user = "an\"na\\\u2028\U0001f514\n\u0001"
    with Site() as site:
        async with await Client.subscribed(site.url, token(user)) as client:
            await site.publish(*(trade(user, text) for text in texts))
            got = await client.until_got(len(texts))
            assert [text_of(data) for data in got] == texts
            assert {data["user_id"] for data in got} == {user}
            # And once more out of the journal.
            epoch, _ = client.positions["user"]
        async with await Client.subscribed(site.url, token(user), {"user": (epoch, 0)}) as client:
            assert [text_of(data) for data in await client.until_got(len(texts))] == texts


@check
async def numbers_come_through_to_the_last_bit():
    numbers = [0.0, -0.0, 0.1, 1 / 3, 1e-7, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, -1e21, 1e20,
               9007199254740993.0, 123456789.123456789, 3500.2]
    with Site() as site:
        async with await Client.subscribed(site.url, token("anna")) as client:
            await site.publish(*(account("anna", number) for number in numbers))
            got = [data["payload"]["balance"] for data in await client.until_got(len(numbers))]
            assert got == numbers and all(isinstance(number, float) for number in got)
            assert math.copysign(1, got[1]) == -1


@check
async def a_session_gets_its_own_users_records_and_the_broadcasts():
    with Site() as site:
        users = ["anna", "bert", "ann", "anna ", "ANNA"]
        clients = [await Client.subscribed(site.url, token(user)) for user in users]
        await site.publish(*(trade(user, f"{user} {number}") for number in range(50) for user in users), notice("all"))
        for user, client in zip(users, clients):
            await client.until_got(51)
            mine = [text_of(data) for stream, _, data in client.got if stream == "user"]
            assert mine == [f"{user} {number}" for number in range(50)]
            assert [(seq, text_of(data), data["user_id"]) for stream, seq, data in client.got if stream == "all"] \
                == [(1, "all", "*")]
            await client.ws.close()


@check
async def channels_filter_and_prev_and_seq_step_over_what_is_not_subscribed_to():
    with Site() as site:
        client = await Client.subscribed(site.url, token("anna"), channels=["trade"])
        await site.publish(trade("anna", "one"), risk("anna", "x"), risk("anna", "x"), trade("anna", "two"),
                           risk("anna", "x"), notice("x"))
        assert [text_of(data) for data in await client.until_got(2)] == ["one", "two"]
        # The client checks every frame; here, that it was put to the test.
        seqs = [seq for _, seq, _ in client.got]
        assert seqs != [1, 2], seqs
        while (client.positions["user"][1], client.positions["all"][1]) != (5, 1):
            await client.until("heartbeat")
        # A channel that is added starts from now, the position stays.
        joined = await client.subscribe(channels=["risk"])
        assert joined["channels"] == ["trade", "risk"]
        assert joined["streams"]["user"] == {"epoch": client.positions["user"][0], "seq": 5, "to": 5}
        await site.publish(risk("anna", "three"))
        assert text_of((await client.until_got(3))[2]) == "three"
        await client.ws.close()


@check
async def nothing_is_delivered_before_subscribe_and_nothing_after_the_last_unsubscribe():
    with Site() as site:
        client = await Client.login(site.url, token("anna"))
        await site.publish(trade("anna", "early"), notice("early"))
        await client.quiet()
        joined = await client.subscribe()
        assert joined["channels"] == ["trade", "account", "position", "risk", "system"]
        assert "recovered" not in joined["streams"]["user"]
        await site.publish(trade("anna", "wanted"))
        await client.until_got(1)
        await client.send(op="unsubscribe", id=3, channels=["account", "position", "risk", "system"])
        assert (await client.until("unsubscribed", id=3))["channels"] == ["trade"]
        await client.send(op="unsubscribe", id=4, channels=["trade"])
        assert (await client.until("unsubscribed", id=4))["channels"] == []
        await site.publish(trade("anna", "late"), risk("anna", "late"), notice("late"))
        await client.quiet()
        # The same without a list, and a fresh start from the head.
        await journalled(site.url, token("anna"), user=4, all=2)
        assert (await client.subscribe(channels=["trade"]))["streams"]["user"]["seq"] == 4
        await client.send(op="unsubscribe", id=5)
        assert (await client.until("unsubscribed", id=5))["channels"] == []
        await site.publish(trade("anna", "late"))
        await client.quiet()
        # An empty list subscribes to nothing.
        assert (await client.subscribe(channels=[]))["channels"] == []
        await site.publish(trade("anna", "late"))
        await client.quiet()
        await client.ws.close()


@check
async def two_sessions_of_one_user_get_everything_once_and_one_may_leave():
    with Site() as site:
        one = await Client.subscribed(site.url, token("anna"))
        two = await Client.subscribed(site.url, token("anna"))
        await site.publish(*(trade("anna", str(number)) for number in range(20)))
        assert await one.until_got(20) == await two.until_got(20)
        await one.ws.close()
        await site.publish(*(trade("anna", str(number)) for number in range(20, 40)))
        assert [text_of(data) for data in await two.until_got(40)] == [str(number) for number in range(40)]
        assert [seq for _, seq, _ in two.got] == list(range(1, 41))
        await two.quiet()
        await two.ws.close()


@check
async def a_repeated_message_id_is_delivered_once():
    with Site() as site:
        client = await Client.subscribed(site.url, token("anna"))
        ids = [str(uuid.uuid4()) for _ in range(10)]
        for _ in range(2):
            await site.publish(*(trade("anna", one, message_id=one) for one in ids))
        await site.publish(*(trade("anna", one, message_id=one) for one in ids), producer="other-engine")
        await site.publish(trade("anna", "end"))
        assert [text_of(data) for data in await client.until_got(11)] == [*ids, "end"]
        await client.ws.close()


@check
async def one_orders_events_come_in_order_whatever_their_priorities():
    def event(kind, order, **fields):
        return {"user_id": "anna", "payload": {"type": kind, "order_id": order, **fields, "timestamp": 1}}

    life = []
    for number in range(200):
        order = f"o{number}"
        more = {"exchange_order_id": "x", "instrument_id": "IX2401"}
        life.append(event("order_expired", order, **more, unfilled_volume=1.0, reason="P3"))
        life.append(event("order_accepted", order, **more, direction="BUY", offset="OPEN", price=1.0, volume=1.0,
                          order_type="LIMIT", frozen_margin=0.0))
        life.append(event("order_rejected", order, instrument_id="IX2401", reason="P0", error_code=1))
    with Site() as site:
        async with await Client.subscribed(site.url, token("anna")) as client:
            await site.publish(*life)
            events = {}
            for data in await client.until_got(len(life)):
                events.setdefault(data["payload"]["order_id"], []).append(data["message_type"])
            in_order = ["order_expired", "order_accepted", "order_rejected"]
            assert len(events) == 200 and all(seen == in_order for seen in events.values()), events


@check
async def a_snapshot_has_the_last_account_and_each_instruments_last_position():
    with Site() as site:
        await site.publish(*(account("anna", float(balance)) for balance in range(5)),
                           *(position("anna", f"IX{number % 150}", float(number)) for number in range(450)),
                           position("bert", "IX1", 9.0), trade("anna", "x"))
        await journalled(site.url, token("anna"), user=456)
        client = await Client.login(site.url, token("anna"))
        await client.subscribe(snapshot=True)
        pages = [await client.until("snapshot")]
        while not pages[-1]["last"]:
            pages.append(await client.until("snapshot"))
        assert len(pages) > 1, "the paging was not put to the test"
        assert all(page["stream"] == "user" and page["as_of"] == 456 for page in pages)
        items = {item["key"]: item for page in pages for item in page["items"]}
        assert sum(len(page["items"]) for page in pages) == len(items) == 151
        assert items["account"]["data"]["payload"]["balance"] == 4.0
        for number in range(150):
            data = items[f"position:IX{number}"]["data"]
            assert (data["payload"]["volume_long"], data["user_id"]) == (300.0 + number, "anna")
        assert client.positions["user"][1] == 456, "a snapshot does not move the position"
        # Only of channels that are subscribed to; and a page comes even if there is nothing.
        other = await Client.login(site.url, token("anna"))
        await other.subscribe(channels=["account"], snapshot=True)
        assert [item["key"] for item in (await other.until("snapshot"))["items"]] == ["account"]
        nobody = await Client.login(site.url, token("nobody"))
        await nobody.subscribe(snapshot=True)
        empty = await nobody.until("snapshot")
        assert (empty["items"], empty["last"], empty["as_of"]) == ([], True, 0)
        for one in (client, other, nobody):
            await one.ws.close()


@check
async def the_bare_sub_protocol_is_notifications_and_nothing_else():
    with Site(session_heartbeat_ms=100) as site:
        bare = await Client.open(site.url, ("bellwire.bare.json",), bearer=token("anna", channels=["trade", "system"]))
        assert bare.ws.subprotocol == "bellwire.bare.json"
        await bare.ws.send("whatever this is")
        # Nothing tells that it is open; what was published before is not for it.
        while True:
            await site.publish(notice("knock"))
            try:
                await asyncio.wait_for(bare.ws.recv(), 0.3)
                break
            except TimeoutError:
                continue
        numbered = await Client.subscribed(site.url, token("anna"))
        await site.publish(trade("anna", "one"), trade("bert", "not hers"), risk("anna", "not permitted"),
                           trade("anna", "two"), notice("all"))
        got = []
        while len(got) < 3:
            data = json.loads(await bare.ws.recv())
            if text_of(data) != "knock":
                got.append(data)
        assert sorted(text_of(data) for data in got) == ["all", "one", "two"]
        keys = ["message_id", "message_type", "user_id", "priority", "timestamp", "source", "payload"]
        assert all(list(data) == keys for data in got)
        while len(ours := [data for _, _, data in numbered.got if text_of(data) != "knock"]) < 4:
            await numbered.next()
        assert all(data in ours for data in got)
        await bare.quiet(0.3)  # no heartbeats either
        await bare.ws.close()
        await numbered.ws.close()

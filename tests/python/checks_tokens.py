"""Who a client is: the token, and nothing but the token."""

import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.exceptions import InvalidStatus

from client import Client, journalled
from harness import check
from processes import SECRET, Site, text_of, token, trade

OTHER = "another secret of thirty-two bytes and more"


def bad_tokens():
    """What is wrong: the token, and the code that it gets."""
    good, soon = token("anna"), int(time.time()) + 60
    head, claims, signature = good.split(".")
    unsigned = jwt.encode({"sub": "anna", "exp": soon}, None, algorithm="none")
    foreign_claims = token("bert").split(".")[1]
    return {
        "another key": (token("anna", secret=OTHER), 4502),
        "expired": (token("anna", ttl=-60), 4503),
        "alg none": (unsigned, 4502),
        "alg none with a signature": (unsigned + signature, 4502),
        "another algorithm with the same key": (token("anna", algorithm="HS512"), 4502),
        "claims exchanged": (f"{head}.{foreign_claims}.{signature}", 4502),
        "signature cut": (good[:-4], 4502),
        "no signature": (f"{head}.{claims}.", 4502),
        "no sub": (jwt.encode({"exp": 2**33}, SECRET), 4502),
        "no exp": (jwt.encode({"sub": "anna"}, SECRET), 4502),
        "everybody": (token("*"), 4502),
        "nobody": (token(""), 4502),
        "a user id too long": (token("x" * 129), 4502),
        "not yet": (token("anna", nbf=soon), 4502),
        "a channel that does not exist": (token("anna", channels=["trades"]), 4502),
        "no token": ("anna", 4502),
        "empty": ("", 4502),
    }


@check
async def bad_tokens_are_refused_with_the_right_code_wherever_they_stand():
    with Site() as site:
        for what, (bad, code) in bad_tokens().items():
            client = await Client.open(site.url)
            await client.send(op="auth", id=1, token=bad)
            error = await client.until("error")
            assert (error["id"], error["code"]) == (1, code), (what, error)
            assert SECRET not in error["msg"]
            assert await client.until_closed() == code, what
        for what in ("another key", "expired", "alg none"):
            bad, code = bad_tokens()[what]
            for options in ({"bearer": bad}, {"protocols": ("bellwire.v1.json", f"bearer.{bad}")}):
                client = await Client.open(site.url, **options)
                error = await client.until("error")
                assert error["code"] == code and "id" not in error
                assert await client.until_closed() == code, what
            for options in ({"bearer": bad}, {}):
                try:
                    await Client.open(site.url, ("bellwire.bare.json",), **options)
                    raise AssertionError("not refused")
                except InvalidStatus as refused:
                    assert refused.response.status_code == 401


@check
async def a_token_is_taken_from_the_header_the_sub_protocol_or_the_auth_frame():
    with Site() as site:
        for options in ({"bearer": token("anna")}, {"protocols": ("bellwire.v1.json", f"bearer.{token('anna')}")},
                        {"bearer": token("anna"), "protocols": ("bellwire.v1.json", f"bearer.{token('bert')}")}):
            async with await Client.open(site.url, **options) as client:
                ok = await client.until("auth_ok")
                assert ok["user_id"] == "anna" and "id" not in ok
                assert client.ws.subprotocol == "bellwire.v1.json"
        async with await Client.login(site.url, token("anna")) as client:
            assert client.frames[-1]["user_id"] == "anna" and client.frames[-1]["id"] == 1
        # The longest user id, and one that is not ASCII.
        for user in ("x" * 128, "\U0001f514" * 32):
            async with await Client.login(site.url, token(user)) as client:
                assert client.frames[-1]["user_id"] == user


@check
async def a_token_in_the_query_string_or_the_path_is_not_accepted():
    good = token("anna")
    with Site(limits_auth_within_ms=400) as site:
        for tail in (f"/?token={good}", f"/?access_token={good}&user_id=anna", f"/?bearer={good}", f"/bearer.{good}",
                     "/?user_id=anna"):
            client = await Client.open(site.url + tail)
            await client.send(op="subscribe", id=1)
            error = await client.until("error")
            assert error["code"] == 4513
            assert await client.until_closed() == 4501
            assert not any(frame["op"] == "auth_ok" for frame in client.frames)


@check
async def the_query_string_does_not_change_who_one_is():
    with Site() as site:
        async with await Client.open(f"{site.url}/?user_id=bert&sub=bert", bearer=token("anna")) as client:
            assert (await client.until("auth_ok"))["user_id"] == "anna"
            await client.send(op="subscribe", id=2, user_id="bert", sub="bert")
            await client.until("subscribed")
            await site.publish(trade("bert", "not hers"), trade("anna", "hers"))
            assert [text_of(data) for data in await client.until_got(1)] == ["hers"]


@check
async def a_token_is_renewed_while_the_streams_go_on():
    with Site() as site:
        client = await Client.subscribed(site.url, token("anna", ttl=30))
        expiring = await client.has_seen("auth_expiring")  # soon: it is short-lived
        assert expiring["expires"] == client.frames[1]["expires"] and 0 < expiring["in_ms"] <= 30_000
        await site.publish(trade("anna", "before"))
        await client.until_got(1)
        # A bad one is an error, and the session goes on.
        for bad, code in ((token("anna", secret=OTHER), 4502), (token("anna", ttl=-60), 4503)):
            await client.send(op="auth", id=5, token=bad)
            assert (await client.until("error"))["code"] == code
        renewed = token("anna", ttl=3600, channels=["trade"])
        await client.send(op="auth", id=6, token=renewed)
        ok = await client.until("auth_ok", id=6)
        assert ok["expires"] > expiring["expires"] and ok["channels"] == ["trade"]
        await client.send(op="list", id=7)
        assert (await client.until("subscriptions"))["channels"] == ["trade"], "the new token permits less"
        await site.publish(trade("anna", "after"))
        assert [text_of(data) for data in await client.until_got(2)] == ["before", "after"]
        # One without a channel ends delivery; with a better one the client subscribes again, from the head.
        await client.send(op="auth", id=9, token=token("anna", channels=[]))
        assert (await client.until("auth_ok", id=9))["channels"] == []
        await site.publish(trade("anna", "in between"))
        await journalled(site.url, token("anna"), user=3)
        await client.quiet(0.2)
        await client.send(op="auth", id=10, token=token("anna"))
        await client.until("auth_ok", id=10)
        await client.quiet(0.2)
        assert (await client.subscribe())["streams"]["user"]["seq"] == 3
        await site.publish(trade("anna", "again"))
        assert text_of((await client.until_got(3))[2]) == "again"
        # Another user's ends it.
        await client.send(op="auth", id=8, token=token("bert"))
        assert (await client.until("error"))["code"] == 4507
        assert await client.until_closed() == 4507


@check
async def a_token_that_ends_closes_the_session_with_4503():
    with Site() as site:
        client = await Client.subscribed(site.url, token("anna", ttl=2))
        await client.has_seen("auth_expiring")
        begun = time.monotonic()
        assert await client.until_closed() == 4503
        assert time.monotonic() - begun > 0.5, "not before its end"
        bare = await Client.open(site.url, ("bellwire.bare.json",), bearer=token("anna", ttl=1))
        assert await bare.until_closed() == 4503


@check
async def ed25519_tokens_are_accepted_where_they_are_configured_and_nothing_else_is():
    key = Ed25519PrivateKey.generate()
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public = key.public_key().public_bytes(*form).decode()
    with Site(token_algorithm="EdDSA", token_key=public, token_audience="bellwire", token_issuer="login") as site:
        claims = {"aud": "bellwire", "iss": "login"}
        async with await Client.login(site.url, token("anna", secret=key, algorithm="EdDSA", **claims)) as client:
            assert client.frames[-1]["user_id"] == "anna"
        head = jwt.utils.base64url_encode(b'{"alg":"HS256","typ":"JWT"}')
        body = token("anna", secret=key, algorithm="EdDSA", **claims).split(".")[1].encode()
        hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        by_hmac = hmac.sign(head + b"." + body, public.encode())  # the public key taken for a secret
        confused = b".".join([head, body, jwt.utils.base64url_encode(by_hmac)]).decode()
        for bad in (confused, token("anna", secret=Ed25519PrivateKey.generate(), algorithm="EdDSA", **claims),
                    token("anna", secret=key, algorithm="EdDSA"),
                    token("anna", secret=key, algorithm="EdDSA", aud="other", iss="login"),
                    token("anna", secret=key, algorithm="EdDSA", aud="bellwire", iss="other")):
            client = await Client.open(site.url)
            await client.send(op="auth", token=bad)
            assert await client.until_closed() == 4502

#!/usr/bin/env python3
"""A client for a Bellwire gateway: every notification once and in order, through lost connections and restarts of either side.

As a program it prints one JSON object a line, and remembers in a file how far it has come:

    bellwire.py wss://push.example.com --token-file token.jwt --state position.json

As a module:

    async for stream, seq, notification in Bellwire(url, get_token, position):
        ...                             # then store `position` with what you made of it

It needs the package `websockets` and nothing else. The protocol is explained in PROTOCOL.md beside this folder.
"""

import argparse
import asyncio
import json
import os
import random
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

RESUBSCRIBE_AFRESH = 4511  # the gateway does not know the position: of another user, or made up
TOKEN_EXPIRED = 4503
FAULTS_OF_OURS = {1002, 1003, 1007, 1009}
FRAME_BYTES_MAX = 1 << 20  # twice what a gateway sends at most


class Refused(Exception):
    """The gateway does not want this client as it is: coming back unchanged would change nothing."""

    def __init__(self, code, reason):
        super().__init__(f"{code} {reason}")
        self.code = code


class Lost(Exception):
    """This connection is of no use any more: come back and resume."""


class Bellwire:
    """An endless row of (stream, seq, notification).

    `get_token` gives a token that is good now; it is asked at each connection and when the token is about to end.
    `position` is where to go on, `{}` at first. When a notification is given it stands right behind that one: whoever stores
    it together with what he made of the notification gets each exactly once, whatever is killed when.
    `on_resync(stream, why)` is told when what was missed cannot be had any more: load the state anew, then.
    `channels` are those to subscribe to, all that the token permits without.
    """

    def __init__(self, url, get_token, position, channels=None, on_resync=None, log=lambda text: None):
        self.url, self.get_token, self.position, self.channels = url, get_token, position, channels
        self.on_resync, self.log = on_resync or (lambda stream, why: None), log

    async def __aiter__(self):
        tries = 0
        while True:
            wait = random.uniform(0, min(30, 0.25 * 2**tries))
            try:
                async for event in self._session():
                    tries = 0
                    if event is not None:
                        yield event
            except ConnectionClosed as closed:
                code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "no close frame")
                self.log(f"closed: {code} {reason}")
                if code in FAULTS_OF_OURS or (code >= 4500 and code != TOKEN_EXPIRED):
                    raise Refused(code, reason) from closed
                wait = getattr(self, "reconnect_after", wait)
            except InvalidHandshake as refused:
                status = getattr(getattr(refused, "response", None), "status_code", 0)
                self.log(f"handshake refused: {refused}")
                if 400 <= status < 500 and status != 429:
                    raise Refused(status, str(refused)) from refused
            except (OSError, EOFError, TimeoutError, Lost) as lost:
                self.log(f"lost: {lost or type(lost).__name__}")
            self.__dict__.pop("reconnect_after", None)
            tries += 1
            await asyncio.sleep(wait)

    async def _session(self):
        """One connection. Gives None when it is joined, then what comes."""
        headers = {"Authorization": f"Bearer {self.get_token()}"}
        async with connect(
            self.url, subprotocols=["bellwire.v1.json"], additional_headers=headers, max_size=FRAME_BYTES_MAX
        ) as ws:
            subscribe = {"op": "subscribe", "id": 1, "resume": self.position}
            if self.channels is not None:
                subscribe["channels"] = self.channels
            await ws.send(json.dumps(subscribe))
            patience, joined = 30, False
            while True:
                async with asyncio.timeout(patience):
                    frame = json.loads(await ws.recv())
                op = frame["op"]
                if op == "hello":
                    # A gateway that says nothing for two heartbeats is dead, whatever the network says.
                    patience = 2 * frame["heartbeat_ms"] / 1000
                elif op == "subscribed":
                    joined = True
                    for stream, at in frame["streams"].items():
                        self.position[stream] = {"epoch": at["epoch"], "seq": at["seq"]}
                    self.log(f"joined at {json.dumps(self.position)}")
                    yield None
                elif op == "resync":
                    self.position[frame["stream"]] = {"epoch": frame["epoch"], "seq": frame["head"]}
                    self.on_resync(frame["stream"], frame["why"])
                elif op == "auth_expiring":
                    await ws.send(json.dumps({"op": "auth", "token": self.get_token()}))
                elif op == "auth_ok" and joined:
                    self.log("token renewed")
                elif op == "goodbye":
                    self.reconnect_after = frame["reconnect_after_ms"] / 1000
                elif op == "error":
                    self.log(f"error {frame['code']}: {frame['msg']}")
                    if frame["code"] == RESUBSCRIBE_AFRESH:
                        self.position.clear()
                        raise Lost("the position is not known here")
                if joined:
                    for event in self._moves(frame):
                        yield event

    def _moves(self, frame):
        """What every frame with `prev` says: the position must be there, and then is at `seq`."""
        if frame["op"] == "heartbeat":
            moves = frame["streams"].items()
        elif "prev" in frame:
            moves = [(frame["stream"], frame)]
        else:
            return
        for stream, move in moves:
            at = self.position[stream]
            if (move["epoch"], move["prev"]) != (at["epoch"], at["seq"]):
                raise Lost(f"a gap in {stream}: at {at['seq']}, told {move['prev']}")
            items = [frame] if frame["op"] == "notification" else frame.get("items", [])
            for item in items:
                # Before it is given away: who stores the position then has this one.
                at["seq"] = item["seq"]
                yield stream, item["seq"], item["data"]
            at["seq"] = move["seq"]


def read(path):
    try:
        with open(path) as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def write(path, position):
    """As a whole or not at all."""
    with open(f"{path}.new", "w") as file:
        json.dump(position, file)
    os.replace(f"{path}.new", path)


async def main(args):
    def token():
        with open(args.token_file) as file:
            return file.read().strip()

    def say(text):
        print(text, file=sys.stderr, flush=True)

    position = read(args.state)
    client = Bellwire(args.url, token, position, args.channel, lambda stream, why: say(f"resync of {stream}: {why}"), say)
    async for stream, seq, notification in client:
        # Killed between these two lines, it prints the last one again when it comes back.
        print(json.dumps({"stream": stream, "seq": seq, "data": notification}), flush=True)
        write(args.state, position)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print a user's notifications, one JSON object a line.")
    parser.add_argument("url", help="ws:// or wss:// address of the gateway")
    parser.add_argument("--token-file", required=True, help="file with the token; it is read again when a newer one is needed")
    parser.add_argument("--state", required=True, help="file in which it is remembered how far this client has come")
    parser.add_argument("--channel", action="append", help="only this channel; may be repeated")
    try:
        asyncio.run(main(parser.parse_args()))
    except Refused as refused:
        sys.exit(f"refused: {refused}")
    except KeyboardInterrupt:
        pass

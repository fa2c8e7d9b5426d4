"""A client of the gateway, written from bins/gateway/PROTOCOL.md alone, on the `websockets` package.

It checks the protocol's one rule on every frame: `prev` must be where it stands.
"""

import asyncio
import base64
import json
import os
import socket
import struct

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

PATIENCE = 10  # seconds in which anything that is to come comes, on a slow machine


class Closed(Exception):
    def __init__(self, code, reason):
        super().__init__(f"closed: {code} {reason}")
        self.code, self.reason = code, reason


async def journalled(url, token, **heads):
    """Waits until the streams are so far: a publisher is done a moment before the gateway has read it all."""
    async with await Client.login(url, token) as client:
        streams = client.frames[-1]["streams"]
        while any(streams[stream]["head"] < head for stream, head in heads.items()):
            await asyncio.sleep(0.03)
            await client.send(op="auth", token=token)
            streams = (await client.until("auth_ok"))["streams"]
        assert all(streams[stream]["head"] == head for stream, head in heads.items()), (heads, streams)


class Client:
    """One v1 session."""

    def __init__(self, ws):
        self.ws = ws
        self.positions = {}  # stream: (epoch, seq)
        self.got = []  # (stream, seq, data): everything that was delivered, in order
        self.frames = []  # all frames, in order
        self.raw = []  # the same, as they came
        self.gaps = []

    @classmethod
    async def open(cls, url, protocols=("bellwire.v1.json",), bearer=None, **options):
        """Connected; nothing was read."""
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else None
        options.setdefault("max_size", 512 << 10)  # no frame is longer, says the page
        # A client that was left unread does not see the answer to its close.
        options.setdefault("close_timeout", 2 if "max_queue" not in options else 0.1)
        ws = await connect(url, subprotocols=protocols or None, additional_headers=headers, proxy=None,
                           open_timeout=PATIENCE, ping_interval=None, **options)
        return cls(ws)

    @classmethod
    async def login(cls, url, token, **options):
        """Authenticated by a frame."""
        client = await cls.open(url, **options)
        await client.until("hello")
        await client.send(op="auth", id=1, token=token)
        await client.until("auth_ok")
        return client

    @classmethod
    async def subscribed(cls, url, token, positions=None, channels=None, **options):
        """Subscribed, from now on or from `positions`."""
        client = await cls.login(url, token, **options)
        fields = {}
        if channels is not None:
            fields["channels"] = channels
        if positions is not None:
            fields["resume"] = {stream: {"epoch": epoch, "seq": seq} for stream, (epoch, seq) in positions.items()}
        await client.subscribe(**fields)
        return client

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.ws.close()

    async def send(self, **frame):
        await self.ws.send(json.dumps(frame))

    async def subscribe(self, **fields):
        await self.send(op="subscribe", id=2, **fields)
        return await self.until("subscribed")

    async def next(self, patience=PATIENCE):
        """The next frame."""
        try:
            text = await asyncio.wait_for(self.ws.recv(), patience)
        except ConnectionClosed as closed:
            raise Closed(closed.rcvd.code if closed.rcvd else 1006,
                         closed.rcvd.reason if closed.rcvd else "") from None
        assert isinstance(text, str), "the gateway sends text frames only"
        frame = json.loads(text)
        self.raw.append(text)
        self.frames.append(frame)
        self._take(frame)
        return frame

    def _take(self, frame):
        op = frame["op"]
        if op == "subscribed":
            for stream, joined in frame["streams"].items():
                self.positions[stream] = (joined["epoch"], joined["seq"])
        elif op == "resync":
            self.positions[frame["stream"]] = (frame["epoch"], frame["head"])
        elif op in ("notification", "batch", "replay_end"):
            if op == "notification":
                self.got.append((frame["stream"], frame["seq"], frame["data"]))
            for item in frame.get("items", ()):
                self.got.append((frame["stream"], item["seq"], item["data"]))
            self._move(frame["stream"], frame)
        elif op == "heartbeat":
            for stream, move in frame["streams"].items():
                self._move(stream, move)

    def _move(self, stream, move):
        if stream not in self.positions:
            return  # a heartbeat before the first subscription
        if self.positions[stream] != (move["epoch"], move["prev"]):
            self.gaps.append((self.positions[stream], move))
            raise AssertionError(f"gap in {stream}: at {self.positions[stream]}, got {move}")
        self.positions[stream] = (move["epoch"], move["seq"])

    async def until(self, op, **fields):
        """Reads until a frame of that op came, and gives it. An error that was not asked for fails the check."""
        while True:
            frame = await self.next()
            if frame["op"] == op and all(frame.get(key) == value for key, value in fields.items()):
                return frame
            assert frame["op"] != "error", f"waiting for {op}: {frame}"

    async def has_seen(self, op):
        """The first frame of that op, whether it came already or is to come."""
        while not (seen := [frame for frame in self.frames if frame["op"] == op]):
            await self.next()
        return seen[0]

    async def until_got(self, count):
        """Reads until so many notifications were delivered in all; gives them."""
        while len(self.got) < count:
            try:
                frame = await self.next()
            except TimeoutError:
                raise AssertionError(f"{len(self.got)} of {count} notifications came") from None
            assert frame["op"] != "error", frame
        assert len(self.got) == count, f"{len(self.got)} came, {count} were expected"
        return [data for _, _, data in self.got]

    async def until_closed(self):
        """Reads until the end; gives the close code."""
        try:
            while True:
                await self.next()
        except Closed as closed:
            return closed.code

    async def quiet(self, seconds=0.45):
        """Nothing is delivered for a while, heartbeats apart."""
        before = len(self.got)
        deadline = asyncio.get_running_loop().time() + seconds
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            try:
                await self.next(left)
            except TimeoutError:
                break
        assert len(self.got) == before, f"not to be delivered: {self.got[before:]}"


def connected(url, window=None):
    """A socket; with a receive window of about that many bytes, for a client that is to be slow."""
    sock = socket.socket()
    if window is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    host, port = url.removeprefix("ws://").split(":")
    sock.connect((host, int(port)))
    sock.setblocking(False)
    return sock


class Raw:
    """A WebSocket by hand: it sends what no library would, and answers nothing."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, url, headers=(), window=None):
        host, port = url.removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(sock=connected(url, window))
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ["GET / HTTP/1.1", f"Host: {host}:{port}", "Connection: Upgrade", "Upgrade: websocket",
                 "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode())
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return cls(reader, writer)

    def send(self, first, payload, mask=True):
        """One frame; `first` is its first byte."""
        length = bytes([len(payload)]) if len(payload) < 126 else struct.pack("!BH", 126, len(payload))
        if mask:
            length = bytes([length[0] | 0x80]) + length[1:]
            key = os.urandom(4)
            payload = key + bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
        self.writer.write(bytes([first]) + length + payload)

    async def frame(self):
        """Opcode and payload of the next frame."""
        async def read():
            first, second = await self.reader.readexactly(2)
            length = second & 0x7F
            if length >= 126:
                length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
            return first & 0x0F, await self.reader.readexactly(length)
        return await asyncio.wait_for(read(), PATIENCE)

    async def close_code(self):
        """Reads up to the gateway's close frame; gives its code and the opcodes before it."""
        opcodes = []
        while True:
            opcode, payload = await self.frame()
            if opcode == 8:
                return int.from_bytes(payload[:2], "big"), opcodes
            opcodes.append(opcode)

    def close(self):
        self.writer.close()

"""The real processes that the checks drive: a gateway and publishers, on a bus of their own.

A `Site` is one bus with its journal, its configuration and its gateway. Gateways can be killed and started again on it.
Everything is on loopback and under a temporary directory, and is taken away at the end.
"""

import asyncio
import glob
import itertools
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import jwt

ROOT = Path(__file__).resolve().parents[2]
BINARIES = Path(os.environ.get("BELLWIRE_BIN_DIR", ROOT / "target" / "debug"))
SECRET = "0123456789abcdef0123456789abcdef"

# Some tokens are made to be refused.
warnings.simplefilter("ignore", jwt.warnings.InsecureKeyLengthWarning)

_numbers = itertools.count(1)


def token(user, secret=SECRET, algorithm="HS256", ttl=600, **claims):
    """A token made by PyJWT."""
    return jwt.encode({"sub": user, "exp": int(time.time()) + ttl, **claims}, secret, algorithm=algorithm)


class Site:
    """One bus, one journal, one gateway at a time."""

    def __init__(self, **settings):
        self.bus = f"py-{os.getpid()}-{next(_numbers)}-{secrets.token_hex(2)}"
        self.dir = Path(tempfile.mkdtemp(prefix="bellwire-python-"))
        self.sections = {
            "bus": {"name": self.bus},
            "listen": {"address": "127.0.0.1:0"},
            "journal": {"dir": str(self.dir / "journal"), "segment_bytes": 1 << 20, "retain_bytes": 64 << 20},
            "token": {"key": SECRET, "leeway_s": 0},
            "limits": {},
            "session": {"heartbeat_ms": 200},
        }
        for key, value in settings.items():
            section, _, name = key.partition("_")
            self.sections[section][name] = value
        self.process = None
        self.url = None

    def start(self):
        """Starts the gateway and waits until it says where it listens. A new start keeps the address."""
        config = self.dir / "gateway.toml"
        lines = []
        for section, keys in self.sections.items():
            lines.append(f"[{section}]")
            # JSON's strings, integers and truth values are TOML's too.
            lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        config.write_text("\n".join(lines) + "\n")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("BELLWIRE_")}
        with open(self.dir / "gateway.log", "a") as log:
            self.process = subprocess.Popen(
                [BINARIES / "bellwire-gateway", "--config", config],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment, text=True)
        for line in self.process.stdout:
            if line.startswith("listening "):
                self.url = line.split()[1]
                self.sections["listen"]["address"] = self.url.removeprefix("ws://")
                return self
        raise AssertionError(f"the gateway did not start: {self.log()}")

    def log(self):
        return (self.dir / "gateway.log").read_text()

    def kill(self):
        """SIGKILL: no farewell, no last flush."""
        self._signal(signal.SIGKILL)
        self.process.wait(10)

    def terminate(self):
        """Asks it to end; `exit_code` waits for that."""
        self._signal(signal.SIGTERM)

    async def exit_code(self):
        return await asyncio.to_thread(self.process.wait, 20)

    def _signal(self, number):
        if self.process.poll() is None:
            self.process.send_signal(number)

    async def publish(self, *notifications, producer="engine"):
        """Publishes with `bellwirectl publish --from -`; gives the published ids."""
        lines = "".join(json.dumps(notification) + "\n" for notification in notifications)
        run = await asyncio.create_subprocess_exec(
            BINARIES / "bellwirectl", "publish", "--bus", self.bus, "--producer", producer, "--from", "-", "--json",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        try:
            out, words = await run.communicate(lines.encode())
        finally:
            if run.returncode is None:
                run.kill()
        assert run.returncode == 0, f"bellwirectl publish: exit {run.returncode}: {words.decode()[-2000:]}"
        return [json.loads(line)["message_id"] for line in out.splitlines()]

    def close(self):
        if self.process is not None:
            self._signal(signal.SIGKILL)
            self.process.wait(10)
            self.process.stdout.close()
        for segment in glob.glob(f"/dev/shm/bellwire.{self.bus}.*"):
            os.unlink(segment)
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()


def notice(title, user="*", **more):
    """A notice, to everybody unless said otherwise."""
    payload = {"type": "system_notice", "title": title, "content": "", "level": "INFO", "timestamp": 1}
    return {"user_id": user, "source": "Test", "payload": payload, **more}


def trade(user, reason, **more):
    """Something on the channel `trade` that carries a text."""
    payload = {"type": "order_canceled", "order_id": "o", "exchange_order_id": "x", "instrument_id": "IX2401",
               "reason": reason, "timestamp": 1}
    return {"user_id": user, "source": "Test", "payload": payload, **more}


def risk(user, message):
    payload = {"type": "position_limit", "user_id": user, "instrument_id": "IX2401", "current_volume": 1.5,
               "limit_volume": 2.0, "message": message, "timestamp": 1}
    return {"user_id": user, "source": "Test", "payload": payload}


def account(user, balance):
    payload = {"type": "account_update", "user_id": user, "balance": balance, "available": 0.0, "frozen": 0.0,
               "margin": 0.0, "position_profit": 0.0, "close_profit": 0.0, "risk_ratio": 0.0, "timestamp": 1}
    return {"user_id": user, "source": "Test", "payload": payload}


def position(user, instrument, volume):
    payload = {"type": "position_update", "user_id": user, "instrument_id": instrument, "volume_long": volume,
               "volume_short": 0.0, "cost_long": 0.0, "cost_short": 0.0, "profit_long": 0.0, "profit_short": 0.0,
               "timestamp": 1}
    return {"user_id": user, "source": "Test", "payload": payload}


def text_of(data):
    """What `trade`, `risk` and `notice` carry."""
    payload = data["payload"]
    return next(payload[key] for key in ("reason", "message", "title") if key in payload)

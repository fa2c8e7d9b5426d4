"""Collects the checks and runs them, a few at a time."""

import asyncio
import time
import traceback

CHECKS = []

# Most of a check's time is waiting.
AT_ONCE = 4
PATIENCE = 60  # seconds for one check


def check(function):
    """Marks a coroutine function as a check; its name is the claim."""
    CHECKS.append(function)
    return function


async def run(words):
    """Runs every check whose name contains one of `words` (all, without any); gives how many passed and failed."""
    chosen = [one for one in CHECKS if not words or any(word in one.__name__ for word in words)]
    gate = asyncio.Semaphore(AT_ONCE)
    results = []

    async def one(function):
        async with gate:
            begun = time.monotonic()
            try:
                await asyncio.wait_for(function(), PATIENCE)
                failure = None
            except Exception:
                failure = traceback.format_exc()
            took = time.monotonic() - begun
            name = function.__name__.replace("_", " ")
            print(f"{'FAIL' if failure else 'pass'}  {name}  ({took:.1f} s)", flush=True)
            if failure:
                print("      " + failure.rstrip().replace("\n", "\n      "), flush=True)
            results.append(failure is None)

    await asyncio.gather(*(one(function) for function in chosen))
    return sum(results), len(results) - sum(results)

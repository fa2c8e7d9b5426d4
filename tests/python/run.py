"""Runs the checks: `run.py [WORD...]` runs those whose names contain one of the words. See scripts/test-clients."""

import asyncio
import signal
import sys

import checks_clients  # noqa: F401
import checks_delivery  # noqa: F401
import checks_ends  # noqa: F401
import checks_page  # noqa: F401
import checks_requests  # noqa: F401
import checks_resume  # noqa: F401
import checks_tokens  # noqa: F401
import harness


async def main():
    # An end by signal is orderly, too: every site takes its processes and segments along.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    return await harness.run(sys.argv[1:])


if __name__ == "__main__":
    try:
        passed, failed = asyncio.run(main())
    except (asyncio.CancelledError, KeyboardInterrupt):
        sys.exit("interrupted")
    print(f"{passed} passed, {failed} failed")
    sys.exit(0 if failed == 0 and passed > 0 else 1)

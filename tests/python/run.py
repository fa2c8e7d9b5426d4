"""Runs the checks: `run.py [WORD...]` runs those whose names contain one of the words. See scripts/test-clients."""

import asyncio
import signal
import sys

import checks_delivery  # noqa: F401
import checks_ends  # noqa: F401
import checks_page  # noqa: F401
import checks_requests  # noqa: F401
import checks_resume  # noqa: F401
import checks_tokens  # noqa: F401
import harness

if __name__ == "__main__":
    # An end by signal is an exit like any other: the sites take their processes along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    passed, failed = asyncio.run(harness.run(sys.argv[1:]))
    print(f"{passed} passed, {failed} failed")
    sys.exit(0 if failed == 0 and passed > 0 else 1)

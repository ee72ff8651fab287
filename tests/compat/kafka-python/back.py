"""A group member before and after a kill of the daemon: `back.py MODE NAME STATIC WORK`.

MODE `join`: joins, reads "before", commits, says so, and stays until it is killed.
MODE `again`: the same member after its end: it must get "after" without waiting for the old one's session.
MODE `stay`: as `join`, but lives on, and must get "after" and commit it.
"""

import pathlib
import sys
import time

from kafka import KafkaConsumer

from shared import BOOTSTRAP, check

MODE, NAME, STATIC = sys.argv[1:4]
WORK = pathlib.Path(sys.argv[4])
# Kafka's session time-out is 45 s; what a slow machine needs lies far below it.
WAIT_MAX_S = 5
# Long: this client forgets its assignment when a poll ends between JoinGroup and SyncGroup (FINDINGS.md).
POLL_MS = 5000


def consumer():
    settings = {"group_instance_id": f"{NAME}-1"} if STATIC == "static" else {}
    return KafkaConsumer(
        NAME,
        bootstrap_servers=BOOTSTRAP,
        group_id=f"{NAME}-group",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **settings,
    )


def wait_for(member, value):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for records in member.poll(timeout_ms=POLL_MS).values():
            for record in records:
                if record.value == value:
                    return
    raise SystemExit(f"  FAILED  {NAME}: {value} did not come")


def told(since, what):
    took = time.time() - since
    check(f"{NAME}: {what} in {took * 1000:.0f} ms", took < WAIT_MAX_S)


start = time.time()
member = consumer()
if MODE == "again":
    wait_for(member, b"after")
    told(start, "a member that died with the daemon is back")
    member.commit()
    member.close()
else:
    wait_for(member, b"before")
    member.commit()
    (WORK / f"{NAME}-{MODE}").touch()
    wait_for(member, b"after")
    told((WORK / "back").stat().st_mtime, "a member that lived on reads again")
    end = time.monotonic() + 30
    while True:
        try:
            member.commit()
            break
        except Exception as error:  # it joins again first
            if time.monotonic() > end:
                raise SystemExit(f"  FAILED  {NAME}: cannot commit: {error}")
            member.poll(timeout_ms=POLL_MS)
    told((WORK / "back").stat().st_mtime, "and commits")

"""What the Python clients share: where the daemon is, and how a check and a task are told."""

import json
import os
import time
import urllib.error
import urllib.request

BOOTSTRAP = os.environ["BOOTSTRAP"]


def check(name, condition, detail=""):
    if not condition:
        raise SystemExit(f"  FAILED  {name} {detail}")
    print(f"  ok  {name}")


def task(task_id):
    """The task over REST, once it is there."""
    request = urllib.request.Request(
        f"{os.environ['HTTP']}/api/tasks/{task_id}",
        headers={"Authorization": f"Bearer {os.environ['TOKEN']}"},
    )
    end = time.monotonic() + 5
    while True:
        try:
            return json.load(urllib.request.urlopen(request))
        except urllib.error.HTTPError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)

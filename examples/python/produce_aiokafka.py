"""Sends a task with aiokafka: pip install aiokafka

Usage: produce_aiokafka.py [TITLE [USER]]
"""

import asyncio
import json
import os
import sys
import uuid

from aiokafka import AIOKafkaProducer


async def main() -> None:
    title = sys.argv[1] if len(sys.argv) > 1 else "From aiokafka"
    user = sys.argv[2] if len(sys.argv) > 2 else "dev"
    bootstrap = os.environ.get("BOOTSTRAP", "localhost:9092")
    task_id = str(uuid.uuid4())
    event = {
        "type": "task_created",
        "event_id": str(uuid.uuid4()),  # the same id again is a duplicate, so a retry is safe
        "data": {"id": task_id, "title": title, "user_id": user, "priority": "high"},
    }
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        value = json.dumps(event).encode()
        place = await producer.send_and_wait("task-events", key=task_id.encode(), value=value)
    print(f"task {task_id} at {place.topic}/{place.partition} offset {place.offset}")


asyncio.run(main())

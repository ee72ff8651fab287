"""Sends a task with kafka-python: pip install kafka-python

Usage: produce_kafka_python.py [TITLE [USER]]
"""

import json
import os
import sys
import uuid

from kafka import KafkaProducer

title = sys.argv[1] if len(sys.argv) > 1 else "From kafka-python"
user = sys.argv[2] if len(sys.argv) > 2 else "dev"

producer = KafkaProducer(
    bootstrap_servers=os.environ.get("BOOTSTRAP", "localhost:9092"),
    acks="all",
    key_serializer=str.encode,
    value_serializer=lambda event: json.dumps(event).encode(),
)
task_id = str(uuid.uuid4())
event = {
    "type": "task_created",
    "event_id": str(uuid.uuid4()),  # the same id again is a duplicate, so a retry is safe
    "data": {"id": task_id, "title": title, "user_id": user, "priority": "high"},
}
place = producer.send("task-events", key=task_id, value=event).get(timeout=10)
print(f"task {task_id} at {place.topic}/{place.partition} offset {place.offset}")
producer.close()

"""kafka-python against the daemon: producer, group consumers, admin, and one event to a task."""

import json
import threading
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from shared import BOOTSTRAP, check, task


def producer(**settings):
    return KafkaProducer(bootstrap_servers=BOOTSTRAP, acks="all", **settings)


def read(group, topic, count, **settings):
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=BOOTSTRAP,
        group_id=group,
        auto_offset_reset="earliest",
        consumer_timeout_ms=15000,
        **settings,
    )
    values = []
    for record in consumer:
        values.append(record.value)
        if len(values) >= count:
            break
    consumer.close()
    return values


def admin():
    client = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    client.create_topics([NewTopic("py-topic", 4, 1)])
    check("create_topics", "py-topic" in client.list_topics())
    return client


def codecs():
    for codec in [None, "gzip"]:
        topic = f"py-{codec}"
        sender = producer(compression_type=codec)
        futures = [sender.send(topic, str(i).encode()) for i in range(3000)]
        sender.flush()
        offsets = [future.get(10).offset for future in futures]
        check(f"{topic}: offsets are dense", offsets == list(range(3000)))
        values = read(f"group-{codec}", topic, 3000)
        check(f"{topic}: all read in order", values == [str(i).encode() for i in range(3000)])
        sender.close()


def first_record_of_a_new_group():
    sender = producer()
    sender.send("py-fast", b"x").get(10)
    consumer = KafkaConsumer(
        "py-fast", bootstrap_servers=BOOTSTRAP, group_id="py-fast-group", auto_offset_reset="earliest"
    )
    start = time.monotonic()
    got = {}
    while not got and time.monotonic() < start + 10:
        got = consumer.poll(timeout_ms=1000)
    took = time.monotonic() - start
    check(f"first record through a new group in {took * 1000:.0f} ms", got and took < 2)
    consumer.close()
    sender.close()


def two_members_share_and_fail_over():
    sender = producer()
    seen, lock, stops = {}, threading.Lock(), [threading.Event(), threading.Event()]

    def run(index):
        consumer = KafkaConsumer(
            "py-topic",
            bootstrap_servers=BOOTSTRAP,
            group_id="py-share",
            auto_offset_reset="earliest",
            session_timeout_ms=10000,
            heartbeat_interval_ms=500,
        )
        while not stops[index].is_set():
            for records in consumer.poll(timeout_ms=200).values():
                with lock:
                    for record in records:
                        seen.setdefault(record.value, []).append(index)
        consumer.close()

    threads = [threading.Thread(target=run, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 40
    sent = 0
    while time.monotonic() < end:
        sender.send("py-topic", str(sent).encode(), partition=sent % 4).get(10)
        sent += 1
        with lock:
            by = {index for indexes in seen.values() for index in indexes}
        if by == {0, 1}:
            break
        time.sleep(0.02)
    check("two members share the partitions", by == {0, 1})
    stops[0].set()
    threads[0].join()
    for _ in range(200):
        sender.send("py-topic", str(sent).encode(), partition=sent % 4)
        sent += 1
    sender.flush()
    while time.monotonic() < end and len(seen) < sent:
        time.sleep(0.05)
    stops[1].set()
    threads[1].join()
    check("after one leaves, the other reads all", len(seen) == sent, f"{len(seen)} of {sent}")
    sender.close()


def offsets(client):
    consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP)
    partition = TopicPartition("py-None", 0)
    check("end_offsets", consumer.end_offsets([partition])[partition] == 3000)
    check("beginning_offsets", consumer.beginning_offsets([partition])[partition] == 0)
    found = consumer.offsets_for_times({partition: 1})[partition]
    check("offsets_for_times", found is not None and found.offset == 0)
    consumer.close()
    listed = client.list_group_offsets("group-None") if hasattr(client, "list_group_offsets") else None
    if listed is None:
        listed = client.list_consumer_group_offsets("group-None")
    check("committed offsets are listed", len(listed) >= 1, str(listed))


def event_to_task():
    sender = producer(value_serializer=lambda value: json.dumps(value).encode())
    event = {"type": "task_created", "data": {"id": 4711, "title": "from python", "user_id": "ada"}}
    sender.send("task-events", event, key=b"4711").get(10)
    body = task("4711")
    check("an event becomes a task", body["id"] == "4711" and body["user_id"] == "ada", str(body))
    sender.close()


client = admin()
codecs()
first_record_of_a_new_group()
two_members_share_and_fail_over()
offsets(client)
event_to_task()

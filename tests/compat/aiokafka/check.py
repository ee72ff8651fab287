"""aiokafka against the daemon: idempotent producer, group with a rebalance, seek, one event to a task."""

import asyncio
import json

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from shared import BOOTSTRAP, check, task


async def produce():
    admin = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    await admin.start()
    await admin.create_topics([NewTopic("aio", 2, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, enable_idempotence=True) as producer:
        sends = [
            await producer.send("aio", str(i).encode(), partition=i % 2) for i in range(4000)
        ]
        offsets = [(await send).offset for send in sends]
    check("idempotent producer: offsets are dense", offsets == [i // 2 for i in range(4000)])


def consumer(**settings):
    return AIOKafkaConsumer(
        "aio",
        bootstrap_servers=BOOTSTRAP,
        group_id="aio-group",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        heartbeat_interval_ms=300,
        **settings,
    )


async def groups():
    first = consumer()
    await first.start()
    values = set()
    while len(values) < 4000:
        batch = await asyncio.wait_for(first.getmany(timeout_ms=1000), 20)
        for records in batch.values():
            values.update(record.value for record in records)
    check("one member reads all", len(values) == 4000)
    await first.commit()
    second = consumer()
    await second.start()
    for _ in range(200):
        await asyncio.gather(first.getmany(timeout_ms=50), second.getmany(timeout_ms=50))
        if len(first.assignment()) == 1 and len(second.assignment()) == 1:
            break
    check("a second member takes one partition", len(second.assignment()) == 1)
    partition = next(iter(second.assignment()))
    check("and starts at the committed offset", await second.committed(partition) == 2000)
    second.seek(partition, 1990)
    records = (await second.getmany(partition, timeout_ms=5000))[partition]
    check("seek", records[0].offset == 1990 and len(records) == 10, str(len(records)))
    await second.stop()
    await first.stop()
    plain = AIOKafkaConsumer(bootstrap_servers=BOOTSTRAP)
    await plain.start()
    ends = await plain.end_offsets([TopicPartition("aio", 0)])
    check("end_offsets", ends[TopicPartition("aio", 0)] == 2000)
    await plain.stop()


async def event_to_task():
    async with AIOKafkaProducer(bootstrap_servers=BOOTSTRAP) as producer:
        event = {"type": "task_created", "data": {"id": "aio-1", "title": "aio", "user_id": "ada"}}
        await producer.send_and_wait("task-events", json.dumps(event).encode())
    body = await asyncio.to_thread(task, "aio-1")
    check("an event becomes a task", body["title"] == "aio")


async def main():
    await produce()
    await groups()
    await event_to_task()


asyncio.run(main())

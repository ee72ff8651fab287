// Sends a task with kafkajs: npm install kafkajs
// Usage: node produce.mjs [TITLE [USER]]
import { randomUUID } from "node:crypto";
import kafkajs from "kafkajs";

const { Kafka, logLevel } = kafkajs;
const [title = "From Node", user = "dev"] = process.argv.slice(2);

const brokers = [process.env.BOOTSTRAP ?? "localhost:9092"];
const producer = new Kafka({ brokers, logLevel: logLevel.ERROR }).producer();
await producer.connect();
const id = randomUUID();
const event = {
  type: "task_created",
  event_id: randomUUID(), // the same id again is a duplicate, so a retry is safe
  data: { id, title, user_id: user, priority: "high" },
};
const [place] = await producer.send({
  topic: "task-events",
  acks: -1,
  messages: [{ key: id, value: JSON.stringify(event) }],
});
console.log(`task ${id} at ${place.topicName}/${place.partition} offset ${place.baseOffset}`);
await producer.disconnect();

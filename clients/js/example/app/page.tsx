"use client";

import { useState, type FormEvent } from "react";
import { Taskwire } from "taskwire";
import { useConnection, useTasks } from "taskwire/react";

// One for the page: every component that uses it shares its connection and its list.
const taskwire = new Taskwire({
  url: process.env.NEXT_PUBLIC_TASKWIRE_URL ?? "http://localhost:8000",
  getToken: async () => (await (await fetch("/api/token", { cache: "no-store" })).json()).token,
});

export default function Page() {
  const tasks = useTasks(taskwire);
  const { state } = useConnection(taskwire);
  const [title, setTitle] = useState("");
  const [problem, setProblem] = useState("");

  const attempt = (request: Promise<unknown>) =>
    request.then(
      () => setProblem(""),
      (error: Error) => setProblem(error.message),
    );
  const submit = (event: FormEvent) => {
    event.preventDefault();
    attempt(taskwire.create({ title }).then(() => setTitle("")));
  };

  return (
    <main>
      <h1>Tasks</h1>
      <p>
        {state} {state === "refused" && <button onClick={() => taskwire.reconnect()}>Try again</button>}
      </p>
      <form onSubmit={submit}>
        <label>
          New task <input value={title} onChange={(event) => setTitle(event.target.value)} required />
        </label>
        <button>Create</button>
      </form>
      <p role="alert">{problem}</p>
      <ul>
        {tasks.map((task) => (
          <li key={task.id}>
            {task.completed ? <s>{task.title}</s> : task.title}{" "}
            {!task.completed && <button onClick={() => attempt(taskwire.complete(task.id))}>Complete</button>}
          </li>
        ))}
      </ul>
    </main>
  );
}

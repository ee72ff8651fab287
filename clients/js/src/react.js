// Hooks over a client that the page makes once (module scope, or a context):
//
//   const tasks = useTasks(taskwire);
//   const { state } = useConnection(taskwire);
import { useSyncExternalStore } from "react";

/** @import { Connection, Task, Taskwire } from "./taskwire.js" */

/** @type {readonly Task[]} */
const NONE = [];
/** @type {Connection} */
const IDLE = {
  state: "idle",
  transport: null,
  userId: null,
  session: null,
  expiresAt: null,
  since: 0,
  retryAt: null,
  code: null,
  reason: null,
};

/**
 * The user's tasks, live; on a server none.
 * @param {Taskwire} taskwire
 * @returns {readonly Task[]}
 */
export function useTasks(taskwire) {
  return useSyncExternalStore(
    taskwire.subscribe,
    () => taskwire.tasks,
    () => NONE,
  );
}

/**
 * How the connection is.
 * @param {Taskwire} taskwire
 * @returns {Connection}
 */
export function useConnection(taskwire) {
  return useSyncExternalStore(
    taskwire.subscribe,
    () => taskwire.connection,
    () => IDLE,
  );
}

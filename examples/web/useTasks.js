// A React hook over taskwire.js:
//
//   const { tasks, state } = useTasks({ url: "http://localhost:8000", token });
import { useEffect, useState } from "react";
import { followTasks } from "./taskwire.js";

/** The user's tasks, live; `state` is "connecting", "live" or "refused". */
export function useTasks({ url, token }) {
  const [value, setValue] = useState({ tasks: [], state: "connecting" });
  useEffect(() => {
    setValue({ tasks: [], state: "connecting" });
    return followTasks({ url, token }, (tasks, state) => setValue({ tasks, state }));
  }, [url, token]);
  return value;
}

// Shows /openapi.json. Everything is set as text, so nothing in it can be markup.
const element = (name, ...children) => {
  const made = document.createElement(name);
  made.append(...children);
  return made;
};

const json = (value) => element("pre", JSON.stringify(value, null, 2));

const table = (heads, rows) => {
  const line = (name, cells) => element("tr", ...cells.map((cell) => element(name, cell ?? "")));
  return element("table", line("th", heads), ...rows.map((row) => line("td", row)));
};

const resolve = (document, part) => {
  if (!part?.$ref) return part;
  const steps = part.$ref.slice(2).split("/");
  return steps.reduce((found, step) => found?.[step.replaceAll("~1", "/").replaceAll("~0", "~")], document);
};

const schemaOf = (content) => Object.values(content ?? {})[0]?.schema;

function operation(description, path, method, shared, about) {
  const details = element("details");
  const summary = element("summary", element("b", method.toUpperCase()), element("code", path));
  if (about.summary) summary.append(" ", about.summary);
  details.append(summary);
  if (about.description) details.append(element("p", about.description));
  const parameters = [...shared, ...(about.parameters ?? [])].map((one) => resolve(description, one));
  if (parameters.length > 0) {
    const rows = parameters.map((one) => [element("code", one.name), one.in, one.description, json(one.schema)]);
    details.append(table(["parameter", "in", "", "schema"], rows));
  }
  const body = schemaOf(resolve(description, about.requestBody)?.content);
  if (body) details.append(element("p", "Body:"), json(body));
  const rows = Object.entries(about.responses ?? {}).map(([status, response]) => {
    const found = resolve(description, response);
    const schema = schemaOf(found.content);
    return [element("code", status), found.description, schema ? json(schema) : ""];
  });
  details.append(table(["status", "", "body"], rows));
  return details;
}

async function show() {
  const about = document.getElementById("about");
  const answer = await fetch("/openapi.json");
  const description = await answer.json();
  about.replaceChildren(`${description.info.summary}. Version ${description.info.version}, from `);
  const link = element("a", "/openapi.json");
  link.href = "/openapi.json";
  about.append(link, ".");
  const routes = document.getElementById("routes");
  for (const [path, operations] of Object.entries(description.paths)) {
    for (const [method, one] of Object.entries(operations)) {
      if (method !== "parameters") {
        routes.append(operation(description, path, method, operations.parameters ?? [], one));
      }
    }
  }
  const schemas = document.getElementById("schemas");
  for (const [name, schema] of Object.entries(description.components.schemas)) {
    schemas.append(element("details", element("summary", element("code", name)), json(schema)));
  }
}

show().catch(() => {
  document.getElementById("about").textContent = "/openapi.json cannot be read now; load the page again.";
});

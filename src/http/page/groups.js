// Consumer groups: members, committed offsets, lag.
import { h, number } from "./dom.js";

const REFRESH_MS = 2_000;
const STATES = { Stable: "good", PreparingRebalance: "warn", CompletingRebalance: "warn" };

export function groupsView(place, app) {
  let timer;
  let isGone = false;
  const opened = new Set();
  const cards = h("div", { class: "stack" });
  const note = h("p", { class: "quiet" });
  place.append(h("div", { class: "head" }, h("h1", {}, "Groups"), note), cards);

  async function refresh() {
    try {
      const { groups, has_more } = await app.taskwire.request("GET", "/api/admin/groups");
      if (isGone) return;
      note.textContent = `${number(groups.length)}${has_more ? " shown, there are more" : ""}`;
      // What somebody is at stays as it is.
      if (!cards.contains(document.activeElement) || !cards.childElementCount)
        cards.replaceChildren(...(groups.length ? groups.map(card) : [none()]));
    } catch (error) {
      note.textContent = error.message;
    }
    if (!isGone) timer = setTimeout(refresh, REFRESH_MS);
  }

  const none = () =>
    h(
      "div",
      { class: "card empty" },
      h("strong", {}, "No groups"),
      "Consumers on the Kafka port that join a group are listed here.",
    );

  function card({ group, state, lag, member_count, members, offsets }) {
    const details = h(
      "details",
      {
        class: "card",
        open: opened.has(group),
        ontoggle: () => (details.open ? opened.add(group) : opened.delete(group)),
      },
      h(
        "summary",
        {},
        group,
        " ",
        h("span", { class: `badge ${STATES[state] ?? ""}` }, state),
        " ",
        h("span", { class: "quiet" }, `${number(member_count)} ${member_count === 1 ? "member" : "members"}, lag `),
        h("span", { class: lag ? "badge warn" : "badge good" }, number(lag)),
      ),
      offsets.length > 0 &&
        h(
          "div",
          { class: "scroll" },
          h(
            "table",
            {},
            h("caption", { class: "hidden" }, `Offsets of ${group}`),
            h(
              "thead",
              {},
              h(
                "tr",
                {},
                h("th", { scope: "col" }, "Partition"),
                h("th", { class: "num", scope: "col" }, "Committed"),
                h("th", { class: "num", scope: "col" }, "Log end"),
                h("th", { class: "num", scope: "col" }, "Lag"),
              ),
            ),
            h(
              "tbody",
              {},
              offsets.map((row) =>
                h(
                  "tr",
                  {},
                  h(
                    "td",
                    {},
                    h(
                      "a",
                      {
                        href: `#/records/${encodeURIComponent(row.topic)}?partition=${row.partition}&from=${row.offset}`,
                      },
                      `${row.topic}-${row.partition}`,
                    ),
                  ),
                  h("td", { class: "num" }, number(row.offset)),
                  h("td", { class: "num" }, row.log_end === null ? "gone" : number(row.log_end)),
                  h("td", { class: "num" }, row.lag === null ? "" : number(row.lag)),
                ),
              ),
            ),
          ),
        ),
      members.length > 0 &&
        h(
          "div",
          { class: "scroll" },
          h(
            "table",
            {},
            h("caption", { class: "hidden" }, `Members of ${group}`),
            h(
              "thead",
              {},
              h(
                "tr",
                {},
                h("th", { scope: "col" }, "Member"),
                h("th", { scope: "col" }, "Host"),
                h("th", { scope: "col" }, "Reads"),
              ),
            ),
            h(
              "tbody",
              {},
              members.map((member) =>
                h(
                  "tr",
                  {},
                  h("td", { class: "mono" }, member.member_id),
                  h("td", {}, member.host),
                  h("td", {}, member.assigned.join(", ")),
                ),
              ),
            ),
          ),
        ),
    );
    return details;
  }

  // The first group is open: with one, there is nothing to choose.
  opened.add("taskwire");
  refresh();
  return {
    unmount() {
      isGone = true;
      clearTimeout(timer);
    },
  };
}

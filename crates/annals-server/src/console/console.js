// Shows new events at the top of the newest ones. Without it the page is whole, only not live.
"use strict";
(() => {
  const feed = document.getElementById("feed");
  const status = document.getElementById("live");
  if (!feed || !feed.dataset.live || !status || !window.EventSource) return;
  const rows = feed.querySelector("tbody");
  const rowsMax = Number(feed.dataset.rows);
  const head = document.getElementById("head");
  const waiting = [];

  const cell = (className, content) => {
    const td = document.createElement("td");
    td.className = className;
    td.append(content);
    return td;
  };
  const link = (href, text) => {
    const a = document.createElement("a");
    a.href = href;
    a.textContent = text;
    return a;
  };
  // No path can end in these two names.
  const streamPath = (name) =>
    name === "." || name === ".." ? "/stream?name=" + name : "/streams/" + encodeURIComponent(name);
  const glance = (event) => {
    if (!("data" in event)) return "data of " + (event.content_type || "application/json");
    const text = JSON.stringify(event.data);
    return text.length > 160 ? text.slice(0, 160) + "…" : text;
  };
  const row = (text) => {
    const event = JSON.parse(text);
    const code = document.createElement("code");
    code.textContent = glance(event);
    const time = document.createElement("time");
    time.dateTime = time.title = event.recorded_at;
    time.textContent = event.recorded_at.replace("T", " ").replace("Z", "").replace(/(\.\d{3})\d+/, "$1");
    const tr = document.createElement("tr");
    tr.className = "new";
    tr.append(
      cell("number", link("/events/" + event.position + "@" + event.id, event.position)),
      cell("name", link(streamPath(event.stream), event.stream)),
      cell("number", String(event.version)),
      cell("name", event.type),
      cell("time", time),
      cell("data", code),
    );
    return tr;
  };
  const show = () => {
    // Only what fits is made into rows, however fast events come.
    const newest = waiting.splice(0).slice(-rowsMax);
    rows.prepend(...newest.map((message) => row(message.data)).reverse());
    while (rows.children.length > rowsMax) rows.lastElementChild.remove();
    // An id is a position and the id of the event there.
    head.textContent = newest[newest.length - 1].lastEventId.split("@")[0];
    document.getElementById("empty").hidden = true;
  };

  const source = new EventSource(feed.dataset.live);
  const say = (text, on) => {
    status.hidden = false;
    status.textContent = text;
    status.classList.toggle("on", on);
  };
  source.onopen = () => say("live", true);
  source.onerror = () => say(source.readyState === EventSource.CLOSED ? "not live" : "reconnecting", false);
  // Events on this page are no longer in the log.
  source.addEventListener("other-history", () => {
    source.close();
    say("the log was restored; reload", false);
  });
  source.onmessage = (message) => {
    waiting.push(message);
    if (waiting.length === 1) requestAnimationFrame(show);
    else if (waiting.length > 2 * rowsMax) waiting.splice(1, waiting.length - rowsMax);
  };
})();

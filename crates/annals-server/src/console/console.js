// Keeps the newest events up to date: when a new one comes, the page is asked for again, and its new rows are put at the
// top. So there is one place that makes rows, the server. Without this the page is whole, only not live.
"use strict";
(() => {
  const feed = document.getElementById("feed");
  const status = document.getElementById("live");
  if (!feed || !feed.dataset.live || !status || !window.EventSource) return;
  const rows = feed.querySelector("tbody");
  const rowsMax = Number(feed.dataset.rows);
  // However fast events come, the page is asked for only so often (in milliseconds).
  const PAUSE = 200;
  // A filter keeps events away that move the head.
  const LOOK = 5000;
  const place = (row) => row.querySelector("a").getAttribute("href");

  const show = (page) => {
    const known = new Set(Array.from(rows.children, place));
    const found = Array.from(page.querySelectorAll("#feed tbody tr"));
    const fresh = found.filter((row) => !known.has(place(row)));
    // With nothing in common there may be others between them.
    if (fresh.length === found.length) rows.replaceChildren();
    for (const row of fresh) row.className = "new";
    rows.prepend(...fresh);
    while (rows.children.length > rowsMax) rows.lastElementChild.remove();
    document.getElementById("head").textContent = page.getElementById("head").textContent;
    document.getElementById("empty").hidden = rows.children.length > 0;
  };

  let asked = false;
  let under_way = false;
  const refresh = async () => {
    asked = true;
    if (under_way || document.hidden) return;
    under_way = true;
    while (asked && !document.hidden) {
      asked = false;
      let pause = PAUSE;
      try {
        const answer = await fetch(location.href, { headers: { accept: "text/html" } });
        // The token is gone: this page leads to where another is given.
        if (answer.redirected) return location.reload();
        if (!answer.ok) throw new Error(answer.statusText);
        show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      } catch {
        // What came is not on the page yet, and no message will say so again.
        asked = true;
        pause = LOOK;
      }
      await new Promise((done) => setTimeout(done, pause));
    }
    under_way = false;
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
  source.onmessage = refresh;
  document.addEventListener("visibilitychange", () => asked && refresh());
  if (location.search) setInterval(refresh, LOOK);
})();

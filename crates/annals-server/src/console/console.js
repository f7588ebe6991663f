// Updates the list of the newest events: when a new one is appended, fetches the page again and inserts its new rows at the
// top. So only the server renders rows. Without this script the page is complete, but not live.
"use strict";
(() => {
  const feed = document.getElementById("feed");
  const status = document.getElementById("live");
  if (!feed || !feed.dataset.live || !status || !window.EventSource) return;
  const rows = feed.querySelector("tbody");
  const rowsMax = Number(feed.dataset.rows);
  // The minimum interval between fetches of the page, in milliseconds.
  const PAUSE = 200;
  // The interval of fetches under a filter, because other events move the head too; also the pause after a failed fetch.
  const LOOK = 5000;
  const place = (row) => row.querySelector("a").getAttribute("href");

  const show = (page) => {
    const known = new Set(Array.from(rows.children, place));
    const found = Array.from(page.querySelectorAll("#feed tbody tr"));
    const fresh = found.filter((row) => !known.has(place(row)));
    // If no row is in common, there may be events between the old and the new rows.
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
        // The token is no longer valid: reloading leads to the sign-in page.
        if (answer.redirected) return location.reload();
        if (!answer.ok) throw new Error(answer.statusText);
        show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      } catch {
        // The new event is not on the page yet, and no further message announces it.
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

/* Keeps an open thread up to date: what comes is added at its end, and what became of a message is
   written into its bubble. Older messages are put above as one scrolls. Without it the page is right
   when it is loaded, and leads to older ones by a link.

   What the reader looks at keeps its place, and nothing here touches what is being written. */
"use strict";
(() => {
  const NEAR = 600; // pixels from the top at which older messages are fetched
  const SLACK = 48; // pixels from the end at which the reader still is at the end
  const EXCERPT = 160; // characters of a text that are read out
  const WATCHED = 100;
  const OPEN = ["nb-queued", "nb-sending", "nb-failed", "nb-uncertain"];

  const live = document.getElementById("nb-live");
  if (!live) {
    return;
  }
  const thread = document.getElementById("nb-thread");
  const said = document.getElementById("nb-said");
  const foot = live.parentElement;
  const arrived = foot.querySelector(".nb-arrived");
  const list = () => thread.querySelector(".nb-messages");
  const shown = () => Array.from(list().querySelectorAll(":scope > [data-id]"));
  const idOf = (message) => Number(message.dataset.id);
  const bubbleOf = (message) => message.querySelector(".nb-bubble");
  const newestId = () => shown().map(idOf).at(-1) ?? 0;

  let token = thread.dataset.token;
  let seen = newestId();
  let isMarking = false;
  let isFetching = false;
  let unseen = [];

  ninebits.keepUpToDate(live, { asks, show });

  function address(parameters) {
    const asked = new URL(live.dataset.address, location);
    for (const [name, value] of Object.entries(parameters)) {
      asked.searchParams.set(name, value);
    }
    asked.hash = "";
    return asked;
  }

  function asks(options) {
    const watched = shown().slice(0, -Number(live.dataset.page)).filter(isOpen).map(idOf);
    return fetch(address(watched.length ? { watch: watched.slice(-WATCHED) } : {}), options);
  }

  function isOpen(message) {
    return OPEN.some((status) => message.classList.contains(status));
  }

  function show(page, { isLeaving, hasLoggedIn }) {
    const fresh = page.getElementById("nb-thread");
    if (isLeaving() || !fresh) {
      return;
    }
    live.dataset.tag = fresh.dataset.tag;
    token = fresh.dataset.token;
    if (hasLoggedIn) {
      // Or else what was written before could not be sent: logging in changes the token.
      for (const field of document.querySelectorAll("[name=csrfmiddlewaretoken]")) {
        field.value = token;
      }
    }
    keepPlace(() => {
      document.getElementById("nb-status").textContent = fresh.dataset.status;
      graft(thread.querySelector(".nb-about"), fresh.querySelector(".nb-about"));
      showMessages(fresh);
    });
    markRead();
  }

  function graft(old, fresh) {
    if (old.innerHTML !== fresh.innerHTML) {
      const focused = old.contains(document.activeElement) && document.activeElement.id;
      old.innerHTML = fresh.innerHTML;
      if (focused) {
        document.getElementById(focused)?.focus();
      }
    }
  }

  function showMessages(fresh) {
    const known = new Map(shown().map((message) => [idOf(message), message]));
    const newest = newestId();
    const coming = Array.from(fresh.querySelectorAll(":scope > .nb-messages > [data-id]"));
    const changed = [];
    for (const message of fresh.querySelectorAll("[data-id]")) {
      const old = known.get(idOf(message));
      if (old && update(old, message)) {
        changed.push(old);
      }
    }
    const done = graftTrails(known, fresh);
    if (coming.length && !coming.some((message) => known.has(idOf(message)))) {
      // So many have come that those between are not here.
      list().replaceChildren();
      graft(thread.querySelector(".nb-older"), fresh.querySelector(".nb-older"));
    }
    const added = coming.filter((message) => idOf(message) > newest);
    list().append(...added);
    markDays();
    markNewest();
    announce(added, changed, done);
    unseen.push(...added);
  }

  /* Returns whether its status is another. */
  function update(message, fresh) {
    const [fate, other] = [message, fresh].map((one) => one.querySelector(".nb-fate"));
    const isOther = message.className !== fresh.className;
    message.className = fresh.className;
    if (fate.innerHTML !== other.innerHTML) {
      const hadFocus = fate.contains(document.activeElement);
      fate.innerHTML = other.innerHTML;
      if (hadFocus) {
        focus(message);
      }
    }
    return isOther;
  }

  /* What staff did since: below the messages of the page, and above the first. */
  function graftTrails(known, fresh) {
    const trails = Array.from(fresh.querySelectorAll(":scope > .nb-messages > [data-id]"))
      .map((message) => [known.get(idOf(message)), message])
      .filter(([old]) => old)
      .map((pair) => pair.map((message) => message.querySelector(".nb-trail")));
    const changes = () => Array.from(thread.querySelectorAll("[data-change]"));
    const before = new Set(changes().map((change) => change.dataset.change));
    for (const [old, trail] of trails) {
      graft(old, trail);
    }
    graftFirstTrail(fresh);
    return changes().filter((change) => !before.has(change.dataset.change));
  }

  /* Only the page with the first message knows what was done before it. */
  function graftFirstTrail(page) {
    const [old, trail] = [thread, page].map((one) => one.querySelector(":scope > .nb-trail"));
    if (trail.firstElementChild) {
      graft(old, trail);
    }
  }

  function focus(message) {
    const bubble = bubbleOf(message);
    bubble.tabIndex = -1;
    bubble.focus({ preventScroll: true });
  }

  /* Where pages meet, a day may have two marks. */
  function markDays() {
    let day = "";
    for (const message of shown()) {
      if (message.dataset.day === day) {
        message.querySelector(".nb-day")?.remove();
      }
      day = message.dataset.day;
    }
  }

  function markNewest() {
    document.getElementById("nb-newest")?.removeAttribute("id");
    shown().at(-1)?.setAttribute("id", "nb-newest");
  }

  function announce(added, changed, done) {
    const news = changed.filter((message) => !message.classList.contains("nb-sending"));
    const lines = [
      ...news.map((message) => line(message.querySelector(".nb-status").textContent, message)),
      ...done.map((change) => change.textContent.replace(/\s+/g, " ").trim().slice(0, EXCERPT)),
      ...added.map((message) => line(authorOf(message), message)),
    ];
    if (lines.length) {
      said.textContent = lines.join("\n");
    }
  }

  function line(what, message) {
    const text = message.querySelector(".nb-bubble > :is(.nb-text, .nb-quiet)").cloneNode(true);
    text.querySelectorAll(".nb-leads").forEach((part) => part.remove());
    return `${what}: ${text.textContent.trim().slice(0, EXCERPT)}`;
  }

  function authorOf(message) {
    const who = message.classList.contains("nb-inbound")
      ? document.querySelector(".nb-title")
      : (message.querySelector(".nb-author") ?? message.querySelector(".nb-hidden"));
    return who.textContent.trim();
  }

  /* Whoever is at the end follows; for others, what they look at stays where it is. */
  function keepPlace(change) {
    const wasAtEnd = isAtEnd();
    // Not the message, which may lose the mark of its day.
    const anchor = shown()
      .map(bubbleOf)
      .find((bubble) => bubble.getBoundingClientRect().bottom > 0);
    const top = anchor?.getBoundingClientRect().top;
    change();
    if (wasAtEnd) {
      thread.parentElement.scrollIntoView({ block: "end" });
    } else if (anchor?.isConnected) {
      scroller().scrollTop += anchor.getBoundingClientRect().top - top;
    }
    look();
  }

  function isAtEnd() {
    const end = list().getBoundingClientRect().bottom;
    return end <= Math.min(foot.getBoundingClientRect().top, innerHeight) + SLACK;
  }

  function scroller() {
    for (let box = thread.parentElement; box; box = box.parentElement) {
      if (
        box.scrollHeight > box.clientHeight &&
        /auto|scroll/.test(getComputedStyle(box).overflowY)
      ) {
        return box;
      }
    }
    return document.scrollingElement;
  }

  /* How much has come that nobody has looked at. */
  function look() {
    if (isAtEnd()) {
      unseen = [];
    }
    const button = arrived.firstElementChild;
    arrived.hidden = !unseen.length;
    button.textContent = `${button.dataset.said} ${unseen.length}`;
  }

  /* On the server too; but not what is out of sight. */
  async function markRead() {
    const newest = newestId();
    const isSeen = "marksRead" in live.dataset && !document.hidden && isAtEnd();
    if (!isSeen || isMarking || newest <= seen) {
      return;
    }
    isMarking = true;
    const body = new URLSearchParams({ seen: newest, csrfmiddlewaretoken: token });
    const answer = await fetch(address({}), { method: "POST", body, redirect: "manual" }).catch(
      () => null,
    );
    if (answer?.ok) {
      seen = newest;
    }
    isMarking = false;
  }

  /* The messages before the oldest, as the link leads to them. */
  async function fetchOlder() {
    const link = thread.querySelector(".nb-older a");
    if (!link || isFetching) {
      return;
    }
    isFetching = true;
    try {
      const before = new URL(link.href).searchParams.get("before");
      const answer = await fetch(address({ before }), { redirect: "manual" });
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        showOlder(link, page.getElementById("nb-thread"));
      }
    } catch {
      // Whoever keeps the page up to date says so; the next scroll tries again.
    }
    isFetching = false;
  }

  function showOlder(link, page) {
    const older = page?.querySelector(".nb-older a");
    // Not where so much has come meanwhile that the list has begun anew.
    if (!page || !link.isConnected) {
      return;
    }
    keepPlace(() => {
      const oldest = shown().map(idOf).at(0) ?? Infinity;
      const messages = Array.from(page.querySelectorAll(".nb-messages > [data-id]"));
      list().prepend(...messages.filter((message) => idOf(message) < oldest));
      graftFirstTrail(page);
      markDays();
      markNewest();
      if (older) {
        link.href = older.href;
      } else {
        const hadFocus = link === document.activeElement;
        link.remove();
        if (hadFocus) {
          focus(shown()[0]);
        }
      }
    });
  }

  function isNearTop() {
    const link = thread.querySelector(".nb-older a");
    return link && link.getBoundingClientRect().bottom > -NEAR;
  }

  thread.addEventListener("click", (event) => {
    const isPlain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
    if (isPlain && event.target.closest(".nb-older a")) {
      event.preventDefault();
      fetchOlder();
    }
  });
  arrived.addEventListener("click", () => {
    const [first] = unseen;
    focus(first);
    first.scrollIntoView({ block: "start" });
    look();
    markRead();
  });
  document.addEventListener(
    "scroll",
    () => {
      look();
      markRead();
      if (isNearTop()) {
        fetchOlder();
      }
    },
    { capture: true, passive: true },
  );
  document.addEventListener("visibilitychange", markRead);
})();

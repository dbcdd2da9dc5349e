/* Keeps a page up to date: asks again and again with the tag of what is shown, for which the answer
   is 304 and nothing else as long as nothing has changed. What the page does with another answer is
   its own business; see inbox.js and thread.js.

   The element says how often to ask, the tag, and in which words to say what is wrong. */
"use strict";
(() => {
  const HIDDEN = 120; // seconds between two looks while nobody sees the page
  const LONGEST = 60; // and while nothing answers

  class LoggedOut extends Error {}

  const STAYS = 5000; // milliseconds after which a page that was sent off is still there
  const ANYTHING = '""'; // the tag of nothing, for which there is always an answer

  /* ``asks`` sends the request; ``show`` puts the answer into the page, and ``tick`` comes after
     every answer. Whoever leaves sees nothing change any more. */
  function keepUpToDate(live, { asks, show, tick = () => {} }) {
    const every = Number(live.dataset.every);
    let failures = 0;
    let timer = 0;
    let isLoggedOut = false;
    let isLooking = false;
    let isLeaving = false;

    function say(text, isLost) {
      live.classList.toggle("nb-lost", isLost);
      if (live.textContent !== text) {
        live.textContent = text;
      }
    }

    function sayLoggedOut() {
      if (!isLoggedOut) {
        const link = document.createElement("a");
        Object.assign(link, { href: live.dataset.logInAt, target: "_blank", rel: "noopener" });
        link.textContent = live.dataset.logIn;
        say(live.dataset.loggedOut, true);
        live.append(" ", link);
      }
      isLoggedOut = true;
      live.dataset.tag = ANYTHING;
    }

    function wait(seconds) {
      clearTimeout(timer);
      timer = setTimeout(look, seconds * 1000);
    }

    function waitAsUsual() {
      wait(document.hidden ? Math.max(HIDDEN, every) : every);
    }

    async function look() {
      if (isLooking || isLeaving) {
        return;
      }
      isLooking = true;
      try {
        await lookOnce();
        waitAsUsual();
      } catch (problem) {
        failures += 1;
        if (problem instanceof LoggedOut) {
          sayLoggedOut();
        } else if (failures > 1 && !isLoggedOut) {
          say(live.dataset.lost, true);
        }
        wait(Math.min(every * 2 ** failures, LONGEST));
      } finally {
        isLooking = false;
      }
    }

    async function lookOnce() {
      const answer = await asks({
        headers: { "If-None-Match": live.dataset.tag },
        credentials: "same-origin",
        // To the page that asks for a password, wherever that is.
        redirect: "manual",
      });
      if (answer.type === "opaqueredirect" || answer.status === 403) {
        throw new LoggedOut();
      }
      if (answer.status !== 304 && !answer.ok) {
        throw new Error(String(answer.status));
      }
      const wasLost = live.classList.contains("nb-lost");
      if (answer.status !== 304) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        await show(page, { isLeaving: () => isLeaving, hasLoggedIn: isLoggedOut });
      }
      if (wasLost) {
        say(live.dataset.again, false);
      }
      failures = 0;
      isLoggedOut = false;
      tick();
    }

    function comeBack() {
      isLeaving = false;
      look();
    }

    document.addEventListener("visibilitychange", () => {
      if (document.hidden) {
        waitAsUsual();
      } else {
        look();
      }
    });
    document.addEventListener("submit", (event) => {
      if (!event.defaultPrevented) {
        isLeaving = true;
        setTimeout(comeBack, STAYS);
      }
    });
    window.addEventListener("pagehide", () => {
      isLeaving = true;
    });
    window.addEventListener("pageshow", (event) => {
      if (event.persisted) {
        comeBack();
      }
    });
    window.addEventListener("online", look);
    waitAsUsual();
    return { say, look };
  }

  window.ninebits = { keepUpToDate };
})();

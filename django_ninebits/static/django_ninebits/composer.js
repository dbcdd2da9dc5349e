/* Counts a reply while it is written, offers a plain version, and sends with Ctrl and Enter.

   Without it the buttons of the form do the same. Nothing in the text is changed unasked. */
"use strict";
(() => {
  const QUIET = 1000; // milliseconds without a key before a screen reader is told
  const SENDING = 5000; // and until a reply whose page stays may be sent again

  const data = document.getElementById("nb-composer");
  if (!data) {
    return;
  }
  const { tables, limit, named, encodings, words } = JSON.parse(data.textContent);
  const { count, plain } = nbSegments.of(tables);
  const form = document.querySelector("form.nb-reply");
  const { text, send_at: later } = form.elements;
  const send = form.querySelector(".nb-send");
  const part = (name) => form.querySelector(`[data-nb="${name}"]`);
  let telling = 0;
  let told = "";
  let sentAt = 0;

  function show() {
    const found = count(text.value);
    const segments = found.parts.length;
    const isTooLong = limit !== null && segments > limit;
    form.querySelector(".nb-figures").hidden = false;
    form.querySelector(".nb-tally").classList.toggle("nb-too-long", isTooLong);
    fill("characters", found.characters);
    fill("segments", segments);
    fill("left", found.left);
    fill("encoding", encodings[found.encoding]);
    form.querySelector(".nb-unicode").hidden = !found.forcing.length;
    offer(found.forcing);
    return said(isTooLong ? words.tooLong : words.counted, segments, encodings[found.encoding]);
  }

  function offer(forcing) {
    const version = plain(text.value);
    const then = count(version);
    name("forcing", forcing);
    name("lasting", then.forcing);
    part("no-plain").hidden = !then.forcing.length;
    part("offer").hidden = Boolean(then.forcing.length) || !forcing.length;
    fill("plain", version);
    fill("plain-segments", then.parts.length);
  }

  function fill(name, value) {
    part(name).textContent = String(value);
  }

  function name(where, chars) {
    const shown = chars.slice(0, named).map(visible);
    part(where).replaceChildren(
      ...shown.concat(chars.length > named ? ["…"] : []).flatMap((char) => {
        const one = document.createElement("bdi");
        one.className = "nb-char";
        one.textContent = char;
        return [one, " "];
      }),
    );
  }

  function visible(char) {
    if (/[\p{Z}\p{C}]/u.test(char)) {
      return `U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    }
    return /\p{M}/u.test(char) ? `◌${char}` : char;
  }

  function said(words, segments, encoding) {
    return words
      .replace("{segments}", segments)
      .replace("{encoding}", encoding)
      .replace("{limit}", limit);
  }

  /* Once nobody types any more, and only what is new. */
  function tell(words) {
    clearTimeout(telling);
    telling = setTimeout(() => {
      if (told !== words) {
        told = words;
        fill("said", words);
      }
    }, QUIET);
  }

  /* As if it had been typed, so that it can be undone. */
  function replaceAll(version) {
    text.focus();
    text.select();
    if (!document.execCommand("insertText", false, version)) {
      text.setRangeText(version, 0, text.value.length, "end");
      text.dispatchEvent(new Event("input", { bubbles: true }));
    }
  }

  function isSending() {
    return Date.now() - sentAt < SENDING;
  }

  function nameTheButton() {
    send.textContent = later.value ? words.sendLater : words.send;
  }

  form.elements.count.hidden = true;
  form.elements.plain.addEventListener("click", (event) => {
    event.preventDefault();
    replaceAll(plain(text.value));
  });
  text.addEventListener("input", () => tell(show()));
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
      event.preventDefault();
      if (!event.repeat) {
        form.requestSubmit(send);
      }
    }
  });
  later.addEventListener("input", nameTheButton);
  form.addEventListener("submit", (event) => {
    if (isSending()) {
      event.preventDefault();
    } else {
      sentAt = Date.now();
    }
  });
  window.addEventListener("pageshow", () => {
    sentAt = 0;
    show();
    nameTheButton();
  });
})();
